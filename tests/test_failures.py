"""Full disks, folders that cannot be written, and commands that errors suggest."""

import errno
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from amplify.cli import commands
from amplify.cli.failures import explained
from amplify.errors import AmplifyError, round_command
from amplify.files import writing
from amplify.store import Store
from amplify.training import dataset
from tests.tiny import TOML, tiny_experiment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
QUICK = TOML.replace("steps = 60", "steps = 10").replace("contexts = 96", "contexts = 16")
QUICK += "\n[gate]\nworthwhile = 0.5\n"  # so few contexts tell nothing smaller: no warning


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A round, in a folder whose name a shell would take apart."""
    folder = tiny_experiment(tmp_path_factory.mktemp("failures") / "a tiny one", QUICK)
    commands.main(["round", str(folder), "--n", "1"])
    return folder


@pytest.fixture
def copied(ran, tmp_path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "a tiny one"))


def refused(capsys, *arguments: str) -> str:
    """The one line that a command is refused with, after those about its progress."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        commands.main(arguments)
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()
    [line] = [line for line in said if not line.startswith("round ")]
    assert line == said[-1]
    return f"{line}\n"


NUMBERS = [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE, errno.EDQUOT]


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_an_error_of_the_system_is_told_with_path_reason_and_what_to_do(number):
    reason = os.strerror(number)
    bare = OSError(number, reason, "/here/file")
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = bare
    group = ExceptionGroup("several", [ValueError("x"), wrapped])
    text = ValueError(f'UNKNOWN: Error writing "/here/file": {reason} [source locations="..."]')
    for error in (bare, wrapped, group, text):
        line = explained(error)
        assert line is not None
        assert line.startswith(f"/here/file: {reason}; ")
        assert len(line) > len(f"/here/file: {reason}; ") + 10


def test_sqlite_has_words_of_its_own():
    line = explained(sqlite3.OperationalError("database or disk is full"))
    assert line is not None
    assert "No space left on device; make room" in line


def test_a_mistake_of_ours_is_not_taken_for_one_of_the_system():
    assert explained(ValueError("shapes do not fit")) is None
    assert explained(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None


WRITERS = [
    "amplify.files.writing.write_atomically",
    "amplify.training.dataset.write",
    "amplify.training.checkpoint._write",
]


@pytest.mark.parametrize("number", NUMBERS[:4], ids=errno.errorcode.get)
@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_cannot_be_written_is_one_line_and_the_rounds_before_stay(
    copied, monkeypatch, capsys, writer, number
):
    before = contents(copied)

    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(writer, fail)
    redo = "data" if "dataset" in writer else "checkpoint"
    if "files" in writer:
        said = refused(capsys, "round", str(copied), "--n", "2")
    else:
        said = refused(capsys, "round", str(copied), "--n", "1", "--redo", redo)
    assert f": {os.strerror(number)}; " in said
    after = contents(copied)
    kept = {path for path in before if path.parts[0] == "000" or path.name == "experiment.toml"}
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    assert not [path for path in after if ".tmp" in str(path)]


def contents(folder: Path) -> dict[Path, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    writing.write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full") as error:
        writing.write_atomically(path, "new")
    assert error.value.filename == str(path)
    assert [path] == list(tmp_path.iterdir())
    assert path.read_text() == "old"


FULL = """
import jax.numpy as jnp
import resource, signal, sys
from pathlib import Path
import numpy as np
from amplify.training import checkpoint
from amplify.training import dataset
from amplify.people.log import Log
from amplify.cli.failures import explained

def data(folder):
    columns = {"x": np.zeros((400, 1000), np.float32)}
    dataset.write(folder / "data", columns, name="x", description="")

def weights(folder):
    checkpoint.save(folder / "checkpoint", {"w": jnp.zeros((1000, 400))})

def events(folder):
    log = Log(folder / "events.sqlite")
    for number in range(1000):
        log.append({"kind": "put", "round": 1, "body": {"question": "x" * 1000}})

folder, what = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    globals()[what](folder)
except Exception as error:
    print(explained(error) or str(error))
else:
    print("written")
"""


@pytest.mark.parametrize("what", ["data", "weights", "events"])
def test_what_libraries_say_of_a_file_that_cannot_grow_is_understood(tmp_path, what):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), what],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip().splitlines()[-1]
    assert re.search("File too large|No space left|disk is full|disk I/O error", said), done.stdout
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "checkpoint").exists()
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A file system of so many bytes, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
            pytest.skip("no file system may be mounted here")
        return place

    yield mount
    subprocess.run(["umount", str(place)], check=False)


@pytest.mark.parametrize("size", ["24k", "60k", "300k"])
def test_a_round_on_a_full_disk_is_one_line_and_goes_on_when_there_is_room(small_disk, size):
    """The disk is full in the record, in a checkpoint, or in the data set."""
    folder = tiny_experiment(small_disk(f"size={size}") / "tiny", QUICK)
    command = [sys.executable, "-m", "amplify", "round", str(folder), "--n", "1"]
    full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    *progress, line = full.stderr.splitlines()
    assert all(told.startswith("round ") for told in progress), full.stderr
    assert "No space left on device; make room on the disk" in line
    subprocess.run(["mount", "-o", "remount,size=50m", str(folder.parent)], check=True)
    commands.main(command[3:])
    assert Store(folder).round(1).complete


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    directory = tmp_path / "data"
    columns = {"x": np.arange(3)}
    dataset.write(directory, columns, name="x", description="")
    before = contents(directory)
    rename = Path.rename

    def fail(path, target):
        if path.name == "new":
            raise OSError(errno.ENOSPC, "full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="full"):
        dataset.write(directory, {"x": np.arange(4)}, name="x", description="")
    assert contents(directory) == before


def follow(line: str) -> None:
    """Runs the command that an error suggests, as a person pastes it."""
    [command] = re.findall(r"(?:again|run|: )[:]? ?((?:rm|mkdir|\S*amplify) .*)$", line.strip())
    for part in command.split(" && "):
        name, *arguments = shlex.split(part)
        if Path(name).name == "amplify":
            commands.main(arguments)
        else:
            subprocess.run([name, *arguments], check=True)


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (0, "evals.jsonl"),
        (0, "initial/checkpoint"),
        (1, "evals.jsonl"),
        (1, "distillation/checkpoint"),
        (1, "distillation/data"),
    ],
)
def test_what_an_error_says_to_do_about_damage_mends_it(copied, capsys, number, what):
    path = copied / f"{number:03d}" / what
    shutil.rmtree(path) if path.is_dir() else path.write_text("{}")
    stage = what.removesuffix(".jsonl")
    store = Store(copied)
    with pytest.raises(AmplifyError) as error, store.round(number).redo_hint(stage):
        raise AmplifyError(f"{path}: damaged")
    follow(str(error.value))
    capsys.readouterr()
    assert path.exists()
    commands.main(["compare", str(copied)])


@pytest.mark.parametrize("number", [0, 1])
def test_what_an_error_says_to_do_about_a_damaged_record_mends_it(copied, capsys, number):
    (copied / f"{number:03d}/record.json").write_text("{")
    follow(refused(capsys, "compare", str(copied)))
    commands.main(["compare", str(copied)])


def test_what_an_error_says_to_do_about_a_parent_that_is_gone_mends_it(copied, capsys):
    shutil.rmtree(copied / "000")
    follow(refused(capsys, "compare", str(copied)))
    assert Store(copied).round(1).complete


def test_what_an_error_says_to_do_where_nothing_was_run_is_a_command(tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "a tiny one", QUICK)
    said = refused(capsys, "compare", str(folder))
    assert f"run: {round_command(folder, 1)}\n" in said


def test_round_zero_alone_is_no_round_to_ask_for(copied, capsys):
    assert "a round number is 1 or more, got 0" in refused(capsys, "round", str(copied), "--n", "0")
    said = refused(capsys, "round", str(copied), "--n", "-1", "--redo", "evals")
    assert "0 or more with --redo, got -1" in said
