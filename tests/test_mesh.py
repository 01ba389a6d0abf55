"""Rounds on many devices: the same as on one but for rounding, and saved for any other mesh.

Whole rounds run in processes of their own, which are given eight devices.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.models.language_model import LanguageModelConfig
from amplify.oversight.amplification import streaming
from amplify.reading.experiment_file import read_experiment
from amplify.store import Store
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.training.mesh import Mesh
from amplify.training.options import Training
from amplify.training.step import abstract_state, traced_step
from tests.tiny import TOML, tiny_experiment
from tests.training import untrained

pytestmark = pytest.mark.slow

LANGUAGE_MODEL = TOML.replace(
    'kind = "fact-transformer"\nwidth = 16\nheads = 2\nencoder_layers = 0\ndecoder_layers = 1',
    'kind = "language-model"\nwidth = 32\nlayers = 2\nheads = 4\nkey_heads = 2',
)
LEARNED = TOML.replace(
    'kind = "simulated"',
    'kind = "learned"\nwidth = 16\nheads = 2\nlayers = 1\nbatch = 16\nsteps = 64',
).replace("steps = 60", "steps = 30")
STREAMING = LEARNED.replace("[training]", '[training]\ntargets = "streaming"\nlook_every = 10')
THREADS = "64"
"""Of XLA's pool. Emulated devices wait for each other in threads of it; with as few as there are
processors, two collectives that do not depend on each other can wait for one another forever.
"""
MESHES = {
    "fact transformer": (TOML, "[mesh]\ndata = 8"),
    "language model": (LANGUAGE_MODEL, "[mesh]\ndata = 2\nfsdp = 2\ntensor = 2"),
    "learned overseer": (LEARNED, "[mesh]\ndata = 2\nfsdp = 4"),
    "streaming": (STREAMING, "[mesh]\ndata = 2\nfsdp = 2\ntensor = 2"),
}


def start_round(folder: Path, number: int, devices: int) -> subprocess.Popen:
    """A round on so many CPU devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "amplify", "round", str(folder), "--n", str(number)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": THREADS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def play_round(folder: Path, number: int, devices: int) -> None:
    process = start_round(folder, number, devices)
    _, said = process.communicate()
    assert not process.returncode, said


def losses(folder: Path, number: int) -> list[float]:
    return [row["loss"] for row in Store(folder).round(number).training_curve()]


def record(folder: Path, number: int) -> dict:
    return json.loads((folder / f"{number:03}/record.json").read_text(encoding="utf-8"))


def answers(folder: Path, number: int) -> list[str]:
    lines = (folder / f"{number:03}/evals.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines]


@pytest.fixture(scope="module", params=MESHES)
def rounds(request, tmp_path_factory):
    """A round on one device and one on many, all with eight devices there."""
    toml, mesh = MESHES[request.param]
    root = tmp_path_factory.mktemp("meshes")
    for name, text in (("one", toml), ("many", toml + mesh)):
        play_round(tiny_experiment(root / name, text), 1, devices=8)
    return root


def test_eight_devices_give_the_losses_of_one(rounds):
    np.testing.assert_allclose(losses(rounds / "many", 1), losses(rounds / "one", 1), rtol=2e-3)
    same = np.equal(answers(rounds / "many", 1), answers(rounds / "one", 1))
    assert same.mean() > 0.95


def test_a_round_on_eight_devices_that_is_killed_ends_as_one_that_was_not(rounds, tmp_path):
    folder = tmp_path / "many"
    shutil.copytree(rounds / "many", folder, ignore=shutil.ignore_patterns("001", "002"))
    process = start_round(folder, 1, devices=8)
    while process.poll() is None and not [*folder.glob("001/*/training/*/SHA256SUMS")]:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    play_round(folder, 1, devices=8)
    assert losses(folder, 1) == losses(rounds / "many", 1)
    killed, whole = (record(one, 1)["stages"] for one in (folder, rounds / "many"))
    for stage in whole:
        for digest in ("digest", "digests"):
            assert killed[stage].get(digest) == whole[stage].get(digest)


def test_what_eight_devices_saved_two_go_on_from(rounds):
    file = rounds / "many" / "experiment.toml"
    toml, _, _ = file.read_text(encoding="utf-8").partition("[mesh]")
    file.write_text(f"{toml}[mesh]\nfsdp = 2", encoding="utf-8")
    play_round(rounds / "many", 2, devices=2)
    after, before = record(rounds / "many", 2), record(rounds / "many", 1)
    assert after["experiment_digest"] == before["experiment_digest"]
    assert before["mesh"]["data"] * before["mesh"]["fsdp"] * before["mesh"]["tensor"] == 8
    assert after["mesh"] == {"data": 1, "fsdp": 2, "tensor": 1}
    assert after["parent"] == Store(rounds / "many").round(after["parent"]["round"]).identity
    assert losses(rounds / "many", 2)[-1] < losses(rounds / "many", 1)[0]


def test_two_devices_share_the_work_of_a_streaming_step(tmp_path):
    toml = TOML.replace("[training]", '[training]\ntargets = "streaming"\nlook_every = 10')
    toml = toml.replace("width = 16", "width = 64").replace("batch = 8", "batch = 32")
    alone = read_experiment(tiny_experiment(tmp_path / "tiny", toml) / "experiment.toml")

    def operations(experiment):
        """Of one device."""
        phase = streaming(experiment)
        state = experiment.mesh.place(abstract_state(phase))
        key = experiment.mesh.place(jax.eval_shape(lambda: jax.random.key(0)))
        step = traced_step(phase, experiment.mesh).lower(key, {}, state).compile()
        return step.cost_analysis()["flops"]

    shared = dataclasses.replace(alone, mesh=Mesh(data=2))
    assert operations(shared) < 0.6 * operations(alone)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weights_and_their_moments_lie_in_shares(optimizer):
    model = LanguageModelConfig(width=32, heads=4, key_heads=2, layers=2).build(Wildcard(3))
    training = Training(steps=10, optimizer=optimizer)
    mesh = Mesh(tensor=2)
    state = mesh.place(untrained(model, jax.jit(model.init)(jax.random.key(0)), training))
    for name in ("query", "key", "value", "out"):
        kernel = state.roles["assistant"].params["layers"]["attention"][name]["kernel"][...]
        assert kernel.addressable_shards[0].data.size == kernel.size // 2
    sizes = [leaf.size for leaf in jax.tree.leaves(state)]
    shares = [leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state)]
    assert sum(shares) < 0.6 * sum(sizes)


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        ("[mesh]\ndata = 4\ntensor = 8", "needs 32 devices (data 4 x fsdp 1 x tensor 8)"),
        ("[mesh]\ndata = 3", "mesh.data x mesh.fsdp must divide"),
        ("[mesh]\ndata = 0", "mesh.data must be greater than or equal to 1"),
        ("[mesh]\nmodel = 2", "model"),
    ],
)
def test_a_mesh_that_cannot_be_is_one_clear_line(mesh, said, tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "tiny", TOML + mesh)
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
