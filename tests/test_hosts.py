"""A round by two processes that share a folder: the rows and losses of one, and what they saved one
goes on from. One of them is killed in the middle first.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.reading.experiment_file import read_experiment
from amplify.store import Store
from amplify.training import dataset
from amplify.training.mesh import Mesh
from tests.test_mesh import THREADS, losses, record
from tests.tiny import TOML, tiny_experiment

pytestmark = pytest.mark.slow

SHORT = (
    TOML.replace("contexts = 96", "contexts = 160")
    .replace("steps = 60", "steps = 20")
    .replace("checkpoint_every = 20", "checkpoint_every = 10")
    .replace("final = 24", "final = 72")
    + "[gate]\nerror_rate = 0.9\n"
)
"""Amplification and evaluation have two chunks, one for each process. The gate lets the few
contexts that there are promote round 1, so that round 2 goes on from it.
"""
LEARNED = SHORT.replace(
    'kind = "simulated"',
    'kind = "learned"\nwidth = 16\nheads = 2\nlayers = 1\nbatch = 16\nsteps = 64',
)
STREAMING = LEARNED.replace("[training]", '[training]\ntargets = "streaming"\nlook_every = 10')
SPREAD = "[mesh]\ndata = 2\nfsdp = 2"


def start(folder: Path) -> list[subprocess.Popen]:
    """Two processes with two devices each, on round 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{1}".format(*free.getsockname())
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    known = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": THREADS}
    known["JAX_COORDINATOR_ADDRESS"] = address
    command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"]
    return [
        subprocess.Popen(
            command,
            env=os.environ | known | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def kill_while_training(folder: Path, process: subprocess.Popen) -> None:
    """Once something of the assistant's training is saved."""
    phase = (
        "streaming" if "streaming" in (folder / "experiment.toml").read_text() else "distillation"
    )
    saved = folder / "001" / phase / "training/10/SHA256SUMS"
    while process.poll() is None and not saved.is_file():
        time.sleep(0.01)
    process.kill()
    process.communicate()


def play_by_two_after_a_kill(folder: Path) -> None:
    """Round 1 by two processes, after one of two was killed while it trained."""
    first, second = start(folder)
    kill_while_training(folder, second)
    _, said = first.communicate(timeout=600)
    if first.returncode == 2:
        assert "amplify: another process has died" in said.splitlines()[-1]
    else:  # it was waiting where jax notices first, which ends the process itself
        assert first.returncode == -signal.SIGABRT, said
        assert "another task died" in said
    for process in start(folder):
        _, said = process.communicate(timeout=600)
        assert not process.returncode, said


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Round 1 by one process, and by two after one of two was killed."""
    root = tmp_path_factory.mktemp("hosts")
    main(["round", str(tiny_experiment(root / "one", SHORT)), "--n", "1"])
    play_by_two_after_a_kill(tiny_experiment(root / "two", SHORT + SPREAD))
    return root


def test_two_processes_write_the_rows_of_one_a_shard_each(rounds):
    one, two = (dataset.read(Store(rounds / name).round(1).main.data) for name in ("one", "two"))
    assert len(list((rounds / "two/001/distillation/data").glob("*.array_record-*-of-00002"))) == 2
    assert len(one) == len(two) == 160
    for row, other in zip(one, two, strict=True):
        for name in row:
            np.testing.assert_array_equal(row[name], other[name])


def test_two_processes_have_the_losses_and_evals_of_one(rounds):
    np.testing.assert_allclose(losses(rounds / "two", 1), losses(rounds / "one", 1), rtol=1e-5)
    one, two = (
        (rounds / name / "001/evals.jsonl").read_text(encoding="utf-8") for name in ("one", "two")
    )
    answers = [[json.loads(line)["alone"] for line in lines.splitlines()] for lines in (one, two)]
    assert np.equal(*answers).mean() > 0.99
    assert record(rounds / "two", 1)["processes"] == 2


def test_one_process_goes_on_from_what_two_saved(rounds):
    file = rounds / "two/experiment.toml"
    file.write_text(file.read_text(encoding="utf-8").removesuffix(SPREAD), encoding="utf-8")
    main(["round", str(rounds / "two"), "--n", "2"])
    after = record(rounds / "two", 2)
    assert (after["processes"], after["parent"]["round"]) == (1, 1)
    assert losses(rounds / "two", 2)[-1] < losses(rounds / "two", 1)[0]


@pytest.fixture(scope="module", params=["streaming", "stored"])
def learned(request, tmp_path_factory):
    """The same of rounds whose overseer learns, while the assistant does or before it."""
    toml = STREAMING if request.param == "streaming" else LEARNED
    root = tmp_path_factory.mktemp(request.param)
    main(["round", str(tiny_experiment(root / "one", toml)), "--n", "1"])
    play_by_two_after_a_kill(tiny_experiment(root / "two", toml + SPREAD))
    return root


def test_two_processes_teach_the_overseer_of_one(learned):
    one, two = (record(learned / name, 1) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["ledger"]["demonstrations"] == two["ledger"]["demonstrations"] > 0
    stages = [next(s for s in r["stages"].values() if "overseer_loss" in s) for r in (one, two)]
    np.testing.assert_allclose(*(stage["overseer_loss"] for stage in stages), rtol=1e-3)


def test_two_processes_make_the_answers_and_have_the_losses_of_one(learned):
    np.testing.assert_allclose(losses(learned / "two", 1), losses(learned / "one", 1), rtol=1e-5)
    one, two = (dataset.read(Store(learned / name).round(1).main.data) for name in ("one", "two"))
    assert len(one) == len(two) > 10
    for row, other in zip(one, two, strict=True):
        for name in row:
            np.testing.assert_array_equal(row[name], other[name])


def test_one_process_goes_on_with_the_overseer_that_two_taught(learned):
    file = learned / "two/experiment.toml"
    file.write_text(file.read_text(encoding="utf-8").removesuffix(SPREAD), encoding="utf-8")
    main(["round", str(learned / "two"), "--n", "2"])
    after = record(learned / "two", 2)
    assert after["processes"] == 1
    assert losses(learned / "two", 2)[-1] < losses(learned / "two", 1)[0]


HUMAN = TOML.replace('kind = "simulated"', 'kind = "human"\nitems = 4')


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (TOML, "the mesh must have all 8 devices of the 2 processes"),
        (HUMAN, 'rounds with overseer.kind = "human" must run in one process, got 2'),
    ],
)
def test_what_several_processes_cannot_run_is_refused(tmp_path, toml, said):
    experiment = read_experiment(tiny_experiment(tmp_path / "tiny", toml) / "experiment.toml")
    with pytest.raises(AmplifyError, match=said):
        experiment.check_shared(2, 8)


def test_a_process_that_is_told_too_little_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(tiny_experiment(tmp_path / "tiny")), "--n", "1"])
    line = capsys.readouterr().err
    assert "JAX_COORDINATOR_ADDRESS is set, so JAX_NUM_PROCESSES must be a whole number" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("mesh", "devices", "part"),
    [
        (Mesh(data=2, fsdp=4, tensor=2), 4, Mesh(1, 2, 2)),
        (Mesh(data=8, tensor=2), 8, Mesh(4, 1, 2)),
        (Mesh(fsdp=2), 1, Mesh()),
    ],
)
def test_what_a_process_does_by_itself_is_spread_over_its_own_devices(
    mesh, devices, part, monkeypatch
):
    monkeypatch.setattr("jax.local_device_count", lambda: devices)
    monkeypatch.setattr("jax.process_count", lambda: mesh.size // devices)
    assert mesh.here == part
