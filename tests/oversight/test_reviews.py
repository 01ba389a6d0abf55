"""Reviews as choices of the best of several answers and as scores, and what they teach."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.files.json_lines import read_lines
from amplify.models.reward_model import RewardModel, RewardModelConfig
from amplify.overseers.judge import JudgeConfig, certainty, highest
from amplify.overseers.reviewers import Choices, draw_order
from amplify.oversight.reviews.predicting import PredictChoices, PredictScores
from amplify.oversight.reviews.preferences import (
    Reviewed,
    _in_one_column,
    _review,
    as_signal,
    check_informative,
    standardise,
)
from amplify.oversight.reviews.samples import Samples
from amplify.reading.experiment_file import read_experiment
from amplify.store import Store
from amplify.tasks.essays.task import Essays
from amplify.training import dataset
from amplify.types import Problems, Scores
from tests.tiny import JUDGED_ESSAYS, REVIEWED_ESSAYS, tiny_experiment

TASK = Essays(length=5, families=2, claims_per_family=4, key_claims=2, blind_family=-1)
ROWS, QUESTIONS = 6, 4
SCORED = RewardModelConfig(members=3, width=8, reviews_as="scores")


def best_of(candidates: int, **more) -> RewardModelConfig:
    return RewardModelConfig(members=3, width=8, candidates=candidates, **more)


def reviews(number: int) -> dict:
    """Reviews of random essays, `number` to each question."""
    keys = jax.random.split(jax.random.key(0), 3)
    answers = jax.random.randint(keys[0], (ROWS, QUESTIONS * number, TASK.length), 1, 9)
    best = jax.random.randint(keys[1], (ROWS, QUESTIONS, 1), 0, number)
    fold = jnp.arange(ROWS * QUESTIONS, dtype=jnp.int32).reshape(ROWS, QUESTIONS) % 5
    return {
        "questions": jnp.full((*answers.shape[:2], 1), TASK.vocabulary.index("write"), jnp.int32),
        "answers": answers,
        "chosen": (best == jnp.arange(number)[None, None]).astype(jnp.int32).reshape(ROWS, -1),
        "target": jax.random.normal(keys[2], answers.shape[:2]),
        "fold": jnp.repeat(fold, number, axis=1),
    }


def fitted(config: RewardModelConfig, number: int):
    model = RewardModel(config, TASK)
    params, batch = model.init(jax.random.key(0)), reviews(number)
    rewards = np.asarray(model.rewards(params, None, batch["questions"], batch["answers"]))
    return model, params, batch, rewards.astype(np.float64)


@pytest.mark.parametrize("number", [2, 4])
def test_the_objective_is_the_softmax_over_candidates_on_the_folds_that_a_member_sees(number):
    model, params, batch, rewards = fitted(best_of(number), number)
    loss, metrics = PredictChoices(model)(params, {}, batch)
    losses, right = [], []
    for member, row, question in itertools.product(range(3), range(ROWS), range(QUESTIONS)):
        of_question = slice(question * number, (question + 1) * number)
        given = rewards[member, row, of_question]
        best = int(np.argmax(batch["chosen"][row, of_question]))
        if batch["fold"][row, of_question][0] == member:
            right.append(np.argmax(given) == best)
        else:
            losses.append(-np.log(np.exp(given[best]) / np.exp(given).sum()))
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["accuracy_on_held_out_reviews"] == pytest.approx(np.mean(right))
    assert metrics["answered"] == ROWS * QUESTIONS


@pytest.mark.parametrize("number", [2, 4])
def test_where_all_rewards_are_equal_the_accuracy_is_that_of_chance(number):
    model, params, batch, _ = fitted(best_of(number), number)
    nothing = jax.tree.map(jnp.zeros_like, params)
    _, metrics = PredictChoices(model)(nothing, {}, batch)
    assert metrics["accuracy_on_held_out_reviews"] == pytest.approx(1 / number)


def test_the_objective_of_scores_is_the_squared_error_and_its_accuracy_the_share_of_ordered_pairs():
    model, params, batch, rewards = fitted(SCORED, 1)
    target = np.asarray(batch["target"], np.float64)
    loss, metrics = PredictScores(model)(params, {}, batch)
    errors, right = [], []
    for member in range(3):
        held_out = np.asarray(batch["fold"] == member)
        errors.extend(((rewards[member] - target)[~held_out] ** 2).tolist())
        pairs = itertools.combinations(
            zip(rewards[member][held_out], target[held_out], strict=True), 2
        )
        right.extend((one[0] > two[0]) == (one[1] > two[1]) for one, two in pairs)
    assert loss == pytest.approx(np.mean(errors), rel=1e-5)
    assert metrics["accuracy_on_held_out_reviews"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("predict", [PredictChoices, PredictScores])
def test_a_member_learns_nothing_from_its_held_out_fold(predict):
    number = 3 if predict is PredictChoices else 1
    model, params, batch, _ = fitted(best_of(3) if number == 3 else SCORED, number)
    there = batch["fold"] == 1
    turned = batch | {
        "chosen": jnp.where(there, jnp.roll(batch["chosen"], 1, axis=1), batch["chosen"]),
        "target": jnp.where(there, -batch["target"], batch["target"]),
    }
    gradient = jax.jit(jax.grad(lambda params, batch: predict(model)(params, {}, batch)[0]))
    before, after = gradient(params, batch), gradient(params, turned)
    same = [
        all(jax.tree.leaves(jax.tree.map(np.array_equal, one, two)))
        for one, two in zip(before, after, strict=True)
    ]
    assert same == [False, True, False]


@pytest.mark.parametrize("predict", [PredictChoices, PredictScores])
def test_a_weight_multiplies_a_loss_and_reviews_of_weight_0_were_not_obtained(predict):
    number = 2 if predict is PredictChoices else 1
    model, params, batch, _ = fitted(best_of(2) if number == 2 else SCORED, number)
    objective = jax.jit(lambda batch: predict(model)(params, {}, batch))
    half = {name: column[:3] for name, column in batch.items()}
    weight = jnp.ones(batch["fold"].shape).at[3:].set(0)
    without, with_weight = objective(half), objective(batch | {"weight": weight})
    assert without[0] == pytest.approx(float(with_weight[0]), rel=1e-6)
    assert without[1]["accuracy_on_held_out_reviews"] == pytest.approx(
        float(with_weight[1]["accuracy_on_held_out_reviews"])
    )
    assert with_weight[1]["answered"] == 12
    unsure = objective(batch | {"weight": jnp.full(weight.shape, 0.25)})
    assert unsure[0] == pytest.approx(0.25 * float(objective(batch)[0]), rel=1e-6)


@dataclasses.dataclass(frozen=True)
class Table(RewardModel):
    """Each of eight answers of one token has a reward of its own."""

    def rewards(self, params, contexts, questions, answers):
        return params[answers[..., 0]][None]


def best_table(objective, batch) -> np.ndarray:
    value_and_gradient = jax.jit(jax.value_and_grad(lambda params: objective(params, {}, batch)[0]))

    def function(params):
        value, gradient = value_and_gradient(jnp.asarray(params, jnp.float32))
        return float(value), np.asarray(gradient, np.float64)

    return scipy.optimize.minimize(function, np.zeros(8), jac=True, method="L-BFGS-B").x


def choices_among(items: np.ndarray, worth: np.ndarray) -> dict:
    """Choices by Luce's rule; nothing is held out."""
    random = np.random.default_rng(0)
    noisy = np.log(worth[items]) + random.gumbel(size=items.shape)
    chosen = noisy == noisy.max(axis=-1, keepdims=True)
    rows = items.reshape(len(items), -1)
    return {
        "questions": jnp.zeros((*rows.shape, 1), jnp.int32),
        "answers": jnp.asarray(rows[..., None]),
        "chosen": jnp.asarray(chosen.reshape(rows.shape).astype(np.int32)),
        "fold": jnp.ones(rows.shape, jnp.int32),
    }


@pytest.mark.parametrize("number", [2, 4])
def test_fitted_rewards_are_those_of_hunters_algorithm(number):
    """An oracle without gradients: Hunter 2004, "MM algorithms for generalized Bradley-Terry
    models", equation 30. An item's worth is its wins over the sum of 1 / (worth of the set).
    """
    random = np.random.default_rng(number)
    items = np.argsort(random.random((1500, 8)), axis=1)[:, :number]
    batch = choices_among(items, np.exp(random.normal(size=8)))
    won = items[np.asarray(batch["chosen"]).reshape(items.shape) == 1]
    worth = np.ones(8)
    for _ in range(500):
        share = np.repeat(1 / worth[items].sum(axis=1, keepdims=True), number, axis=1)
        worth = np.bincount(won, minlength=8) / np.bincount(items.ravel(), share.ravel(), 8)
        worth /= worth.sum()
    model = Table(RewardModelConfig(candidates=number), TASK)
    found = best_table(PredictChoices(model), batch)
    np.testing.assert_allclose(
        found - found.mean(), np.log(worth) - np.log(worth).mean(), atol=5e-3
    )


def test_one_reviewer_who_contradicts_nine_others_leaves_odds_of_nine_to_one():
    items = np.tile([[0, 1]], (10, 1))
    batch = choices_among(items, np.ones(8))
    batch["chosen"] = jnp.array([[1, 0]] * 9 + [[0, 1]], jnp.int32)
    found = best_table(PredictChoices(Table(RewardModelConfig(), TASK)), batch)
    assert found[0] - found[1] == pytest.approx(np.log(9), abs=1e-2)


def test_the_reward_of_an_answer_that_is_scored_often_is_its_mean_score():
    random = np.random.default_rng(0)
    items, target = random.integers(0, 8, (40, 5)), random.normal(size=(40, 5))
    batch = {
        "questions": jnp.zeros((40, 5, 1), jnp.int32),
        "answers": jnp.asarray(items[..., None]),
        "target": jnp.asarray(target, jnp.float32),
        "fold": jnp.ones((40, 5), jnp.int32),
    }
    found = best_table(PredictScores(Table(RewardModelConfig(reviews_as="scores"), TASK)), batch)
    np.testing.assert_allclose(found, [target[items == n].mean() for n in range(8)], atol=1e-3)


KEYS = jax.random.split(jax.random.key(1), (1000, 1))


@pytest.mark.parametrize(
    ("values", "often"),
    [
        ([1.0, 3.0, 2.0], {1: 1.0}),
        ([2.0, 2.0, 1.0], {0: 0.5, 1: 0.5}),
        ([0.0, 0.0, 0.0], {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}),
        ([np.nan, -5.0, np.nan], {1: 1.0}),
    ],
)
def test_the_highest_value_is_best_and_nan_never_is(values, often):
    place, there = highest(jnp.broadcast_to(jnp.array(values), (1000, 1, 3)), KEYS)
    assert there.all()
    for number in range(3):
        assert np.mean(place == number) == pytest.approx(often.get(number, 0.0), abs=0.05)


def test_where_no_value_is_a_number_there_is_no_best_one():
    _, there = highest(jnp.full((1000, 1, 3), jnp.nan), KEYS)
    assert not there.any()


@pytest.mark.parametrize("number", [2, 3, 5])
def test_each_answer_is_shown_in_each_place_equally_often(number):
    order = np.asarray(draw_order(KEYS, number))[:, 0]
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(number), (1000, 1)))
    for answer in range(number):
        assert np.mean(order[:, 0] == answer) == pytest.approx(1 / number, abs=0.05)


def test_a_choice_is_certain_if_the_margin_is_large_and_worth_nothing_if_all_are_equal():
    margins = jnp.array([0.0, 0.5, 2.0, 50.0])
    values = jnp.stack([margins, jnp.zeros(4)], axis=-1)[None]
    np.testing.assert_allclose(certainty(values)[0], np.tanh(margins / 2), atol=1e-6)
    assert certainty(jnp.array([[[3.0, 3.0, 3.0, 3.0]]])) == pytest.approx(0, abs=1e-6)
    assert certainty(jnp.array([[[jnp.nan, 0.0, 90.0]]])) == pytest.approx(1)


@pytest.mark.parametrize("errors", [0.0, 0.25])
def test_a_judge_of_several_answers_is_wrong_as_often_as_it_errs(errors):
    judge = JudgeConfig(errors=errors).build(TASK)
    keys = jax.random.split(jax.random.key(0), 300)
    contexts = jax.vmap(TASK.draw_context)(keys)
    candidates = jax.random.randint(keys[0], (300, 4, 4, TASK.length), 1, TASK.claims + 1)
    questions = jnp.full((300, 4, 1), TASK.vocabulary.index("write"), jnp.int32)
    of_answers = jax.vmap(TASK.gold, in_axes=(None, None, 0))
    value = jax.jit(jax.vmap(jax.vmap(of_answers, in_axes=(None, 0, 0))))(
        contexts, questions, candidates
    )
    asked = (contexts, questions, candidates, jax.random.split(keys[1], (300, 4)))
    found = jax.jit(judge.choose)({}, *asked)
    chosen = jnp.take_along_axis(value, found.best[..., None], axis=-1)[..., 0]
    assert np.mean(chosen < value.max(axis=-1) - 1e-5) == pytest.approx(errors, abs=0.04)


def reviewed(value, obtained=None) -> Reviewed:
    value = np.asarray(value)
    obtained = np.ones(value.shape, bool) if obtained is None else np.asarray(obtained)
    return Reviewed(value, obtained, obtained.astype(np.float32), {}, [], "")


def samples(rows: int, number: int, same: bool = False) -> Samples:
    answers = np.random.default_rng(0).integers(1, 99, (rows, 1, number, 5)).astype(np.int32)
    answers = np.ones_like(answers) if same else answers
    return Samples(answers, np.zeros((rows, 1), np.int32))


@pytest.mark.parametrize(
    ("config", "rows", "missing", "same", "said"),
    [
        (best_of(2), 9, 0, False, "at least 10 reviews, got 9: increase oversight.reviews"),
        (best_of(2), 20, 11, False, "at least 10 reviews, got 9"),
        (best_of(2), 20, 0, True, "two answers of every comparison .* gives the same answer"),
        (best_of(4), 20, 0, True, "the 4 answers of every choice .* gives the same answer"),
        (SCORED, 9, 0, False, "at least 10 reviews, got 9"),
        (SCORED, 20, 0, True, "all answers that were scored are equal"),
        (SCORED, 20, 0, False, "all 20 scores are 7, so that no reward model can be learned"),
    ],
)
def test_reviews_that_teach_nothing_are_rejected(config, rows, missing, same, said):
    value = np.full((rows, 1), 7.0 if config is SCORED else 1)
    obtained = np.arange(rows)[:, None] >= missing
    with pytest.raises(AmplifyError, match=said):
        check_informative(config, samples(rows, config.shown, same), reviewed(value, obtained))


def test_scores_are_standardised_without_those_that_are_missing():
    scores = np.array([[2.0, 4.0], [0.0, 6.0]])
    found = standardise(scores, np.array([[True, True], [False, True]]))
    np.testing.assert_allclose(found, [[-np.sqrt(1.5), 0.0], [0.0, np.sqrt(1.5)]], rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class Broken:
    """Its first score is NaN and its second is missing; it chooses nothing in the first row."""

    traced = True

    def score(self, roles, contexts, questions, candidates, keys):
        value = jnp.full(keys.shape, 5.0).at[0, 0].set(jnp.nan)
        return Scores(value, jnp.ones(keys.shape, bool).at[0, 1].set(False))

    def choose(self, roles, contexts, questions, candidates, keys):
        obtained = jnp.ones(keys.shape, bool).at[0].set(False)
        return Choices(jnp.ones(keys.shape, jnp.int32), jnp.full(keys.shape, 0.5), obtained)


def reviewed_by_a_broken_judge(config):
    problems = Problems(
        jnp.zeros((2, 2), jnp.uint32),
        jnp.zeros((2, TASK.facts, TASK.fact_length), jnp.int32),
        jnp.ones((2, 2, 1), jnp.int32),
    )
    answers = jnp.ones((2, 2, config.shown, TASK.length), jnp.int32)
    return problems, _review(Broken(), config, {}, jax.random.key(0), problems, answers)


def test_a_score_that_is_missing_or_not_a_number_is_never_a_value():
    _, found = reviewed_by_a_broken_judge(SCORED)
    assert found["obtained"].tolist() == [[False, False], [True, True]]
    assert found["weight"].tolist() == [[0, 0], [1, 1]]
    assert found["value"].tolist() == [[0, 0], [5, 5]]


def test_a_choice_weighs_what_the_judge_is_sure_of_and_nothing_if_it_is_missing():
    config = best_of(2, confidence=True)
    problems, found = reviewed_by_a_broken_judge(config)
    assert found["weight"].tolist() == [[0, 0], [0.5, 0.5]]
    _, same = reviewed_by_a_broken_judge(best_of(2))
    assert same["weight"].tolist() == [[0, 0], [1, 1]]
    many = {name: np.tile(np.asarray(column), (5, 1)) for name, column in found.items()}
    said = Reviewed(many["value"], many["obtained"], many["weight"], {}, [], "")
    answers = np.random.default_rng(0).integers(1, 9, (10, 2, 2, TASK.length)).astype(np.int32)
    tiled = Problems(*(jnp.tile(part, (5,) + (1,) * (part.ndim - 1)) for part in problems))
    columns = as_signal(config, tiled, Samples(answers, np.zeros((10, 2), np.int32)), said)
    assert columns["chosen"][:2].tolist() == [[0, 0, 0, 0], [0, 1, 0, 1]]
    assert columns["weight"][:2].tolist() == [[0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]
    np.testing.assert_array_equal(columns["answers"][:, 2:], answers[:, 1])


def test_comparisons_of_earlier_versions_are_read():
    """They had the two answers in two columns."""
    row = {
        "context": np.zeros((3, 2)),
        "questions": np.array([[1], [2]]),
        "answers": np.array([[1, 1], [2, 2]]),
        "others": np.array([[3, 3], [4, 4]]),
        "prefers_first": np.array([1, 0]),
        "fold": np.array([0, 4]),
        "weight": np.array([1.0, 0.0]),
    }
    found = {name: column.tolist() for name, column in _in_one_column(row).items()}
    assert found["answers"] == [[1, 1], [3, 3], [2, 2], [4, 4]]
    assert found["chosen"] == [1, 0, 0, 1]
    assert found["questions"] == [[1], [1], [2], [2]]
    assert (found["fold"], found["weight"]) == ([0, 0, 4, 4], [1, 1, 0, 0])


@pytest.mark.parametrize(
    ("toml", "more", "said"),
    [
        (JUDGED_ESSAYS, 'reviews_as = "stars"', "reviews_as must be 'preferences' or 'scores'"),
        (JUDGED_ESSAYS, "candidates = 1", "candidates must be greater than or equal to 2, got 1"),
        (JUDGED_ESSAYS, 'reviews_as = "scores"\ncandidates = 4', "candidates must be left out if"),
        (JUDGED_ESSAYS, 'reviews_as = "scores"\nconfidence = true', "confidence must be false if"),
        (REVIEWED_ESSAYS, "confidence = true", 'must be false unless overseer.kind = "judge"'),
        (JUDGED_ESSAYS, "reads_context = true", 'reads_context needs network = "policy"'),
        (JUDGED_ESSAYS, 'initial = "reference"', 'initial = "reference" needs network = "policy"'),
        (
            JUDGED_ESSAYS,
            'initial = "reference"\nnetwork = "policy"',
            'initial = "reference" needs assistant.kind = "language-model"',
        ),
    ],
)
def test_kinds_of_reviews_that_do_not_fit_are_rejected_in_one_line(tmp_path, toml, more, said):
    toml = toml.replace("members = 2", f"members = 2\n{more}")
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert said in str(error.value)
    assert "oversight.reward_model." in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "part", "column", "shown", "chance"),
    [
        ('reviews_as = "scores"', "judge, scores", "score", 1, 0.5),
        ("candidates = 4\nconfidence = true", "judge, best of 4", "chosen", 4, 0.25),
    ],
    ids=["scores", "best of 4"],
)
def test_a_round_learns_from_other_reviews(tmp_path, more, part, column, shown, chance):
    toml = JUDGED_ESSAYS.replace("members = 2", f"members = 2\n{more}")
    folder = tiny_experiment(tmp_path / "tiny", toml)
    main(["round", str(folder), "--n", "1"])
    this = Store(folder).round(1)
    calls = {(row["stage"], row["part"]): row["calls"] for row in this.record["ledger"]["calls"]}
    assert calls["reviews/data", part] == 200
    assert calls["reviews/data", "assistant"] == 200 * shown
    facts = this.record["stages"]["reviews/data"]
    assert (facts["reviews"], facts["answers_read"]) == (200, 200 * shown)
    rows = list(dataset.read(this.phase("reviews").data))
    assert rows[0][column].shape == (4 * shown,)
    log = read_lines(this.phase("reviews").metrics)
    accuracy = [row["accuracy_on_held_out_reviews"] for row in log]
    assert np.mean(accuracy[-3:]) > chance + 0.1


ALGORITHMIC = JUDGED_ESSAYS.replace(
    JUDGED_ESSAYS[JUDGED_ESSAYS.index('kind = "essays"') : JUDGED_ESSAYS.index("[assistant]")],
    'kind = "{}"\n{}\n\n',
)
ALGORITHMIC = ALGORITHMIC.replace(
    "members = 2", 'members = 2\nnetwork = "policy"\nreads_context = true'
).replace('measure = "beats_draft"\n', "")


@pytest.mark.slow
def test_a_round_learns_from_reviews_of_answers_that_are_right_or_wrong(tmp_path):
    toml = ALGORITHMIC.format("permutation", "symbols = 6\nbits = 2")
    folder = tiny_experiment(tmp_path / "tiny", toml)
    main(["round", str(folder), "--n", "1"])
    this = Store(folder).round(1)
    assert this.complete
    rows = list(dataset.read(this.phase("reviews").data))
    answers = np.stack([row["answers"] for row in rows])
    assert {*answers.ravel().tolist()} <= {*range(7)}
    assert len({*answers.ravel().tolist()}) > 4
    assert {"alone"} <= {*read_lines(this.evals)[0]}


def test_tasks_with_right_answers_fit_reviews(tmp_path):
    for kind, sizes in (("permutation", "symbols = 6"), ("assignments", "")):
        folder = tiny_experiment(tmp_path / kind, ALGORITHMIC.format(kind, sizes))
        experiment = read_experiment(folder / "experiment.toml")
        assert [measure.name for measure in experiment.measures] == ["alone"]
