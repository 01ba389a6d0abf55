"""Digests of two tiny rounds of every kind of experiment: `python -m tests.benchmarks.digests OUT`.

For a change that is to change no numbers: run it before and after on the same machine, and compare
the files. (Another processor may round differently.) With `--against BEFORE` it prints the digests
that differ and fails if there are any.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # quick to compile

from amplify.cli.commands import main
from amplify.store import Store
from tests import test_host_reads, test_searched, test_streaming
from tests.overseers import test_language_model
from tests.servers import completion, fake_server
from tests.tiny import TOML, tiny_experiment


def of_task(kind: str, sizes: str = "") -> str:
    return TOML.replace('kind = "wildcard"\nletters = 3', f'kind = "{kind}"\n{sizes}')


TOMLS = {
    **test_host_reads.TOMLS,
    "stored permutation": of_task("permutation", "symbols = 5\nbits = 3"),
    "stored assignments": of_task("assignments"),
    "stored shortest path": of_task("shortest-path"),
    "stored union find": of_task("union-find"),
    "supervised": f'{TOML}\n[oversight]\nkind = "truth"\n',
    "microbatches, muon": TOML.replace(
        "batch = 8", 'batch = 8\naccumulate = 2\noptimizer = "muon"'
    ),
    "streaming, simulated": test_streaming.TOML.replace(
        'kind = "learned"\nwidth = 16\nheads = 2\nlayers = 1\nbatch = 16\nsteps = 32',
        'kind = "simulated"',
    ),
}


def from_toml(toml: str) -> Callable[[Path], Path]:
    return lambda folder: tiny_experiment(folder / "tiny", toml)


def lora(folder: Path) -> Path:
    return test_searched.pretrained_experiment(folder, chat=True, rank=2)


KINDS = {name: from_toml(toml) for name, toml in TOMLS.items()} | {"LoRA": lora}


def digests(folder: Path) -> dict[str, str]:
    """Of an experiment's two rounds, and of the one that both descend from."""
    with contextlib.redirect_stdout(io.StringIO()):
        main(["round", str(folder), "--n", "2"])
    found = {}
    store = Store(folder)
    for this in map(store.round, store.rounds()):
        for stage, entry in this.record["stages"].items():
            stored = entry.get("digest") or entry.get("data_digest")
            if stored:
                found[f"{this.number} {stage.rpartition('/')[2]}"] = stored
            for role, digest in entry.get("digests", {}).items():
                found[f"{this.number} {role}"] = digest
    return found


def overseen(folder: Path) -> dict[str, str]:
    with fake_server() as server:
        server.respond = lambda body, _: completion(
            test_language_model.continued(body["messages"][1]["content"])
        )
        return digests(test_language_model.overseen(folder / "overseen", server))


def everything() -> dict[str, dict[str, str]]:
    found = {}
    for name, make in KINDS.items():
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = digests(make(Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        found["overseen by a server"] = overseen(Path(folder))
    return found


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    found = everything()
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if arguments.against:
        before = json.loads(arguments.against.read_text(encoding="utf-8"))
        differ = [
            f"{kind}: {name}"
            for kind in before
            for name in {**before[kind], **found.get(kind, {})}
            if before[kind].get(name) != found.get(kind, {}).get(name)
        ]
        print("\n".join(differ) or "all digests are the same")
        sys.exit(bool(differ))


if __name__ == "__main__":
    run()
