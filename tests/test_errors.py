"""The commands that messages suggest, which a user can paste as they are."""

import re
import subprocess
import sys
from pathlib import Path

from amplify.errors import MAKE, MAKE_VARIABLES, command, round_command


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


def test_a_command_that_make_started_suggests_commands_of_make(monkeypatch):
    monkeypatch.setenv(MAKE, "1")
    a, b = Path("rounds/a"), Path("rounds/b")
    assert round_command(a, 2) == "make round N=2 EXPERIMENT=rounds/a"
    assert command("compare", a) == "make compare EXPERIMENT=rounds/a"
    seeds = command("compare", a, b, a, "--seeds", "0,1,2")
    assert seeds == "make compare SEEDS=0,1,2 EXPERIMENT=rounds/a WITH='rounds/b rounds/a'"
    tree = command("tree", "my task", "--round", 1, "--row", 2, "--question", 0)
    assert tree == "make tree ROUND=1 ROW=2 QUESTION=0 EXPERIMENT='my task'"
    settings = ["--set", "seed=1", "--set", "training.steps=5"]
    assert command("round", a, "--n", 1, *settings, "--as", b) == (
        "make round N=1 SET='seed=1 training.steps=5' AS=rounds/b EXPERIMENT=rounds/a"
    )
    assert command("people", "a$b", "--invite", 1) == "make people INVITE=1 EXPERIMENT='a$$b'"


def test_what_make_cannot_do_is_suggested_as_the_program_s_own_command(monkeypatch):
    monkeypatch.setenv(MAKE, "1")
    assert round_command(Path("rounds/a"), 2, "evals").endswith("--n 2 --redo evals")
    assert command("compare", "a", "b c").endswith("compare a 'b c'")
    assert "amplify events a" in command("events", "a")


def test_the_makefile_has_each_variable_that_a_command_may_name():
    text = (Path(__file__).parents[1] / "Makefile").read_text()
    for name, variables in MAKE_VARIABLES.items():
        [recipe] = re.findall(rf"^{name}: .*\n((?:\t.*\n)+)", text, re.MULTILINE)
        recipe = recipe.replace("$(VARIANTS)", "--seeds $(SEEDS) --set $(SET) --as $(AS)")
        assert "$(EXPERIMENT)" in recipe
        for option, variable in variables.items():
            assert f"{option} $(call quoted,$({variable}))" in recipe or (
                f"{option} $({variable})" in recipe
            )


def test_make_passes_paths_with_any_character_on_as_it_was_suggested(monkeypatch, tmp_path):
    monkeypatch.setenv(MAKE, "1")
    suggested = command("compare", "a b$c'd", "e", "f$g")
    root = Path(__file__).parents[1]
    line = suggested.replace("make ", "make --no-print-directory AMPLIFY_NO_VENV=1 PYTHON=echo ", 1)
    done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "-m amplify compare a b$c'd e f$g"
