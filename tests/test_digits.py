"""Debates about digits: the task and the judge in rounds/digits, and what the study measures."""

import io
import itertools
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from amplify.cli.commands import main
from amplify.oversight.restore import load_assistant
from amplify.reading.experiment_file import read_experiment
from amplify.store import Store
from amplify.studies import digits
from amplify.studies.digits_table import REPORT, criteria
from amplify.words import read_answer, read_question

FOLDER = Path(__file__).parent.parent / "rounds" / "digits"
SMALL = {
    "steps = 3000": "steps = 200",
    "width = 128": "width = 32",
    "contexts = 4096": "contexts = 512",
}


@pytest.fixture(scope="module")
def experiment():
    return read_experiment(FOLDER / "experiment.toml")


def copied(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(FOLDER / "digits.py", folder)
    text = (FOLDER / "experiment.toml").read_text(encoding="utf-8")
    for before, after in SMALL.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "experiment.toml").write_text(text, encoding="utf-8")
    return folder


def images_of(task):
    return sys.modules[type(task).__module__].contexts()


def test_a_question_shows_pixels_that_are_drawn_and_never_the_digit(experiment):
    task = experiment.task
    keys = jax.random.split(jax.random.key(0), (2, 50))
    contexts = jax.vmap(task.draw_context)(keys[0])
    questions = jax.vmap(lambda key, context: task.draw_question(key, context, jnp.int32(1)))(
        keys[1], contexts
    )
    for context, question in zip(np.asarray(contexts), np.asarray(questions), strict=True):
        assert len({*question}) == task.pixels
        levels = dict(context.tolist())
        assert all(levels[place] > task.vocabulary.index("0") for place in question.tolist())
    reads = experiment.assistant.encode(experiment.assistant.init(keys[0, 0]), contexts)
    changed = contexts.at[:, -2, 1].set(task.vocabulary.index("3"))
    assert (reads == experiment.assistant.encode(None, changed)).all()
    shuffled = contexts[:, np.random.default_rng(0).permutation(task.facts)]
    np.testing.assert_allclose(experiment.assistant.encode(None, shuffled), reads)
    truths = jax.vmap(task.truth)(shuffled, questions)
    assert (truths == jax.vmap(task.truth)(contexts, questions)).all()
    assert (jax.vmap(task.may_show)(shuffled) == jax.vmap(task.may_show)(contexts)).all()


def test_texts_are_read(experiment):
    task = experiment.task
    assert read_question(task, "a1 h8").tolist() == [1, 64]
    assert task.vocabulary[int(read_answer(task, "7")[0])] == "7"
    with pytest.raises(ValueError, match="2 places of pixels"):
        task.parse("a1")


def test_the_judge_samples_from_the_probabilities_that_it_states(experiment):
    judge = experiment.assistant
    params = judge.init(jax.random.key(0))
    contexts = jnp.asarray(images_of(experiment.task)[:4])
    questions = jnp.asarray([[[3, 20], [11, 30]]] * 4)
    memory = judge.encode(params, contexts)
    keys = jax.random.split(jax.random.key(1), (4, 2))
    found = judge.answer(params, memory, questions, keys)
    log_prob = judge.log_prob(params, memory, questions, found.tokens)
    np.testing.assert_allclose(log_prob.sum(-1), found.log_prob, rtol=1e-5)
    every = jnp.asarray([read_answer(experiment.task, str(digit)) for digit in range(10)])
    total = sum(
        jnp.exp(judge.log_prob(params, memory, questions, jnp.broadcast_to(one, (4, 2, 1))))
        for one in every
    )
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def by_hand(experiment, params, context) -> dict[str, float]:
    """What two pixels of an image make of a judge, by trying them all one by one."""
    task, judge = experiment.task, experiment.assistant
    places = np.nonzero(np.asarray(task.may_show(context)))[0]
    truth = int(task.truth(context, None)[0]) - task.vocabulary.index("0")
    answers = [jnp.asarray(read_answer(task, str(digit))) for digit in range(10)]
    pairs = [*itertools.combinations(places.tolist(), 2)]
    questions = jnp.asarray(pairs)[None] + 1
    memory = judge.encode(params, context[None])
    said = np.stack(
        [
            judge.log_prob(params, memory, questions, jnp.broadcast_to(one, (1, len(pairs), 1)))[
                0, :, 0
            ]
            for one in answers
        ],
        axis=1,
    )
    opinion = dict(zip(pairs, said, strict=True))

    def wins(of, one: int, two: int) -> bool:
        return of(opinion[min(one, two), max(one, two)])

    def game(of) -> float:
        others = {one: [two for two in places if two != one] for one in places}
        honest_first = any(all(wins(of, one, two) for two in others[one]) for one in places)
        liar_first = all(any(wins(of, one, two) for two in others[one]) for one in places)
        return (honest_first + liar_first) / 2

    lies = [digit for digit in range(10) if digit != truth]
    right = [int(np.argmax(one)) == truth for one in opinion.values()]
    committed = [game(lambda one, lie=lie: one[truth] > one[lie]) for lie in lies]
    chances = [np.mean([one[truth] > one[lie] for one in opinion.values()]) for lie in lies]
    return {
        "random": np.mean(right),
        "alone": float(any(right)),
        "free": game(lambda one: int(np.argmax(one)) == truth),
        "committed": min(committed),
        "random_lie": np.mean(committed),
        "random_committed": min(chances),
    }


@pytest.mark.slow
def test_debates_are_played_as_by_trying_every_pixel(tmp_path, capsys):
    folder = copied(tmp_path / "digits")
    main(["round", str(folder), "--n", "1"])
    store = Store(folder)
    found = digits.measure(store, 1)
    contexts = digits._held_out(store)
    assert found["images"] == len(contexts) > 150
    experiment = store.experiment
    params = load_assistant(experiment, store.roles(store.round(1)))
    few = contexts[:6]
    one_by_one = [by_hand(experiment, params, context) for context in few]
    played = digits._play_all(experiment, params, few)
    for name, values in played.items():
        np.testing.assert_allclose(values, [one[name] for one in one_by_one], atol=1e-6)
    run = digits.read(json.loads(json.dumps(found)))
    assert run.alone > run.random
    assert run.committed > run.free
    assert run.random_lie >= run.committed
    report(run)


def report(run) -> None:
    """With values that differ between splits, and values that do not."""
    runs = {
        arm: {seed: run._replace(random=run.random - 0.001 * seed) for seed in range(3)}
        for arm in digits.ARMS
    }
    assert len(REPORT.rows(runs)) == 8
    done = {arm: [*of.values()] for arm, of in runs.items()}
    assert REPORT.figure(done).startswith(b"\x89PNG")
    assert [one.met for one in criteria(done)] == [run.gain >= 0.1] * 2
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(REPORT.table(runs))
    said = console.export_text()
    assert f"{100 * run.random - 0.1:.1f}" in said
    assert "Irving 2018" in said


def test_a_study_of_digits_needs_a_task_that_says_what_may_be_shown(tmp_path):
    from amplify.errors import AmplifyError
    from tests.tiny import TOML, tiny_experiment

    folder = tiny_experiment(tmp_path / "tiny", TOML)
    with pytest.raises(AmplifyError, match="need a task such as rounds/digits"):
        digits.measure(Store(folder), 1)
