"""The Python interface: its numbers are those of the tables, to the last item."""

import doctest
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import amplify
from amplify import api, signals
from amplify.cli.commands import main
from amplify.evaluation import measures
from amplify.evaluation.items import ALL
from tests.test_groups import seeded
from tests.tiny import tiny_experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As the doctests name it: `rounds/wildcard`, in the current folder."""
    top = tmp_path_factory.mktemp("api")
    made = tiny_experiment(top / "rounds/wildcard")
    amplify.open(made).run(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        yield made


@pytest.fixture(scope="module")
def experiment(folder):
    return amplify.open("rounds/wildcard")


def test_every_example_in_the_documentation_says_what_happens(experiment):
    problems = experiment.held_out("final", contexts=10)
    names = {"amplify": amplify, "experiment": experiment, "problems": problems}
    found = doctest.testmod(api, extraglobs=names)
    assert found.attempted >= 10
    assert not found.failed


def test_every_example_on_the_page_about_the_interface_says_what_happens(folder):
    page = Path(__file__).parents[1] / "docs/python.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted >= 10
    assert not found.failed


def test_the_untrained_round_has_no_training_curve(experiment):
    assert experiment.round(0).metrics.empty
    assert not experiment.round(1).metrics.empty


def test_all_names_are_there():
    assert set(dir(amplify)) == set(amplify.__all__)
    assert all(getattr(amplify, name) for name in amplify.__all__)
    assert len(amplify.__all__) <= 12
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        amplify.opne  # noqa: B018


@pytest.mark.parametrize("number", [0, 2])
def test_answers_are_those_of_evals_to_the_last_item(experiment, number):
    this = experiment.round(number)
    for split in ("select", "final"):
        problems = experiment.held_out(split)
        answers = this.assistant.answer(problems.contexts, problems.questions)
        ours = {
            (name, question): (answer, round(float(probability), 4))
            for name, *columns in zip(
                problems.names, problems.texts, answers.texts, answers.probabilities, strict=True
            )
            for question, answer, probability in zip(*columns, strict=True)
        }
        rows = this.evals[this.evals["split"] == split]
        theirs = {
            (row.problem, row.question): (row.answer, row.probability) for row in rows.itertuples()
        }
        assert theirs == ours


def test_results_are_those_of_the_command(experiment, folder, capsys):
    main(["compare", str(folder), "--json"])
    rows = json.loads(capsys.readouterr().out)
    table = amplify.compare(folder).table
    assert table.alone.tolist() == [row["alone"] for row in rows]
    assert experiment.results.equals(table)
    assert not any(isinstance(value, dict | list) for value in table.to_numpy().ravel())
    lows = [(row["intervals"]["alone"] or [math.nan])[0] for row in rows]
    assert np.array_equal(table["alone.low"], lows, equal_nan=True)
    assert table["interval.high"].tolist() == table["alone.high"].tolist()
    assert table["cost.seconds"].tolist() == [row["cost"]["seconds"] for row in rows]
    assert table["calls.evals.evals.overseer"][0] == rows[0]["calls"]["evals"]["evals"]["overseer"]
    ledger = experiment.ledger
    assert not any(isinstance(value, dict | list) for value in ledger.to_numpy().ravel())
    final = experiment.best.evals.query("split == 'final'")
    of_best = table.query(f"round == {experiment.best.number} and split == 'final'")
    means = final.groupby("class").alone.mean().to_dict()
    assert means | {ALL: final.alone.mean()} == pytest.approx(
        dict(zip(of_best["class"], of_best["alone"], strict=True)), abs=1e-4
    )


def test_texts_are_read_as_the_questions_that_they_are(experiment):
    policy, problems = experiment.best.assistant, experiment.held_out("final", contexts=4)
    by_tokens = policy.answer(problems.contexts, problems.questions)
    by_texts = policy.answer(problems.contexts, problems.texts)
    assert by_tokens.texts == by_texts.texts
    assert np.array_equal(by_tokens.probabilities, by_texts.probabilities)


def test_what_a_notebook_shows_of_an_object_is_short(experiment):
    assert repr(experiment.held_out("final")) == "Problems(24 contexts, 6 questions about each)"
    problems = experiment.held_out("final", contexts=2)
    answers = experiment.best.assistant.answer(problems.contexts, problems.questions)
    assert repr(answers) == "Answers(2 contexts, 6 answers about each)"
    assert repr(experiment.best.assistant).startswith("Policy(assistant of round ")


def test_samples_are_drawn_by_their_seed(experiment):
    policy, problems = experiment.round(0).assistant, experiment.held_out("final")
    one, again, other = (
        policy.answer(problems.contexts, problems.questions, seed=seed).tokens for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_round_tells_its_metrics_trees_and_cost(experiment):
    this = experiment.round(1)
    assert this.metrics["step"].tolist() == [10, 20, 30, 40, 50, 60]
    tree = this.trees[0]
    found = this.tree(tree["row"], tree["column"]).tree
    assert found["answer"] == tree["answer"]
    assert this.ledger["overseer_answers"] == 96 * 4
    assert experiment.ledger.set_index("round").overseer_answers[1] == 96 * 4
    assert this.record["status"] == "done"
    assert repr(this).startswith("Round(1, ")


def test_a_comparison_is_a_picture_in_a_notebook(experiment, folder):
    comparison = amplify.compare([experiment, str(folder)])
    assert comparison._repr_png_().startswith(b"\x89PNG")
    written = comparison.save()
    assert {path.suffix for path in written} == {".png", ".html"}
    assert all(path.parent == folder.relative_to(Path.cwd()) for path in written)


@pytest.mark.parametrize(
    ("contexts", "questions", "said"),
    [
        (None, [["a**"]], "contexts must be given"),
        (np.zeros((1, 8, 9), int), [["a**"]], "contexts must be integers of shape (batch, 8"),
        ("ours", [["a**"], ["b**", "a**"]], "each context must have the same number"),
        ("ours", [["a*"]], "is no question"),
        ("ours", ["a**"], "questions must be a list of texts for each context: [['one', 'two']]"),
        ("ours", np.zeros((2, 1, 3), int), "must have equal length, got 1 and 2"),
        ("ours", np.full((1, 1, 3), 99), "questions must be tokens 0 to"),
        ("ours", np.zeros((1, 1, 3)), "got float64 of shape (1, 1, 3)"),
    ],
)
def test_what_does_not_fit_the_task_is_one_clear_line(experiment, contexts, questions, said):
    if isinstance(contexts, str):
        contexts = experiment.held_out("final", contexts=1).contexts
    with pytest.raises(amplify.AmplifyError) as error:
        experiment.best.assistant.answer(contexts, questions)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_one_clear_line(experiment, tmp_path):
    with pytest.raises(amplify.AmplifyError, match="no finished round 7; there are 0, 1, 2"):
        experiment.round(7)
    with pytest.raises(amplify.AmplifyError, match="a split is one of select, final"):
        experiment.held_out("train")
    with pytest.raises(amplify.AmplifyError, match=r"1 to 24 \(evals.final: .*, got 25"):
        experiment.held_out("final", contexts=25)
    with pytest.raises(amplify.AmplifyError, match="no such folder"):
        amplify.open(tmp_path / "none")
    with pytest.raises(amplify.AmplifyError, match="nothing to compare"):
        amplify.compare([])
    fresh = amplify.open(tiny_experiment(tmp_path / "fresh"))
    with pytest.raises(amplify.AmplifyError, match="no finished round"):
        fresh.best  # noqa: B018
    with pytest.raises(amplify.AmplifyError, match="1 or more, got 0"):
        fresh.run(0)


# --- the columns that docs/python.md lists ------------------------------------------------------

WORDS = {
    "ACTION": "[a-z]+",
    "STAGE": r"[^.]+",
    "PURPOSE": "(signal|evals|looks)",
    "PART": ".+",
    "CLASS": ".+",
    "COST": "[a-z_]+",
}
OPTIONAL = {
    "`Round.metrics`": {
        "calls/PART", "effort/ACTION", "tokens", "demonstrations", "overseer_loss", "size",
        "reward", "kl", "beta", "clipped",
    },
    "`Round.signal`": {"weight"},
}  # fmt: skip
"""Columns that other kinds of training than the tiny experiment's have."""


def listed_columns():
    """The names in each part of the page's section on columns, by heading."""
    page = (Path(__file__).parents[1] / "docs/python.md").read_text(encoding="utf-8")
    section = page.partition("## Columns\n")[2].partition("\n## ")[0]
    parts = [part.partition("\n") for part in section.split("### ")[1:]]
    return {
        heading: re.findall(r"^- `([^`]+)`: ", text, re.MULTILINE) for heading, _, text in parts
    }


def pattern(name, known):
    words = WORDS | {"MEASURE": f"({'|'.join(known)})"}
    return re.compile(re.sub("[A-Z]+", lambda found: words[found[0]], name.replace(".", r"\.")))


def test_the_page_says_what_each_column_means(experiment, tmp_path):
    listed = listed_columns()
    known = listed.pop("Measures")
    seeds = [seeded(tmp_path / f"x{seed}", seed, "seed = 0").path for seed in (0, 1)]
    other = seeded(tmp_path / "other", 0, "per_depth = 3").path
    compared = amplify.compare([*seeds, other])
    frames = {
        "`Experiment.results` and `Comparison.table`": experiment.results,
        "`Experiment.ledger`": experiment.ledger,
        "`Round.evals`": experiment.best.evals,
        "`Round.metrics`": experiment.round(1).metrics,
        "`Round.signal`": experiment.round(1).signal,
        "`Comparison.seeds`": compared.seeds,
        "`Comparison.differences`": compared.differences,
    }
    assert listed.keys() == frames.keys()
    for heading, frame in frames.items():
        patterns = {name: pattern(name, known) for name in listed[heading]}
        for column in frame.columns:
            assert any(one.fullmatch(column) for one in patterns.values()), (heading, column)
        for name, one in patterns.items():
            there = any(one.fullmatch(column) for column in frame.columns)
            assert there or name in OPTIONAL.get(heading, ()), (heading, name)
    table = amplify.compare("rounds/wildcard").table
    assert list(table.columns) == list(experiment.results.columns)


def test_the_page_says_what_each_measure_means():
    page = (Path(__file__).parents[1] / "docs/python.md").read_text(encoding="utf-8")
    declared = [one for one in vars(measures).values() if isinstance(one, measures.Measure)]
    said = " ".join(page.split())
    for measure in declared:
        assert f"- `{measure.name}`: {measure.meaning}" in said
    assert listed_columns()["Measures"] == [measure.name for measure in declared]


def test_the_page_says_what_each_column_of_a_signal_means():
    page = (Path(__file__).parents[1] / "docs/python.md").read_text(encoding="utf-8")
    said = " ".join(page.split())
    for name, meaning in signals.DESCRIPTIONS.items():
        assert f"- `{name}`: {meaning}" in said
