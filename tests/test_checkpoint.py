import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from orbax.checkpoint import v1 as ocp

from amplify.errors import AmplifyError
from amplify.training import checkpoint


class State(NamedTuple):
    step: Any
    params: Any
    optimizer: Any
    key: Any


def a_state(seed=0):
    random = np.random.default_rng(seed)
    params = {
        "layers": [{"kernel": random.normal(size=(3, 4)).astype(np.float32)} for _ in range(2)],
        "half": random.normal(size=(5, 2)).astype(jnp.bfloat16),
        "bytes": random.integers(0, 255, 7, np.uint8),
        "mask": random.random(3) < 0.5,
        "a/b": np.float32(np.nan),
    }
    weights = {"layers": params["layers"]}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(1)))
    state = State(np.int32(seed), params, optimizer.init(weights), jax.random.key(seed))
    return jax.tree.map(jnp.asarray, state)


def numbers(place=0):
    """A data iterator: 0, 1, 2, ..."""
    unhurried = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    iterator = iter(grain.MapDataset.range(10**6).to_iter_dataset(unhurried))
    for _ in range(place):
        next(iterator)
    return iterator


def assert_identical(state, other):
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for leaf, twin in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        assert isinstance(twin, jax.Array)
        assert (leaf.dtype, leaf.shape) == (twin.dtype, twin.shape)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, twin = jax.random.key_data(leaf), jax.random.key_data(twin)
        assert np.asarray(leaf).tobytes() == np.asarray(twin).tobytes()


# A finished checkpoint


def test_a_state_comes_back_bit_by_bit(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", a_state())
    assert_identical(a_state(), checkpoint.restore(tmp_path / "checkpoint", a_state(1)))


def test_shapes_alone_say_what_to_restore(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", a_state())
    like = jax.eval_shape(a_state)
    assert_identical(a_state(), checkpoint.restore(tmp_path / "checkpoint", like))


def test_a_leaf_goes_where_its_sharding_says(tmp_path):
    state, last = {"weights": jnp.arange(6)}, jax.devices()[-1]
    checkpoint.save(tmp_path / "checkpoint", state)
    there = checkpoint.restore(tmp_path / "checkpoint", jax.device_put(state, last))
    here = checkpoint.restore(tmp_path / "checkpoint", jax.eval_shape(lambda: state))
    assert there["weights"].devices() == {last}
    assert here["weights"].devices() == {jax.devices()[0]}


def test_a_networks_parameters_come_back_with_their_structure(tmp_path):
    params = nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Param)
    checkpoint.save(tmp_path / "checkpoint", params)
    assert_identical(params, checkpoint.restore(tmp_path / "checkpoint", params))


def test_plain_orbax_reads_it(tmp_path):
    weights = jnp.arange(6)
    checkpoint.save(tmp_path / "checkpoint", {"weights": weights})
    like = jax.ShapeDtypeStruct((6,), weights.dtype, sharding=weights.sharding)
    assert ocp.load(tmp_path / "checkpoint", {"weights": like})["weights"].tolist() == [*range(6)]


def test_the_data_iterator_comes_back_with_the_state(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", a_state(), numbers(7))
    iterator = numbers(3)
    checkpoint.restore(tmp_path / "checkpoint", a_state(), iterator)
    assert next(iterator) == 7


def test_saving_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path):
    for seed in (0, 1):
        checkpoint.save(tmp_path / "checkpoint", a_state(seed))
        assert_identical(a_state(seed), checkpoint.restore(tmp_path / "checkpoint", a_state()))
    assert [*tmp_path.iterdir()] == [tmp_path / "checkpoint"]


def fail(folder):
    raise OSError("no space left")


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "checkpoint", a_state())
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_checksums", fail)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.save(tmp_path / "checkpoint", a_state(1))
    assert_identical(a_state(), checkpoint.restore(tmp_path / "checkpoint", a_state()))
    assert [*tmp_path.iterdir()] == [tmp_path / "checkpoint"]


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Path("checkpoint"), a_state())
    assert_identical(a_state(), checkpoint.restore(Path("checkpoint"), a_state()))


# What is refused


def test_a_missing_checkpoint_is_said_to_be_missing(tmp_path):
    with pytest.raises(AmplifyError, match="nowhere: no complete checkpoint here"):
        checkpoint.restore(tmp_path / "nowhere", a_state())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pristine") / "checkpoint"
    checkpoint.save(directory, {"weights": jnp.arange(1000.0)})
    return directory


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 8
    path.write_bytes(raw)


@pytest.mark.parametrize("damage", [cut_in_half, flip_a_bit, Path.unlink])
def test_damage_anywhere_is_one_line_that_names_folder_and_file(damage, pristine, tmp_path, capfd):
    files = [path for path in sorted(pristine.rglob("*")) if path.is_file()]
    files = [path.relative_to(pristine) for path in files if path.stat().st_size]
    assert len(files) > 5
    for file in files:
        directory = tmp_path / "checkpoint"
        shutil.copytree(pristine, directory)
        damage(directory / file)
        with pytest.raises(AmplifyError) as error:
            checkpoint.restore(directory, {"weights": jnp.arange(1000.0)})
        assert str(error.value).startswith(f"{directory}: ")
        assert "\n" not in str(error.value)
        if file.name != checkpoint.CHECKSUMS:
            assert f"({file.as_posix()} is not what was written)" in str(error.value)
        shutil.rmtree(directory)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="there is no sha256sum here")
def test_the_checksums_are_those_that_sha256sum_checks(pristine):
    subprocess.run(["sha256sum", "--check", checkpoint.CHECKSUMS], cwd=pristine, check=True)


@pytest.mark.parametrize(
    ("like", "complaint"),
    [
        ({"b": jnp.zeros((2, 4))}, "b is float32 (2, 3), expected float32 (2, 4)"),
        ({"b": jnp.zeros((2, 3), int)}, "b is float32 (2, 3), expected int32 (2, 3)"),
        ({"b": jnp.zeros((2, 3), jnp.bfloat16)}, "b is float32 (2, 3), expected bfloat16 (2, 3)"),
        ({"b": jnp.zeros((2, 3)), "c": jnp.zeros(2)}, "c is missing, expected float32 (2,)"),
        ({}, "b is float32 (2, 3), expected nothing of that name"),
        ({"b": {"c": jnp.zeros((2, 3))}}, "b/c is missing, expected float32 (2, 3)"),
        ({"b": jax.random.key(0)}, "b is float32 (2, 3), expected uint32 (2,)"),
    ],
)
def test_the_first_leaf_that_does_not_fit_is_named(like, complaint, tmp_path):
    a = {"a": jnp.zeros(1)}
    checkpoint.save(tmp_path / "checkpoint", a | {"b": jnp.zeros((2, 3))})
    with pytest.raises(AmplifyError) as error:
        checkpoint.restore(tmp_path / "checkpoint", a | like)
    assert str(error.value) == f"{tmp_path / 'checkpoint'}: {complaint}"


# A state's identity


def test_the_digest_is_the_same_in_every_version():
    state = {"a": jnp.arange(3, dtype=jnp.int32), "b": [jnp.ones((2, 1), jnp.bfloat16)]}
    expected = "926cb427b0812f31905983b2119211dcee5b582e5286329a44314505e3540a32"
    assert checkpoint.digest(state) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"a": jnp.zeros(4), "c": jnp.ones(2)},
        {"a": jnp.zeros((2, 2)), "b": jnp.ones(2)},
        {"a": jnp.zeros(4, int), "b": jnp.ones(2)},
        {"a": jnp.zeros(4), "b": jnp.ones(2).at[1].set(np.nextafter(np.float32(1), 2))},
        {"a": jnp.zeros(4), "b": (jnp.ones(2),)},
    ],
)
def test_the_digest_tells_states_apart(other):
    state = {"a": jnp.zeros(4), "b": jnp.ones(2)}
    assert checkpoint.digest(state) != checkpoint.digest(other)


def test_the_digest_does_not_depend_on_where_a_state_is(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", a_state())
    restored = checkpoint.restore(tmp_path / "checkpoint", a_state())
    elsewhere = jax.device_put(a_state(), jax.devices()[-1])
    assert len({checkpoint.digest(state) for state in (a_state(), restored, elsewhere)}) == 1
    assert checkpoint.digest(a_state(1)) != checkpoint.digest(a_state())


# A training under way


def test_there_is_none_before_the_first(tmp_path):
    with checkpoint.training_checkpoints(tmp_path / "training") as saved:
        assert saved.restore(a_state(), numbers()) is None


def test_the_newest_comes_back_with_the_data_iterator_in_its_place(tmp_path):
    with checkpoint.training_checkpoints(tmp_path / "training") as saved:
        for step in (9, 10, 100):
            saved.save(step, a_state(step), numbers(step))
    iterator = numbers(1)
    with checkpoint.training_checkpoints(tmp_path / "training") as saved:
        assert_identical(a_state(100), saved.restore(a_state(), iterator))
    assert next(iterator) == 100


def test_only_the_newest_is_kept(tmp_path):
    with checkpoint.training_checkpoints(tmp_path / "training") as saved:
        for step in (1, 2, 3):
            saved.save(step, a_state(step), numbers())
            saved.wait()
            assert [path.name for path in (tmp_path / "training").iterdir()] == [str(step)]


def test_the_one_before_is_there_until_the_next_is_complete(tmp_path, monkeypatch):
    reached, held, checksums = threading.Event(), threading.Event(), checkpoint._checksums
    directory = tmp_path / "training"

    def slow(folder):
        reached.set()
        held.wait(60)
        return checksums(folder)

    with checkpoint.training_checkpoints(directory) as saved:
        saved.save(1, a_state(1), numbers())
        saved.wait()
        monkeypatch.setattr(checkpoint, "_checksums", slow)
        saved.save(2, a_state(2), numbers())
        assert reached.wait(60)
        assert {path.name for path in directory.iterdir()} == {"1", ".2.tmp"}
        held.set()
        saved.wait()
        assert [path.name for path in directory.iterdir()] == ["2"]


def test_the_state_may_be_donated_and_the_iterator_moved_as_soon_as_save_returns(tmp_path):
    donating = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = {name: jnp.zeros((300, 100)) for name in "abcdefgh"}
    iterator = numbers()
    one = jax.device_put(jnp.float32(1))
    with checkpoint.training_checkpoints(tmp_path / "training") as saved:
        for round_ in range(1, 6):
            with jax.transfer_guard("disallow"):
                state = donating(state)
                next(iterator)
                saved.save(round_, state, iterator)
                for _ in range(20):
                    state = donating(state)
            for _ in range(20):
                next(iterator)
            saved.wait()
            then = numbers()
            restored = saved.restore(state, then)
            assert all((leaf == one * (round_ * 21 - 20)).all() for leaf in restored.values())
            assert next(then) == round_ * 21 - 20


def test_a_damaged_newest_counts_as_none(tmp_path):
    directory = tmp_path / "training"
    checkpoint.save(directory / "1", a_state(1), numbers(1))
    checkpoint.save(directory / "2", a_state(2), numbers(2))
    (directory / "2" / "state" / "manifest.ocdbt").unlink()
    with checkpoint.training_checkpoints(directory) as saved:
        assert_identical(a_state(1), saved.restore(a_state(), numbers()))
        saved.save(1, a_state(3), numbers())
        saved.wait()
        assert [path.name for path in directory.iterdir()] == ["1"]


def test_another_experiments_state_is_refused(tmp_path):
    with checkpoint.training_checkpoints(tmp_path / "training") as saved:
        saved.save(1, {"a": jnp.zeros(2)}, numbers())
        saved.wait()
        with pytest.raises(AmplifyError, match=r"1: a is float32 \(2,\), expected float32 \(3,\)"):
            saved.restore({"a": jnp.zeros(3)}, numbers())


def test_a_save_that_fails_is_heard_of_at_the_next_or_at_the_end(tmp_path, monkeypatch):
    directory = tmp_path / "training"
    with checkpoint.training_checkpoints(directory) as saved:
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "_checksums", fail)
            saved.save(1, a_state(1), numbers())
            with pytest.raises(OSError, match="no space left"):
                saved.save(2, a_state(2), numbers())
        saved.save(3, a_state(3), numbers())
    assert [path.name for path in directory.iterdir()] == ["3"]
    monkeypatch.setattr(checkpoint, "_checksums", fail)
    with (
        pytest.raises(OSError, match="no space left"),
        checkpoint.training_checkpoints(directory) as saved,
    ):
        saved.save(4, a_state(4), numbers())
    assert [path.name for path in directory.iterdir()] == ["3"]


SAVE_UNTIL_KILLED = """if True:
    import os, shutil, signal, sys
    from pathlib import Path
    from amplify.training import checkpoint
    from tests.test_checkpoint import a_state, numbers
    place, directory = sys.argv[1], Path(sys.argv[2])

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def remove_a_part_and_die(folder):
        if folder.name != ".4.tmp":
            next(path for path in folder.rglob("*") if path.is_file()).unlink()
            die()

    with checkpoint.training_checkpoints(directory) as saved:
        for step in range(1, 1000):
            if step == 4 and place == "before the rename":
                checkpoint._checksums = die
            if step == 4 and place == "while removing the one before":
                shutil.rmtree = remove_a_part_and_die
            saved.save(step, a_state(step), numbers(step))
            saved.wait()
            print(step, flush=True)
"""


@pytest.mark.parametrize(
    ("place", "newest"),
    [
        ("before the rename", [3]),
        ("while removing the one before", [4]),
        ("anywhere", range(5, 1000)),
    ],
)
def test_a_kill_leaves_the_newest_complete_one_usable(place, newest, tmp_path):
    directory = tmp_path / "training"
    command = [sys.executable, "-c", SAVE_UNTIL_KILLED, place, str(directory)]
    path = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, env=path, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line == "5\n":
                time.sleep(0.03)  # while saving the sixth, or not far from it
                process.kill()
    assert process.returncode == -signal.SIGKILL
    iterator = numbers()
    with checkpoint.training_checkpoints(directory) as saved:
        state = saved.restore(a_state(), iterator)
        assert int(state.step) in newest
        assert_identical(a_state(int(state.step)), state)
        assert next(iterator) == int(state.step)
        saved.save(1000, a_state(), numbers())
    assert [path.name for path in directory.iterdir()] == ["1000"]


def test_the_first_part_that_is_there_is_restored_alone(tmp_path):
    params, target = {"w": jnp.arange(3.0)}, {"w": jnp.arange(3.0) + 1}
    like = jax.eval_shape(lambda: params)
    checkpoint.save(tmp_path / "both", {"params": params, "target": target})
    checkpoint.save(tmp_path / "one", {"params": params, "step": jnp.int32(3)})
    for folder, expected in (("both", target), ("one", params)):
        found = checkpoint.restore_first(tmp_path / folder, {"target": like, "params": like})
        assert_identical(expected, found)
    with pytest.raises(AmplifyError, match="has none of target"):
        checkpoint.restore_first(tmp_path / "one", {"target": like})
