"""Comparisons of any number of experiments, in which seeds are averaged."""

import json
import re
import shutil

import pytest
import vl_convert
from matplotlib.figure import Figure

import amplify
from amplify import report
from amplify.cli import commands
from amplify.errors import MAKE, command
from amplify.evaluation import figures
from amplify.evaluation.items import ALL
from amplify.report import efforts, file_names, group_plots
from amplify.report.group_rows import read_groups
from amplify.report.groups import differences
from amplify.report.keys import changed_keys
from amplify.report.results import read_results
from amplify.store import Store
from tests.test_report import (
    CLASSES,
    Page,
    learning,
    png_size,
    printed,
    write_experiment,
    write_round,
)


def seeded(folder, seed, lines="", rounds=3, **options):
    """Fake rounds of an experiment with a seed; `lines` are put under `[evals]`."""
    store = write_experiment(folder, rounds=0)
    path = folder / "experiment.toml"
    path.write_text(f"seed = {seed}\n{path.read_text()}\n[evals]\n{lines}\n")
    store = Store(folder)
    for number in range(rounds):
        write_round(store, number, learning(max(number - options.get("slower", 0), 0)))
    return Store(folder)


@pytest.fixture
def stores(tmp_path):
    seeds = [seeded(tmp_path / f"x-seed-{seed}", seed, "seed = 0", slower=seed) for seed in (1, 2)]
    return [seeded(tmp_path / "x", 0), *seeds]


@pytest.fixture
def other(tmp_path):
    return seeded(tmp_path / "other", 0, "per_depth = 3", slower=1)


def test_experiments_that_differ_only_in_their_seed_are_one_group(stores, other, tmp_path):
    [group, alone] = read_groups([stores[0], other, *stores[1:]])
    assert (group.name, group.seeds) == ("x, 3 seeds", [0, 1, 2])
    assert alone.name == "other"
    own = [seeded(tmp_path / f"own-{seed}", seed) for seed in (4, 5)]
    assert [len(group.members) for group in read_groups(own)] == [2]  # each with its own questions
    apart = seeded(tmp_path / "apart", 6, "seed = 9")
    assert [len(group.members) for group in read_groups([*stores, apart])] == [3, 1]
    again = seeded(tmp_path / "again", 0)
    assert [len(group.members) for group in read_groups([*stores, again])] == [3, 1]


def test_a_mean_over_seeds_is_that_of_their_means(stores):
    [group] = read_groups(stores)
    for label, scores in group.scores.items():
        for score in scores:
            each = [
                found.scores[label][score.number].means["alone"].estimate for found in group.members
            ]
            mean = score.means["alone"]
            assert mean.estimate == pytest.approx(sum(each) / 3)
            assert mean.low <= mean.estimate <= mean.high
    assert [score.number for score in group.scores[ALL]] == [0, 1, 2]


def test_only_rounds_that_all_seeds_have_are_averaged(stores, tmp_path):
    short = seeded(tmp_path / "short", 7, "seed = 0", rounds=2)
    [group] = read_groups([*stores, short])
    assert group.numbers == [0, 1]
    assert "only rounds that all seeds have finished" in " ".join(
        printed(report.comparison([*stores, short])).split()
    )


def test_the_terminal_names_the_interval_and_pairs_groups(stores, other):
    text = printed(report.comparison([*stores, other]))
    said = " ".join(text.split())
    assert "over seeds and contexts (t quantile with 2 degrees of freedom" in said
    assert "Difference, other minus x: alone, in points, at each seed's best round" in said
    assert "best rounds: x 2, 2, 0; other 2" in said
    assert re.search(r"all classes .* paired", text)
    assert "unpaired" not in text.partition("Paired: both")[0]
    lone = " ".join(printed(report.comparison([stores[0], other])).split())
    assert "they do not include other seeds" in lone


def test_the_terminal_has_the_last_scores_and_verdict_of_each_seed(stores, other):
    said = printed(report.comparison([*stores, other]), 100)
    _, _, table = said.partition("x, 3 seeds: alone by seed\n")
    heading, *lines = table.splitlines()
    assert heading.split()[:6] == ["last", "round", "of", "round", "all", "classes"]
    rows = [line.split() for line in lines if line.startswith("seed")]
    assert [row[:3] for row in rows] == [["seed", str(seed), "2"] for seed in range(3)]
    assert [row[-1] for row in rows] == ["promoted", "promoted", "inconclusive"]
    for place, label in ((3, ALL), (5, CLASSES[0]), (6, CLASSES[1]), (7, CLASSES[2])):
        alone = [read_results(store).scores[label][-1].means["alone"].estimate for store in stores]
        assert [row[place] for row in rows] == [figures.percent(mean) for mean in alone]
    assert "other: alone by seed" not in said
    assert "by seed" not in printed(report.comparison([stores[0], other]))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_class_of_each_seed_is_in_a_table_of_any_width(stores, width):
    said = printed(report.comparison(stores), width).partition("alone by seed")[2]
    assert max(map(len, said.splitlines()[:12])) <= width
    for label in CLASSES:
        assert said.count(label) == 1
    assert said.count("seed 2") == (1 if width > 80 else 2)


def test_an_interval_beside_100_is_explained_where_it_appears(stores, tmp_path):
    words = "an interval although all seeds agree: it is over seeds and contexts"
    assert words not in " ".join(printed(report.comparison(stores)).split())

    def perfect(number):
        return [{**row, "alone": row["class"] == CLASSES[0]} for row in learning(number)]

    for store in stores:
        for number in range(3):
            shutil.rmtree(store.path / f"{number:03d}")
        for number in range(3):
            write_round(store, number, perfect(number))
    again = [Store(store.path) for store in stores]
    text = printed(report.comparison(again))
    said = " ".join(text.split())
    assert f"100.0 and 0.0 have {words}, and allows for what 3 seeds cannot show" in said
    assert said.index(words) < said.index("by seed")
    [page, *_] = report.write_comparison(again)
    assert words in " ".join(Page(page).text.split())
    assert words not in printed(report.comparison(again[:1]), 200)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_experiment_is_in_a_table_of_any_width(stores, other, tmp_path, width):
    more = [
        seeded(tmp_path / f"more-{count}", 0, f"per_depth = {count}", rounds=1)
        for count in range(4, 9)
    ]
    text = printed(report.comparison([*stores, other, *more]), width)
    assert all(store.name in text for store in (other, *more))


def test_json_has_means_over_seeds_and_differences(stores, other, capsys):
    paths = [str(store.path) for store in (*stores, other)]
    commands.main(["compare", *paths, "--json"])
    rows = json.loads(capsys.readouterr().out)
    single = [row for row in rows if "seeds" not in row and "minus" not in row]
    assert {row["experiment"] for row in single} == {"x", "x-seed-1", "x-seed-2", "other"}
    means = [row for row in rows if "seeds" in row]
    assert {row["round"] for row in means} == {0, 1, 2, "best"}
    assert all(row["seeds"] == [0, 1, 2] for row in means)
    final, [mean] = (
        [
            row
            for row in some
            if (row["round"], row["split"], row["class"]) == (2, "final", "2 wildcards")
        ]
        for some in (single, means)
    )
    expected = sum(row["alone"] for row in final if row["experiment"] != "other") / 3
    assert mean["alone"] == pytest.approx(expected)
    changes = [row for row in rows if "minus" in row and row["class"] == ALL]
    assert [row["round"] for row in changes] == [0, 1, 2, "best"]
    change = changes[-1]
    assert (change["experiment"], change["minus"]) == ("other", "x, 3 seeds")
    assert change["paired"]
    assert change["interval"][0] <= change["difference"] <= change["interval"][1]


def test_a_difference_at_a_round_is_that_of_the_means_at_that_round(stores, other):
    """With the interval that this round would have as the best one."""
    groups = read_groups([*stores, other])
    for number in (0, 1, 2):
        for row in differences(*groups, number):
            means = [
                next(s for s in group.scores[row.label] if s.number == number).means["alone"]
                for group in groups
            ]
            assert (row.one, row.two) == (*means,)
            assert row.change.delta == pytest.approx(means[1].estimate - means[0].estimate)
            assert row.change.paired
    alone = read_groups([stores[0], other])  # the best round of both is round 2
    assert differences(*alone, 2) == differences(*alone)
    assert differences(*alone, 1) != differences(*alone)


def test_differences_at_equal_rounds_are_on_the_page_and_at_the_last_one_in_the_terminal(
    stores, other
):
    said = printed(report.comparison([*stores, other]), 200)
    assert said.count("Difference, other minus x") == 2
    assert "alone, in points, at round 2" in said
    [page, *_] = report.write_comparison([*stores, other])
    _, _, folded = page.read_text().partition("<summary>At equal rounds</summary>")
    for number in (0, 1, 2):
        assert f'<th scope="rowgroup" colspan="5">round {number}</th>' in folded
    at_best = printed(report.comparison([stores[0], other]), 200)
    assert "at round 2" not in at_best  # it is the best round of both


def test_python_has_the_same_numbers(stores, other, capsys):
    paths = [store.path for store in (*stores, other)]
    commands.main(["compare", *map(str, paths), "--json"])
    rows = json.loads(capsys.readouterr().out)
    comparison = amplify.compare(paths)
    assert comparison.seeds.alone.tolist() == [row["alone"] for row in rows if "seeds" in row]
    changes = [row["difference"] for row in rows if "minus" in row]
    assert comparison.differences.difference.tolist() == changes
    assert len(comparison.table) == len([r for r in rows if "seeds" not in r and "minus" not in r])
    columns = {*comparison.seeds.columns, *comparison.differences.columns}
    assert {*comparison.differences["round"]} == {0, 1, 2, "best"}
    assert {"alone.low", "alone.high", "interval.low", "interval.high"} <= columns
    [mean, *_] = [row for row in rows if "seeds" in row]
    assert comparison.seeds["alone.low"][0] == mean["intervals"]["alone"][0]
    assert comparison._repr_png_().startswith(b"\x89PNG")


def test_the_page_has_all_experiments_on_one_axis_and_is_named_after_them(stores, other):
    paths = report.write_comparison([*stores, other])
    assert [path.name for path in paths] == [
        f"compare-seeds-0-1-2-and-other{suffix}" for suffix in (".html", ".png", ".cost.png")
    ]
    page = Page(paths[0])
    text = " ".join(page.text.split())
    assert "Difference, other minus x" in text
    assert "at each seed's best round, on the final split. Best rounds: x 2, 2, 0; other 2." in text
    assert "the experiment's mean minus that of the first one" in text
    assert "at each experiment's best round" in printed(report.comparison([stores[0], other]), 200)
    assert "over seeds and contexts" in text
    assert "No people took part: these are answers by the simulated overseer." in text
    chart = json.loads(page.scripts[0])
    [values] = chart["datasets"].values() if "datasets" in chart else [chart["data"]["values"]]
    assert {row["experiment"] for row in values} == {"x, 3 seeds", "other"}
    assert {row["seed"] for row in values if "seed" in row} == {0, 1, 2}


def test_a_comparison_of_many_has_a_file_name_that_fits_and_says_what_it_is(stores, tmp_path):
    long = [
        seeded(tmp_path / f"{'long' * 20}-{count}", 0, f"per_depth = {count}", rounds=1)
        for count in (4, 5, 6)
    ]
    names = [path.name for path in report.write_comparison([stores[0], *long])]
    pattern = r"compare-(long){10}-4-experiments-[0-9a-f]{8}\.\S+"
    assert all(re.fullmatch(pattern, name) for name in names)


def test_what_a_variant_changes_is_said_below_every_title(stores, other, monkeypatch):
    line = "other: evals.per_depth 3 (x: 2)"
    title, second, *_ = printed(report.comparison([*stores, other])).splitlines()
    assert title.startswith("alone on ")
    assert second == line
    [page, *_] = report.write_comparison([*stores, other])
    text = " ".join(Page(page).text.split())
    assert text.index(line) < text.index("Alone by round")
    texts = []
    monkeypatch.setattr(Figure, "text", lambda self, x, y, s, **how: texts.append(s))
    group_plots.png(read_groups([*stores, other]))
    assert texts[1].startswith(f"{line}\n")
    assert "(x: " not in printed(report.comparison(stores))  # only seeds differ


def test_of_many_changes_four_are_said_and_the_others_counted(stores, tmp_path):
    lines = "seed = 9\nper_depth = 3\nselect = 30\nfinal = 31\n[training]\nbatch = 7\nsteps = 8\n"
    many = seeded(tmp_path / "many", 3, lines)
    [line] = changed_keys(read_groups([stores[0], many]), " on the page")
    assert line.count("(x: ") == 4
    assert "seed" not in line
    assert re.search(r", and 1 more, see Keys that differ on the page$", line)


@pytest.fixture
def named(tmp_path):
    """Returns experiments of these names, without rounds."""

    def make(*names):
        for name in names:
            if not (tmp_path / name).exists():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                write_experiment(tmp_path / name, rounds=0)
        return [Store(tmp_path / name) for name in names]

    return make


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (["x"], "compare"),
        (["x", "y"], "compare-y"),
        (["x", "y", "z"], "compare-y-and-z"),
        (["x", "x-seed-1", "x-seed-2"], "compare-seeds-0-1-2"),
        (["x-seed-1", "x-seed-2"], "compare-seeds-1-2"),
        (["x", "y-seed-1"], "compare-y-seed-1"),
        (["x", "y", "y-seed-7"], "compare-y-seeds-0-7"),
        (
            ["search", "search-seed-1", "people", "people-seed-1"],
            "compare-seeds-0-1-and-people-seeds-0-1",
        ),
    ],
)
def test_the_files_of_a_comparison_are_named_after_its_experiments(named, names, stem):
    assert file_names.comparison_stem(named(*names)) == stem


def test_different_comparisons_have_different_file_names(named):
    lists = [
        ["x", "y-and-z"], ["x", "y", "z"], ["x", "y-and", "z"], ["x", "y", "and-z"],
        ["x", "seeds-0-1"], ["x", "x-seed-1"], ["x", "y", "y-seed-1"], ["x", "y-seeds-0-1"],
        ["x", "deep/y"], ["x", "other/y"], ["x", "y"],
        *(["x", *(f"{'long' * 9}-{n}" for n in range(first, first + 4))] for first in range(3)),
    ]  # fmt: skip
    stems = [file_names.comparison_stem(named(*names)) for names in lists]
    assert len({*stems}) == len(lists)
    assert max(map(len, stems)) <= 100


def test_costs_add_up_over_rounds_and_are_averaged_over_seeds(stores):
    groups = read_groups(stores)
    effort = efforts.effort(groups)
    assert effort.lines == [[131072.0, 2 * 131072.0, 3 * 131072.0]]
    compute = efforts.compute(groups)
    assert compute.title == "training, in seconds"
    assert compute.lines == [[0.0, 2.0, 4.0]]


def test_human_effort_comes_first_and_is_in_one_unit(stores, other):
    record = stores[0].path / "002/record.json"
    told = json.loads(record.read_text())
    told["ledger"] |= {"human_seconds": 7200 * 3, "human_answers": 40}
    record.write_text(json.dumps(told))
    axis = efforts.effort(read_groups([Store(stores[0].path)]))
    assert axis.title == "time of people, in hours"
    assert axis.lines == [[0.0, 0.0, 6.0]]
    both = efforts.effort(read_groups([Store(stores[0].path), other]))
    assert both.title == "answers by the simulated overseer"  # the other had no people


def test_simulated_work_is_priced_if_all_rounds_counted_it(stores):
    """At the prices of the experiment file, with what people were seen to take beside it."""
    effort = {"look": 90, "ask": 30, "answer": 60}  # 20, 10 and 10 seconds each
    for number, path in enumerate(sorted(stores[0].path.glob("00?/record.json"))):
        told = json.loads(path.read_text())
        told["ledger"] |= {
            "effort": effort if number else {},
            "human_seconds": 1800 * (number == 2),
        }
        path.write_text(json.dumps(told))
    [group] = read_groups([Store(stores[0].path)])
    axis = efforts.effort([group])
    title = "human work, partly simulated, in minutes"
    assert (axis.title, axis.lines) == (title, [[0.0, 45.0, 120.0]])
    assert axis.note == (
        "People's own time is measured; what was simulated is priced in seconds: look 20, ask 10,"
        " answer 10 ([prices])."
    )
    told["ledger"]["human_seconds"] = 0  # nothing was measured
    path.write_text(json.dumps(told))
    axis = efforts.effort(read_groups([Store(stores[0].path)]))
    assert (axis.title, axis.lines) == ("simulated human work, in minutes", [[0.0, 45.0, 90.0]])
    told["ledger"]["human_seconds"] = 1800
    del told["ledger"]["effort"]  # a round of an older version: what it took is not known
    path.write_text(json.dumps(told))
    axis = efforts.effort(read_groups([Store(stores[0].path)]))
    assert (axis.title, axis.lines) == ("time of people, in minutes", [[0.0, 0.0, 30.0]])


def test_time_of_simulated_people_is_called_so_wherever_it_is_shown(tmp_path):
    folder = tmp_path / "people"
    write_experiment(folder, rounds=0)
    file = folder / "experiment.toml"
    file.write_text(
        file.read_text().replace('"simulated"', '"human"\npeople = "simulated"\nitems = 9')
    )
    store = Store(folder)
    for number in range(2):
        write_round(store, number, learning(number))
        path = folder / f"{number:03d}/record.json"
        told = json.loads(path.read_text())
        told["ledger"] |= {"human_seconds": 7200 * number, "effort": {"look": 9 * number}}
        path.write_text(json.dumps(told))
    store = Store(folder)
    axis = efforts.effort(read_groups([store]))
    assert axis.title == "simulated human work, in hours"
    assert axis.note == (
        "No people took part; the time of simulated people is what they took on the pages; what"
        " else was simulated is priced in seconds: look 20 ([prices])."
    )
    [page, *_] = report.write_comparison([store])
    for found in (page, report.write_round_page(store, store.round(1))):
        text = " ".join(Page(found).text.split())
        assert "simulated people's time" in text
        assert "human time" not in text


def test_nothing_is_drawn_against_costs_that_nobody_recorded(stores):
    for path in stores[0].path.glob("00?/record.json"):
        told = json.loads(path.read_text())
        told["ledger"] |= {"overseer_answers": 0}
        told["stages"] = {name: {**entry, "seconds": 0} for name, entry in told["stages"].items()}
        path.write_text(json.dumps(told))
    store = Store(stores[0].path)
    [page, *pictures] = report.write_comparison([store])
    assert [path.name for path in pictures] == ["compare.png"]
    text = " ".join(Page(page).text.split())
    assert "No plot against human effort: the rounds record no answers by an overseer." in text
    assert "No plot against compute: the rounds record no training time." in text


def test_the_same_experiments_give_the_same_pictures_of_the_same_size(stores, other):
    groups = read_groups([*stores, other])
    for draw in (group_plots.png, group_plots.costs_png):
        assert draw(groups) == draw(groups)
        assert png_size(draw(groups))[0] == 1980


def test_axes_of_costs_begin_at_0_and_their_labels_are_centred_on_their_ticks(stores, other):
    groups = read_groups([*stores, other])
    panels, _ = group_plots.cost_panels(groups)
    x = group_plots.interactive(groups, panels)["spec"]["layer"][0]["encoding"]["x"]
    assert x["scale"] == {"nice": False, "zero": True}
    assert x["axis"]["labelFlush"] is False
    axes = Figure().add_subplot()
    [panel] = [panel for panel in panels if panel.title.startswith("answers by")]
    group_plots._draw(axes, panel, group_plots.group_styles(groups), "alone")
    assert min(axes.get_xticks()) == 0
    drawn = vl_convert.vegalite_to_svg(group_plots.interactive(groups, panels))
    labels = re.findall(r">([^<>]+)</text>", drawn)
    assert "0" in labels
    assert not [label for label in labels if label.startswith(("-", "\N{MINUS SIGN}"))]


def test_ten_experiments_have_ten_styles(stores):
    groups = read_groups(stores) * 10
    assert len(set(group_plots.group_styles(groups))) == 10


def test_experiments_of_the_same_name_are_told_apart(stores, tmp_path):
    (tmp_path / "deep").mkdir()
    same = seeded(tmp_path / "deep/x", 0, "per_depth = 3")
    names = [group.name for group in read_groups([stores[0], same, same])]
    assert names == [f"{tmp_path}/x", f"{tmp_path}/deep/x", f"{tmp_path}/deep/x (2)"]


def test_seeds_that_lie_beside_an_experiment_and_are_not_compared_are_named(
    stores, other, tmp_path, capsys, monkeypatch
):
    x = stores[0]
    commands.main(["compare", str(x.path), str(other.path)])
    line = capsys.readouterr().err.strip()
    more = command("compare", *(store.path for store in (*stores, other)))
    assert line == f"Not compared: seeds 1 and 2 of {x.path}. For means over seeds: {more}"
    commands.main(["compare", str(x.path)])
    by_number = command("compare", x.path, "--seeds", "0,1,2")
    assert capsys.readouterr().err.strip().endswith(f"For means over seeds: {by_number}")
    monkeypatch.setenv(MAKE, "1")
    assert report.seeds_beside([x]).endswith(f"make compare SEEDS=0,1,2 EXPERIMENT={x.path}")
    assert "seed 2 of" in report.seeds_beside(stores[:2])
    monkeypatch.chdir(x.path)
    assert "seeds 1 and 2 of ." in report.seeds_beside([Store(type(x.path)("."))])


def test_only_finished_seeds_of_the_same_experiment_are_named(stores, tmp_path, capsys):
    assert report.seeds_beside(stores) is None
    commands.main(["compare", str(stores[0].path), "--seeds", "0,1"])
    assert capsys.readouterr().err == ""
    alone = seeded(tmp_path / "alone", 0)
    seeded(tmp_path / "alone-seed-1", 1, "seed = 0\nper_depth = 3")  # differs in more
    seeded(tmp_path / "alone-seed-2", 3, "seed = 0")  # has another seed
    seeded(tmp_path / "alone-seed-4", 4, "seed = 0", rounds=0)
    (tmp_path / "alone-seed-5").mkdir()
    (tmp_path / "alone-seed-6").touch()
    assert report.seeds_beside([alone]) is None


def test_the_picture_has_the_title_of_the_page_and_says_what_thin_lines_are(
    stores, other, monkeypatch
):
    texts = []
    draw = Figure.text
    monkeypatch.setattr(
        Figure, "text", lambda self, x, y, s, **how: texts.append(s) or draw(self, x, y, s, **how)
    )
    group_plots.png(read_groups([*stores, other]))
    heading, said = texts
    [page, *_] = report.write_comparison([*stores, other])
    assert f"<h1>{heading}</h1>" in page.read_text()
    assert heading == "x, 3 seeds and other"
    thin = "Thin lines are single seeds."
    assert thin in " ".join(said.split())
    assert thin in page.read_text()
    group_plots.png(read_groups([stores[0], other]))
    assert thin not in texts[-1]


def test_the_points_of_a_round_are_centred_on_its_tick(stores, tmp_path):
    longer = seeded(tmp_path / "longer", 0, "per_depth = 3", rounds=4)
    groups = read_groups([stores[0], longer, *stores[1:]])
    for panel in group_plots.class_panels(groups):
        placed = {}
        for line in panel.lines:
            for at, score in line:
                placed.setdefault(score.number, []).append(at)
        for number, places in placed.items():
            assert sum(places) / len(places) == pytest.approx(number)
            assert len({*places}) == len(places)
        assert placed[3] == [3.0]
        for line, seeds in zip(panel.lines, panel.seeds, strict=True):
            assert all([at for at, _ in one] == [at for at, _ in line] for one in seeds)
