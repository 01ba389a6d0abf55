"""Documents and questions of one's own, as files: made from a generated encyclopedia."""

import json
from collections.abc import Iterable
from pathlib import Path

from amplify.tasks.text.encyclopedia import chains, generate, phrase_question

WORLD = generate(64, 0)
DOCUMENTS = list(WORLD.documents)


def written(path: Path, rows: Iterable[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asked_rows() -> list[dict]:
    """Questions about every region: one of a hop, and one of two."""
    rows = []
    for number, (title, _) in enumerate(DOCUMENTS):
        for chain in (*chains(1), *chains(2)[::3]):
            text = phrase_question(title, chain)
            if WORLD.answer(text) and (len(chain) == 1 or number % 2):
                path = [DOCUMENTS[place].title for [place] in WORLD.path(text)]
                rows.append({"question": text, "answer": WORLD.answer(text), "documents": path})
    return rows


def jsonl(path: Path) -> Path:
    return written(path, [{"title": title, "text": text} for title, text in DOCUMENTS])
