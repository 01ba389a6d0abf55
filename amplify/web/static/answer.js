// What the answering page does beyond its forms: keys, marking, drafts, seconds of attention.
// Without it, and without htmx, the forms do all the same by themselves.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const IDLE = 30_000; // milliseconds after which nobody is thought to be reading
const PAUSE = 700; // of typing, after which a draft is kept

// Seconds of attention: the page is to be seen, and somebody did something lately.

let attention = 0, lastSign = Date.now(), lastCount = Date.now();
for (const sign of ["pointermove", "pointerdown", "keydown", "scroll", "focus"]) {
  addEventListener(sign, () => { count(); lastSign = Date.now(); }, { passive: true, capture: true });
}
document.addEventListener("visibilitychange", count);
setInterval(count, 1000);

let wasVisible = !document.hidden;
function count() {
  const now = Date.now(), until = Math.min(now, lastSign + IDLE);
  if (wasVisible && until > lastCount) attention += (until - lastCount) / 1000;
  lastCount = now;
  wasVisible = !document.hidden;
}

function takeAttention() {
  count();
  const seconds = attention;
  attention = 0;
  return seconds;
}

// Every form says how long it took; what could not be sent is said with the next.

document.addEventListener("htmx:configRequest", ({ detail }) => {
  if (detail.verb !== "post") return;
  detail.parameters.set("seconds", (detail.elt.amplifySeconds = takeAttention()).toFixed(1));
  if (detail.elt.matches("#undo, .expand")) { // what is in the assistant's box stays there
    detail.parameters.set("text", $("#ask-text")?.value ?? "");
  }
});
document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.requestConfig.verb !== "post") return;
  if (!detail.successful) attention += detail.elt.amplifySeconds ?? 0;
  else $("#trouble")?.replaceChildren();
});
document.addEventListener("htmx:sendError", ({ detail }) => {
  if (detail.requestConfig.verb === "post") {
    say("There is no connection. What you typed is still in the box; try again in a moment.");
  } else if (detail.elt.id === "waiting") {
    setTimeout(() => htmx.trigger(detail.elt, "again"), 2000);
  }
});

function say(problem) {
  const line = document.createElement("p");
  line.id = "problem";
  line.setAttribute("role", "alert");
  line.textContent = problem;
  $("#trouble")?.replaceChildren(line);
}

// After something new is shown, the keyboard is where the work is, and a new answer is read out.

document.addEventListener("htmx:afterSwap", ({ detail }) => {
  const verb = detail.requestConfig?.verb;
  if (detail.target.id === "work" && verb === "post") $("#heading")?.focus({ preventScroll: true });
  if (detail.target.id === "told" && verb === "get") readOut();
});

function readOut() {
  const number = (exchange) => Number(exchange.dataset.number);
  const all = [...document.querySelectorAll(".exchange:not([data-state=pending])")];
  const last = all.sort((one, other) => number(one) - number(other)).at(-1);
  if (!last) return;
  const parts = [".told", ".confidence"].map((part) => $(`:scope > p ${part}, :scope > p${part}`, last));
  $("#news").textContent = parts.map((part) => part?.textContent ?? "").join(" ");
}

// Drafts

let timer = 0, unsaved = null;
document.addEventListener("input", ({ target }) => {
  const form = target.closest?.("#submit");
  if (!form) return;
  unsaved = form;
  clearTimeout(timer);
  timer = setTimeout(keep, PAUSE);
  $("#saved", form).textContent = "";
});
document.addEventListener("visibilitychange", () => { if (document.hidden) keep(); });
addEventListener("pagehide", keep);
document.addEventListener("htmx:beforeRequest", ({ detail }) => {
  if (detail.elt.id === "submit") forget();
  else if (detail.requestConfig.verb === "post") keep();
});

function forget() {
  clearTimeout(timer);
  unsaved = null;
}

async function keep() {
  const form = unsaved;
  forget();
  if (!form) return;
  const from = new FormData(form), seconds = takeAttention();
  const body = new URLSearchParams({
    csrf: from.get("csrf"), text: from.get("answer") ?? "", seconds: seconds.toFixed(1),
  });
  const address = form.getAttribute("action").replace(/submit$/, "draft");
  const headers = { "HX-Request": "true" };
  const told = await fetch(address, { method: "POST", body, headers, keepalive: true })
    .catch(() => null);
  if (!told?.ok) attention += seconds;
  if (unsaved) return; // more was typed meanwhile
  $("#saved", form).textContent = told?.ok ? "draft saved" : "the draft could not be saved";
}

// Marking a part of an answer puts it into that answer's form, until one presses elsewhere.

document.addEventListener("selectionchange", noteMark);

function noteMark() {
  const selection = getSelection(), part = selection.toString().trim();
  if (!part || selection.rangeCount === 0) return;
  const answer = answerOf(selection.anchorNode);
  if (!answer || answer !== answerOf(selection.focusNode)) return;
  forgetMark();
  const form = formOf(answer);
  if (form) form.elements.part.value = part;
}

function forgetMark() {
  for (const form of document.querySelectorAll(".expand")) form.elements.part.value = "";
}

document.addEventListener("pointerdown", ({ target }) => {
  if (!target.closest?.(".expand")) forgetMark();
});

function answerOf(node) {
  return (node instanceof Element ? node : node?.parentElement)?.closest(".told") ?? null;
}

function formOf(answer) {
  return $(":scope > .expand", answer.closest(".exchange"));
}

// Keys

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("#submit")?.requestSubmit();
    return;
  }
  const typing = event.target.matches?.("input:not([type=radio]), textarea, select");
  if (typing && event.key === "Escape") event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key !== "?" && listIsOpen()) return;
  const act = chooser(event.key) ?? KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

const KEYS = {
  a: () => $("#ask-text")?.focus(),
  f: () => $("#submit textarea, #submit input:checked, #submit input[type=radio]")?.focus(),
  e: expand,
  s: skip,
  u: () => $("#undo button")?.closest("form").requestSubmit(),
  "?": () => $("#keys").togglePopover?.(),
};

function listIsOpen() {
  return "popover" in HTMLElement.prototype && $("#keys").matches(":popover-open");
}

// Answers that are numbers are chosen by typing them, digit by digit, others by their places.

const BETWEEN = 1500; // milliseconds after which a digit begins another number
let digits = "", lastDigit = 0;

function chooser(key) {
  const choices = [...document.querySelectorAll("#submit input[type=radio]")];
  if (!$("#submit [data-numbers]")) return /^[1-9]$/.test(key) ? () => pick(choices[key - 1]) : undefined;
  return /^[-+\u2212\d]$/.test(key) ? () => type(key, choices) : undefined;
}

function type(key, choices) {
  const plain = (text) => text.replace("\u2212", "-").replace(/^\+/, "");
  const goesOn = (text) => choices.some((choice) => plain(choice.value).startsWith(plain(text)));
  const sooner = Date.now() - lastDigit < BETWEEN && goesOn(digits + key);
  digits = sooner ? digits + key : key;
  lastDigit = Date.now();
  pick(choices.find((choice) => plain(choice.value) === plain(digits)));
}

function pick(choice) {
  choice?.click();
  choice?.focus();
}

function expand() {
  noteMark(); // the event of a mark that was just made may be still to come
  const forms = [...document.querySelectorAll(".expand")];
  const marked = forms.find((form) => form.elements.part.value);
  const number = (form) => Number(form.elements.number.value);
  const last = forms.sort((one, other) => number(one) - number(other)).at(-1);
  (marked ?? last)?.requestSubmit();
}

function skip() {
  const details = $("#skipping");
  if (!details) return;
  details.open = true;
  $("#reason").focus();
}
