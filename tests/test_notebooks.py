import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.tiny import tiny_experiment

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


def test_there_is_a_notebook():
    assert ROOT / "colab" / "rounds.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_short_and_have_no_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) <= 15
    assert not any(cell.get("outputs") for cell in cells)


def test_rounds_notebook_runs_top_to_bottom(tmp_path, monkeypatch):
    """With a tiny experiment in place of the default one, and two rounds instead of three."""
    folder = tiny_experiment(tmp_path / "tiny")
    notebook = nbformat.read(ROOT / "colab" / "rounds.ipynb", as_version=4)
    settings = notebook.cells[1]
    settings.source, changed = re.subn(
        r'"rounds/wildcard"|ROUNDS = 3',
        lambda found: repr(str(folder)) if "wildcard" in found[0] else "ROUNDS = 2",
        settings.source,
    )
    assert changed == 2
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 1
    said = "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs
    )
    assert "(against round " in said
    assert "round 2, row 17, question 0" in said
    shutil.rmtree(folder)
