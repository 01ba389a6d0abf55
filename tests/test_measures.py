"""Measures: how they are declared, read from evals rows, and summed up."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from amplify.errors import AmplifyError
from amplify.evaluation.items import Items, both_measured, difference
from amplify.evaluation.measures import (
    ALONE,
    ALONE_IF_FOUND,
    AMPLIFIED,
    CEILING,
    CONSISTENT,
    FOUND,
    KNOWN,
    Measure,
    in_order,
    recorded_measures,
    undeclared,
)
from amplify.evaluation.measuring import evaluate, measures_of
from amplify.evaluation.statistics import average
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.overseers.language_model import LanguageModelOverseer
from amplify.overseers.learned import LearnedConfig
from amplify.overseers.simulated import SimulatedConfig
from amplify.reading.experiment_file import read_experiment
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.problems import draw_problems
from tests.malformed import TASK
from tests.tiny import TOML, tiny_experiment

TRUTHLESS = TASK.replace("def truth(", "def count(").replace("self.truth(", "self.count(")
TRUTHLESS = TRUTHLESS.replace(
    "    def is_right(", "    truth = is_right = None\n\n    def is_alike("
)
"""The task of the README, for which nobody knows which answers are right."""


def row(question="a", split="final", **more):
    return {"split": split, "problem": f"0:{question}", "question": question, "class": "x", **more}


# Declarations


def test_measures_are_in_the_order_of_their_declarations_and_others_follow_under_their_names():
    names = ["new", "found", "alone", "new", "older"]
    assert in_order(names, [ALONE, FOUND]) == [ALONE, FOUND, undeclared("new"), undeclared("older")]
    assert in_order(names, [FOUND, ALONE])[:2] == [FOUND, ALONE]
    assert undeclared("new").title == "new"


def test_of_two_declarations_of_a_measure_the_first_is_meant():
    other = Measure("alone", "by itself", "Another.")
    assert in_order(["alone"], [other, ALONE]) == [other]


def test_a_record_declares_its_measures_and_an_older_one_has_those_that_were_known():
    told = [dataclasses.asdict(CEILING), {"name": "jury", "colour": "red"}]
    assert recorded_measures(json.loads(json.dumps({"measures": told}))) == [
        CEILING,
        undeclared("jury"),
    ]
    assert recorded_measures({}) == recorded_measures({"measures": 3}) == KNOWN
    odd = [{"name": "jury", "title": 7, "share": "no"}, "jury", {"title": "nameless"}]
    assert recorded_measures({"measures": odd}) == [undeclared("jury")]


def test_which_measures_there_are_depends_on_task_and_overseer(tmp_path):
    task = Wildcard(letters=3)
    assistant = FactTransformerConfig().build(task)
    simulated = measures_of(task, assistant, SimulatedConfig().build(task))
    assert [(m.name, m.constant) for m in simulated] == [
        ("alone", False),
        ("amplified", False),
        ("ceiling", True),
    ]
    learned = measures_of(task, assistant, LearnedConfig().build(task))
    assert not any(measure.constant for measure in learned)
    asked = measures_of(task, assistant, LanguageModelOverseer.__new__(LanguageModelOverseer))
    assert [measure.name for measure in asked if measure.costly] == ["amplified", "ceiling"]
    folder = tiny_experiment(tmp_path / "search", '[task]\nkind = "search"\n' + SEARCHING)
    searched = read_experiment(folder / "experiment.toml").measures
    assert [*searched] == [ALONE, AMPLIFIED, simulated[2], FOUND, ALONE_IF_FOUND]


SEARCHING = """
regions = 64
[assistant]
kind = "language-model"
width = 8
heads = 1
key_heads = 1
[overseer]
kind = "simulated"
"""


# The gate's measure, in the experiment file


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("alonee", "gate.measure must be one of alone, amplified, the measures of this experiment"),
        ("found", "got 'found'"),
        ("ceiling", "rounds can change; got 'ceiling'"),
        ("", "got ''"),
    ],
)
def test_a_gate_that_has_nothing_to_compare_is_refused_when_the_file_is_read(
    tmp_path, measure, said
):
    folder = tiny_experiment(tmp_path / "tiny", f'{TOML}\n[gate]\nmeasure = "{measure}"\n')
    with pytest.raises(AmplifyError) as error:
        read_experiment(folder / "experiment.toml")
    assert str(error.value).startswith(f"{folder}/experiment.toml: gate.measure must be one of")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_measure_that_is_nearly_named_is_suggested(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", f'{TOML}\n[gate]\nmeasure = "amplifed"\n')
    with pytest.raises(AmplifyError, match="did you mean amplified"):
        read_experiment(folder / "experiment.toml")


def test_the_default_measure_leaves_the_identity_as_it_was(tmp_path):
    def digest(name, gate):
        folder = tiny_experiment(tmp_path / name, TOML + gate)
        return read_experiment(folder / "experiment.toml").digest

    before = digest("plain", "")
    assert before == "4e695df061650786c4ea2248ff27537eab19fd7945a6d174709e05672496b5d8"
    assert digest("said", '\n[gate]\nmeasure = "alone"\n') == before
    assert digest("other", '\n[gate]\nmeasure = "amplified"\n') != before


# Tasks without a truth


def truthless(tmp_path):
    toml = TOML.replace('"wildcard"\nletters = 3', '"tally.py:Tally"\nbits = 4')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    (folder / "tally.py").write_text(TRUTHLESS, encoding="utf-8")
    return folder


def test_a_task_that_can_judge_and_not_answer_is_refused(tmp_path):
    folder = truthless(tmp_path)
    half = TRUTHLESS.replace("truth = is_right = None", "truth = None").replace("alike", "right")
    (folder / "tally.py").write_text(half, encoding="utf-8")
    with pytest.raises(AmplifyError, match="truth and is_right must both be functions, or both"):
        read_experiment(folder / "experiment.toml")


@pytest.mark.slow
def test_evals_of_a_task_without_a_truth_have_answers_and_nothing_right_or_wrong():
    found: dict = {}
    exec(compile(TRUTHLESS, "tally.py", "exec"), found)
    task = found["Tally"](bits=4)
    assistant = FactTransformerConfig(width=8, heads=1).build(task)
    overseer = SimulatedConfig().build(task)
    assert measures_of(task, assistant, overseer) == (CONSISTENT,)
    problems = draw_problems(task, 0, 0, "train", 2, [1], apart=False)
    weights = {"assistant": jax.jit(assistant.init)(jax.random.key(0))}
    items = evaluate(task, assistant, overseer, weights, problems, 0, split="final")
    assert items
    keys = {"class", "split", "problem", "context", "question", "answer", "probability"}
    assert all(item.as_row().keys() == keys | {"consistent"} for item in items)


# Rows


def test_right_or_wrong_is_one_or_nought_whichever_way_it_is_written():
    flags = Items.of([row("a", alone=True), row("b", alone=False), row("c", alone=True)])
    numbers = Items.of([row("a", alone=1.0), row("b", alone=0), row("c", alone=1)])
    assert flags.column("alone").tolist() == numbers.column("alone").tolist() == [1, 0, 1]
    assert flags.means() == numbers.means()


def test_a_missing_value_is_neither_nought_nor_counted():
    items = Items.of([row("a", jury=1.0), row("b", jury=0.5), row("c", alone=True)])
    assert items.measures == ["jury", "alone"]
    assert items.mean("jury").estimate == 0.75
    assert items.mean("alone").estimate == 1
    assert items.mean("nothing") is None
    assert items.where(items.question == "c").means().keys() == {"alone"}


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "much", [1]])
def test_a_measure_that_is_no_finite_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match="jury must be a finite number, or left out if it is"):
        Items.of([row("a", jury=0.5), row("b", jury=value)])


def test_texts_and_what_describes_the_answer_are_no_measures():
    described = {"truth": "1", "answer": "2", "probability": 0.5, "note": "why", "round": 3}
    items = Items.of([row("a", alone=True, **described)])
    assert items.measures == ["alone"]


def test_alone_if_found_is_of_those_whose_passages_were_found():
    rows = [
        row("a", alone=True, found=True),
        row("b", alone=False, found=True),
        row("c", alone=True, found=False),
        row("d", alone=True),
    ]
    items = Items.of(rows)
    assert items.mean("alone_if_found").estimate == 0.5
    assert "alone_if_found" not in Items.of(rows[3:]).measures


def test_pairs_are_of_questions_that_both_rounds_measured():
    before = Items.of([row("a", jury=0.0), row("b", jury=1.0), row("c")])
    after = Items.of([row("a", jury=1.0), row("b"), row("c", jury=1.0)])
    one, two = both_measured(before, after, "jury")
    assert one.question.tolist() == two.question.tolist() == ["a"]
    assert difference(before, after, "jury").delta == 1.0
    assert both_measured(before, after, "alone") is None
    assert difference(before, after, "alone") is None


def test_no_difference_of_what_is_no_share_is_taken():
    one, two = (Items.of([row(q, jury=value) for q in "abcd"]) for value in (0.5, 1.5))
    assert difference(one, two, "jury") is None


# Means of what is no share


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=30).filter(lambda v: len({*v}) > 1))
def test_the_mean_of_independent_values_has_students_interval(values):
    column = np.array(values, float)
    found = average(column, np.arange(len(values)))
    error = column.std(ddof=1) / math.sqrt(len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, column.mean(), error)
    assert found == pytest.approx((column.mean(), low, high))


def test_questions_about_one_context_do_not_narrow_the_interval_of_a_mean():
    values, contexts = np.array([1.0, 2.0, 4.0, 7.0]), np.arange(4)
    once = average(values, contexts)
    often = average(np.repeat(values, 50), np.repeat(contexts, 50), np.arange(200))
    assert often == pytest.approx(once)


@pytest.mark.parametrize("values", [[2.0, 2.0, 2.0, 2.0], [1.0, 3.0]])
def test_a_mean_has_no_interval_where_nothing_varies_or_contexts_are_too_few(values):
    found = average(np.array(values), np.arange(len(values)))
    assert (found.estimate, found.interval) == (2.0, None)
