import re
import shutil
import socket
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from amplify.tasks.text.encyclopedia import generate
from tests.checkpoints import checkpoint_folder
from tests.tiny import tiny_experiment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def test_people_notebook_runs_top_to_bottom_with_a_simulated_person(tmp_path, monkeypatch):
    """With few questions; who answers opens the page at the address that the notebook shows."""
    for name in ("search", "people"):
        shutil.copytree(ROOT / "rounds" / name, tmp_path / "rounds" / name)
    file = tmp_path / "rounds/search/experiment.toml"
    text, changed = re.subn(r"= 128\n", "= 8\n", file.read_text(encoding="utf-8"))
    assert changed == 2
    file.write_text(text, encoding="utf-8")
    notebook = nbformat.read(ROOT / "colab" / "people.ipynb", as_version=4)
    port = free_port()
    changes = {"CONTEXTS": 16, "STEPS": 2, "REGIONS": 64, "ITEMS": 4, "PORT": port}
    settings = notebook.cells[1]
    for name, value in changes.items():
        settings.source, changed = re.subn(
            rf"(?m)^{name} = \S+", f"{name} = {value}", settings.source
        )
        assert changed == 1
    shown = next(cell for cell in notebook.cells if "IFrame" in cell.source)
    person = "import subprocess; subprocess.Popen([sys.executable, '-m', 'amplify.crowd',"
    shown.source += f"\n{person} str(EXPERIMENT), '--address', 'http://127.0.0.1:{port}'])"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(f"127.0.0.1:{port}/in/" in str(output) for output in outputs)
    said = "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs
    )
    assert "the same, bit for bit" in said
    assert re.search(r"4\S* by people", said)


def test_language_model_notebook_runs_top_to_bottom(tmp_path, monkeypatch):
    """With a tiny checkpoint in a folder, and few questions."""
    texts = [f" {text}" for _, text in generate(256, 0).documents]
    checkpoint_folder(tmp_path / "checkpoint", texts=texts, tokens=1500, positions=2048)
    for name in ("search", "search-pretrained"):
        shutil.copytree(ROOT / "rounds" / name, tmp_path / "rounds" / name)
    file = tmp_path / "rounds/search/experiment.toml"
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
    notebook = nbformat.read(ROOT / "colab" / "language_model.ipynb", as_version=4)
    settings, changes = notebook.cells[1], {
        "CHECKPOINT": repr("checkpoint"),
        "CONTEXTS": "32",
        "STEPS": "2",
        "REGIONS": "256",
    }  # fmt: skip
    for name, value in changes.items():
        settings.source, changed = re.subn(
            rf"(?m)^{name} = \S+", f"{name} = {value}", settings.source
        )
        assert changed == 1
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert (tmp_path / "exported" / "model.safetensors").is_file()
