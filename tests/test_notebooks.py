"""The notebooks, run from `colab/` by a real kernel, as Jupyter runs them for a person: once, again
after a restart, and on a new machine.
"""

import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from amplify.tasks.text.encyclopedia import generate
from colab.address import address, addressed
from tests.checkpoints import checkpoint_folder
from tests.tiny import tiny_experiment

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
SETTINGS, INSTALL, COPY = 1, 2, 3
"""Cells of every notebook."""


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_settings(path: Path, settings: Mapping[str, Any]) -> nbformat.NotebookNode:
    """The notebook with other settings, as a person changes them in its first code cell."""
    notebook = read(path)
    cell = notebook.cells[SETTINGS]
    for name, value in settings.items():
        line = f"{name} = {value!r}".replace("\\", r"\\")
        cell.source, changed = re.subn(rf"(?m)^{name} = \S+", line, cell.source)
        assert changed == 1, name
    return notebook


def run(notebook: nbformat.NotebookNode, folder: Path, timeout: int = 600) -> None:
    """Runs all cells in a new kernel whose working directory is the folder."""
    NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": folder}}).execute()


def outputs(notebook: nbformat.NotebookNode) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def said(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in outputs(notebook)
    )


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout with rounds of its own, from which Amplify is installed."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "colab", folder / "colab")
    results = shutil.ignore_patterns("0*", "*-mine")
    shutil.copytree(ROOT / "rounds", folder / "rounds", ignore=results)
    (folder / "amplify").symlink_to(ROOT / "amplify")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    return folder


def test_there_is_a_notebook():
    assert ROOT / "colab" / "rounds.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_short_begin_with_a_badge_and_have_no_outputs(path):
    cells = read(path).cells
    assert len(cells) <= 15
    assert cells[0].source.startswith("[![Open in Colab](")
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_have_the_address_of_the_repository_from_pyproject(path):
    text = path.read_text(encoding="utf-8")
    assert addressed(text, path.name) == text, "run: make notebooks"
    there = address().removeprefix("https://github.com/")
    assert f"colab.research.google.com/github/{there}/blob/main/colab/{path.name})" in text
    assert f'REPOSITORY = "{address()}"' in read(path).cells[SETTINGS].source


def test_address_reaches_every_notebook_if_it_changes(monkeypatch):
    monkeypatch.setattr("colab.address.address", lambda: "https://github.com/some/other")
    for path in NOTEBOOKS:
        text = addressed(path.read_text(encoding="utf-8"), path.name)
        assert text.count("some/other") == 2
        assert address().removeprefix("https://github.com/") not in text


def test_no_file_has_another_address_of_the_repository():
    """Addresses of other projects are no matter; those that end in /amplify are ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours = re.compile(r"(?:github\.com|google\.com/github)/([\w.-]+/amplify)\b")
    found = {
        (name, there)
        for name in listed.stdout.splitlines()
        if (ROOT / name).suffix in {".py", ".md", ".toml", ".ipynb", ".cff", ".yml", ".html", ""}
        and (ROOT / name).is_file()
        for there in ours.findall((ROOT / name).read_text(encoding="utf-8"))
    }
    assert {there for _, there in found} == {address().removeprefix("https://github.com/")}


def test_all_notebooks_install_and_copy_alike():
    for number in (INSTALL, COPY):
        assert len({read(path).cells[number].source for path in NOTEBOOKS}) == 1


@pytest.mark.slow
def test_rounds_notebook_runs_again_after_a_restart_and_on_a_new_machine(checkout, tmp_path):
    """With a tiny experiment in place of the default one, and two rounds instead of three."""
    folder = tiny_experiment(checkout / "rounds/tiny")
    settings = {"FOLDER": "rounds/tiny", "ROUNDS": 2, "COPY_TO": str(tmp_path / "drive")}
    before = {path.name for path in (checkout / "colab").iterdir()}
    notebook = with_settings(checkout / "colab/rounds.ipynb", settings)
    run(notebook, checkout / "colab")
    assert pictures(notebook) == 1
    assert "[Round(0, untrained), Round(1, " in said(notebook)
    assert "round 2, row 17, question 0" in said(notebook)
    record = (folder / "002/record.json").read_bytes()  # with the seconds of every stage

    again = with_settings(checkout / "colab/rounds.ipynb", settings)
    run(again, tmp_path)  # from another folder, too
    assert (folder / "002/record.json").read_bytes() == record
    assert pictures(again) == 1

    for number in ("000", "001", "002"):
        shutil.rmtree(folder / number)
    elsewhere = with_settings(checkout / "colab/rounds.ipynb", settings)
    run(elsewhere, checkout / "colab")
    assert (folder / "002/record.json").read_bytes() == record
    assert "round 2, row 17, question 0" in said(elsewhere)
    assert {path.name for path in (checkout / "colab").iterdir()} == before


@pytest.mark.slow
def test_install_asks_for_a_restart_and_goes_on_after_it(checkout, tmp_path, monkeypatch):
    """On a machine without Amplify; pip, which would need a network, only notes what it is told."""
    tiny_experiment(checkout / "rounds/tiny")
    for command in (["init", "-q", "-b", "main"], ["add", "amplify", "rounds/tiny"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *name, "commit", "-qm", "x"], cwd=checkout, check=True)
    machine, home, notes = tmp_path / "machine", tmp_path / "home", tmp_path / "installed"
    (machine / "pip").mkdir(parents=True)
    home.mkdir()
    (machine / "pip/__init__.py").touch()
    (machine / "pip/__main__.py").write_text(
        f"import pathlib, sys\npathlib.Path({str(notes)!r}).write_text('\\n'.join(sys.argv[1:]))\n"
    )
    (machine / "sitecustomize.py").write_text(
        "import pathlib, sys\n"
        "has = lambda path: (pathlib.Path(path) / 'amplify/api.py').exists()\n"
        "sys.path[:] = [path for path in sys.path if not has(path)]\n"
        f"notes = pathlib.Path({str(notes)!r})\n"
        "if notes.exists():\n"
        "    said = notes.read_text().splitlines()\n"
        "    sys.path.append(said[said.index('-e') + 1])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(machine))
    monkeypatch.setenv("HOME", str(home))
    settings = {"FOLDER": "rounds/tiny", "ROUNDS": 1, "REPOSITORY": str(checkout)}
    path = checkout / "colab/rounds.ipynb"
    with pytest.raises(CellExecutionError, match="Restart the session"):
        run(with_settings(path, settings), home)
    pip = notes.read_text().splitlines()
    assert pip[:2] == ["install", "-q"]
    assert pip[-1].startswith("jax")
    assert ["-c", str(home / "amplify/constraints.txt")] == pip[2:4]
    notebook = with_settings(path, settings)
    run(notebook, home)
    assert f"installed from {home / 'amplify'}" in said(notebook)
    assert (home / "amplify/rounds/tiny/001/record.json").exists()

    notes.unlink()
    shutil.rmtree(home / "amplify")
    nowhere = settings | {"REPOSITORY": str(tmp_path / "nowhere")}
    with pytest.raises(CellExecutionError, match="cannot be cloned: set REPOSITORY"):
        run(with_settings(path, nowhere), home)


@pytest.mark.slow
def test_without_drive_a_notebook_in_colab_says_that_nothing_is_kept(
    checkout, tmp_path, monkeypatch
):
    tiny_experiment(checkout / "rounds/tiny")
    module = tmp_path / "colab/google/colab"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("")
    (module / "drive.py").write_text("def mount(path):\n    raise ValueError('mount failed')\n")
    monkeypatch.setenv("PYTHONPATH", f"{checkout}:{tmp_path / 'colab'}")
    settings = {"FOLDER": "rounds/tiny", "ROUNDS": 1}
    notebook = with_settings(checkout / "colab/rounds.ipynb", settings)
    notebook.cells = notebook.cells[: COPY + 1]
    run(notebook, checkout / "colab")
    assert "the results end with this machine: mount failed" in said(notebook)


@pytest.mark.slow
def test_people_notebook_survives_a_restart_while_people_answer(checkout, tmp_path):
    """With few questions; who answers opens the page at the address that the notebook shows."""
    file = checkout / "rounds/search/experiment.toml"
    text, changed = re.subn(r"= 128\n", "= 8\n", file.read_text(encoding="utf-8"))
    assert changed == 2
    file.write_text(text, encoding="utf-8")
    port = free_port()
    settings = {"CONTEXTS": 16, "STEPS": 2, "REGIONS": 64, "ITEMS": 4, "PORT": port}
    settings |= {"COPY_TO": str(tmp_path / "drive")}
    notebook = with_settings(checkout / "colab/people.ipynb", settings)
    shown = next(n for n, cell in enumerate(notebook.cells) if "Roster(" in cell.source)
    notebook.cells = notebook.cells[: shown + 1]
    run(notebook, checkout / "colab")  # nobody answers; then the kernel ends
    link = re.search(rf"127\.0\.0\.1:{port}/in/\S+\)", str(outputs(notebook)))
    assert link

    again = with_settings(checkout / "colab/people.ipynb", settings)
    person = "import subprocess; subprocess.Popen([sys.executable, '-m', 'amplify.crowd',"
    again.cells[
        shown
    ].source += f"\n{person} str(EXPERIMENT), '--address', 'http://127.0.0.1:{port}'])"
    run(again, checkout / "colab")
    assert link[0] in str(outputs(again))  # people's links are still theirs
    assert "the same, bit for bit" in said(again)
    assert re.search(r"4\S* by people", said(again))
    assert (tmp_path / "drive/people-mine/001/record.json").exists()

    after = with_settings(checkout / "colab/people.ipynb", settings)
    run(after, checkout / "colab")
    assert "all questions are answered" in said(after)
    assert "the same, bit for bit" in said(after)


@pytest.mark.slow
def test_language_model_notebook_runs_again_after_a_restart(checkout, tmp_path):
    """With a tiny checkpoint in a folder, and few questions."""
    texts = [f" {text}" for _, text in generate(256, 0).documents]
    checkpoint_folder(tmp_path / "checkpoint", texts=texts, tokens=1500, positions=2048)
    file = checkout / "rounds/search/experiment.toml"
    fewer = {
        "select = 128": "select = 8",
        "final = 128": "final = 8",
        "context = 16": "context = 4",
        "hops = 3": "hops = 3\npassages = 4",
    }
    text = file.read_text(encoding="utf-8")
    for many, few in fewer.items():
        assert many in text
        text = text.replace(many, few)
    file.write_text(text, encoding="utf-8")
    settings = {
        "CHECKPOINT": "../../checkpoint",
        "ROUNDS": 1,
        "CONTEXTS": 32,
        "STEPS": 2,
        "REGIONS": 256,
    }
    folder = checkout / "rounds/search-mine"
    for _ in ("once", "again"):
        notebook = with_settings(checkout / "colab/language_model.ipynb", settings)
        run(notebook, checkout / "colab")
        assert pictures(notebook) == 1
        assert (folder / "exported-1/model.safetensors").is_file()
    assert not (folder / "002").exists()
