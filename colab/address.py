"""Copies the repository's address from pyproject.toml into the notebooks: `make notebooks`."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def address() -> str:
    """Returns the address of the repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: str = project["urls"]["Repository"]
    return found


def addressed(text: str, name: str) -> str:
    """Returns a notebook's text with the address in its badge and in its settings.

    Args:
        text: the notebook's JSON.
        name: the name of its file.
    """
    there = address().removeprefix("https://github.com/")
    opens = f"https://colab.research.google.com/github/{there}/blob/main/colab/{name}"
    badge = f"[![Open in Colab]({BADGE})]({opens})"
    text = re.sub(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)", badge, text, count=1)
    return re.sub(r'REPOSITORY = \\"[^\\"]*\\"', rf'REPOSITORY = \\"{address()}\\"', text, count=1)


def main() -> None:
    """Rewrites the notebooks beside this file."""
    for path in sorted(ROOT.glob("colab/*.ipynb")):
        path.write_text(addressed(path.read_text(encoding="utf-8"), path.name), encoding="utf-8")


if __name__ == "__main__":
    main()
