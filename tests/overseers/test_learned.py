import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.errors import AmplifyError
from amplify.overseers.learned import ANSWER, ASK, LearnedConfig, count_asks
from amplify.overseers.simulated import Simulated
from amplify.oversight import imitation
from amplify.oversight.imitation import trained_overseer
from amplify.reading.experiment_file import parse_experiment
from amplify.tasks.algorithmic.assignments import Assignments
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.shortest_path import ShortestPath
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import draw_problems
from amplify.training.step import fresh_role, update_if
from amplify.trees.amplification import amplified, true_answers
from amplify.words import read_question

TASK = Permutation(4, 3)
CONFIG = LearnedConfig(width=32, batch=32)
OVERSEER = CONFIG.build(TASK)


@pytest.mark.parametrize(
    ("task", "asks"),
    [(Wildcard(3), 2), (Permutation(4, 3), 3), (Assignments(5, 2), 5), (ShortestPath(4, 5), 9)],
)
def test_a_strategys_sub_questions_are_counted(task, asks):
    assert count_asks(task) == asks


def demonstrations(count: int):
    """Interactions of the simulated overseer that is told the truth, one a context."""
    problems = draw_problems(TASK, 0, 1, "train", count, [1, 2], apart=False)
    everywhere = jnp.ones((count, 2), bool)

    @jax.jit
    def run(contexts, questions):
        told = true_answers(TASK, contexts)
        respond = amplified(TASK, Simulated(TASK).using(), told, contexts, depth=1)
        return respond(questions, everywhere, jax.random.split(jax.random.key(0), (count, 2)))

    return problems, run(problems.contexts, problems.questions)


def test_a_transcript_says_each_exchange_and_leaves_out_steps_not_taken():
    _, tree = demonstrations(16)
    transcript = OVERSEER.transcript(tree)
    for row, column in np.ndindex(16, 2):
        asked = [step for step in tree.steps if bool(step.asked[row, column])]
        rows = np.asarray(transcript.rows[row, column])
        said = np.asarray(transcript.utterances[row, column])
        assert rows[0].tolist() == [1, *tree.question[row, column].tolist(), 0]
        for number, step in enumerate(asked):
            question = step.sub.question[row, column].tolist()
            answer = step.sub.answer[row, column].tolist()
            assert rows[1 + number].tolist() == [2 + number, *question, *answer]
            assert said[number].tolist() == [ASK, *question]
        assert said[len(asked)].tolist() == [ANSWER, *tree.answer[row, column].tolist(), 0, 0, 0]
        assert not rows[1 + len(asked) :].any()
        assert not said[1 + len(asked) :].any()


def test_what_is_said_later_cannot_sway_what_is_said_before():
    """Else imitation would see the answers that it is to give."""
    _, tree = demonstrations(4)
    whole = jax.tree.map(lambda part: part[:, 0], OVERSEER.transcript(tree))
    params = jax.jit(OVERSEER.init)(jax.random.key(0))
    loss = jax.jit(OVERSEER.loss)

    def first_asks(transcript):
        only = jnp.zeros_like(transcript.utterances).at[:, 0].set(transcript.utterances[:, 0])
        return float(loss(params, transcript._replace(utterances=only))[0])

    changed = whole._replace(rows=whole.rows.at[:, 1:].set(1))
    np.testing.assert_allclose(first_asks(whole), first_asks(changed), rtol=1e-6)


def taught(steps: int, at_once: int = 64):
    """An overseer's weights, and what it was shown as it wanted more."""
    trained = trained_overseer(OVERSEER)

    @jax.jit
    def next_batch(state, shown, key):
        contexts, questions, teach, learn = jax.random.split(key, 4)
        drawn = jax.vmap(TASK.draw_context)(jax.random.split(contexts, at_once))
        asked = jax.vmap(
            lambda key, context: jax.vmap(lambda k, depth: TASK.draw_question(k, context, depth))(
                jax.random.split(key), jnp.array([1, 2])
            )
        )(jax.random.split(questions, at_once), drawn)
        helper = true_answers(TASK, drawn)
        shown, _ = imitation.demonstrate(OVERSEER, shown, helper, drawn, asked, teach)
        shown, wanted = imitation.next_batch(OVERSEER, state.params, shown, learn)
        state, _ = update_if(trained, {}, state, wanted)
        return state, imitation.update_budget(OVERSEER, shown)

    state = fresh_role(trained, jax.jit(OVERSEER.init)(jax.random.key(1)))
    shown = imitation.begin(OVERSEER, at_once)
    for number in range(steps):
        state, shown = next_batch(state, shown, jax.random.fold_in(jax.random.key(2), number))
    return state.params, shown


@pytest.fixture(scope="module")
def learned():
    return taught(400)


def test_imitation_reproduces_held_out_demonstrations(learned):
    params, shown = learned
    _, tree = demonstrations(512)
    held_out = jax.tree.map(lambda part: part[:, 1], OVERSEER.transcript(tree))
    _, metrics = jax.jit(OVERSEER.loss)(params, held_out)
    assert float(metrics["exact"]) >= 0.99
    assert float(shown.validation_loss) < 0.1


def test_demonstrations_are_used_as_the_budget_says(learned):
    _, shown = learned
    assert 500 <= int(shown.used) < 500 + 400
    assert int(shown.used) == int(shown.wanted)


def test_driven_it_takes_questions_apart_as_it_was_shown(learned):
    params, _ = learned
    problems, tree = demonstrations(64)
    everywhere = jnp.ones((64, 2), bool)

    @jax.jit
    def run(contexts, questions):
        told = true_answers(TASK, contexts)
        bound = OVERSEER.using(params)
        respond = amplified(TASK, bound, told, contexts, depth=1)
        return respond(questions, everywhere, jax.random.split(jax.random.key(0), (64, 2)))

    answered = run(problems.contexts, problems.questions)
    assert np.mean(np.asarray(answered.answer == tree.answer)) >= 0.98
    for shown, said in zip(tree.steps, answered.steps, strict=True):
        same = jnp.where(
            shown.asked, said.asked & jnp.all(shown.sub.question == said.sub.question, -1), True
        )
        assert float(jnp.mean(same)) >= 0.98


@pytest.mark.parametrize(("loss", "rate"), [(0.5, 1.0), (0.1, 1.0), (0.05, 0.1), (0.001, 0.01)])
def test_the_budget_slows_down_as_imitation_gets_better(loss, rate):
    shown = imitation.begin(OVERSEER, 8)._replace(validation_loss=jnp.float32(loss))
    more = imitation.update_budget(OVERSEER, shown)
    np.testing.assert_allclose(float(more.wanted), 500 + rate, rtol=1e-6)


def test_a_larger_allowance_scales_the_budget():
    overseer = dataclasses.replace(CONFIG, demonstrations_per_step=10.0).build(TASK)
    shown = imitation.begin(overseer, 8)._replace(validation_loss=jnp.float32(0.05))
    assert float(imitation.update_budget(overseer, shown).wanted) == 501


def test_the_cap_on_demonstrations_holds():
    overseer = dataclasses.replace(CONFIG, demonstrations=500).build(TASK)
    assert float(imitation.update_budget(overseer, imitation.begin(overseer, 8)).wanted) == 500


@pytest.mark.parametrize(
    ("overseer", "said"),
    [
        ({"kind": "learned", "demonstrations": 499}, "overseer.demonstrations must be greater"),
        ({"kind": "learned", "noise": -0.1}, "overseer.noise must be greater than or equal to 0"),
        ({"kind": "learned", "width": 30}, "overseer.heads must divide overseer.width (30)"),
        ({"kind": "simulated", "noise": 2}, "overseer.noise must be less than or equal to 1"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, overseer, said):
    table = {
        "task": {"kind": "wildcard"},
        "assistant": {"kind": "fact-transformer"},
        "overseer": overseer,
    }
    with pytest.raises(AmplifyError) as error:
        parse_experiment(table, tmp_path / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["simulated", "learned"])
def test_there_must_be_somebody_to_follow_or_to_learn_from(tmp_path, kind):
    (tmp_path / "mine.py").write_text(
        "from amplify.tasks.algorithmic.wildcard import Wildcard\n"
        "class Mine(Wildcard):\n    strategy = None\n"
    )
    table = {
        "task": {"kind": "mine.py:Mine"},
        "assistant": {"kind": "fact-transformer"},
        "overseer": {"kind": kind},
    }
    with pytest.raises(AmplifyError, match=f"'{kind}' needs a task with a strategy.* Mine has"):
        parse_experiment(table, tmp_path / "experiment.toml")


def test_noise_replaces_its_share_of_answers_by_any_token():
    overseer = dataclasses.replace(CONFIG, noise=0.4).build(TASK)
    noisy, clean = (
        o.using(jax.jit(OVERSEER.init)(jax.random.key(0))) for o in (overseer, OVERSEER)
    )
    question = jnp.asarray(read_question(TASK, "2^3"))
    questions = jnp.broadcast_to(question, (8000, *question.shape))
    keys = jax.random.split(jax.random.key(3), 8000)

    def answer(overseer):
        strategy = overseer(questions, keys)
        try:
            next(strategy)
            while True:
                strategy.send(jnp.ones((8000, 1), jnp.int32))
        except StopIteration as end:
            return end.value

    same = float(jnp.mean(answer(noisy) == answer(clean)))
    # A random token, "don't know" among them, is what the overseer would have said one time in 5.
    assert abs(same - (1 - 0.4 * 4 / 5)) < 0.02
