"""Tables, plots and pages of fake rounds, each of which learns one class more."""

import dataclasses
import hashlib
import html.parser
import io
import json
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from amplify import report
from amplify.errors import AmplifyError, command, round_command
from amplify.evaluation import figures
from amplify.evaluation.items import ALL, Difference, Items, difference
from amplify.evaluation.measures import ALONE, KNOWN
from amplify.evaluation.statistics import Proportion, compare, judge
from amplify.files import writing
from amplify.report import formats, pages, plots
from amplify.report.curve import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, curve, measures_curve
from amplify.report.keys import key_rows
from amplify.report.results import Score, best, finished_rounds, read_results
from amplify.store import Store

CLASSES = ("1 wildcard", "2 wildcards", "3 wildcards")
SCRIPT = "<script>alert(1)</script>"
MINUS = "\N{MINUS SIGN}"
LAST = 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("rounds") / "wildcard")


@pytest.fixture
def store(tmp_path, finished):
    return Store(shutil.copytree(finished.path, tmp_path / "wildcard"))


def write_experiment(folder, rounds=LAST + 1, items=None, letters=3, gate=""):
    """Rounds 0 to `rounds` - 1, finished; `items(number)` are a round's evals."""
    folder.mkdir()
    (folder / "experiment.toml").write_text(
        f'[task]\nkind = "wildcard"\nletters = {letters}\n'
        '[assistant]\nkind = "fact-transformer"\n[overseer]\nkind = "simulated"\n'
        f"[gate]\n{gate}\n"
    )
    store = Store(folder)
    for number in range(rounds):
        write_round(store, number, (items or learning)(number))
    return Store(folder)


def learning(number, problems=40, seed=0):
    """Round n knows the classes up to the n-th, and amplified one more."""
    rows = []
    for split in ("select", "final"):
        for problem in range(problems):
            luck = random.Random(f"{seed} {split} {problem}")
            for level, label in enumerate(CLASSES, 1):
                for question in range(2):
                    draw = luck.random()
                    rows.append(
                        item(
                            split=split,
                            label=label,
                            problem=f"0:{split}{problem}",
                            question=f"{'*' * level} {question} {SCRIPT}",
                            alone=draw < (0.97 if level <= number else 0.2),
                            amplified=draw < (0.99 if level <= number + 1 else 0.1),
                        )
                    )
    return rows


def item(split, label, problem, alone, amplified=True, ceiling=True, question="a*"):
    return {
        "class": label, "split": split, "problem": problem, "question": question, "truth": "+2",
        "answer": "+2", "probability": 0.9, "alone": alone, "amplified": amplified,
        "ceiling": ceiling,
    }  # fmt: skip


def write_round(store, number, items):
    path = store.path / f"{number:03d}"
    path.mkdir()
    evals = write_lines(path / "evals.jsonl", items)
    stages = [
        ("checkpoint", {"digest": digest_of(number), "steps": 800}),
        ("evals", {"digest": evals, "items": len(items)}),
    ]
    if number:
        before = store.round(number - 1).evals.read_text().splitlines()
        verdict = judged([json.loads(line) for line in before], items, number)
        stages = [
            ("data", {"digest": "d" * 64}),
            *stages,
            ("verdict", {"against": number - 1, **verdict}),
        ]
        steps = range(50, 801, 50)
        metrics = [{"step": n, "loss": 90 / n**1.5, "agreement": 1 - 20 / n} for n in steps]
        write_lines(path / "metrics.jsonl", metrics)
        trees = [{"row": row, "column": 0, **tree(right=row != 30)} for row in range(50)]
        write_lines(path / "interactions.jsonl", trees)
    record = {
        "round": number, "status": "done", "began": "2026-11-23T10:48:24+00:00",
        "parent": {"round": number - 1, "digest": digest_of(number - 1)} if number else None,
        "experiment": json.loads(json.dumps(dict(store.experiment.values))),
        "experiment_digest": store.experiment.digest, "commit": None, "dirty": True,
        "python": "3.11.7", "versions": {"jax": "0.10.2"}, "device": "1 x cpu",
        "stages": {name: {"seconds": 2.5, "compile_seconds": 0.5} | s for name, s in stages},
        "ledger": {
            "human_seconds": 0, "overseer_answers": 131072, "assistant_answers": 98304,
            "training_steps": 800, "seconds": 10.0, "compile_seconds": 2.0,
        },
    }  # fmt: skip
    (path / "record.json").write_text(json.dumps(record))


def digest_of(number):
    """Of the checkpoint of a round."""
    return f"c{number}" * 16


def judged(before, after, number):
    columns = (
        [row["alone"] for row in rows if row["split"] == "select"] for rows in (before, after)
    )
    problems = [row["problem"] for row in after if row["split"] == "select"]
    verdict = judge(
        *map(np.array, columns),
        np.array(problems),
        round_number=number,
        error_rate=0.05,
        worthwhile=0.01,
    )
    return dataclasses.asdict(verdict)


def tree(right=True):
    below = [
        {"question": "aab", "answer": "+1", "by": "environment", "right": True, "steps": []},
        {"question": SCRIPT, "answer": "?", "by": "assistant", "right": right, "steps": []},
    ]
    return {
        "question": "*ab [red]",
        "answer": "+2",
        "by": "overseer",
        "right": right,
        "steps": below,
    }


def write_lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def change_record(store, number, **changes):
    path = store.path / f"{number:03d}" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return Store(store.path)


def printed(renderable, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable, crop=False)
    return console.file.getvalue()


class Page(html.parser.HTMLParser):
    """What of a page a browser would load or run, and what it would show."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.scripts, self.shown, self.inside = [], [], [], [], ""
        self.columns, self.tags = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "action", "poster", "background"):
                self.loads.append(value)
            elif name == "href":
                (self.links if tag == "a" else self.loads).append(value)
            assert not name.startswith("on")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside == "style":
            self.loads += re.findall(r"url\([^)]*\)|@import", data)
        else:
            self.shown.append(data)
            if self.inside == "th":
                self.columns.append(data.strip())

    @property
    def text(self):
        return " ".join(self.shown)


def every_page(store):
    round_pages = [
        report.write_round_page(store, round_.folder) for round_ in finished_rounds(store)
    ]
    [compare_page, *_] = report.write_comparison([store])
    return [*round_pages, compare_page, report.write_tree(store.path, "row 1", tree())]


# --- results -----------------------------------------------------------------------------------


def test_results_are_one_row_a_round_split_and_class_in_this_order(tmp_path):
    def items(number):
        one, two = CLASSES[:2]
        return [
            item("select", one, "0:1", alone=bool(number), amplified=True),
            item("final", two, "0:2", alone=False, amplified=False, ceiling=False),
            item("final", one, "0:2", alone=True, amplified=False),
            item("final", one, "0:3", alone=True, amplified=True),
            item("final", one, "0:3", alone=False, amplified=False, question="b*"),
            item("final", one, "0:4", alone=bool(number), amplified=False),
        ]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=items)
    nothing = (None, None, None, 0)
    expected = [
        (0, "select", "1 wildcard", 0.0, 1.0, 1.0, 1),
        (0, "select", "2 wildcards", *nothing),
        (0, "select", "3 wildcards", *nothing),
        (0, "final", "1 wildcard", 0.5, 0.25, 1.0, 4),
        (0, "final", "2 wildcards", 0.0, 0.0, 0.0, 1),
        (0, "final", "3 wildcards", *nothing),
        (1, "select", "1 wildcard", 1.0, 1.0, 1.0, 1),
        (1, "select", "2 wildcards", *nothing),
        (1, "select", "3 wildcards", *nothing),
        (1, "final", "1 wildcard", 0.75, 0.25, 1.0, 4),
        (1, "final", "2 wildcards", 0.0, 0.0, 0.0, 1),
        (1, "final", "3 wildcards", *nothing),
    ]
    keys = ("round", "split", "class", "alone", "amplified", "ceiling", "n")
    rows = report.results(store)
    assert [
        {key: row[key] for key in ("experiment", *keys)} for row in rows if row["class"] != ALL
    ] == [{"experiment": "wildcard", **dict(zip(keys, row, strict=True))} for row in expected]
    # Over all classes, the items of 0:2 with the same question count once.
    overall = [row for row in rows if row["class"] == ALL]
    assert [(row["round"], row["split"], row["n"], row["alone"]) for row in overall] == [
        (0, "select", 1, 0.0),
        (0, "final", 4, 0.375),
        (1, "select", 1, 1.0),
        (1, "final", 4, 0.625),
    ]


def test_results_have_the_interval_of_every_accuracy_that_has_one(store):
    for row in report.results(store):
        low, high = row["interval"]
        assert low <= row["alone"] <= high
        assert (row["n"], row["contexts"]) == (240 if row["class"] == ALL else 80, 40)


def test_results_have_the_verdict_the_cost_and_the_interval_of_every_measure(store):
    for row in report.results(store):
        this = store.round(row["round"])
        assert row["cost"] == this.record["ledger"]
        assert row["intervals"]["alone"] == row["interval"]
        for measure in ("alone", "amplified", "ceiling"):
            low, high = row["intervals"][measure]
            assert low <= row[measure] <= high
        verdict = this.verdict
        if verdict is None:
            assert (row["round"], row["verdict"], row["against"]) == (0, None, None)
        else:
            told = [row[key] for key in ("verdict", "reason", "against")]
            assert told == [verdict[key] for key in ("verdict", "reason", "against")]
    json.dumps(report.results(store), allow_nan=False)


def test_classes_that_the_task_does_not_name_are_not_dropped(tmp_path):
    new = [item("final", "renamed", "0:1", alone=True)]
    store = write_experiment(tmp_path / "wildcard", rounds=1, items=lambda number: new)
    assert [row["n"] for row in report.results(store)] == [0, 0, 0, 1, 1]
    assert "renamed" in printed(report.rounds_table(store))


@pytest.mark.parametrize(
    "show",
    [
        report.results,
        report.rounds_table,
        lambda store: report.comparison([store]),
        lambda store: report.write_comparison([store]),
    ],
)
def test_without_a_finished_round_the_command_that_makes_one_is_named(tmp_path, show):
    store = change_record(write_experiment(tmp_path / "wildcard", rounds=1), 0, status="started")
    with pytest.raises(AmplifyError) as error:
        show(store)
    path = tmp_path / "wildcard"
    assert str(error.value) == f"{path}: no finished round yet; run: {round_command(path, 1)}"


def test_a_half_done_round_is_not_counted_and_how_to_go_on_is_said(store):
    store = change_record(store, LAST, status="started", stages={"data": {}, "checkpoint": {}})
    assert max(row["round"] for row in report.results(store)) == LAST - 1
    line = f"round {LAST} is half done (distillation/data, distillation/checkpoint so far);"
    command = f"to go on: {round_command(store.path, LAST)}"
    for show in (report.rounds_table(store), report.comparison([store])):
        assert f"{line} {command}" in " ".join(printed(show, width=200).split())
    [page, *_] = report.write_comparison([store])
    assert line in Page(page).text


def test_evals_that_are_not_what_was_written_are_refused_with_the_command_to_redo_them(store):
    (store.path / "001" / "evals.jsonl").write_text("{}\n")
    with pytest.raises(AmplifyError, match=r"001/evals\.jsonl.* --n 1 --redo evals"):
        report.results(store)


def test_evals_that_lack_a_column_are_refused_by_its_name(tmp_path):
    rows = [item("final", CLASSES[0], "0:1", alone=True)]
    del rows[0]["problem"]
    store = write_experiment(tmp_path / "wildcard", rounds=1, items=lambda number: rows)
    with pytest.raises(AmplifyError, match=r"no 'problem'.* --n 0 --redo evals"):
        report.results(store)


def test_the_best_round_is_the_last_promoted_one(store):
    assert best(finished_rounds(store)).number == 3  # the fourth has nothing left to learn
    assert best(finished_rounds(store)[:1]).number == 0


# --- measures of every kind --------------------------------------------------------------------


def of_another_version(number):
    """Rows with a share and a number that nobody declared, and without a ceiling."""
    rows = learning(number, problems=12)
    for place, row in enumerate(rows):
        del row["ceiling"]
        row["<i>jury"] = ((place + number) % 4) / 4
        if place % 3:
            row["reward"] = 2.5 * number + place % 7
    return rows


def test_measures_that_nobody_declared_have_columns_under_their_own_names(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=3, items=of_another_version)
    last = report.results(store)[-2]
    assert list(last)[4:8] == ["alone", "amplified", "<i>jury", "reward"]
    assert last["reward"] == pytest.approx(
        np.mean([row["reward"] for row in of_another_version(2) if wanted(row)])
    )
    for show in (report.rounds_table(store), report.comparison([store])):
        text = printed(show, width=90)
        assert "<i>jury" in text
        assert "reward" in text
        assert "ceiling" not in text
    for path in every_page(store)[:-1]:
        page = Page(path)
        assert {"alone", "amplified", "<i>jury", "reward"} <= {*page.columns}
        assert "ceiling" not in page.text
        assert "<i>jury" not in path.read_text()
        assert "A measure that this version of Amplify does not know." in page.text


def wanted(row):
    return row["split"] == "final" and row["class"] == CLASSES[-1] and "reward" in row


def test_what_is_no_share_is_not_shown_in_percent_and_not_drawn(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=3, items=of_another_version)
    found = read_results(store)
    reward = next(measure for measure in found.measures if measure.name == "reward")
    assert not reward.share
    mean = found.scores[ALL][2].means["reward"]
    assert formats.mean(mean, reward) == f"{mean.estimate:.3g}"
    low, high = mean.interval
    assert formats.mean_range(mean, reward) == f"{low:.3g} to {high:.3g}"
    assert [measure.name for measure in plots.styles([found])] == ["alone", "amplified", "<i>jury"]


@pytest.mark.parametrize("name", ["_hidden", "$x^2$", "[red]", "a" * 90])
def test_a_measure_of_any_name_can_be_shown_everywhere(tmp_path, name):
    def items(number):
        return [{**row, name: 0.5} for row in learning(number, problems=3)]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=items)
    assert name[:20] in printed(report.rounds_table(store), width=200)
    assert name[:20] in printed(report.comparison([store]), width=200)
    assert all(name in Page(path).text for path in every_page(store)[:-1])


def test_a_measure_that_a_round_lacks_is_absent_there(tmp_path):
    def items(number):
        return [{**row, **({"jury": 1.0} if number else {})} for row in learning(number)]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=items)
    rows = report.results(store)
    assert ["jury" in row for row in rows] == [row["round"] == 1 for row in rows]
    before, after = read_results(store).scores[ALL]
    assert "jury" not in before.means
    assert after.means["jury"].estimate == 1


def test_what_the_gate_compares_is_what_changes_are_of(tmp_path):
    gate = 'measure = "amplified"'
    store = write_experiment(tmp_path / "wildcard", rounds=3, gate=gate)
    found = read_results(store)
    one, two = (round_.items.only("final") for round_ in found.rounds[1:])
    change = difference(one, two, "amplified")
    assert found.scores[ALL][2].change == change
    assert f"change: {found.judged.title}, from the previous round" in printed(
        report.comparison([store])
    )
    text = " ".join(Page(report.write_round_page(store, store.round(2))).text.split())
    assert "by “amplified”" in text
    assert "amplified, round 1" in text
    assert report.results(store)[-2]["interval"] == list(
        found.rounds[2].items.only("final", CLASSES[-1]).mean("amplified").interval
    )


def test_labels_are_those_that_the_round_s_record_declares(tmp_path):
    jury = {"name": "jury", "title": "agreed by a jury", "meaning": "Most of twelve agree."}

    def items(number):
        return [{**row, "jury": 0.25} for row in learning(number, problems=3)]

    store = write_experiment(tmp_path / "wildcard", rounds=1, items=items)
    store = change_record(store, 0, measures=[jury])
    assert "agreed by a jury" in printed(report.rounds_table(store))
    [page, *_] = report.write_comparison([store])
    assert "agreed by a jury" in Page(page).columns
    assert "Most of twelve agree." in Page(page).text


# --- differences -------------------------------------------------------------------------------


def test_the_difference_on_the_same_items_is_the_paired_one_of_the_comparison(store):
    one, two = (round_.items.only("final", CLASSES[1]) for round_ in finished_rounds(store)[1:3])
    columns = one.column("alone"), two.column("alone")
    expected = compare(*columns, one.clusters, one.question)
    assert difference(one, two, "alone") == Difference(
        expected.delta, expected.interval, paired=True
    )
    assert expected.delta > 0.5


def test_the_difference_on_other_items_is_newcombes():
    # Newcombe 1998, table II (a), method 10: 56/70 - 48/80 is 0.0524 to 0.3339, from Wilson's
    # intervals. Ours is wider, because it is made of exact ones.
    found = difference(counted(48, 80, "a"), counted(56, 70, "b"), "alone")
    assert not found.paired
    assert found.delta == pytest.approx(0.2)
    low, high = found.interval
    assert 0.0524 - 0.02 < low < 0.0524
    assert 0.3339 < high < 0.3339 + 0.02


def counted(right, of, name):
    rows = [item("final", "x", f"{name}{i}", alone=i < right) for i in range(of)]
    return Items.of(rows)


def test_items_in_another_order_are_paired_by_what_they_are_about():
    rows = [item("final", "x", f"0:{i}", alone=i < 5) for i in range(20)]
    same = difference(Items.of(rows), Items.of(rows[::-1]), "alone")
    assert same == difference(Items.of(rows), Items.of(rows), "alone")
    assert (same.paired, same.delta) == (True, 0.0)
    others = [item("final", "x", f"0:{i}", alone=i < 5) for i in range(1, 21)]
    assert not difference(Items.of(rows), Items.of(others), "alone").paired


def test_a_class_without_items_has_no_difference():
    none = Items.of([])
    assert difference(none, none, "alone") is None


# --- in words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100.0"), (0.99999, "99.9"), (0.5, "50.0"), (0.0001, "0.1"), (0.0, "0.0")],
)
def test_100_and_0_per_cent_are_said_only_of_exactly_that(share, text):
    assert formats.mean(Proportion(share, 0.0, 1.0), ALONE) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (1.26, "1.3 s"), (75, "75 s"), (600, "10 min"), (9000, "2 h 30 min")],
)
def test_durations_are_said_in_the_unit_that_fits(seconds, text):
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("interval", "side"),
    [((0.1, 0.3), "better"), ((-0.3, -0.1), "worse"), ((-0.1, 0.1), ""), (None, "")],
)
def test_a_change_has_a_direction_only_if_its_interval_has(interval, side):
    delta = sum(interval) / 2 if interval else 0.2
    assert formats.direction(Difference(delta, interval, paired=True)) == side


# --- in the terminal ---------------------------------------------------------------------------


def test_the_rounds_table_shows_every_class_alone_and_amplified_and_every_verdict(store):
    lines = [" ".join(line.split()) for line in printed(report.rounds_table(store)).splitlines()]
    assert "round 0 round 1 round 2 ★ round 3 round 4" in lines
    for label in (*CLASSES, ALL):
        start = next(i for i, line in enumerate(lines) if line.startswith(label))
        interval = r"\d+\.\d\N{EN DASH}\d+\.\d"
        assert re.fullmatch(rf"{label}( \d+\.\d){{5}}", lines[start])
        assert re.fullmatch(rf"{interval}( {interval}){{4}}", lines[start + 1])
        assert re.fullmatch(r"amplified( \d+\.\d){5}", lines[start + 2])
        assert re.fullmatch(rf"{interval}( {interval}){{4}}", lines[start + 3])
    for number, word in enumerate(["· untrained", *["✓ promoted"] * 3]):
        assert any(line.startswith(f"round {number} {word} took 10 s") for line in lines)
    assert "★ best round: 3." in " ".join(lines)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_of_more_rounds_than_fit_the_latest_are_shown_and_it_is_said(tmp_path, width):
    def items(number):
        return learning(min(number, 3), problems=3)

    store = write_experiment(tmp_path / "w", rounds=13, items=items)
    text = printed(report.rounds_table(store), width)
    shown = [
        int(number)
        for number in re.findall(r"round (\d+)", text.splitlines()[2] + text.splitlines()[3])
    ]
    assert shown == list(range(13 - len(shown), 13))
    assert 1 <= len(shown) < 13
    assert f"the latest {len(shown)} of 13 rounds" in text
    whole = command("compare", store.path)
    assert whole in text.splitlines()
    assert max(len(line) for line in text.splitlines() if line != whole) <= width


def test_the_comparison_shows_each_change_with_its_interval(store):
    text = printed(report.comparison([store]))
    rounds = finished_rounds(store)
    two = CLASSES[1]
    before, after = (round_.items.only("final", two) for round_ in rounds[1:3])
    change = difference(before, after, "alone")
    row = text[text.index(two) :].splitlines()[5].split()
    low, high = change.interval
    assert row[0] == "2"
    assert row[3:7] == [
        f"{100 * change.delta:+.1f}",
        f"{100 * low:+.1f}",
        "to",
        f"{100 * high:+.1f}",
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_colour_repeats_what_is_also_said(store):
    plain, coloured = (
        Console(width=80, file=io.StringIO(), color_system=c, force_terminal=True)
        for c in (None, "truecolor")
    )
    for console in (plain, coloured):
        console.print(report.comparison([store]))
    without = re.sub(r"\x1b\[[\d;]*m", "", coloured.file.getvalue())
    assert without != coloured.file.getvalue()
    assert without == plain.file.getvalue()


def test_two_experiments_on_the_same_questions_are_compared_in_pairs(store, tmp_path):
    def slower(number):
        return learning(number - 1)

    other = write_experiment(tmp_path / "slower", rounds=3, items=slower)
    text = printed(report.comparison([store, other]))
    last = text[text.index("best rounds: wildcard 3; slower 2") :]
    assert re.search(
        rf"2 wildcards .* {MINUS}\d+\.\d +{MINUS}\d+\.\d to {MINUS}\d+\.\d +paired", last
    )
    assert "unpaired" not in last.partition("Paired: both")[0]


def test_two_experiments_on_other_questions_are_compared_unpaired_and_it_is_said(store, tmp_path):
    def others(number):
        return [{**row, "problem": f"1:{row['problem']}"} for row in learning(number, seed=1)]

    other = write_experiment(tmp_path / "other", rounds=2, items=others)
    text = printed(report.comparison([store, other]))
    rows = text[text.index("best rounds: wildcard 3; other 1") :].partition("Paired: both")[0]
    assert rows.count("unpaired") == 2 * (len(CLASSES) + 1)  # best rounds, and round 1


def strange(number):
    """Evals of a task that has other classes."""
    return [{**row, "class": f"depth {row['class']}"} for row in learning(number)]


@pytest.fixture
def apart(tmp_path):
    return write_experiment(tmp_path / "other", rounds=3, items=strange)


def test_experiments_without_a_class_in_common_are_said_to_have_none(store, apart):
    said = printed(report.comparison([store, apart])).splitlines()
    expected = (
        "wildcard and other have no class of questions in common, so nothing compares them. Each by"
        " itself:"
    )
    assert " ".join(" ".join(said[:-2]).split()) == expected
    assert said[-2:] == [command("compare", one.path) for one in (store, apart)]
    paths = report.write_comparison([store, apart])
    assert [path.name for path in paths] == ["compare-other.html", "compare-other.png"]
    page = Page(paths[0])
    assert "wildcard and other have no class of questions in common" in page.text
    assert "change" in page.columns  # of each experiment by itself
    assert "Difference, " not in page.text
    assert paths[1].read_bytes() == plots.png([read_results(one) for one in (store, apart)])


def test_of_three_experiments_those_that_share_classes_are_compared(store, apart, tmp_path):
    third = write_experiment(tmp_path / "third", rounds=3, letters=4)
    text = printed(report.comparison([store, apart, third]))
    assert "They have no class in common." in text
    assert "best rounds: wildcard 3; third 2" in text


def test_a_tree_says_who_answered_and_what_is_right_and_reads_no_markup():
    lines = printed(report.rich_tree(tree(right=False), "row [b]1[/b]")).splitlines()
    assert lines == [
        "row [b]1[/b]",
        "└── *ab [red] → +2  overseer  ✗ wrong",
        "    ├── aab → +1  environment  ✓ right",
        f"    └── {SCRIPT} → ?  assistant  ✗ wrong",
    ]


# --- pictures ----------------------------------------------------------------------------------


def test_each_class_is_shaded_where_it_was_learned(store):
    panels = plots.panels(read_results(store))
    steps = {label: plots.last_step(row, ALONE) for label, row in panels.items()}
    assert {label: (a.number, b.number) for label, (a, b) in steps.items()} == {
        "1 wildcard": (0, 1),
        "2 wildcards": (1, 2),
        "3 wildcards": (2, 3),
    }


def test_the_only_step_is_not_shaded_and_the_legend_does_not_mention_it(tmp_path):
    store = write_experiment(tmp_path / "short", rounds=2)
    found = read_results(store)
    assert not plots.is_shaded(found)
    assert all(plots.last_step(row, ALONE) is None for row in plots.panels(found).values())
    [page, *_] = report.write_comparison([store])
    assert plots.SHADED not in Page(page).text
    assert "shaded" not in Page(page).text


def test_pages_and_pictures_have_the_same_ticks(store):
    found = read_results(store)
    of_page = plots.interactive(found, plots.styles([found]))["spec"]["layer"][2]["encoding"]
    figure = Figure()
    axes = figure.add_subplot()
    plots.prepare_axes(axes, "", 0.0, float(LAST), "round", integer=True)
    assert of_page["x"]["axis"]["values"] == axes.get_xticks().tolist() == [0, 1, 2, 3, 4]
    assert [100 * share for share in of_page["y"]["axis"]["values"]] == axes.get_yticks().tolist()
    assert [100 * end for end in of_page["y"]["scale"]["domain"]] == [*axes.get_ylim()]
    assert of_page["x"]["scale"]["domain"] == [*axes.get_xlim()] == [-0.25, LAST + 0.25]


def test_keys_are_shown_as_an_experiment_file_has_them(store):
    values = {"a": True, "b": (), "c": (1, 2), "d": None, "e": "x", "f": 0.5, "g": [{"h": "i"}]}
    shown = {key: value for key, [value], _ in key_rows([values])}
    assert shown == {
        "a": "true", "b": "[]", "c": "[1, 2]", "d": figures.MISSING, "e": "x", "f": "0.5",
        "g": '[{h = "i"}]',
    }  # fmt: skip
    [page, *_] = report.write_comparison([store])
    assert "[]" in Page(page).text
    assert not {"()", "True", "False", "None"} & {*Page(page).text.split()}


def test_a_class_that_was_never_learned_is_not_shaded():
    flat = [Score(n, 9, 9, {"alone": Proportion(0.2, 0.1, 0.3)}, None) for n in range(4)]
    assert plots.last_step(flat, ALONE) is None


def png_size(content):
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def test_the_same_results_give_the_same_bytes(store):
    assert plots.png([read_results(store)]) == plots.png([read_results(store)])


def test_the_chart_has_every_round_of_every_class_and_can_be_drawn(store):
    import vl_convert

    found = read_results(store)
    spec = plots.interactive(found, plots.styles([found]))
    points = spec["data"]["values"]
    assert {(p["class"], p["round"], p["measure"]): p["mean"] for p in points} == {
        (row["class"], row["round"], by): pytest.approx(row[by], abs=1e-5)
        for row in report.results(store)
        if row["split"] == "final" and row["class"] != ALL
        for by in ("alone", "amplified", "ceiling")
    }
    svg = vl_convert.vegalite_to_svg({**spec, "spec": {**spec["spec"], "width": 150}})
    assert all(label in svg for label in CLASSES)


def test_nothing_that_draws_is_imported_before_something_is_drawn():
    code = "import sys, amplify.report; print({'matplotlib', 'altair'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the training curve ------------------------------------------------------------------------


def test_a_curve_over_decades_is_drawn_on_a_logarithmic_scale():
    metrics = [{"step": 10 * n, "loss": 10.0**-n} for n in range(1, 5)]
    found = curve("loss", metrics, "loss", share=False)
    assert [tick.text for tick in found.values] == ["0.0001", "0.001", "0.01", "0.1"]
    assert [tick.text for tick in found.steps] == ["0", "40"]
    assert found.points[0][1] == TOP
    assert found.points[-1] == (WIDTH - RIGHT, HEIGHT - BOTTOM)


def test_a_share_is_drawn_from_0_to_100_per_cent():
    found = curve("agreement", [{"step": 5, "agreement": 0.5}], "agreement", share=True)
    assert [tick.text for tick in found.values] == ["0%", "50%", "100%"]
    assert found.points == [(WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2)]


def test_measures_while_training_are_drawn_also_under_the_names_that_they_had():
    def row(step, **accuracy):
        return {"step": step, "accuracy": {by: {"x": mean} for by, mean in accuracy.items()}}

    older = [row(10, target=0.5, overseer=1.0, amplified=0.8, assistant=0.4), {"step": 15}]
    newer = [row(20, alone=0.6, ceiling=1.0, live=0.5)]
    found = measures_curve("x", older + newer, ["alone", "amplified", "ceiling", "live"])
    assert [line.style for line in found.lines] == [3, 2, 1, 0]
    assert [len(line.points) for line in found.lines] == [2, 2, 1, 2]
    assert found.points[-1][0] == WIDTH - RIGHT
    assert measures_curve("y", older, ["alone"]) is None
    assert measures_curve("x", [{"step": 1}], ["alone"]) is None


def test_what_is_not_finite_is_left_out_and_nothing_makes_no_curve():
    metrics = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.0}, {"step": 3}]
    assert len(curve("loss", metrics, "loss", share=False).points) == 1
    assert curve("loss", metrics[:1], "loss", share=False) is None
    assert curve("loss", [], "loss", share=False) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_a_curve_stays_inside_its_frame(values):
    metrics = [{"step": 10 * n, "loss": value} for n, value in enumerate(values, 1)]
    found = curve("loss", metrics, "loss", share=False)
    assert len(found.points) == len(values)
    for x, y in found.points:
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


# --- pages -------------------------------------------------------------------------------------


def test_pages_load_nothing_from_anywhere_and_link_only_to_files_that_are_there(store):
    for path in every_page(store):
        page = Page(path)
        assert page.loads == []
        assert all((path.parent / link).is_file() for link in page.links)
    assert Page(store.path / "compare.html").links == [
        f"{n:03d}/report.html" for n in range(LAST + 1)
    ]


def test_the_page_s_own_scripts_fetch_nothing(store):
    report.write_comparison([store])
    chart, _, vega, own = Page(store.path / "compare.html").scripts
    assert "vegaEmbed" in vega
    assert "vegaEmbed(" in own
    assert not re.search(r"fetch|import|XMLHttp|https?:", own)
    assert re.findall(r"https?://[^\"]*", chart) == [json.loads(chart)["$schema"]]
    assert '"url"' not in chart


def test_whatever_was_asked_or_named_is_shown_and_never_run(tmp_path):
    nasty = "</script><img src=x onerror=alert(2)>"

    def items(number):
        return [{**row, "class": nasty} for row in learning(number, problems=3)]

    store = write_experiment(tmp_path / "<i>name<", rounds=2, items=items)
    for path in every_page(store):
        assert SCRIPT not in path.read_text()
        assert "<i>name" not in path.read_text()
        assert "img" not in Page(path).tags
    assert nasty in Page(store.path / "compare.html").text
    assert SCRIPT in Page(store.path / "001" / "report.html").text


def test_nothing_undefined_is_shown(tmp_path):
    def one_problem(number):
        return [
            item("final", CLASSES[0], "0:1", alone=True),
            item("select", CLASSES[0], "0:2", alone=True),
        ]

    store = write_experiment(tmp_path / "wildcard", rounds=2, items=one_problem)
    shown = [Page(path).text for path in every_page(store)]
    shown += [printed(report.rounds_table(store)), printed(report.comparison([store]))]
    for text in shown:
        assert not re.search(r"\b(nan|NaN|None|null|inf|undefined)\b", text)
    assert all("2 wildcards" in text for text in shown[:3])


def test_one_round_alone_is_enough_for_everything(tmp_path):
    store = write_experiment(tmp_path / "wildcard", rounds=1)
    assert "Nothing was trained." in Page(every_page(store)[0]).text
    assert "· untrained" in printed(report.rounds_table(store))
    assert "change" in printed(report.comparison([store]))


def test_a_round_s_page_says_its_verdict_what_it_cost_and_where_it_came_from(store):
    text = " ".join(Page(report.write_round_page(store, store.round(2))).text.split())
    verdict = store.round(2).verdict
    assert f"✓ promoted , {verdict['reason']} (against round 1)." in text
    found = verdict["comparison"]
    assert f"{found['wins']} did better and {found['losses']} worse" in text
    assert "98,304" in text
    assert "10 s, 2.0 s of it compiling" in text
    assert "round 1, checkpoint c1c1c1c1c1c1c1c1" in text
    assert "unknown , with uncommitted changes" in text
    assert "training.steps" in text


def test_a_round_s_page_counts_what_did_better_by_class(store):
    rounds = finished_rounds(store)
    text = " ".join(Page(report.write_round_page(store, store.round(2))).text.split())
    items = [round_.items.only("final", CLASSES[1]) for round_ in rounds[1:3]]
    one, two = (some.column("alone") for some in items)
    assert f"+{np.sum(two > one)} {MINUS}{np.sum(one > two)}" in text


def test_a_round_s_page_shows_trees_with_a_wrong_answer_first(store):
    text = Page(report.write_round_page(store, store.round(1))).text
    assert text.count("environment") == pages.SHOWN_TREES
    assert text.index("✗ wrong") < text.index("✓ right", text.index("kept in"))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_a_round_s_page_does_without_a_curve_or_trees_that_cannot_be_read(store, damage):
    damage(store.round(1).main.metrics)
    damage(store.round(1).main.interactions)
    text = Page(report.write_round_page(store, store.round(1))).text
    assert "metrics.jsonl is missing or damaged" in text
    assert "interactions.jsonl is missing or damaged" in text
    assert CLASSES[0] in text


def test_a_run_too_short_to_be_measured_twice_shows_every_measure_as_a_point(store):
    path = store.round(1).main.metrics
    seen = {"alone": {CLASSES[0]: 0.5}, "amplified": {CLASSES[0]: 0.75}}
    path.write_text(json.dumps({"step": 60, "loss": 1.0, "accuracy": seen}) + "\n")
    page = report.write_round_page(store, store.round(1))
    assert page.read_text().count('<circle class="dot') == 1 + len(seen)  # the loss, too
    once = "Measured once, after the last step: training.look_every is 100 steps."
    assert once in Page(page).text
    rows = [{"step": step, "loss": 1.0, "accuracy": seen} for step in (60, 120)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert once not in Page(report.write_round_page(store, store.round(1))).text


def test_a_round_s_page_is_small_and_the_comparison_no_larger_than_its_chart_s_code(store):
    *small, compare_page, tree_page = every_page(store)
    assert all(path.stat().st_size < 40_000 for path in (*small, tree_page))
    assert compare_page.stat().st_size < len(plots.vega().encode()) + 60_000


def test_every_column_is_defined(store):
    report.write_comparison([store])
    page = Page(store.path / "compare.html")
    headings = {heading for heading in page.columns if heading}
    named = {"round", ALL, *CLASSES}
    defined = pages.definitions(KNOWN, ALONE)
    assert headings - named <= defined.keys()
    assert all(defined[heading] in page.text for heading in headings - named)


def test_pages_of_an_experiment_have_different_titles(store):
    heads = [path.read_text().partition("<title>")[2] for path in every_page(store)[: LAST + 2]]
    titles = [head.partition("</title>")[0] for head in heads]
    assert titles[-1] == "wildcard: comparison of rounds"
    assert len(set(titles)) == LAST + 2


def test_the_page_says_what_the_shaded_step_is(store):
    report.write_comparison([store])
    text = " ".join(Page(store.path / "compare.html").text.split())
    assert plots.SHADED in text
    assert "first round that is as good as the class's best one by “alone”" in text


def test_of_two_experiments_the_keys_that_differ_come_first(store, tmp_path):
    other = write_experiment(tmp_path / "longer", rounds=1, letters=4)
    paths = report.write_comparison([store, other])
    names = ["compare-longer.html", "compare-longer.png", "compare-longer.cost.png"]
    assert [path.name for path in paths] == names
    assert {path.parent for path in paths} == {store.path}
    text = " ".join(Page(paths[0]).text.split())
    assert "Keys that differ key wildcard longer task.letters 3 4" in text
    assert "Difference, longer minus wildcard" in text


def test_a_tree_s_page_is_nested_and_its_name_is_safe(tmp_path):
    deep = {**tree(), "steps": [tree(right=False), tree()]}
    path = report.write_tree(tmp_path, "../Row 17, question 0", deep)
    assert path == tmp_path / "tree-row-17-question-0.html"
    assert path.read_text().count("<details") == 3
    assert Page(path).text.count("✗ wrong") == 2
    assert report.write_tree(tmp_path, "¿?", deep).name == "tree-untitled.html"


def test_a_page_that_cannot_be_finished_leaves_the_one_before_as_it_was(store, monkeypatch):
    paths = [*every_page(store), store.path / "compare.png"]
    before = [path.read_bytes() for path in paths]
    changed = change_record(store, 1, device="another")
    write_round(changed, LAST + 1, learning(LAST + 1))

    def killed(*_):
        raise KeyboardInterrupt

    def write_picture():
        with writing.replacing(store.path / "compare.png", "wb") as file:
            file.write(b"another")

    monkeypatch.setattr(type(store.path), "rename", killed)
    for write in (
        lambda: report.write_round_page(changed, changed.round(1)),
        lambda: report.write_comparison([changed]),
        write_picture,
        lambda: report.write_tree(store.path, "row 1", tree(right=False)),
    ):
        with pytest.raises(KeyboardInterrupt):
            write()
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("count", [3, 30, 3000])
def test_trees_are_shown_with_the_facts_that_they_are_about(store, count):
    facts = [f"{SCRIPT} {n} [/b]" for n in range(count)]
    known = {**tree(right=False), "facts": facts}
    lines = store.round(1).main.interactions
    write_lines(lines, [{"row": 0, "column": 0, **known}])
    paths = [report.write_tree(store.path, "row 0", known)]
    paths.append(report.write_round_page(store, store.round(1)))
    paths.append(store.round(1).path / "trees.html")
    for path in paths:
        text = path.read_text()
        assert SCRIPT not in text
        assert facts[0] in Page(path).text
        assert facts[2] in Page(path).text
        assert (count > 3) == (f"about {count:,} facts" in text)
        assert path.stat().st_size < 40_000
    shown = " ".join(printed(report.rich_tree(known, "row 0"), 1000).split())
    assert f"about {facts[0]} · {facts[1]} · {facts[2]}" in shown
    assert (count > 3) == (" more" in shown)
    assert len(shown) < 1200
    assert "about" not in printed(report.rich_tree(tree(right=True), "row 0"))


def test_of_several_experiments_keys_with_the_same_value_are_folded(store, tmp_path):
    other = write_experiment(tmp_path / "longer", rounds=1, letters=4)
    page, *_ = report.write_comparison([store, other])
    shown, _, folded = page.read_text().rpartition("<details><summary>")
    assert "with the same value in all of them</summary>" in folded
    assert "task.letters" in shown.rpartition("Keys that differ")[2]
    assert "task.kind" in folded
    assert "task.letters" not in folded
    same, *_ = report.write_comparison([store, store])
    assert "The experiments have the same keys." in Page(same).text


def test_keys_have_the_value_in_effect_and_short_digests():
    one = {"seed": 3, "evals.seed": None, "task.x (content)": "ab" * 32}
    two = {"seed": 4, "evals.seed": 3, "task.x (content)": "ab" * 31 + "00"}
    digests = ["abababababab", "abababababab"]  # they differ later
    assert key_rows([one, two]) == [
        ("seed", ["3", "4"], True),
        ("task.x (content)", digests, True),
        ("evals.seed", ["3", "3"], False),
    ]
    nested = key_rows([{"a": {"b": 1, "c": ("ab" * 32, "d")}}, {"a": {"b": 2}}])
    assert nested == [
        ("a.b", ["1", "2"], True),
        ("a.c", ['["abababababab", "d"]', figures.MISSING], True),
    ]
