"""Validates a machine: `make accelerator` prints a table and writes accelerator.json.

Five parts, each in a process of its own with a time limit of its own, so that one that fails or
hangs stops no other: what the machine is; a round killed and resumed, held against one that was
not; 90 seconds of the paper's streaming round; training and answering of a Llama of 1.1 billion
weights. Less than 8 minutes in all. Needs neither a network nor what pages and reports are made
with. `--small` runs the same on shapes for a CPU: it shows that the program works, not how fast.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STREAMING_SECONDS = 90
WAIT = 0.02
"""Seconds between two looks at what another process has written."""
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"

SLACK = 6
"""A shared CPU compiles slowly."""

Facts = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    measure: Callable[[bool], Facts]  # told whether shapes are for a CPU
    seconds: int  # after which it is stopped; so many times SLACK with shapes for a CPU


def machine(small: bool) -> Facts:
    """Versions and device, and how fast it multiplies and copies."""
    import jax
    import jax.numpy as jnp

    from amplify.runtime import device

    side = 512 if small else 8192
    square = jnp.ones((side, side), jnp.bfloat16)
    vector = jnp.ones((side**2,), jnp.float32)
    multiply, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return {
        "device": device.describe(),
        "memory_gib": _gib(limit) if limit else None,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "bf16_tflops": round(2 * side**3 / _seconds(multiply, square, square) / 1e12, 3),
        "copy_gb_per_second": round(2 * vector.nbytes / _seconds(copy, vector) / 1e9, 1),
    }


def rounds(small: bool) -> Facts:
    """Rounds 1 and 2 of the default experiment; round 2 again, killed and resumed.

    Results are to be the same bit for bit. If they are not, all is run once more with XLA's
    deterministic operations, and what those cost is said.
    """
    with tempfile.TemporaryDirectory() as folder:
        facts = _killed_and_resumed(Path(folder), small, "")
        if not facts["identical"]:
            strict = _killed_and_resumed(Path(folder) / "deterministic", small, DETERMINISTIC)
            slower = strict["seconds_round_2"] / facts["seconds_round_2"]
            facts |= {"identical_with": DETERMINISTIC if strict["identical"] else "nothing tried"}
            facts |= {"deterministic_time_ratio": round(slower, 2)}
    return facts


def _killed_and_resumed(folder: Path, small: bool, flags: str) -> Facts:
    changed = "[training]\ncheckpoint_every = 100\n" + (SMALL if small else "")
    whole, killed = (_derived(folder / name, "wildcard", changed) for name in ("whole", "killed"))
    environment = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    if _run_rounds(whole, 1, environment).wait():
        raise RuntimeError("round 1 failed")
    for number in ("000", "001"):
        shutil.copytree(whole / number, killed / number)
    process = _run_rounds(killed, 2, environment)
    while process.poll() is None and not _has_training_checkpoint(killed / "002"):
        time.sleep(WAIT)
    process.send_signal(signal.SIGKILL)
    died = process.wait() == -signal.SIGKILL
    for one in (killed, whole):
        began = time.monotonic()
        if _run_rounds(one, 2, environment).wait():
            raise RuntimeError(f"round 2 failed in {one.name}")
    seconds = time.monotonic() - began
    first, second, resumed = (_record(f) for f in (whole / "001", whole / "002", killed / "002"))
    return {
        "killed": died,
        "identical": _digests(second) == _digests(resumed),
        "seconds_round_1": first["ledger"]["seconds"],
        "seconds_round_2": round(seconds, 1),
        "compile_seconds_round_1": first["ledger"]["compile_seconds"],
        **first["performance"],
    }


def streaming(small: bool) -> Facts:
    """The paper's permutation task at its size, streamed for 90 seconds, with the curve."""
    limit = 3 if small else STREAMING_SECONDS
    changed = "[training]\nlog_every = 50\nlook_every = 250\ncheckpoint_every = 250\n"
    if small:
        changed = "[training]\nlog_every = 5\nlook_every = 5\ncheckpoint_every = 5\n" + SMALL
    with tempfile.TemporaryDirectory() as folder:
        name = "permutation" if small else "permutation-64"
        experiment = _derived(Path(folder) / name, name, changed)
        compiled = _stream_for(experiment, limit)
        lines = (
            (experiment / "001/streaming/metrics.jsonl").read_text(encoding="utf-8").splitlines()
        )
    rows = [json.loads(line) for line in lines]
    questions = sum(row["answered"] for row in rows)
    return {
        "steps": rows[-1]["step"],
        "pairs_per_second": round(questions / sum(row["seconds"] for row in rows)),
        "compile_seconds": round(compiled, 1),
        "peak_memory_gib": _gib(_peak_memory()),
        "curve": [
            [row["step"], round(row["loss"], 4), _mean(row["accuracy"]["alone"].values())]
            for row in rows
            if "accuracy" in row
        ],
    }


class TimeIsUpError(Exception):
    pass


def _stream_for(experiment: Path, limit: float) -> float:
    """Runs round 1 for so long, counted from its first step; returns seconds of compiling."""
    from amplify import round as page
    from amplify.runtime import device
    from amplify.store import Store

    began: list[float] = []

    @contextlib.contextmanager
    def watch(what: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        def advance(steps: int, row: Any = None) -> None:
            if what == "streaming" and steps:
                began[:] = began or [time.monotonic()]
                if time.monotonic() - began[0] > limit:
                    raise TimeIsUpError

        yield advance

    store = Store(experiment)
    before = device.compile_seconds()
    with contextlib.suppress(TimeIsUpError):
        for number in (0, 1):
            page.run(store, number, watch)
    return device.compile_seconds() - before


def training(small: bool) -> Facts:
    """Training steps of the Llama: tokens per second and MFU."""
    shapes = [(8, 1024, 16, 64), (16, 512, 32, 64), (8, 2048, 1, 32)]
    return {
        "{} x {} + {} x {}".format(*shape): _train(shape, small)
        for shape in ([(2, 64, 2, 16)] if small else shapes)
    }


ANSWERED = 8
"""Tokens of each question's answer."""


def _train(shape: tuple[int, int, int, int], small: bool) -> Facts:
    import jax

    from amplify.models.decoder import flops
    from amplify.oversight.amplification import distillation
    from amplify.runtime import device
    from amplify.training.options import Training
    from amplify.training.step import stored_step
    from tests.training import untrained

    contexts, context, questions, question = shape
    model = _llama(context, question, ANSWERED, small)
    options = Training(steps=1000, warmup_steps=1, learning_rate=1e-4)
    state = untrained(model, jax.jit(model.init)(jax.random.key(0)), options)
    batch = jax.device_put(_packed(shape, model.architecture.vocabulary))
    began = time.monotonic()
    step = stored_step(distillation(model, options)).lower({}, state, batch).compile()
    compiling = time.monotonic() - began
    for _ in range(2):
        state, metrics = step({}, state, batch)
    jax.block_until_ready(state)
    repeats = 2 if small else 10
    began = time.monotonic()
    for _ in range(repeats):
        state, metrics = step({}, state, batch)
    loss = float(jax.device_get(metrics["loss"]))
    jax.block_until_ready(state)
    seconds = (time.monotonic() - began) / repeats
    tokens = contexts * (context + questions * question)
    work = flops.training_flops(
        model.architecture,
        tokens,
        contexts * questions * ANSWERED,
        contexts * flops.training_pairs(context, questions, question),
    )
    peak = device.peak_flops()
    return {
        "ms": round(1000 * seconds, 1),
        "tokens_per_second": round(tokens / seconds),
        "mfu": round(work / seconds / peak, 4) if peak else None,
        "temporary_gib": _gib(step.memory_analysis().temp_size_in_bytes),
        "peak_memory_gib": _gib(device.peak_memory()),
        "compile_seconds": round(compiling, 1),
        "loss": round(loss, 4),
    }


def answering(small: bool) -> Facts:
    """64 questions answered about one context, and about each of eight: a token's time against
    that of reading the weights and the cache once.
    """
    bandwidth = machine(small)["copy_gb_per_second"] * 1e9
    length, questions, new = (64, 4, 8) if small else (2048, 64, 64)
    return {
        f"{contexts} x {length}": _answer(contexts, length, questions, new, bandwidth, small)
        for contexts in (1, 8)
    }


QUESTION = 15
"""Tokens of each question, what introduces the answer included."""


def _answer(
    contexts: int, length: int, questions: int, new: int, bandwidth: float, small: bool
) -> Facts:
    import jax
    import jax.numpy as jnp

    from amplify.models.decoder import flops
    from amplify.runtime import device

    model = _llama(length, QUESTION, new, small)
    params = jax.jit(model.init)(jax.random.key(0))
    draw = jax.random.randint
    vocabulary = model.architecture.vocabulary
    shape = (contexts, questions, QUESTION - 1)
    asked = draw(jax.random.key(1), shape, 5, vocabulary, jnp.int32)
    read = draw(jax.random.key(2), (contexts, 1, length - 2), 5, vocabulary, jnp.int32)
    encode = jax.jit(model.encode)
    answer = jax.jit(lambda params, memory, asked: model.answer(params, memory, asked, None))
    memory = encode(params, read)
    said = jax.device_get(answer(params, memory, asked).tokens)
    steps = int((said != 0).cumprod(axis=-1).sum(axis=-1).max())
    # Blank questions are read by the same program, and nothing is said.
    all_ = _seconds(answer, params, memory, asked)
    reading = _seconds(answer, params, memory, jnp.zeros_like(asked))
    token = (all_ - reading) / max(steps - 1, 1)
    bytes_ = flops.decoding_bytes(
        model.architecture, contexts, length, questions, QUESTION + new // 2, 2
    )
    return {
        "prefill_ms": round(1000 * _seconds(encode, params, read), 1),
        "token_ms": round(1000 * token, 3),
        "bound_ms": round(1000 * bytes_ / bandwidth, 3),
        "times_the_bound": round(token / (bytes_ / bandwidth), 2),
        "answers_per_second": round(contexts * questions / all_),
        "tokens_said": steps,
        "peak_memory_gib": _gib(device.peak_memory()),
    }


PARTS = {
    "machine": Part(machine, 40),
    "rounds": Part(rounds, 130),
    "streaming": Part(streaming, 150),
    "training": Part(training, 85),
    "answering": Part(answering, 70),
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """As much of a task as a language model needs for its shapes."""

    facts: int
    fact_length: int
    question_length: int
    answer_length: int
    vocabulary: tuple[str, ...]


def _llama(context: int, question: int, answer: int, small: bool) -> Any:
    """A Llama of 1.1 billion weights, computing in bf16; `small`: of the same kind, tiny."""
    from amplify.models.attention.rotary import Rotary
    from amplify.models.decoder.layers import Architecture
    from amplify.models.language_model import LanguageModel, LanguageModelConfig
    from amplify.models.prompts import PromptFormat

    layers, vocabulary = (2, 256) if small else (22, 32_000)
    sizes = (64, 8, 2, 8, 128) if small else (2048, 32, 4, 64, 5632)
    width, heads, key_heads, head_width, hidden = sizes
    architecture = Architecture(
        vocabulary,
        context + question + answer,
        width,
        heads,
        key_heads,
        head_width,
        hidden,
        windows=(0,) * layers,
        rotary=(Rotary(10_000.0),) * layers,
        tied=False,
    )
    config = LanguageModelConfig(dtype="bfloat16", rematerialise=True, sampling="greedy")
    # A token of the model for each of the task's, which counts them from 1; what begins a context,
    # ends it, and introduces an answer takes one each.
    task = Reading(1, context - 2, question - 1, answer, ("?",) * (vocabulary + 1))
    form = PromptFormat(None, end=2, context_prefix=(1,), fact_separator=(3,), answer_prefix=(4,))
    return LanguageModel(config, task, architecture, form)


def _packed(shape: tuple[int, int, int, int], vocabulary: int) -> dict[str, Any]:
    """A batch in the form of `packing.Packed`, one question per sequence, of random tokens."""
    import numpy as np

    contexts, context, questions, question = shape
    drawn = np.random.default_rng(0)
    sequences = (contexts, questions, question)
    number = np.broadcast_to(np.arange(questions)[None, :, None], sequences)
    last = np.arange(question - 1 - ANSWERED, question - 1)
    said = (contexts, questions, ANSWERED)
    batch = {
        "context": drawn.integers(5, vocabulary, (contexts, context)),
        "tokens": drawn.integers(5, vocabulary, sequences),
        "positions": np.broadcast_to(np.arange(1, question + 1), sequences),
        "segments": number,
        "target_indices": np.broadcast_to(last, said),
        "targets": drawn.integers(5, vocabulary, said),
    }
    return {name: column.astype(np.int32) for name, column in batch.items()}


def _seconds(function: Callable[..., Any], *arguments: Any, repeats: int = 5) -> float:
    """The median of a few calls, after one that compiles."""
    import jax

    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        began = time.monotonic()
        jax.block_until_ready(function(*arguments))
        times.append(time.monotonic() - began)
    return sorted(times)[repeats // 2]


SMALL = "steps = 300\nbatch = 8\n[evals]\nselect = 16\nfinal = 16\n"
"""Keys that make an experiment small, after those of [training]."""


def _derived(folder: Path, name: str, changed: str) -> Path:
    """An experiment like one that ships, with a few keys changed."""
    folder.mkdir(parents=True)
    text = f'base = "{ROOT / "rounds" / name}"\n{changed}'
    (folder / "experiment.toml").write_text(text, encoding="utf-8")
    return folder


def _run_rounds(folder: Path, last: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", __spec__.name, "--rounds", str(folder), str(last)]
    always = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | always | environment)


def run_rounds(folder: Path, last: int) -> None:
    """Rounds up to this one, those that are there left out."""
    from amplify import round as page
    from amplify.runtime.progress import unwatched
    from amplify.store import Store

    store = Store(folder)
    for number in range(last + 1):
        if not store.round(number).complete:
            page.run(store, number, unwatched)


def _has_training_checkpoint(round_: Path) -> bool:
    return any(round_.glob("*/training/[0-9]*/SHA256SUMS"))


def _record(round_: Path) -> Facts:
    record: Facts = json.loads((round_ / "record.json").read_text(encoding="utf-8"))
    return record


def _digests(record: Facts) -> dict[str, str]:
    return {
        name: entry.get("digest", entry.get("digests")) for name, entry in record["stages"].items()
    }


def _peak_memory() -> int:
    from amplify.runtime import device

    return device.peak_memory()


def _gib(size: float) -> float:
    return round(size / 2**30, 2)


def _mean(values: Any) -> float:
    values = list(values)
    return round(sum(values) / len(values), 4)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"))
    parser.add_argument("--small", action="store_true", help="shapes for a CPU")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.rounds:
        run_rounds(Path(options.rounds[0]), int(options.rounds[1]))
        return 0
    if options.part:
        facts = PARTS[options.part].measure(options.small)
        options.out.write_text(json.dumps(facts), encoding="utf-8")
        return 0
    return _validate(options.only, options.small, options.out)


def _validate(names: list[str], small: bool, out: Path) -> int:
    """Runs the parts one after another; the file is up to date after each."""
    found: dict[str, Facts] = {}
    for name in names:
        found[name] = _in_process(name, small)
        _show(name, found[name])
        text = json.dumps({"small": small, "parts": found}, indent=1) + "\n"
        temporary = out.with_name(f".{out.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(out)
    print(f"wrote {out}")
    return int(any("error" in facts for facts in found.values()))


def _in_process(name: str, small: bool) -> Facts:
    """One part's facts, or its error; and how long it took."""
    began, limit = time.monotonic(), PARTS[name].seconds * (SLACK if small else 1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "facts.json"
        command = [sys.executable, "-m", __spec__.name, "--part", name, "--out", str(out)]
        process = subprocess.Popen(
            command + ["--small"] * small,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # what it starts itself is stopped with it
        )
        try:
            _, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, errors = process.communicate()
            errors += f"\nstopped after {limit} s\n"
        facts: Facts = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if not facts:
        facts["error"] = (errors.strip().splitlines() or ["no output"])[-1]
        sys.stderr.write(errors)
    return facts | {"seconds": round(time.monotonic() - began, 1)}


def _show(name: str, facts: Facts) -> None:
    print(f"{name}  ({facts['seconds']} s)", flush=True)
    for key, value in facts.items():
        if isinstance(value, dict):
            line = ", ".join(f"{inner} {figure}" for inner, figure in value.items())
            print(f"  {key:<24} {line}", flush=True)
        elif key != "seconds":
            print(f"  {key:<24} {value}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
