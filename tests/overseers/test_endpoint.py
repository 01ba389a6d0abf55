"""How a server is asked: what is tried again, what is kept, what is sent, what is given up."""

import json
import random
import signal
import string
import threading
import time

import pytest

from amplify.errors import AmplifyError
from amplify.overseers.address import check_address
from amplify.overseers.endpoint import Endpoint, Prompt, Unusable
from amplify.overseers.exchanges import FILE, recording, replaying, replaying_with_server
from amplify.overseers.language_model import LanguageModelOverseerConfig
from tests.servers import Response, completion, fake_server


@pytest.fixture
def server():
    with fake_server() as state:
        yield state


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


def at(server, **more) -> Endpoint:
    return Endpoint(server.address, "good", "Say yes.", **{"attempts": 2, **more})


def read(reply):
    return reply.text if reply.text.startswith("yes") else Unusable("no yes in it", "Say yes")


def ask(endpoint, folder, *texts: str, stage="data"):
    """What is made of the replies, and the exchanges."""
    with recording(folder, stage) as exchanges:
        return endpoint.answer([Prompt(text) for text in texts], read), exchanges


def test_replies_are_kept_as_they_arrive_and_none_is_asked_for_twice(server, tmp_path):
    server.respond = lambda body, n: completion(f"yes {body['messages'][-1]['content']}")
    said, exchanges = ask(at(server), tmp_path, "a", "b", "a")
    assert said == ["yes a", "yes b", "yes a"]
    assert server.asked == 2
    assert exchanges.usage() == {"overseer_requests": 2, "overseer_tokens": 20}
    rows = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert rows[0]["instructions"] == "Say yes."
    assert rows[0]["address"] == server.address
    kept = {row["text"]: row for row in rows if "text" in row}
    assert kept["yes a"]["messages"] == [{"role": "user", "content": "a"}]
    assert kept["yes a"]["model"] == "served"
    assert kept["yes a"]["settings"] == rows[0]["described"]
    server.respond = lambda body, n: completion("yes, but another server")
    again, exchanges = ask(at(server), tmp_path, "b", "a")
    assert again == ["yes b", "yes a"]
    assert server.asked == 2
    assert exchanges.usage()["overseer_requests"] == 2


def test_another_round_asks_anew(server, tmp_path):
    server.respond = lambda body, n: completion(f"yes {n}")
    folders = [tmp_path / name for name in ("001", "002")]
    for folder in folders:
        folder.mkdir()
    assert [ask(at(server), folder, "a")[0] for folder in folders] == [["yes 0"], ["yes 1"]]


def test_what_was_asked_in_other_words_or_with_other_settings_is_another_request(server, tmp_path):
    server.respond = lambda body, n: completion(f"yes {n}")
    changed = [{}, {"temperature": 0.5}, {"max_tokens": 5}, {"extra_body": '{"top_k": 3}'}]
    for number, more in enumerate(changed):
        assert ask(at(server, **more), tmp_path, "a")[0] == [f"yes {number}"]
    assert server.bodies[0]["temperature"] == 0
    assert server.bodies[0]["max_tokens"] == 1024
    assert server.bodies[3]["top_k"] == 3


def test_samples_of_one_prompt_differ_and_are_each_asked_for_once(server, tmp_path):
    server.respond = lambda body, n: completion(f"yes {n}")
    prompts = [Prompt("a", "1"), Prompt("a", "2"), Prompt("a", "1")]
    with recording(tmp_path, "data"):
        said = at(server, concurrent=1).answer(prompts, read)
    assert said == ["yes 0", "yes 1", "yes 0"]


def test_a_reply_that_makes_no_sense_is_asked_for_differently(server, tmp_path):
    server.respond = lambda body, n: completion("yes" if len(body["messages"]) > 2 else "what?")
    assert ask(at(server), tmp_path, "a")[0] == ["yes"]
    *_, given, told = server.bodies[1]["messages"]
    assert given == {"role": "assistant", "content": "what?"}
    assert told == {"role": "user", "content": "This cannot be used: no yes in it. Say yes"}
    assert ask(at(server), tmp_path, "a")[0] == ["yes"]
    assert server.asked == 2  # the unusable reply is on file too


def test_what_never_makes_sense_is_given_up_and_not_asked_again_when_resumed(server, tmp_path):
    server.respond = lambda body, n: completion("what?")
    for _ in range(2):
        said, exchanges = ask(at(server, attempts=3), tmp_path, "a")
        assert said == [None]
        assert "no yes in it" in exchanges.last_error
    assert server.asked == 3


@pytest.mark.parametrize(
    ("status", "requests"), [(400, 1), (401, 1), (403, 1), (404, 1), (422, 1), (503, 2), (408, 2)]
)
def test_only_what_can_succeed_is_tried_again_and_the_servers_reason_is_told(
    status, requests, server, tmp_path
):
    reason = {"error": {"message": "it is \x1b[31mMonday\n", "type": "x"}}
    server.respond = lambda body, n: Response(json.dumps(reason).encode(), status)
    said, exchanges = ask(at(server), tmp_path, "a")
    assert said == [None]
    assert server.asked == requests == exchanges.usage()["overseer_requests"]
    assert f"{server.address}: HTTP {status}: it is [31mMonday" in exchanges.last_error


def test_a_server_that_wants_a_pause_is_given_it(server, tmp_path):
    def respond(body, n):
        return completion("yes") if n else Response(b"{}", 429, {"Retry-After": "1.5"})

    server.respond = respond
    began = time.monotonic()
    assert ask(at(server), tmp_path, "a")[0] == ["yes"]
    assert time.monotonic() - began > 1.4
    assert server.asked == 2


def test_where_nothing_can_succeed_the_rest_is_not_asked_and_is_asked_when_resumed(
    server, tmp_path
):
    server.respond = lambda body, n: Response(b"", 401)
    texts = [str(n) for n in range(50)]
    said, exchanges = ask(at(server, concurrent=4), tmp_path, *texts)
    assert said == [None] * 50
    assert server.asked <= 4
    assert "no key was sent" in exchanges.last_error
    server.respond = lambda body, n: completion("yes")
    assert ask(at(server), tmp_path, *texts)[0] == ["yes"] * 50


def test_a_server_that_replies_badly_is_not_taken_for_one_that_is_down(server, tmp_path):
    def respond(body, n):
        return completion("yes") if int(body["messages"][1]["content"]) >= 40 else Response(b"{}")

    server.respond = respond
    texts = [str(n) for n in range(50)]
    said, exchanges = ask(at(server, concurrent=4, attempts=1), tmp_path, *texts)
    assert said == [None] * 40 + ["yes"] * 10
    assert not exchanges.unavailable


def test_a_server_that_is_not_there_is_not_asked_for_long(tmp_path):
    with fake_server() as gone:
        pass
    texts = [str(n) for n in range(50)]
    said, exchanges = ask(at(gone, concurrent=2, attempts=1), tmp_path, *texts)
    assert said == [None] * 50
    assert exchanges.usage()["overseer_requests"] <= 4
    assert exchanges.unavailable


def test_a_replay_gets_what_the_stage_got_its_failures_too_and_asks_nobody(server, tmp_path):
    server.respond = lambda body, n: (
        completion("yes") if body["messages"][-1]["content"] == "a" else Response(b"", 400)
    )
    assert ask(at(server), tmp_path, "a", "b")[0] == ["yes", None]
    server.respond = lambda body, n: completion("yes, later")
    assert ask(at(server), tmp_path, "b", stage="evals")[0] == ["yes, later"]
    asked, file = server.asked, (tmp_path / FILE).read_bytes()
    with replaying(tmp_path, "data"):
        assert at(server).answer([Prompt("a"), Prompt("b"), Prompt("c")], read) == [
            "yes",
            None,
            None,
        ]
    assert server.asked == asked
    with replaying_with_server(tmp_path, "data"):
        assert at(server).answer([Prompt("c")], read) == ["yes, later"]
    assert (tmp_path / FILE).read_bytes() == file


def test_a_torn_last_line_costs_one_exchange_and_a_damaged_one_is_named(server, tmp_path):
    server.respond = lambda body, n: completion("yes")
    ask(at(server, concurrent=1), tmp_path, "a", "b")
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with replaying(tmp_path, "data"):
        assert at(server).answer([Prompt("a"), Prompt("b")], read) == ["yes", None]
    assert ask(at(server), tmp_path, "a", "b")[0] == ["yes", "yes"]
    assert server.asked == 3
    assert [file.read_bytes().count(key) for key in (b'"described"', b'"text"')] == [1, 2]
    file.write_bytes(whole.replace(b'"text"', b'"txt"', 1))
    with pytest.raises(AmplifyError, match=r"exchanges\.jsonl: line 3 is damaged"):
        recording(tmp_path, "data")


def test_a_request_has_a_deadline_to_its_last_byte(server, tmp_path):
    def slowly():
        for byte in completion("yes").body:
            time.sleep(0.05)
            yield bytes([byte])

    server.respond = lambda body, n: Response(slowly())
    began = time.monotonic()
    said, exchanges = ask(at(server, attempts=1, deadline=0.5), tmp_path, "a")
    assert said == [None]
    assert time.monotonic() - began < 3
    assert "no complete reply within 0.5 seconds" in exchanges.last_error


def test_a_reply_has_a_largest_size(server, tmp_path):
    def endless():
        while True:
            yield b" " * (1 << 20)

    server.respond = lambda body, n: Response(endless())
    said, exchanges = ask(at(server, attempts=1), tmp_path, "a")
    assert said == [None]
    assert "larger than" in exchanges.last_error


def test_a_compressed_reply_is_refused(server, tmp_path):
    server.respond = lambda body, n: Response(b"x" * 100, 200, {"Content-Encoding": "gzip"})
    said, exchanges = ask(at(server, attempts=1), tmp_path, "a")
    assert said == [None]
    assert "compressed" in exchanges.last_error


def test_the_key_goes_to_the_server_and_nothing_else_of_the_environment(
    server, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", " sk-secret\n")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin-secret")
    server.respond = lambda body, n: completion("yes")
    assert ask(at(server), tmp_path, "a")[0] == ["yes"]
    [headers] = server.headers
    assert headers.pop("authorization") == "Bearer sk-secret"
    assert "secret" not in str(headers)
    assert not any(name.startswith(("x-", "openai")) for name in headers)


def test_a_redirect_is_not_followed_and_no_key_leaves(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with fake_server() as other:
        to = {"Location": f"{other.address}/chat/completions"}
        for status in (301, 302, 303, 307, 308):
            server.respond = lambda body, n, status=status: Response(b"", status, to)
            said, exchanges = ask(at(server), tmp_path, "a", stage=str(status))
            assert said == [None]
            assert f"HTTP {status}: redirects are not followed" in exchanges.last_error
        assert other.asked == 0


def test_a_key_is_sent_over_tls_or_to_this_machine_only(monkeypatch):
    from amplify.overseers.address import key_for

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    sent = ["https://example.com/v1", "http://localhost:1/v1", "http://[::1]:1", "http://127.0.0.9"]
    assert [key_for(address) for address in sent] == ["sk-secret"] * 4
    kept = ["http://example.com/v1", "http://10.0.0.1:8000", "http://localhost.example.com"]
    assert [key_for(address) for address in kept] == [""] * 3


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk se cret", "sk-\u2026cret", "sk\x00cret"])
def test_a_key_that_cannot_be_sent_is_not_shown(key, server, tmp_path, monkeypatch):
    if "\x00" in key:  # no environment holds it
        monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    said, exchanges = ask(at(server), tmp_path, "a")
    assert said == [None]
    assert "OPENAI_API_KEY contains invalid characters" in exchanges.last_error
    assert "cret" not in exchanges.last_error + (tmp_path / FILE).read_text()
    assert server.asked == 0


def test_a_key_that_a_server_repeats_is_not_shown(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    replies = {
        "refused": Response(b'{"error": "bad key sk-secret"}', 401),
        "malformed": Response(b"bad key sk-secret"),
        "far": Response(b"x" * 995 + b"sk-secret", 400),
        "text": completion("no: sk-secret"),
        "no text": completion(["sk-secret"]),
    }
    for name, reply in replies.items():
        server.respond = lambda body, n, reply=reply: reply
        said, exchanges = ask(at(server), tmp_path, name)
        assert said == [None]
        assert "secret" not in exchanges.last_error
    assert "bad key [key]" in (tmp_path / FILE).read_text()
    assert "secret" not in (tmp_path / FILE).read_text()


def test_reasoning_models_are_asked_in_their_way(server, tmp_path):
    server.respond = lambda body, n: completion("yes")
    extra = '{"max_completion_tokens": 9, "reasoning_effort": "low"}'
    ask(at(server, temperature=None, extra_body=extra), tmp_path, "a")
    [body] = server.bodies
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body
    assert "temperature" not in body
    server.respond = lambda body, n: completion(None, finish_reason="length")
    with recording(tmp_path, "data"):
        [cut] = at(server).answer([Prompt("long")], lambda reply: reply)
    assert cut.cut_off
    assert cut.text == ""


WHOLE = completion("yes").body
MALFORMED = {
    "empty": Response(b""),
    "not JSON": Response(b"<html>"),
    "half": Response(WHOLE[:30]),
    "null content": completion(None),
    "content a list": completion([{"type": "text", "text": "yes"}]),
    "content a number": completion(3),
    "no choices": Response(b'{"choices": []}'),
    "choices no list": Response(b'{"choices": {"message": 1}}'),
    "a list": Response(b"[1, 2]"),
    "null": Response(b"null"),
    "deep": Response(b"[" * 200_000),
    "deep object": Response(b'{"choices":' * 50_000),
    "not UTF-8": Response(b'{"choices": "\xff\xfe"}'),
    "huge number": Response(b'{"choices": ' + b"9" * 6000 + b"}"),
    "surrogate": Response(WHOLE.replace(b'"yes"', rb'"\ud800 yes"')),
    "another charset": Response(WHOLE, 500, {"Content-Type": "text/plain; charset=none"}),
    "less than promised": Response(b"{", 200, {"Content-Length": "500"}),
    "no HTTP": Response(b"what?\r\n\r\n", 0),
    "bad status line": Response(b"HTTP/9.9 abc\r\n\r\n", 0),
    "a long line": Response(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", 0),
    "nothing": Response(b"", 0),
    "bad chunks": Response(b"zz\r\n", 200, {"Transfer-Encoding": "chunked"}),
}  # fmt: skip


@pytest.mark.parametrize("form", MALFORMED)
def test_a_malformed_reply_is_tried_again_and_then_given_up(form, server, tmp_path):
    server.respond = lambda body, n: MALFORMED[form]
    said, exchanges = ask(at(server), tmp_path, "a")
    assert said == [None]
    assert exchanges.last_error
    assert "\n" not in exchanges.last_error
    assert server.asked == 2
    server.respond = lambda body, n: completion("yes")
    assert ask(at(server), tmp_path, "b")[0] == ["yes"]


def spoiled(rng: random.Random) -> bytes:
    """A reply with something wrong in it: bytes changed, left out or put in, or another value."""
    if rng.random() < 0.5:
        body = bytearray(completion("what?").body)
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(body))
            change = rng.choice(["set", "cut", "put"])
            if change == "set":
                body[place] = rng.randrange(256)
            elif change == "cut":
                del body[place : place + rng.randint(1, 20)]
                body = body or bytearray(b"{")
            else:
                body[place:place] = rng.choice([b"\\ud800", b"null", b"\x00", b"[[[[", b"1e999"])
        return bytes(body)
    value = rng.choice(
        [None, [], {}, True, -1, 1e308, "\ud800", "<think>" * 50, "**" * 99, "\x00\x1b[2J", "Ask"]
    )
    whole = json.loads(completion("what?").body)
    place = rng.choice(["choices", "model", "usage", "choice", "message", "content"])
    if place in whole:
        whole[place] = value
    elif place == "choice":
        whole["choices"][0] = value
    elif place == "message":
        whole["choices"][0]["message"] = value
    else:
        whole["choices"][0]["message"]["content"] = value
    return json.dumps(whole).encode()


def test_a_hundred_generated_replies_are_each_given_up_and_kept_for_a_replay(server, tmp_path):
    rng = random.Random(0)
    bodies = [spoiled(rng) for _ in range(100)]
    server.respond = lambda body, n: Response(bodies[int(body["messages"][1]["content"])])
    texts = [str(n) for n in range(100)]
    endpoint = at(server, concurrent=100)
    said, exchanges = ask(endpoint, tmp_path, *texts)
    assert said == [None] * 100
    assert not exchanges.unavailable
    assert server.asked == 200
    assert set(exchanges.last_error) <= {*string.printable, *map(chr, range(160, 0x110000))} - {
        "\n"
    }
    with replaying(tmp_path, "data"):
        assert endpoint.answer([Prompt(text) for text in texts], read) == said
    assert server.asked == 200


@pytest.mark.parametrize(
    "address",
    ["", "ftp://a/v1", "http://", "http://[::1", "http://a:99999/v1", "http://a b/v1", "localhost",
     "http://a/v1?key=secret", "http://a/v1#x", "http://\u00e4/v1", "http://a\n/v1", "https://:5/"],
)  # fmt: skip
def test_an_address_that_cannot_be_asked_is_refused(address):
    with pytest.raises(AmplifyError, match=r"overseer\.endpoint must be an address such as"):
        check_address(address)


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(AmplifyError, match="must have no password in it") as caught:
        check_address("https://me:hunter2@example.com/v1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"messages": []}, "overseer.extra_body must not have messages"),
        ({"stream": True}, "overseer.extra_body must not have stream"),
        ({"x": float("inf")}, "overseer.extra_body cannot be sent as JSON"),
    ],
)
def test_an_extra_body_that_cannot_be_sent_is_refused(extra, said, tmp_path):
    (tmp_path / "prompt.txt").write_text("Say yes.")
    config = LanguageModelOverseerConfig(
        prompt=str(tmp_path / "prompt.txt"), endpoint="http://localhost/v1", extra_body=extra
    )
    from amplify.tasks.algorithmic.wildcard import Wildcard

    with pytest.raises(AmplifyError, match=said):
        config.build(Wildcard(3))


def test_several_processes_write_a_file_each_and_read_all(server, tmp_path, monkeypatch):
    server.respond = lambda body, n: completion("yes")
    monkeypatch.setattr("amplify.runtime.processes.number", lambda: 1)
    ask(at(server), tmp_path, "a")
    theirs = tmp_path / "exchanges-1.jsonl"
    theirs.write_bytes(theirs.read_bytes() + b'{"half of a li')
    before = theirs.read_bytes()
    monkeypatch.setattr("amplify.runtime.processes.number", lambda: 0)
    monkeypatch.setattr("amplify.runtime.processes.are_several", lambda: True)
    said, exchanges = ask(at(server), tmp_path, "a", "b")
    assert said == ["yes", "yes"]
    assert server.asked == 2
    assert theirs.read_bytes() == before  # the other process may be writing
    assert exchanges.usage()["overseer_requests"] == 2


def test_ctrl_c_ends_the_requests_under_way(server, tmp_path):
    over, main = threading.Event(), threading.main_thread().ident

    def respond(body, number):
        if number == 2:
            threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
        if number:
            over.wait(30)
        return completion("yes")

    server.respond = respond
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            ask(at(server, concurrent=2), tmp_path, *"abcdefgh")
        assert time.monotonic() - began < 15
    finally:
        over.set()
    assert server.asked == 3
    assert (tmp_path / FILE).read_text().count('"messages"') == 1  # what came before is kept
