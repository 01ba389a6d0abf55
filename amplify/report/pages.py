"""Self-contained pages: a comparison, a round, a decomposition tree. Everything shown is escaped by
the templates.
"""

import re
from pathlib import Path
from typing import Any

import jinja2

from amplify.report import plots, tables
from amplify.report.results import judged_rounds, scores
from amplify.store import RoundFolder, Store, read_lines, write_atomically

SHOWN_TREES = 12


def write_comparison(stores: list[Store]) -> list[Path]:
    """`compare.png` and `compare.html` in the first experiment's folder; the second's name is in
    theirs if there is one.
    """
    stem = "-".join(["compare", *(store.name for store in stores[1:])])
    picture, page = (stores[0].path / f"{stem}{ending}" for ending in (".png", ".html"))
    by_store = [scores(store, "final") for store in stores]
    everything = [score for some in by_store for score in some]
    plots.draw_rounds(everything, picture)
    html = _render(
        "compare.html",
        title=" and ".join(store.name for store in stores),
        chart=plots.rounds_chart(everything),
        experiments=[
            {
                "name": store.name,
                "scores": some,
                "rounds": judged_rounds(store),
                "keys": store.experiment.values,
                "digest": store.experiment.digest,
            }
            for store, some in zip(stores, by_store, strict=True)
        ],
        against=tables.against(*stores) if len(stores) == 2 else None,
    )
    write_atomically(page, html)
    return [picture, page]


def write_round_page(store: Store, this: RoundFolder) -> Path:
    """`report.html` of a round that has been judged."""
    shown = [
        score for score in scores(store, "final") if score.round in (this.number - 1, this.number)
    ]
    with this.intact("checkpoint"):
        metrics = read_lines(this.metrics)
    with this.intact("data"):
        trees = read_lines(this.interactions)
    html = _render(
        "round.html",
        title=f"{store.name}, round {this.number}",
        this=this,
        verdict=this.verdict,
        scores=shown,
        curve=plots.training_curve(metrics),
        trees=trees[:SHOWN_TREES],
    )
    write_atomically(this.report, html)
    return this.report


def write_tree(folder: Path, title: str, tree: dict[str, Any]) -> Path:
    """One decomposition tree, in a file named after its title."""
    path = folder / f"tree-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}.html"
    write_atomically(path, _render("tree.html", title=title, tree=tree))
    return path


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("amplify.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": tables.percent, "change": tables.change}
    return environment.get_template(template).render(**values)
