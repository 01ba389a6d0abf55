"""What simulated people take answers to be worth: those of each review on the pages.

A round writes it into the experiment's private folder `people/`, and the simulated people, who know
nothing about the task, find there what they think of the text in front of them. No page reads it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from amplify.answers import collapse_spaces
from amplify.errors import AmplifyError
from amplify.files.writing import make_private_folder, write_atomically

Impressions = Mapping[str, tuple[float, ...]]
"""By the text of a review, with single spaces: what its answers seem to be worth."""

FILE = "impressions.json"


def write_impressions(experiment: Path, impressions: Impressions) -> None:
    """Writes the impressions of a round's reviews, in place of an earlier round's.

    Args:
        experiment: its folder.
        impressions: by text, with any spaces.
    """
    folder = experiment / "people"
    make_private_folder(folder)
    spaced = {collapse_spaces(text): values for text, values in impressions.items()}
    write_atomically(folder / FILE, json.dumps(spaced, indent=0), private=True)


def read_impressions(experiment: Path) -> Impressions:
    """Reads the impressions of the round whose reviews are on the pages.

    Args:
        experiment: its folder.

    Raises:
        AmplifyError: there are none: no round has put up reviews.
    """
    path = experiment / "people" / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AmplifyError(
            f"{path}: no such file; a round writes it when it puts up reviews"
        ) from None
    return {text: tuple(values) for text, values in found.items()}
