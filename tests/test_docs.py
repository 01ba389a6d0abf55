"""The documentation: what is generated is up to date, and the pages build without a warning."""

import dataclasses
import importlib
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

from amplify.cli.commands import COMMANDS
from amplify.reading.experiment_file import KINDS, NOT_IDENTITY, SECTIONS
from amplify.types import DONT_KNOW

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
experiment_file = importlib.import_module("docs.experiment_file")


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds pages by the configuration in docs/."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    return subprocess.run(
        [*command, "-c", ROOT / "docs", source, out], cwd=ROOT, capture_output=True, text=True
    )


def test_the_reference_of_experiment_files_is_that_of_the_code():
    written = experiment_file.PAGE.read_text(encoding="utf-8")
    assert written == experiment_file.page(), "out of date: run python -m docs.experiment_file"


def test_the_reference_has_every_key_with_a_description():
    written = experiment_file.PAGE.read_text(encoding="utf-8")
    kinds = [kind for one in KINDS.values() for kind in one.values()]
    for section in (*kinds, *SECTIONS.values(), *NOT_IDENTITY.values()):
        meanings = experiment_file.described_fields(section)
        for field in dataclasses.fields(section):
            assert meanings[field.name].endswith((".", "]}.")), (section, field.name)
            assert f"`{field.name}" in written or f".{field.name}]`" in written


def test_a_key_without_a_description_is_an_error():
    @dataclasses.dataclass(frozen=True)
    class Section:
        said: int = 1
        """Said."""
        unsaid: int = 2

    with pytest.raises(ValueError, match=r"Section\.unsaid has no docstring"):
        list(experiment_file._keys(Section, "task"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (page.parent / name).exists()] == []


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_of_an_experiment_file_can_be_in_one(page):
    known = {name: set(kinds.values()) for name, kinds in KINDS.items()}
    known |= {name: {section} for name, section in {**SECTIONS, **NOT_IDENTITY}.items()}
    for block in blocks(page, "toml"):
        for name, table in tomllib.loads(block).items():
            if name in ("seed", "base"):
                continue
            kind = table.pop("kind", None)
            sections = {KINDS[name][kind]} if kind in KINDS.get(name, ()) else known[name]
            own = isinstance(kind, str) and ".py:" in kind
            assert own or any(
                set(table) <= {field.name for field in dataclasses.fields(section)}
                for section in sections
            ), (name, table)


def test_the_tutorial_shows_what_is_in_the_folder_of_its_task():
    folder, page = ROOT / "rounds/tally", ROOT / "docs/tutorial.md"
    [experiment] = blocks(page, "toml")
    assert tomllib.loads(experiment) == tomllib.loads((folder / "experiment.toml").read_text())
    task = (folder / "tally.py").read_text(encoding="utf-8")
    strategy, two_tokens = blocks(page, "python")
    assert textwrap.indent(strategy, "    ") in task
    names = {"jnp": jnp, "ZERO": 1, "DONT_KNOW": DONT_KNOW}
    exec(f"def conclude(left, right):\n{textwrap.indent(two_tokens, '    ')}", names)
    left, right = jnp.array([[2, 3], [0, 0], [4, 0]]), jnp.array([[5, 1], [1, 1], [1, 1]])
    assert names["conclude"](left, right).tolist() == [[6, 3], [0, 0], [0, 0]]


@pytest.mark.parametrize("section", ["overseer", "oversight"])
def test_the_page_about_overseers_has_every_kind(section):
    page = (ROOT / "docs/overseers.md").read_text(encoding="utf-8")
    _, _, table = page.partition(f"| `{section}.kind` |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert {row.split("`")[1] for row in rows} == {*KINDS[section], "file.py:Name"}


def test_the_page_about_commands_names_every_command_and_no_other():
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in page.splitlines() if row.startswith("| ")][1:]
    named = {found for row in rows for found in re.findall(r"`([a-z-]+)", row[1])}
    [phony] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named == set(phony.split()) - {"help"}
    assert {row[3].split()[0].strip("`") for row in rows if row[3].strip()} == set(COMMANDS)


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_requests_nothing_from_elsewhere(tmp_path):
    from tests.web.processes import browser

    built = build(ROOT / "docs", tmp_path)
    assert built.returncode == 0, built.stderr
    pages = sorted(tmp_path.glob("*.html"))
    assert {page.stem for page in PAGES} <= {page.stem for page in pages}
    requested: list[str] = []
    with browser() as chromium:
        window = chromium.new_page(viewport={"width": 400, "height": 800})
        window.on("request", lambda request: requested.append(request.url))
        for page in pages:
            window.goto(page.as_uri())
            wide = window.evaluate("document.documentElement.scrollWidth")
            assert wide <= 400, f"{page.name} is {wide} pixels wide on a phone"
    assert len(requested) > len(pages)
    assert [url for url in requested if not url.startswith(tmp_path.as_uri())] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("[a](nowhere.md)", "'nowhere.md'"),
        ("[a](#nothing)", "'nothing'"),
        ("[a](other.md#nothing)", "'nothing'"),
        ("[a](../amplify/nothing.py)", "no such file or folder: amplify/nothing.py"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, mistake, message):
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text(f"# Index\n\n{mistake}\n", encoding="utf-8")
    (source / "other.md").write_text("---\norphan: true\n---\n\n# Other\n", encoding="utf-8")
    built = build(source, tmp_path / "out")
    assert built.returncode != 0
    assert message in built.stderr
