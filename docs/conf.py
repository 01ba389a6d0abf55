"""Configuration of Sphinx. `make docs` builds the pages without network and stops at a warning."""

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT.get("urls", {}).get("Repository", "").rstrip("/")

project = "Amplify"
author = "The Amplify developers"
project_copyright = author
release = PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
smartquotes = False  # "" is a value
autodoc_member_order = "bysource"
default_role = "code"  # of `names` in docstrings

html_theme = "furo"
html_title = f"Amplify {release}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

PAGES = {"README": "index", "CHANGELOG": "changelog", "CONTRIBUTING": "contributing"}
"""Files at the top of the repository, and the pages that include them."""

INCLUDED = re.compile(r"^% include (\S+)$", re.MULTILINE)
RELATIVE = re.compile(r"\]\((?!https?:|#)")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\(\.\./(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def include_and_link(app: Sphinx, page: str, source: list[str]) -> None:
    """Includes files of the repository in pages, and turns links to its other files into links that
    pages can have. `% include README.md` stands for that file.
    """
    for name in INCLUDED.findall(source[0]):
        app.env.note_dependency(str(ROOT / name))
    text = INCLUDED.sub(lambda found: included(found[1]), source[0])
    source[0] = LINK.sub(lambda found: link(page, **found.groupdict(default="")), text)


def included(name: str) -> str:
    """A file at the top of the repository, with links as they are from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return RELATIVE.sub("](../", text).replace("](../docs/", "](")


def link(page: str, text: str, path: str, anchor: str) -> str:
    """A link to a file or folder of the repository, from a page.

    It leads to the repository if pyproject.toml says where it is. Otherwise a file is copied to the
    pages, and a folder is only named.
    """
    name, _, ending = path.rpartition(".")
    if ending == "md" and name in PAGES:
        return f"[{text}]({PAGES[name]}.md{anchor})"
    if not (ROOT / path).exists():
        logging.getLogger(__name__).warning("no such file or folder: %s", path, location=page)
    if REPOSITORY:
        return f"[{text}]({REPOSITORY}/blob/main/{path}{anchor})"
    return f"[{text}](../{path})" if (ROOT / path).is_file() else text


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", include_and_link)
