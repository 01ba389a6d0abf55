"""Writes HTML pages and figures: a comparison, a round, a decomposition tree.

Each page is one self-contained file, for desktop and phone, in light or dark. Templates escape all
values.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from amplify.errors import AmplifyError
from amplify.evaluation import figures
from amplify.evaluation.items import ALL, FINAL, SELECT
from amplify.evaluation.measures import LIVE, Measure, in_order
from amplify.evaluation.statistics.clusters import FEWEST
from amplify.files import writing
from amplify.files.json_lines import write_atomically
from amplify.people.trees import write_trees
from amplify.records.round_folder import RoundFolder
from amplify.report import audits, costs, formats, group_plots, plots
from amplify.report.curve import curve, evaluated_rows, measures_curve, value_curve
from amplify.report.efforts import simulates_people
from amplify.report.file_names import comparison_stem
from amplify.report.groups import (
    Group,
    agreement_words,
    best_rounds_words,
    by_class,
    differences,
    equal_rounds,
    groups_of,
    interval_words,
    nothing_in_common,
    whose_best,
)
from amplify.report.keys import changed_keys, key_rows
from amplify.report.results import (
    Across,
    Results,
    gains,
    measures_of_round,
    read_results,
    read_round,
    unfinished_rounds,
)
from amplify.runtime import processes
from amplify.store import Store

SHOWN_TREES = 12

DEFINITIONS = {
    "small print": f"{formats.COUNTED} There are too few to tell if their effective number, of"
    f" contexts of equal size, is below {FEWEST:g}.",
    "verdict": "The gate's decision over all classes, on the select split. Other numbers come from"
    " the final split, which decides nothing.",
    "human time": "Time that people spent answering.",
    "simulated people's time": "Time that programs spent answering on people's pages, in their"
    " place.",
    "simulated human work": "Time that a person would have taken for what simulated people did, by"
    " the prices of the experiment file.",
    "demonstrations": "Decomposed questions for the overseer to learn from.",
    "overseer answers": "Questions that the overseer answered: what the assistant is trained on.",
    "assistant answers": "Sub-questions that the assistant answered for the overseer.",
    "training steps": "Gradient steps.",
    "time": "Wall-clock time of all stages of the round.",
    "compiling": "Compile time, which is part of that.",
    "calls": "Answers by each part, by stage of the round and by purpose: the training signal,"
    " evals, or looks (evals during training). For a language model as overseer also prompts;"
    " reused ones were answered from the log.",
}
"""The meaning of each column that is not a measure."""


def definitions(measures: Iterable[Measure], judged: Measure) -> dict[str, str]:
    """Returns the meaning of each column of a page.

    Args:
        measures: those that the page shows.
        judged: the gate's measure.
    """
    return {
        **{measure.title: measure.meaning for measure in measures},
        "change": f"By “{judged.title}”: difference to the previous round, in percentage points,"
        " paired by question.",
        "difference": f"By “{judged.title}”: the experiment's mean minus that of the first one, in"
        " percentage points.",
        "shaded": f"The step to the first round that is as good as the class's best one by"
        f" “{judged.title}”: their intervals overlap.",
        "better, worse": f"By “{judged.title}”: questions that did better than in the other round,"
        " and those that did worse.",
        **DEFINITIONS,
    }


def write_comparison(stores: list[Store]) -> list[Path]:
    """Writes `compare.html`, `compare.png` and `compare.cost.png` into the first experiment's
    folder.

    Args:
        stores: one or more experiments; the files are named after them, see `file_names`.

    Returns:
        The paths of the files. There is no plot of costs if nothing is known about them.

    Raises:
        AmplifyError: an experiment has no finished round.
    """
    stem = comparison_stem(stores)
    page, picture, costly = (
        stores[0].path / f"{stem}{suffix}" for suffix in (".html", ".png", ".cost.png")
    )
    experiments = [read_results(store) for store in stores]
    groups = groups_of(experiments)
    write_atomically(page, _comparison(experiments, groups))
    drawn: dict[Path, bytes | None] = {picture: comparison_png(experiments, groups)}
    if nothing_in_common(groups) is None:
        drawn[costly] = group_plots.costs_png(groups)
    return [page, *_write_pictures(drawn)]


def comparison_png(experiments: Sequence[Results], groups: Sequence[Group]) -> bytes:
    """Draws experiments on one axis; below each other if there is nothing to compare.

    Args:
        experiments: their results.
        groups: the same, in groups.

    Returns:
        The bytes of a PNG file.
    """
    if len(experiments) == 1 or nothing_in_common(groups):
        return plots.png(experiments)
    return group_plots.png(groups)


def _write_pictures(pictures: Mapping[Path, bytes | None]) -> Iterator[Path]:
    for path, content in pictures.items():
        if content is not None:
            with writing.replacing(path, "wb") as file:
                file.write(content)
            yield path


def _comparison(experiments: Sequence[Results], groups: Sequence[Group]) -> str:
    """The page of a comparison."""
    drawn = plots.styles(experiments)
    measures = [m for found in experiments for m in (*found.measures, found.judged)]
    apart = nothing_in_common(groups)
    compared = len(experiments) > 1 and not apart
    panels, notes = group_plots.cost_panels(groups)
    return _render(
        "compare.html",
        title=" and ".join(group.name for group in groups),
        experiments=[
            {
                "results": found,
                "chart": plots.interactive(found, drawn),
                "unfinished": unfinished_rounds(found.store),
                "human_time": _human_time(found.store.experiment.values),
                "costs": costs.groups({one.number: one.folder.record for one in found.rounds}),
            }
            for found in experiments
        ],
        groups=groups,
        apart=apart,
        compared=compared,
        changed=changed_keys(groups) if compared else [],
        group_styles=group_plots.group_styles(groups),
        group_chart=group_plots.interactive(groups, group_plots.class_panels(groups))
        if compared
        else None,
        cost_chart=group_plots.interactive(groups, panels) if panels and not apart else None,
        cost_notes=notes,
        differences=[
            (other, differences(groups[0], other), _by_round(groups[0], other))
            for other in groups[1:]
        ],
        thin=group_plots.THIN if group_plots.has_seeds(groups) else "",
        intervals=" ".join(filter(None, [interval_words(groups), agreement_words(groups)])),
        group_rows=[*by_class(groups)] if compared else [],
        drawn=drawn,
        shaded=plots.SHADED if any(map(plots.is_shaded, experiments)) else "",
        keys=key_rows([found.store.experiment.values for found in experiments]),
        titles=_titles(measures),
        definitions=definitions(measures, experiments[0].judged),
        vega=plots.vega(),
    )


def _by_round(one: Group, two: Group) -> list[tuple[int, list[Across]]]:
    """The differences of two groups at each round that both have; none without common classes."""
    by_number = [(number, differences(one, two, number)) for number in equal_rounds(one, two)]
    return [(number, rows) for number, rows in by_number if rows]


def _human_time(values: Mapping[str, Any]) -> str:
    return formats.human_time(simulates_people(values))


def write_round_page(store: Store, this: RoundFolder) -> Path:
    """Writes `report.html` into the folder of a round whose evals are done.

    Args:
        store: the experiment.
        this: the round's folder.

    Returns:
        The path of the page.
    """
    after, verdict = read_round(this), this.verdict
    before = read_round(store.round(verdict["against"])) if verdict else None
    metrics = _curve(this)
    trees = sorted(_lines(this.main.interactions), key=_all_right)
    curves = [
        curve("loss", metrics, "loss", share=False),
        curve("training answers reproduced", metrics, "agreement", share=True),
        curve("demonstrations so far", metrics, "demonstrations", share=False),
        curve("overseer's validation loss", metrics, "overseer_loss", share=False),
        curve("size of contexts", metrics, "size", share=False),
        curve("reward, in standard deviations", metrics, "reward", share=False),
        curve("KL divergence from the reference policy, in nats", metrics, "kl", share=False),
    ]
    judged, measures = measures_of_round(store, after)
    lineage = _lineage(store, this)
    known = in_order(_evaluated_measures(lineage), [*measures, LIVE])
    evaluated = [measure for measure in known if measure.share]
    names = [measure.name for measure in evaluated]
    by_class = [measures_curve(label, lineage, names) for label in store.experiment.task.classes]
    curves += [value_curve(measure, lineage) for measure in known if not measure.share]
    text = _render(
        "round.html",
        title=f"{store.name}, round {this.number}",
        this=this,
        before=before,
        judged=judged,
        measures=measures,
        gains=gains(store, before, after),
        curves=[drawn for drawn in curves if drawn is not None],
        measure_curves=[drawn for drawn in by_class if drawn is not None],
        evaluated=evaluated,
        evaluated_once=_evaluated_once(this, lineage),
        **_audits(this, metrics),
        prices=store.experiment.prices,
        trees=trees[:SHOWN_TREES],
        kept=len(trees),
        wrong_trees=not all(map(_all_right, trees)),
        human_time=_human_time(this.record["experiment"]),
        keys=key_rows([this.record["experiment"]]),
        titles=_titles([*measures, *known]),
        definitions=definitions([*measures, *known], judged),
    )
    write_atomically(this.report, text)
    if trees:
        processes.first(lambda: write_trees(store.path, this.number))
    return this.report


def _audits(this: RoundFolder, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page says about audits; nothing if there were none."""
    rows = audits.of_round(this, metrics)
    if not rows:
        return {"audits": []}
    return {
        "audits": rows,
        "audit_lines": audits.lines_of(this),
        "audit_curve": audits.audits_curve(rows, this),
        "audit_summary": audits.summary(rows, this),
    }


def _titles(measures: Iterable[Measure]) -> list[str]:
    return list(dict.fromkeys(measure.title for measure in measures))


def _evaluated_once(this: RoundFolder, metrics: list[dict[str, Any]]) -> int | None:
    """Returns `training.look_every` if a curve has a single point because of it, else None."""
    every = this.record["experiment"].get("training.look_every")
    return every if len(evaluated_rows(metrics)) == 1 and every else None


def _evaluated_measures(metrics: list[dict[str, Any]]) -> list[str]:
    """Returns names of the measures that were evaluated during training."""
    return [name for row in evaluated_rows(metrics) for name in row["accuracy"]]


def _lineage(store: Store, this: RoundFolder) -> list[dict[str, Any]]:
    """Concatenates the training curves of a round and its ancestors."""
    rows = _curve(this)
    parent = this.record.get("parent")
    if not parent or not parent["round"]:
        return rows
    before = _lineage(store, store.round(parent["round"]))
    start = before[-1]["step"] if before else 0
    return before + [{**row, "step": row["step"] + start} for row in rows]


def write_tree(folder: Path, title: str, tree: dict[str, Any]) -> Path:
    """Writes one decomposition tree to a file named after its title.

    Args:
        folder: to write into.
        title: of the page.
        tree: as in interactions.jsonl.

    Returns:
        The path of the page.
    """
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())[:80].strip("-")
    path = folder / f"tree-{words or 'untitled'}.html"
    write_atomically(path, _render("tree.html", title=title, tree=tree))
    return path


def _curve(this: RoundFolder) -> list[dict[str, Any]]:
    """Returns the training curve; none if a log is damaged."""
    try:
        return this.training_curve()
    except AmplifyError:
        return []


def _lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines; returns none if the file is missing, as in round 0, or damaged."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _all_right(tree: dict[str, Any]) -> bool:
    """Whether no answer in a tree is known to be wrong."""
    return tree.get("right", True) and all(map(_all_right, tree["steps"]))


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(values)


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("amplify.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "formats": formats,
        "figures": figures,
        "whose_best": whose_best,
        "best_rounds_words": best_rounds_words,
        "costs": costs,
        "styles": plots.STYLES,
        "ALL": ALL,
        "FINAL": FINAL,
        "SELECT": SELECT,
    }
    return environment
