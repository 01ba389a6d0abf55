"""Whole rounds of every kind, and the commands that look at them, never read a device array in
passing: what a CPU lets through, an accelerator refuses.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.cli.commands import main
from amplify.files.json_lines import read_lines
from amplify.records.round_folder import read_evals
from amplify.store import Store
from amplify.training import checkpoint
from tests import host_reads, test_searched, test_streaming
from tests.tiny import TOML, tiny_experiment

STORED = TOML.replace("steps = 60", "steps = 40")
LEARNED = STORED.replace(
    'kind = "simulated"',
    'kind = "learned"\nwidth = 16\nheads = 2\nlayers = 1\nbatch = 16\nsteps = 63',
)
LANGUAGE_MODEL = STORED.replace(
    'kind = "fact-transformer"\nwidth = 16\nheads = 2\nencoder_layers = 0\ndecoder_layers = 1',
    'kind = "language-model"\nwidth = 8\nheads = 1\nkey_heads = 1\nlayers = 1',
)
TOMLS = {
    "stored": STORED,
    "learned overseer": LEARNED,
    "streaming": test_streaming.TOML,
    "language model": LANGUAGE_MODEL,
    "search": test_searched.TOML.format(task="", training=""),
}

READS = {
    "int": lambda x: int(x[0]),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0]),
    "index": lambda x: range(9)[x[0]],
    "item": lambda x: x[0].item(),
    "list": lambda x: x.tolist(),
    "iteration": lambda x: [int(one) for one in x],
    "format": lambda x: f"{x[0]}",
    "format with a precision": lambda x: f"{x.astype(jnp.float32)[0]:.2f}",
    "np.asarray": np.asarray,
    "np.array": np.array,
    "np.stack": lambda x: np.stack([x, x]),
    "in": lambda x: 2 in x,
    "a shard": lambda x: np.asarray(x.addressable_shards[0].data),
    "key data": lambda _: np.asarray(jax.random.key_data(jax.random.key(0))),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_an_implicit_read_raises_as_on_an_accelerator(read):
    x = jnp.arange(1, 5)
    with (
        host_reads.forbidden(),
        pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed device-to-host"),
    ):
        read(x)
    read(x)


def test_explicit_reads_and_computation_pass():
    x = jnp.arange(4)
    with host_reads.forbidden():
        assert jax.device_get(x).tolist() == [0, 1, 2, 3]
        assert jax.device_get((x + 1, {"sum": x.sum()}))[1] == {"sum": 6}
        with jax.transfer_guard("allow"):
            assert int(x[1]) == 1


class KilledError(Exception):
    pass


@pytest.fixture
def killed_once(monkeypatch):
    """The first training checkpoint is the last thing that the process does."""
    save = checkpoint.TrainingCheckpoints.save

    def dying(*arguments):
        save(*arguments)
        monkeypatch.setattr(checkpoint.TrainingCheckpoints, "save", save)
        raise KilledError

    monkeypatch.setattr(checkpoint.TrainingCheckpoints, "save", dying)


def questions_to_type(store: Store) -> list[str]:
    """One that the assistant answers, and one that the environment does."""
    this = store.round(1)
    steps = read_lines(this.main.interactions)[0]["steps"]
    primitive = next(step["question"] for step in steps if step["by"] == "environment")
    return [read_evals(this)[0]["question"], primitive]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOMLS)
def test_rounds_read_only_through_device_get(kind, tmp_path, monkeypatch, killed_once):
    folder = str(tiny_experiment(tmp_path / "tiny", TOMLS[kind]))
    last = 2 if kind in ("stored", "streaming") else 1
    with host_reads.forbidden():
        with pytest.raises(KilledError):
            main(["round", folder, "--n", "1"])
        assert [*tmp_path.glob("tiny/001/*/training/*/SHA256SUMS")]
        main(["round", folder, "--n", str(last)])
        main(["compare", folder])
        typed = iter([*questions_to_type(Store(tmp_path / "tiny")), ""])
        monkeypatch.setattr("amplify.terminal.output.input", lambda *_: next(typed))
        main(["ask", folder, "--round", "1", "--amplify"])
        if kind != "streaming":
            main(["tree", folder, "--round", "1", "--row", "1"])
            main(["replay", folder, "--round", "1", "--checkpoint", "0"])
    assert Store(tmp_path / "tiny").round(last).complete


@pytest.mark.slow
def test_a_round_with_lora_and_its_export_read_only_through_device_get(tmp_path, killed_once):
    folder = test_searched.pretrained_experiment(tmp_path, chat=False, rank=2)
    with host_reads.forbidden():
        with pytest.raises(KilledError):
            main(["round", str(folder), "--n", "1"])
        main(["round", str(folder), "--n", "1"])
        main(["export", str(folder), str(tmp_path / "out"), "--round", "1"])
    assert (tmp_path / "out/model.safetensors").exists()
