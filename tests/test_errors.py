"""The commands that messages suggest, which a user can paste as they are."""

import subprocess
import sys
from pathlib import Path

from amplify.errors import command, round_command


def test_a_command_names_the_program_as_the_shell_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = tmp_path / ".venv/bin"
    here.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command("compare", "a b") == f"{here}/python -m amplify compare 'a b'"
    (here / "amplify").touch(0o755)
    assert command("compare", "a b") == ".venv/bin/amplify compare 'a b'"
    monkeypatch.setenv("PATH", f"/usr/bin:{here}")
    assert command("compare", "a b") == "amplify compare 'a b'"
    other = tmp_path / "other"  # another program of the same name comes first
    other.mkdir()
    (other / "amplify").touch(0o755)
    monkeypatch.setenv("PATH", f"{other}:{here}")
    assert command("compare", "a b") == ".venv/bin/amplify compare 'a b'"


def test_a_command_can_be_pasted_where_the_environment_is_not_activated(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    shown = subprocess.run(command("round", "--help"), shell=True, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "--redo" in shown.stdout


def test_the_command_for_a_round():
    folder = Path("rounds/my task")
    assert round_command(folder, 2).endswith("amplify round 'rounds/my task' --n 2")
    assert round_command(folder, 2, "evals").endswith(" --n 2 --redo evals")
