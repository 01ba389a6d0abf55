"""Streaming rounds: the buffer, the curriculum, whole rounds, and that a kill changes nothing."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify import round as page
from amplify import stages
from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.experiment.sections import Curriculum
from amplify.files.json_lines import read_lines
from amplify.inspection import training_tree
from amplify.oversight import amplification, restore, streaming
from amplify.oversight.amplification import trained_assistant
from amplify.oversight.imitation import trained_overseer
from amplify.oversight.streaming import Streaming
from amplify.oversight.work import draw_batch
from amplify.reading.experiment_file import read_experiment
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.task_abilities import sizes_of
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.training.options import Training
from amplify.training.step import fresh_role, make_step, traced_step
from amplify.trees.chunks import amplify_problems
from amplify.types import DONT_KNOW, Problems
from tests import tiny
from tests.tiny import tiny_experiment

TOML = """
[task]
kind = "permutation"
symbols = 5
bits = 3

[assistant]
kind = "fact-transformer"
width = 16
heads = 2
encoder_layers = 0
decoder_layers = 1

[overseer]
kind = "learned"
width = 16
heads = 2
layers = 1
batch = 16
steps = 32

[questions]
contexts = 120
per_context = 4

[training]
targets = "streaming"
amplify_every = 2
steps = 60
batch = 16
learning_rate = 1e-2
warmup_steps = 5
log_every = 10
look_every = 20
checkpoint_every = 20

[curriculum]
start = 3
agreement = 0.0
batches = 5

[evals]
select = 24
final = 24
"""


def run(folder: Path, last: int) -> Store:
    store = Store(folder)
    for number in range(last + 1):
        page.run(store, number, unwatched)
    return store


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tiny_experiment(tmp_path_factory.mktemp("streaming") / "tiny", TOML)
    main(["round", str(folder), "--n", "2"])
    return Store(folder)


def outcome(store: Store, number: int) -> list[str]:
    """Everything that a round decided."""
    this = store.round(number)
    stages_ = this.record["stages"]
    trained = [
        {key: value for key, value in facts.items() if not key.endswith("seconds")}
        for stage, facts in stages_.items()
        if stage.endswith("/checkpoint")
    ]
    return [json.dumps(trained, sort_keys=True), stages_["evals"]["digest"]]


def test_a_streaming_round_leaves_what_a_stored_one_does(ran):
    this = ran.round(1)
    assert this.complete
    checkpoints = [handle.checkpoint for handle in this.roles().values()]
    assert [path.name for path in checkpoints] == ["overseer", "assistant"]
    for path in (this.main.data, *checkpoints, this.main.interactions, this.report):
        assert path.exists(), path
    assert not this.main.training.exists()
    ledger = this.record["ledger"]
    assert ledger["overseer_answers"] == 30 * 16 * 4
    assert ledger["training_steps"] == 60
    assert 500 <= ledger["demonstrations"] <= 500 + 32 + 60
    trees = read_lines(this.main.interactions)
    assert trees
    assert {"question", "answer", "steps", "right"} <= set(trees[0])


SIMULATED = tiny.TOML.replace(
    "[training]", '[training]\ntargets = "streaming"\namplify_every = 2\nlook_every = 20'
)


def test_the_ledger_of_a_streaming_round_is_exact(tmp_path):
    """A question about words asks the assistant as often as its own wildcards say."""
    this = run(tiny_experiment(tmp_path / "tiny", SIMULATED), 1).round(1)
    experiment, rows = Store(tmp_path / "tiny").experiment, read_lines(this.main.metrics)
    root = restore.phase_key(experiment, "streaming", 1)
    expected = {"overseer": 0, "assistant": 0, "environment": 0}
    for step in range(0, 60, 2):
        amplify_key = jax.random.split(jax.random.fold_in(root, step), 3)[0]
        _, questions = draw_batch(experiment, jax.random.split(amplify_key, 4)[0])
        for part, number in asked_for(experiment.task, questions).items():
            expected[part] += number
    for part, number in expected.items():
        counts = [row[f"calls/{part}"] for row in rows]
        assert all(type(count) is int for count in counts)
        assert sum(counts) == number > 0
    assert this.record["ledger"]["assistant_answers"] == expected["assistant"]
    assert this.record["ledger"]["overseer_answers"] == expected["overseer"] == 30 * 8 * 4


def asked_for(task, questions) -> dict[str, int]:
    """Whom the simulated overseer asks about questions, whatever it is told."""
    by = {"overseer": questions[..., 0].size, "assistant": 0, "environment": 0}
    strategy = task.strategy(questions)
    told = None
    while True:
        try:
            ask = next(strategy) if told is None else strategy.send(told)
        except StopIteration:
            return by
        asked = jnp.ones(questions.shape[:-1], bool) if ask.where is None else ask.where
        primitive = task.is_primitive(ask.question)
        by["environment"] += int((asked & primitive).sum())
        by["assistant"] += int((asked & ~primitive).sum())
        told = jnp.ones((*questions.shape[:-1], task.answer_length), jnp.int32)


def test_a_demonstration_and_what_it_asks_are_in_the_ledger(ran):
    rows = ran.round(1).record["ledger"]["calls"]
    signal = {row["part"]: row["calls"] for row in rows if row["purpose"] == "signal"}
    facts = ran.round(1).record["stages"]["streaming/checkpoint"]
    # A batch of demonstrations is given whole, of which the budget may keep a part.
    assert 0 <= signal["demonstrator"] - facts["demonstrations"] < 16 * 30
    assert signal["demonstrator"] % 16 == 0
    # Also the assistant's own answers, by which the curriculum grows.
    assert signal["assistant"] > 30 * 16 * 4 + facts["assistant_answers"]


def test_the_next_round_goes_on_with_the_overseer_and_the_size_of_its_parent(ran):
    first, second = (
        ran.round(number).record["stages"]["streaming/checkpoint"] for number in (1, 2)
    )
    assert first["size"] > 3
    parent = ran.round(2).record["parent"]["round"]
    so_far = first["demonstrations_so_far"] if parent == 1 else 0
    new = ran.round(2).record["ledger"]["demonstrations"]
    assert second["demonstrations_so_far"] == so_far + new


def test_the_curve_looks_at_who_answers_and_counts_demonstrations(ran):
    rows = read_lines(ran.round(1).main.metrics)
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    looked = [row for row in rows if "accuracy" in row]
    assert [row["step"] for row in looked] == [20, 40, 60]
    for row in looked:
        assert set(row["accuracy"]) == {"alone", "amplified", "ceiling", "live"}
        assert set(row["accuracy"]["alone"]) == set(ran.experiment.task.classes)
    assert rows[0]["demonstrations"] <= rows[-1]["demonstrations"]


def test_everything_is_compiled_once(ran):
    phase = amplification.streaming(ran.experiment)
    assert traced_step(phase.program, ran.experiment.mesh)._cache_size() == 1


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 25, 45])
def test_a_killed_streaming_round_ends_as_one_that_was_not(ran, tmp_path, after, monkeypatch):
    folder = tmp_path / "tiny"
    shutil.copytree(ran.path, folder)
    shutil.rmtree(folder / "001")
    shutil.rmtree(folder / "002")
    seen = []

    def dying(phase, *arguments):
        step = make_step(phase, *arguments)

        def one(state):
            seen.append(phase.name == "streaming")
            if sum(seen) == after:
                raise KilledError
            return step(state)

        return one

    store = Store(folder)
    with monkeypatch.context() as patched:
        patched.setattr(stages, "make_step", dying)
        with pytest.raises(KilledError):
            page.run(store, 1, unwatched)
    page.run(Store(folder), 1, unwatched)
    assert outcome(Store(folder), 1) == outcome(ran, 1)


def test_streamed_answers_have_no_tree_to_recompute(ran):
    with pytest.raises(AmplifyError, match="streamed answers come from weights that were not kept"):
        training_tree(ran, 1, 0, 0, 1)


def test_the_buffer_trains_on_no_held_out_place_and_on_nothing_unfilled(tmp_path):
    experiment = read_experiment(tiny_experiment(tmp_path / "tiny", TOML) / "experiment.toml")
    buffer = Streaming(experiment).begin(None, {}).buffer
    place = jnp.arange(120, dtype=jnp.int32)
    marked = buffer._replace(contexts=buffer.contexts + place[:, None, None])
    for written, filled in ((16, 16), (96, 96), (500, 120)):
        now = marked._replace(written=jnp.int32(written))
        drawn = {
            int(context[0, 0])
            for seed in range(40)
            for context in streaming._draw(now, jax.random.key(seed), 50)["context"]
        }
        assert drawn == {n for n in range(filled) if n % 10 != 9}
        kept = streaming.held_out(now)["place"].tolist()
        assert kept == [n for n in range(filled) if n % 10 == 9]


@pytest.mark.parametrize(
    ("agreeing", "known", "grows"), [(0.9, 1.0, True), (0.8, 1.0, False), (0.9, 0.1, True)]
)
def test_contexts_grow_when_the_target_network_agrees_with_itself(agreeing, known, grows):
    """On more than 85 % of what is known, over more than 50 batches."""
    curriculum, task = Curriculum(start=3), Permutation(8, 3)
    growth = streaming.Growth(jnp.int32(3), jnp.zeros(()), jnp.int32(0))
    amplified = jnp.where(jnp.arange(100) < int(100 * known), 1, DONT_KNOW)[None, :, None]
    agreed = jnp.arange(100) < int(100 * known * agreeing)
    alone = jnp.where(agreed[None, :, None], amplified, 2)
    sizes = []
    for _ in range(52):
        growth = streaming.grow(curriculum, sizes_of(task), growth, alone, amplified)
        sizes.append(int(growth.size))
    assert sizes[:50] == [3] * 50
    assert sizes[50] == (4 if grows else 3)
    assert int(growth.batches) == (1 if grows else 52)


def test_contexts_never_grow_beyond_the_task():
    curriculum, task = Curriculum(start=3), Permutation(3, 3)
    growth = streaming.Growth(jnp.int32(3), jnp.float32(1), jnp.int32(60))
    answers = jnp.ones((1, 4, 1), jnp.int32)
    assert int(streaming.grow(curriculum, sizes_of(task), growth, answers, answers).size) == 3


def test_streaming_and_stored_answers_of_one_teacher_give_the_same_gradients(ran, tmp_path):
    """With a greedy assistant, so that it does not matter which random keys each way uses."""
    toml = TOML.replace("decoder_layers = 1", 'decoder_layers = 1\nsampling = "greedy"', 1)
    experiment = read_experiment(tiny_experiment(tmp_path / "tiny", toml) / "experiment.toml")
    source, roles = Streaming(experiment), ran.roles(ran.round(1))
    weights = restore.load_weights(ran.experiment, roles)
    teacher, overseer = weights["assistant"], weights["overseer"]
    live = {
        "assistant": fresh_role(trained_assistant(experiment.assistant, Training()), teacher),
        "overseer": fresh_role(trained_overseer(experiment.learner), overseer),
    }
    shown = restore.load_carried(experiment, roles["overseer"], source.abstract_carry()["overseer"])
    state = source.begin(None, {"overseer": shown, "assistant": jnp.int32(4)})
    amplify = jax.jit(lambda key: streaming._amplify(experiment, key, live, state))
    streamed = amplify(jax.random.key(1)).stream.buffer
    contexts, questions = streamed.contexts[:16], streamed.questions[:16]
    seeds = jnp.stack([jnp.ones(16, jnp.uint32), jnp.arange(16, dtype=jnp.uint32)], axis=1)
    [stored] = amplify_problems(
        experiment.task,
        experiment.assistant,
        experiment.overseer,
        {"assistant": teacher, "overseer": overseer},
        Problems(seeds, contexts, questions),
        seed=5,
    )
    gradient = jax.jit(jax.grad(experiment.assistant.loss, has_aux=True))
    one, other = (
        gradient(teacher, {"context": contexts, "questions": questions, "answers": answers})[0]
        for answers in (streamed.answers[:16], jnp.asarray(stored.answers))
    )
    assert int(streamed.written) == 16
    assert len(np.unique(stored.answers)) > 1
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("start = 3", "start = 9", "curriculum.start must be 2 to 5, got 9"),
        ('targets = "streaming"', 'targets = "stored"', "curriculum.start needs training.targets"),
        ('targets = "streaming"', 'targets = "streamed"', "training.targets must be 'stored' or"),
        ("look_every = 20", "look_every = 25", "training.look_every must be a multiple of"),
        ("bits = 3", "bits = 0", "task.bits must be greater than or equal to 2, got 0"),
        (
            "steps = 32",
            "steps = 31",
            "overseer.steps must be at least 32, for 500 demonstrations",
        ),
        ("symbols = 5", "symbols = 1", "task.symbols must be greater than or equal to 2, got 1"),
        (
            'kind = "permutation"\nsymbols = 5\nbits = 3',
            'kind = "assignments"\nvalues = 12',
            "task.values must be fewer than variables (10), got 12",
        ),
        (
            'kind = "permutation"\nsymbols = 5\nbits = 3',
            'kind = "shortest-path"\nedges = 100',
            "task.edges must be at most 56 between 8 vertices, got 100",
        ),
        ("[task]", "base = 3\n[task]", "base must be another experiment's folder, got 3"),
        ("[task]", 'base = "."\n[task]', "base refers back to this experiment"),
        ("[task]", 'base = "../none"\n[task]', "none/experiment.toml: no such file"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, was, becomes, said):
    folder = tiny_experiment(tmp_path / "tiny", TOML.replace(was, becomes))
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_experiment_can_be_another_with_one_line_changed(tmp_path):
    tiny_experiment(tmp_path / "tiny", TOML)
    base = 'base = "../tiny"\n'
    other = tiny_experiment(tmp_path / "other", base + '[oversight]\nkind = "truth"\n')
    simple = tiny_experiment(tmp_path / "simple", base + '[overseer]\nkind = "simulated"\n')
    one, two, three = (
        read_experiment(folder / "experiment.toml") for folder in (tmp_path / "tiny", other, simple)
    )
    changed = {key for key, value in one.values.items() if two.values[key] != value}
    assert changed == {"oversight.kind"}
    assert not three.overseer_learns


def test_a_stored_round_teaches_its_overseer_first(tmp_path):
    """And the tree behind a row is recomputed with the overseer as it was then."""
    toml = TOML.replace('targets = "streaming"', 'targets = "stored"').split("[curriculum]")[0]
    folder = tiny_experiment(tmp_path / "tiny", toml)
    this = run(folder, 1).round(1)
    assert list(this.record["stages"]) == [
        "imitation/checkpoint",
        "distillation/data",
        "distillation/checkpoint",
        "evals",
        "verdict",
    ]
    assert this.record["ledger"]["demonstrations"] == 32 * 16
    tree = training_tree(Store(folder), 1, row=3, question=1, depth=1).tree
    assert tree["by"] == "overseer"
