"""Whatever is wrong with an experiment file is one line, before anything is written."""

from pathlib import Path

import pytest

from amplify.cli import commands
from amplify.errors import AmplifyError
from amplify.reading.experiment_file import read_experiment
from tests.malformed import Malformed, malformed
from tests.tiny import TOML, tiny_experiment

MANY = list(malformed(200, seed=0))


def written(folder: Path, made: Malformed) -> Path:
    folder.mkdir()
    (folder / "experiment.toml").write_bytes(made.toml)
    if made.task is not None:
        (folder / "tally.py").write_text(made.task, encoding="utf-8", errors="surrogateescape")
    elif b"tally.py" in made.toml:
        source = Path(__file__).parents[1] / "rounds/tally/tally.py"
        (folder / "tally.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def test_two_hundred_malformed_files_are_one_line_each(tmp_path):
    """Through the reader. All of them are gone through, so that a failure shows the others too."""
    wrong = []
    for number, made in enumerate(MANY):
        folder = written(tmp_path / str(number), made)
        there = sorted(folder.rglob("*"))
        try:
            read_experiment(folder / "experiment.toml")
        except AmplifyError as error:
            line = str(error)
            if not 0 < len(line) < 2000 or any(c in line for c in "\n\r\x1b\0"):
                wrong.append((number, made.what, line[:500]))
        except BaseException as error:
            wrong.append((number, made.what, repr(error)[:500]))
        else:
            wrong.append((number, made.what, "was read"))
        if sorted(folder.rglob("*")) != there:
            wrong.append((number, made.what, "something was written"))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("made", MANY[::13], ids=lambda made: made.what)
def test_a_command_refuses_a_malformed_file_with_exit_code_two(tmp_path, capsys, made):
    folder = written(tmp_path / "bad", made)
    there = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as end:
        commands.main(["round", str(folder), "--n", "1"])
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == there


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("questions.per_context = 1e22", "must be a whole number"),
        ("questions.per_context = 10000000000000000000000", "at most 64 bits, got one of 74"),
        ("questions.per_context = 1000000000000", r"would take [\d,]+ GiB of memory, at most"),
        ("assistant.width = 100000000000", r"a network of .* weights would take 1.5e\+15 GiB"),
        ("evals.select = 1000000000000", "evals.select is too large: 1000000000000 held-out"),
        ("training.steps = 100000000000", "training.steps must be at most 2147483647"),
        ("training.learning_rate = inf", "training.learning_rate must be a finite number, got inf"),
        ("training.learning_rate = nan", "training.learning_rate must be a finite number, got nan"),
        ('base = "a\\u0000b"', "base must not contain a NUL character"),
        (f"seed = {'9' * 5001}", "cannot be read as TOML: Exceeds the limit"),
        (f"seed = 0x{'f' * 5001}", "seed must be a number of at most 64 bits, got one of 20004"),
    ],
)
def test_absurd_numbers_and_strings_are_refused_with_what_they_ask_for(tmp_path, line, said):
    key, value = line.split(" = ")
    table, _, name = key.rpartition(".")
    kept = "\n".join(row for row in TOML.splitlines() if not row.startswith(f"{name} ="))
    toml = (
        kept.replace(f"[{table}]", f"[{table}]\n{name} = {value}") if table else f"{line}\n{TOML}"
    )
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError, match=said):
        read_experiment(folder / "experiment.toml")


def test_more_items_for_people_than_questions_are_found_when_the_file_is_read(tmp_path):
    toml = TOML.replace('kind = "simulated"', 'kind = "human"\nitems = 385')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    with pytest.raises(AmplifyError, match=r"overseer.items must be at most 384, .* got 385"):
        read_experiment(folder / "experiment.toml")
