import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amplify.cli import commands
from tests.tiny import TOML, tiny_experiment

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    folder = tiny_experiment(tmp_path_factory.mktemp("cli") / "tiny")
    done = amplify("round", str(folder), "--n", "1")
    assert done.returncode == 0, done.stderr
    return folder


def amplify(*arguments: str, **options) -> subprocess.CompletedProcess:
    """The command in a process of its own, as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "amplify", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def refused(capsys, *arguments: str) -> str:
    """The one line that a command is refused with."""
    with pytest.raises(SystemExit) as end:
        commands.main(arguments)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("amplify: ")
    return captured.err


def test_a_round_prints_its_table_and_its_verdict(ran):
    done = amplify("round", str(ran), "--n", "1")  # done already: only printed
    assert done.returncode == 0
    assert "round 1" in done.stdout
    assert "1 wildcard" in done.stdout
    assert "against round 0" in " ".join(done.stdout.split())
    assert f"Page: {ran}/001/report.html" in done.stdout
    assert re.search(f"Figures: .* compare {ran}\n", done.stdout)
    assert re.search(f"Next: .* round {ran} --n 2\n", done.stdout)
    [warning] = done.stderr.splitlines()  # so few contexts can tell no small gain
    assert warning.startswith(
        "warning: gate.worthwhile = 0.01, but with 24 contexts no gain below "
    )


def test_without_a_terminal_every_log_step_is_a_line_and_a_resumed_round_says_from_where(
    ran, tmp_path
):
    folder = Path(shutil.copytree(ran, tmp_path / "tiny"))
    done = amplify("round", str(folder), "--n", "1", "--redo", "distillation/checkpoint")
    assert done.returncode == 0, done.stderr
    warning, *lines, verdict = done.stderr.splitlines()
    assert warning.startswith("warning: gate.worthwhile = 0.01")
    assert lines[0] == "round 1 resumes after distillation/data"
    assert lines[1] == "round 1: distillation, 0 of 60: compiling"
    for step, line in enumerate(lines[2:8], 1):
        assert line.startswith(f"round 1: distillation, {10 * step} of 60, loss ")
        assert re.search(r" [\d,.]+ steps/s, [\d.]+ s left$", line)
    assert [" alone " in line for line in lines[2:8]] == [False] * 5 + [True]  # the only look
    assert re.fullmatch(r"round 1: \S \w+, took .*; .* \(against round 0\)", verdict)
    assert "\x1b" not in done.stderr


def test_results_for_programs_have_the_promised_keys(ran, capsys):
    commands.main(["compare", str(ran), "--json"])
    rows = json.loads(capsys.readouterr().out)
    measures = {"alone", "amplified", "ceiling"}
    keys = {"experiment", "round", "split", "class", "n", "contexts", "interval"} | measures
    keys |= {"intervals", "verdict", "reason", "against", "cost", "calls"}
    assert all(set(row) == keys for row in rows)
    places = {(row["round"], row["split"], row["class"]) for row in rows}
    assert len(places) == len(rows) == 2 * 2 * 4
    first = next(row for row in rows if row["round"] == 0 and row["class"] == "1 wildcard")
    assert first["experiment"] == "tiny"
    assert first["ceiling"] == first["amplified"] == 1.0  # the environment answers both halves


def test_a_comparison_is_a_picture_and_a_page(ran, tmp_path):
    folder = Path(shutil.copytree(ran, tmp_path / "tiny"))
    done = amplify("compare", str(folder))
    assert done.returncode == 0, done.stderr
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (folder / "compare.html").read_text(encoding="utf-8")


def test_two_experiments_are_compared_side_by_side(ran, tmp_path):
    other = Path(shutil.copytree(ran, tmp_path / "other"))
    done = amplify("compare", str(ran), str(other), "--json")
    assert {row["experiment"] for row in json.loads(done.stdout)} == {"tiny", "other"}


def test_questions_by_hand_are_answered_and_mistakes_do_not_end_the_talk(ran):
    done = amplify("ask", str(ran), "--round", "1", "--amplify", input="a*b\nnonsense\n*bb\n\n")
    assert done.returncode == 0, done.stderr
    assert "'nonsense' is no question: a pattern is 3 of the letters a, b and *" in done.stderr
    for question in ("a*b →", "aab →", "abb →", "*bb →"):
        assert question in done.stdout
    assert "environment  ✓ right" in done.stdout
    assert "probability" in done.stdout


def test_the_tree_of_a_row_is_shown_and_written(ran, tmp_path):
    folder = Path(shutil.copytree(ran, tmp_path / "tiny"))
    done = amplify("tree", str(folder), "--round", "1", "--row", "17")
    assert done.returncode == 0, done.stderr
    assert "round 1, row 17, question 0" in done.stdout
    [page] = (folder / "001").glob("tree-*.html")
    assert "environment" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("asked", "level"), [({}, "3"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")])
def test_the_compiler_logs_what_is_fatal_unless_more_is_asked_for(asked, level):
    """jaxlib reads the variable once, when it is loaded: no sooner than a command has begun."""
    program = """
import contextlib, os, sys
from amplify.cli.commands import main
assert "jaxlib" not in sys.modules
with contextlib.suppress(SystemExit):
    main(["nonsense"])
print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
"""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"} | asked
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == level


@pytest.mark.parametrize("given", [(), ("ROUND=1",), ("ROW=3",), ("ROUND=", "ROW=3")])
def test_make_tree_without_round_or_row_says_what_is_missing(given):
    make = ["make", "--no-print-directory", "AMPLIFY_NO_VENV=1", f"PYTHON={sys.executable}"]
    done = subprocess.run(
        [*make, "tree", *given],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    said = "make tree: which round and row? For example: make tree ROUND=3 ROW=17"
    assert done.stderr.splitlines()[0] == said


@pytest.mark.slow
def test_rounds_stop_by_themselves(tmp_path):
    """At a learning rate at which nothing is learned the first round is no better: the end."""
    folder = tiny_experiment(tmp_path / "tiny", TOML.replace("1e-2", "1e-12"))
    done = amplify("rounds", str(folder))
    assert done.returncode == 0, done.stderr
    assert (folder / "001").exists()
    assert not (folder / "002").exists()
    assert "stopping" in done.stderr


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("amplify.cli.commands", {"jax", "flax", "scipy", "transformers", "matplotlib", "altair"}),
        ("amplify.round", {"transformers", "torch", "matplotlib", "altair", "tensorflow"}),
    ],
)
def test_what_is_imported_is_needed_by_every_command(module, heavy):
    code = f"import sys, {module}; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


@pytest.mark.parametrize("command", [[], *([name] for name in commands.COMMANDS)])
def test_help_is_for_people(command, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main([*command, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "usage: amplify" in said
    assert "wildcard" not in said.split("usage")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["round", "{ran}", "--n", "0"], "a round number is 1 or more, got 0"),
        (["round", "{ran}", "--n", "-3"], "a round number is 1 or more, got -3"),
        (["round", "{ran}", "--n", "abc"], "'abc'"),
        (["round", "{ran}", "--n", ""], "''"),
        (["round", "{ran}"], "--n"),
        (["round", "{ran}", "--n", "1", "--redo", "lunch"], "lunch"),
        (["round", "{ran}", "--n", "1", "--m", "1"], "--m"),
        (["round", "{ran}/nowhere", "--n", "1"], "no such folder"),
        (
            ["round", "{ran}/001", "--n", "1"],
            "no such file; an experiment is a folder with an experiment.toml",
        ),
        (["lunch"], "lunch"),
        ([], "see amplify --help"),
        (["ask", "{ran}", "--round", "7"], "round 7 has no checkpoint; rounds that have: 0, 1"),
        (["ask", "{ran}", "--depth", "0"], "--depth: must be 1 or more, got 0"),
        (
            ["tree", "{ran}", "--round", "0", "--row", "0"],
            "round 0 has no data; rounds that have: 1",
        ),
        (["tree", "{ran}", "--round", "1", "--row", "96"], "must be 0 to 95 in round 1, got 96"),
        (["compare", "{ran}", "{ran}/nowhere"], "no such folder"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_two(ran, capsys, arguments, said):
    assert said in refused(capsys, *(argument.format(ran=ran) for argument in arguments))


def test_nothing_to_compare_says_what_to_run(tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "tiny")
    assert f"amplify round {folder} --n 1" in refused(capsys, "compare", str(folder))


def test_ctrl_c_says_where_it_stopped_and_that_the_same_command_goes_on(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", TOML.replace("steps = 60", "steps = 100000"))
    process = subprocess.Popen(
        [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not (folder / "001" / "distillation" / "data").exists():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert (
        said.strip()
        .splitlines()[-1]
        .endswith("stopped in round 1; run the same command again to resume")
    )


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_the_rounds_before_whole(ran, tmp_path):
    """The limit on a file's size stands in for the disk: the kernel refuses the write in the same
    way.
    """
    folder = Path(shutil.copytree(ran, tmp_path / "tiny"))
    before = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from amplify.cli.commands import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
main(["round", {str(folder)!r}, "--n", "2"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    *progress, line = done.stderr.splitlines()
    assert all(told.startswith(("round ", "warning: ")) for told in progress), done.stderr
    assert "File too large" in line
    assert all(path.read_bytes() == content for path, content in before.items())
    again = amplify("round", str(folder), "--n", "2")
    assert again.returncode == 0, again.stderr
