"""Searches the decomposition trees that an experiment's rounds kept, and writes them as HTML.

Leads from a training row to its tree, and from an answer to every training row whose tree contains
it. Reads each round's interactions.jsonl, which holds all trees of people and a sample of the
others (those can be recomputed: see `inspection`). The HTML file of a round needs no other file.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from amplify.answers import CASELESS, AnswerRule
from amplify.errors import AmplifyError, first_line
from amplify.files.writing import write_atomically
from amplify.people.records import Record, read_records
from amplify.people.text import without_surrogates
from amplify.records.record import main_folder, phase_folder, phases, trained_in

Node = Mapping[str, Any]
"""`{"question", "answer", "by", "right", "steps": [Node, ...]}`; the root of a person's tree also
has "item", "person" and "event".
"""

BY = ("human", "overseer", "assistant", "environment")
"""Values of `by`: who answered."""


class Tree(NamedTuple):
    """How the answer to one question of a training row came about."""

    round: int
    row: int  # of the round's data set
    column: int
    root: Node
    label: str | None  # the question's class, where it is known
    parent: int | None  # the round whose checkpoint answered the sub-questions
    checkpoint: str | None  # its digest
    text: str  # of all its questions and answers, for searching

    @property
    def place(self) -> str:
        """Its place as part of a URL, such as `1-30-2`."""
        return f"{self.round}-{self.row}-{self.column}"

    @property
    def person(self) -> str | None:
        return self.root.get("person")

    @property
    def right(self) -> bool | None:
        return self.root.get("right")

    def nodes(self) -> Iterator[Node]:
        """All nodes, the root first."""
        return _nodes(self.root)


class TreeFilter(NamedTuple):
    """A filter; fields that are None or empty let every tree pass."""

    text: str = ""  # words that must all occur, whatever their case
    round: int | None = None
    label: str | None = None
    right: bool | None = None  # the final answer
    person: str | None = None
    by: str | None = None  # who answered the question itself
    model: int | None = None  # the round whose checkpoint helped

    def lets(self, tree: Tree) -> bool:
        """Whether a tree passes."""
        return (
            self.round in (None, tree.round)
            and self.label in (None, tree.label)
            and (self.right is None or tree.right is self.right)
            and self.person in (None, tree.person)
            and self.by in (None, tree.root.get("by"))
            and self.model in (None, tree.parent)
            and all(word in tree.text for word in self.text.casefold().split())
        )


class Trees:
    """The trees of an experiment's rounds, in the order of round, row and column."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.all = sorted(trees, key=lambda tree: tree[:3])
        self._at = {tree[:3]: tree for tree in self.all}

    def __len__(self) -> int:
        return len(self.all)

    def find(self, wanted: TreeFilter) -> list[Tree]:
        """The trees that pass a filter."""
        return [tree for tree in self.all if wanted.lets(tree)]

    def at(self, round: int, row: int, column: int) -> Tree | None:
        """The tree behind one question of one training row, if it was kept."""
        return self._at.get((round, row, column))

    def of_event(self, event: int) -> list[Tree]:
        """Trees with an answer that this event of the log gave."""
        return [
            tree for tree in self.all if any(node.get("event") == event for node in tree.nodes())
        ]

    def resting_on(
        self,
        question: str,
        answer: str,
        checkpoint: str | None = None,
        rule: AnswerRule = CASELESS,
    ) -> list[Tree]:
        """Returns the trees in which a question got an answer, at any node.

        Args:
            question: case and spacing make no difference.
            answer: to that question.
            checkpoint: digest of the weights that answered; None: any.
            rule: when two answers are the same.
        """

        def gave_it(node: Node) -> bool:
            asked = _plain(node["question"]) == _plain(question)
            return asked and rule.same(node["answer"], answer)

        return [
            tree
            for tree in self.all
            if checkpoint in (None, tree.checkpoint) and any(map(gave_it, tree.nodes()))
        ]

    @property
    def judged(self) -> bool:
        """Whether any of them says what is right: not where the task knows no truth."""
        return any(tree.right is not None for tree in self.all)

    def labels(self) -> list[str]:
        """Classes of their questions."""
        return list(dict.fromkeys(tree.label for tree in self.all if tree.label is not None))

    def people(self) -> list[str]:
        """Pseudonyms of those who answered."""
        return sorted({tree.person for tree in self.all if tree.person is not None})

    def models(self) -> list[int]:
        """Rounds whose checkpoints helped."""
        return sorted({tree.parent for tree in self.all if tree.parent is not None})


def read_trees(experiment: Path, labels: Mapping[str, str] | None = None) -> Trees:
    """Reads the trees of all rounds.

    Args:
        experiment: its folder.
        labels: classes of items by id, for trees that do not say.

    Raises:
        AmplifyError: a file is damaged.
    """
    return Trees(
        [tree for record in read_records(experiment) for tree in read_round(record, labels or {})]
    )


def read_round(record: Record, labels: Mapping[str, str]) -> list[Tree]:
    """Reads the trees of one round; see `read_trees`."""
    path = _interactions(record)
    if path is None:
        return []
    stat, parent = path.stat(), record.facts.get("parent") or {}
    seen = stat.st_mtime_ns, stat.st_ino
    return [
        tree._replace(label=tree.label or labels.get(tree.root.get("item", "")))
        for tree in _read(path, record.number, record.parent, parent.get("digest"), seen)
    ]


def _interactions(record: Record) -> Path | None:
    """The trees of the phase that last trained the assistant or, where it kept none, as if it was
    trained against a reward model, of the last phase that did. An audit, which trains nothing,
    comes last.
    """
    facts = dict(record.facts)
    trained = {*trained_in(facts).values()}
    names = sorted(phases(facts), key=lambda name: name in trained)  # the last is the first choice
    others = [phase_folder(record.folder, facts, name) for name in reversed(names)]
    kept = (one.interactions for one in (main_folder(record.folder, facts), *others))
    return next((path for path in kept if path.exists()), None)


@functools.lru_cache(maxsize=256)
def _read(
    path: Path, round: int, parent: int | None, checkpoint: str | None, _seen: tuple[int, int]
) -> list[Tree]:
    """Cached until the file changes."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # text may have other line breaks
        roots = [without_surrogates(json.loads(line)) for line in lines if line]
        return [
            Tree(
                round,
                int(root["row"]),
                int(root["column"]),
                root,
                root.get("class"),
                parent,
                checkpoint,
                _plain("\n".join(f"{n['question']}\n{n['answer']}" for n in _nodes(root))),
            )
            for root in roots
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AmplifyError(f"{path}: damaged ({first_line(error)})") from None


def _nodes(root: Node) -> Iterator[Node]:
    """Yields a node, then its steps in the order in which they were asked."""
    yield root
    for step in root.get("steps", ()):
        yield from _nodes(step)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def write_trees(experiment: Path, number: int, labels: Mapping[str, str] | None = None) -> Path:
    """Writes `trees.html` into a round's folder: its trees, to fold, search and filter.

    People appear under their pseudonyms.

    Args:
        experiment: its folder.
        number: of the round.
        labels: as for `read_trees`.

    Returns:
        The file.

    Raises:
        AmplifyError: there is no such round, or a file is damaged.
    """
    there = {record.number: record for record in read_records(experiment)}
    if number not in there:
        raise AmplifyError(f"{experiment}: there is no round {number}")
    record = there[number]
    trees = Trees(read_round(record, labels or {}))
    page = _templates().get_template("trees.html")
    title = f"{experiment.resolve().name}, round {number}: decomposition trees"
    path = record.folder / "trees.html"
    write_atomically(path, page.render(title=title, record=record, trees=trees, by=BY))
    return path


def folded(root: Node, *, open: bool = False, ask: str | None = None) -> Markup:
    """Returns a tree as nested <details> elements, with all text escaped.

    Args:
        root: of the tree.
        open: whether it is unfolded at first.
        ask: a URL; every answer links to it with `?question=...&answer=...` appended.
    """
    parts = _templates().get_template("tree.html").module
    return Markup(parts.tree(root, open, ask))  # type: ignore[attr-defined]


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("amplify.people"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
