"""Pages and pictures in files: a comparison, a round, a decomposition tree.

Each is one file that needs nothing else, on a desk or a phone, in light or dark. Templates escape
whatever they show.
"""

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from amplify.evaluation import figures
from amplify.evaluation.items import ALL, FINAL, SELECT
from amplify.evaluation.measures import LIVE, Measure, in_order
from amplify.evaluation.statistics.clusters import FEWEST
from amplify.files import writing
from amplify.files.json_lines import write_atomically
from amplify.people.trees import write_trees
from amplify.records.round_folder import RoundFolder
from amplify.report import costs, formats, plots
from amplify.report.curve import curve, looked, measured
from amplify.report.results import (
    across,
    gains,
    half_done,
    measures_of_round,
    read_results,
    read_round,
)
from amplify.runtime import processes
from amplify.store import Store

SHOWN_TREES = 12

DEFINITIONS = {
    "small print": f"{formats.COUNTED} Where contexts amount to fewer than {FEWEST:g} of one size,"
    " there are too few to tell.",
    "verdict": "The gate's decision about all classes together, on the select split. Everything"
    " else here is of the final split, which decides nothing.",
    "human time": "Time that people spent answering.",
    "demonstrations": "Questions that were taken apart for the overseer to learn from.",
    "overseer answers": "Questions that the overseer answered: the labels that the assistant was"
    " trained on.",
    "assistant answers": "Sub-questions that the assistant answered for the overseer.",
    "training steps": "Gradient steps.",
    "time": "Of the computer, for all stages of the round.",
    "compiling": "What of that time went into compiling programs.",
    "calls": "Answers that each part gave, by stage of the round and by what they were for: the"
    " training signal, evals, or looks at held-out questions while training. Of a language model"
    " that oversees also the prompts that it was sent; those whose answer was on file are reused.",
}
"""Every column that is no measure, in a sentence."""


def definitions(measures: Iterable[Measure], judged: Measure) -> dict[str, str]:
    """Every column in a sentence: what a page defines is what its tables have."""
    return {
        **{measure.title: measure.meaning for measure in measures},
        "change": f"By “{judged.title}”: minus the same of the round before, in percentage points,"
        " taken question by question.",
        "shaded": f"The step to the first round that is as good as the class's best one by"
        f" “{judged.title}”: their intervals meet.",
        "better, worse": f"By “{judged.title}”: questions that did better than in the other round,"
        " and those that did worse.",
        **DEFINITIONS,
    }


def write_comparison(stores: list[Store]) -> list[Path]:
    """`compare.html` and `.png` in the first experiment's folder; a second's name is in theirs.

    Raises AmplifyError if an experiment has no finished round.
    """
    stem = "-".join(["compare", *(store.name for store in stores[1:])])
    page, picture = (stores[0].path / f"{stem}{suffix}" for suffix in (".html", ".png"))
    experiments = [read_results(store) for store in stores]
    drawn = plots.styles(experiments)
    measures = [m for found in experiments for m in (*found.measures, found.judged)]
    text = _render(
        "compare.html",
        title=" and ".join(store.name for store in stores),
        experiments=[
            {
                "results": found,
                "chart": plots.interactive(found, drawn),
                "half_done": half_done(found.store),
                "costs": costs.groups({one.number: one.folder.record for one in found.rounds}),
            }
            for found in experiments
        ],
        drawn=drawn,
        shaded=plots.SHADED,
        across=across(*experiments) if len(experiments) == 2 else None,
        keys=_keys([store.experiment.values for store in stores]),
        titles=_titles(measures),
        definitions=definitions(measures, experiments[0].judged),
        vega=plots.vega(),
    )
    write_atomically(page, text)
    with writing.replacing(picture, "wb") as file:
        file.write(plots.png(experiments))
    return [page, picture]


def _keys(values: list[Any]) -> list[tuple[str, list[Any], bool]]:
    """Every key of the experiment files, its value in each, whether they differ; those first."""
    names = dict.fromkeys(key for some in values for key in some)
    rows = [(key, [some.get(key, figures.MISSING) for some in values]) for key in names]
    told = [(key, found, any(value != found[0] for value in found)) for key, found in rows]
    return sorted(told, key=lambda row: not row[2])


def write_round_page(store: Store, this: RoundFolder) -> Path:
    """`report.html` of a round whose evals are there, in its folder."""
    after, verdict = read_round(this), this.verdict
    before = read_round(store.round(verdict["against"])) if verdict else None
    metrics = _lines(this.main.metrics)
    trees = sorted(_lines(this.main.interactions), key=_all_right)
    curves = [
        curve("loss", metrics, "loss", share=False),
        curve("training answers reproduced", metrics, "agreement", share=True),
        curve("demonstrations so far", metrics, "demonstrations", share=False),
        curve("overseer's validation loss", metrics, "overseer_loss", share=False),
        curve("size of contexts", metrics, "size", share=False),
    ]
    judged, measures = measures_of_round(store, after)
    lineage = _lineage(store, this)
    seen = in_order(_looked_at(lineage), [*measures, LIVE])
    names = [measure.name for measure in seen]
    looks = [measured(label, lineage, names) for label in store.experiment.task.classes]
    text = _render(
        "round.html",
        title=f"{store.name}, round {this.number}",
        this=this,
        before=before,
        judged=judged,
        measures=measures,
        gains=gains(store, before, after),
        curves=[drawn for drawn in curves if drawn is not None],
        looks=[drawn for drawn in looks if drawn is not None],
        looked_at=seen,
        trees=trees[:SHOWN_TREES],
        kept=len(trees),
        judged_trees=any("right" in tree for tree in trees),
        keys=_keys([this.record["experiment"]]),
        titles=_titles([*measures, *seen]),
        definitions=definitions([*measures, *seen], judged),
    )
    write_atomically(this.report, text)
    if trees:
        processes.first(lambda: write_trees(store.path, this.number))
    return this.report


def _titles(measures: Iterable[Measure]) -> list[str]:
    return list(dict.fromkeys(measure.title for measure in measures))


def _looked_at(metrics: list[dict[str, Any]]) -> list[str]:
    """Names of what was measured while training."""
    return [name for row in looked(metrics) for name in row["accuracy"]]


def _lineage(store: Store, this: RoundFolder) -> list[dict[str, Any]]:
    """The training curves of a round and of those that it descends from, one after the other."""
    rows = _lines(this.main.metrics)
    parent = this.record.get("parent")
    if not parent or not parent["round"]:
        return rows
    before = _lineage(store, store.round(parent["round"]))
    start = before[-1]["step"] if before else 0
    return before + [{**row, "step": row["step"] + start} for row in rows]


def write_tree(folder: Path, title: str, tree: dict[str, Any]) -> Path:
    """One decomposition tree, in a file named after its title."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())[:80].strip("-")
    path = folder / f"tree-{words or 'untitled'}.html"
    write_atomically(path, _render("tree.html", title=title, tree=tree))
    return path


def _lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; none if they are missing, as in round 0, or damaged: pages show what there is."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def _all_right(tree: dict[str, Any]) -> bool:
    """Whether nothing in a tree is wrong, as far as anybody knows."""
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
        "costs": costs,
        "styles": plots.STYLES,
        "ALL": ALL,
        "FINAL": FINAL,
        "SELECT": SELECT,
    }
    return environment
