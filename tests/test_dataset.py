import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from orbax.checkpoint import v1 as ocp
from tensorflow_datasets.proto import tf_example_pb2

from amplify.errors import AmplifyError
from amplify.training import dataset, serialization

ROOT = Path(__file__).parents[1]


def some_columns(rows=24):
    random = np.random.default_rng(rows)
    return {
        "context": random.integers(0, 50, (rows, 16, 5), np.int32),
        "questions": random.integers(0, 50, (rows, 32, 4), np.int32),
        "answers": random.integers(0, 50, (rows, 32, 1), np.int32),
        "classes": random.integers(0, 5, (rows, 32), np.int32),
        "problem_seed": np.arange(rows) + 2**40,
        "parent": np.full(rows, "2b7e"),
    }


def write(directory, columns):
    return dataset.write(directory, columns, name="amplified_answers", description="A test.")


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "data", some_columns())
    return tmp_path / "data"


def run_python(code, *arguments, cwd, **environment):
    """Runs code in a process that does not know this package, and says nothing on stderr."""
    done = subprocess.run(
        [sys.executable, *([] if environment else ["-I"]), "-W", "error", "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def taken(batch):
    """Which rows a batch is made of."""
    return (batch["problem_seed"] - 2**40).tolist()


# What is written


def test_rows_come_back_as_they_were_and_in_their_order(data):
    rows, columns = dataset.read(data), some_columns()
    assert len(rows) == 24
    for number, row in enumerate(rows):
        assert row.pop("parent") == b"2b7e"
        for name, value in row.items():
            assert value.dtype == columns[name].dtype
            assert np.array_equal(value, columns[name][number])


@st.composite
def any_columns(draw):
    rows = draw(st.integers(1, 5))
    column = st.tuples(
        st.one_of(
            hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), st.just("?")
        ),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ).flatmap(lambda kind: hnp.arrays(kind[0], (rows, *kind[1])))
    return draw(st.dictionaries(st.sampled_from("abcdef"), column, min_size=1, max_size=4))


@given(any_columns(), st.text().filter(lambda text: not text.endswith("\0")))
@settings(max_examples=40, deadline=None)
def test_numbers_of_any_kind_and_shape_and_text_survive(columns, text):
    rows = len(next(iter(columns.values())))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "data", {**columns, "text": np.full(rows, text)})
        source = dataset.read(Path(folder) / "data")
        batch = next(
            dataset.batches(Path(folder) / "data", tuple(columns), batch_size=rows, seed=0)
        )
    assert [row["text"].decode() for row in source] == [text] * rows
    for name, column in columns.items():
        native = column.astype(column.dtype.type)
        assert np.stack([row[name] for row in source]).tobytes() == native.tobytes()
        assert batch[name].dtype == native.dtype
        assert batch[name].tobytes() == native[dataset.epoch_order(0, rows, 0)].tobytes()


def test_records_mean_what_tfds_itself_would_have_written(data):
    raw = tfds.builder_from_directory(data).as_data_source(
        split="train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    columns = some_columns()
    for number, record in enumerate(raw):
        row = {name: column[number] for name, column in columns.items()} | {"parent": "2b7e"}
        theirs = serialization.features(columns).serialize_example(row)
        parse = tf_example_pb2.Example.FromString
        assert parse(record) == parse(theirs)


def test_a_process_without_this_package_or_tensorflow_reads_it(data, tmp_path):
    code = """if True:
        import sys
        import tensorflow_datasets as tfds
        builder = tfds.builder_from_directory(sys.argv[1])
        rows = builder.as_data_source(split="train")
        assert (len(rows), builder.info.description) == (24, "A test.")
        assert builder.info.splits["train"].num_examples == 24
        print([int(row["problem_seed"]) for row in rows])
        assert not {"amplify", "tensorflow"} & {*sys.modules}
    """
    printed = run_python(code, str(data), cwd=tmp_path)
    assert json.loads(printed) == some_columns()["problem_seed"].tolist()
    assert (data / "dataset_info.json").is_file()


def test_the_same_columns_give_the_same_bytes_in_another_process(data, tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        from tests.test_dataset import some_columns, write
        print(write(Path(sys.argv[1]), some_columns()), end="")
    """
    printed = run_python(
        code, str(tmp_path / "again"), cwd=tmp_path, PYTHONPATH=str(ROOT), PYTHONHASHSEED="7"
    )
    assert printed == dataset.digest(data)
    for path in data.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_digest_changes_with_any_value(data, tmp_path):
    changed = some_columns()
    changed["classes"][23, 31] += 1
    assert write(tmp_path / "changed", changed) != dataset.digest(data)


@pytest.mark.parametrize(
    "columns", [{}, {"a": np.zeros((0, 2))}, {"a": np.zeros(2), "b": np.zeros(3)}]
)
def test_columns_without_rows_or_of_different_lengths_are_refused(columns, tmp_path):
    with pytest.raises(
        ValueError, match="every column must have the same number of rows, at least 1"
    ):
        write(tmp_path / "data", columns)


# Described for people


def described_columns(rows=24):
    asked = [[f"what is {row} + {column}?" for column in range(row % 3)] for row in range(rows)]
    labels = serialization.Labels(np.arange(rows * 2).reshape(rows, 2) % 3, ("one", "two", "three"))
    return {"question_texts": serialization.Texts(asked), "classes": labels}


def write_described(directory, columns, descriptions=None):
    names = {"answers": "The answers.", "question_texts": "The questions.", "classes": "Hops."}
    described = dataset.Described(
        described_columns(), names if descriptions is None else descriptions, {"vocabulary": ["?"]}
    )
    about = {"name": "amplified_answers", "description": "A test."}
    return dataset.write(directory, columns, **about, described=described)


def golden_columns():
    numbers = {"context": (2, 4, 3), "questions": (2, 3, 2), "answers": (2, 3, 1)}
    return {
        **{name: np.arange(np.prod(s), dtype=np.int32).reshape(s) for name, s in numbers.items()},
        "classes": np.array([[0, 1, 1], [1, 0, 0]], np.int32),
        "problem_seed": np.arange(4).reshape(2, 2),
        "parent": np.full(2, "2b7e"),
    }


def test_the_digest_is_the_one_of_versions_that_described_nothing(tmp_path):
    digest = write(tmp_path / "data", golden_columns())
    assert digest == "c7123d2ec08a16e5bdba8ed5d33e1db4f105595f23f583691b6abd447055196b"


def test_descriptions_leave_the_digest_and_what_training_reads_as_they_are(data, tmp_path):
    digest = write_described(tmp_path / "described", some_columns())
    other = write_described(tmp_path / "otherwise", some_columns(), {"answers": "Other words."})
    assert digest == other == dataset.digest(data)
    dataset.verify(tmp_path / "described", digest)
    names = ["context", "questions", "answers", "problem_seed"]
    plain, described = (
        next(dataset.batches(folder, names, batch_size=24, seed=1))
        for folder in (data, tmp_path / "described")
    )
    for name in names:
        assert np.array_equal(plain[name], described[name])
    assert [*tmp_path.glob(".*")] == []


def test_described_records_mean_what_tfds_itself_would_have_written(tmp_path):
    write_described(tmp_path / "data", some_columns())
    raw = tfds.builder_from_directory(tmp_path / "data").as_data_source(
        split="train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    columns, further = some_columns(), described_columns()
    features = serialization.features({**columns, **further})
    for number, record in enumerate(raw):
        row = {name: column[number] for name, column in columns.items()} | {"parent": "2b7e"}
        row |= {name: list(column.rows[number]) for name, column in further.items()}
        parse = tf_example_pb2.Example.FromString
        assert parse(record) == parse(features.serialize_example(row))


def test_a_stranger_reads_texts_and_names_with_tfds_alone(tmp_path):
    write_described(tmp_path / "data", some_columns())
    code = """if True:
        import json, sys
        import tensorflow_datasets as tfds
        builder = tfds.builder_from_directory(sys.argv[1])
        features = builder.info.features
        row = builder.as_data_source("train")[5]
        print(json.dumps({
            "texts": [text.decode() for text in row["question_texts"]],
            "classes": [features["classes"].int2str(label) for label in row["classes"]],
            "described": [features[name].doc.desc for name in ("answers", "classes")],
            "vocabulary": builder.info.metadata["vocabulary"],
            "homepage": builder.info.homepage,
            "citation": builder.info.citation,
        }))
        assert not {"amplify", "tensorflow"} & {*sys.modules}
    """
    assert json.loads(run_python(code, str(tmp_path / "data"), cwd=tmp_path)) == {
        "texts": ["what is 5 + 0?", "what is 5 + 1?"],
        "classes": ["two", "three"],
        "described": ["The answers.", "Hops."],
        "vocabulary": ["?"],
        "homepage": "about:blank",
        "citation": "",
    }


def test_damage_to_any_file_of_a_described_data_set_is_noticed(tmp_path):
    digest = write_described(tmp_path / "data", some_columns())
    files = sorted((tmp_path / "data").iterdir())
    assert len(files) == 6
    for file in files:
        raw = file.read_bytes()
        file.write_bytes(raw[:-3] + b"?" + raw[-2:])
        with pytest.raises(AmplifyError, match="damaged data set"):
            dataset.verify(tmp_path / "data", digest)
        file.write_bytes(raw)
    dataset.verify(tmp_path / "data", digest)
    (tmp_path / "data/classes.labels.txt").unlink()
    with pytest.raises(AmplifyError, match="damaged data set"):
        dataset.verify(tmp_path / "data", digest)


# Whole or not at all


def test_writing_replaces_what_was_there_and_leaves_nothing_beside_it(data):
    write(data, some_columns(5))
    assert len(dataset.read(data)) == 5
    assert [*data.parent.iterdir()] == [data]


def test_a_write_that_fails_leaves_what_was_there(data, monkeypatch):
    before = dataset.digest(data)
    monkeypatch.setattr(serialization, "records", lambda columns: iter([b"", None]))
    with pytest.raises(TypeError):
        write(data, some_columns(5))
    assert dataset.digest(data) == before
    assert [*data.parent.iterdir()] == [data]


def test_a_killed_write_leaves_no_data_set_and_the_next_clears_up(tmp_path):
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from amplify.training import serialization
        from tests.test_dataset import some_columns, write
        def records(columns):
            yield b"half a data set"
            os.kill(os.getpid(), signal.SIGKILL)
        serialization.records = records
        write(Path(sys.argv[1]), some_columns())
    """
    data = tmp_path / "data"
    killed = subprocess.run(
        [sys.executable, "-c", code, str(data)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not data.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".data.tmp"]
    write(data, some_columns())
    assert len(dataset.read(data)) == 24
    assert [*tmp_path.iterdir()] == [data]


# Damage


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    raw = bytearray(path.read_bytes())
    raw[200] ^= 8
    path.write_bytes(raw)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_in_half, flip_a_bit, empty, Path.unlink])
@pytest.mark.parametrize("file", ["*array_record*", "dataset_info.json", "features.json"])
def test_damage_is_one_line_that_names_the_folder(data, file, damage):
    [path] = data.glob(file)
    damage(path)
    with pytest.raises(AmplifyError) as error:
        dataset.read(data)
    assert str(error.value).startswith(f"{data}: damaged data set (")
    assert "\n" not in str(error.value)


def test_a_missing_data_set_is_said_to_be_missing(tmp_path):
    with pytest.raises(AmplifyError, match="nowhere: no data set here"):
        dataset.read(tmp_path / "nowhere")


# Batches


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(data):
    batches = dataset.batches(data, ["problem_seed"], batch_size=4, seed=0)
    epochs = [[row for _ in range(6) for row in taken(next(batches))] for _ in range(5)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_rows_left_over_in_one_epoch_are_not_left_over_in_all(data):
    batches = dataset.batches(data, ["problem_seed"], batch_size=10, seed=0)
    epochs = [{*taken(next(batches)), *taken(next(batches))} for _ in range(10)]
    assert all(len(epoch) == 20 for epoch in epochs)
    assert len(set.union(*epochs)) == 24


def test_a_batch_holds_the_columns_asked_for_row_by_row(data):
    columns = some_columns()
    batch = next(dataset.batches(data, ["problem_seed", "answers"], batch_size=7, seed=3))
    assert list(batch) == ["problem_seed", "answers"]
    assert batch["answers"].shape == (7, 32, 1)
    assert np.array_equal(batch["answers"], columns["answers"][taken(batch)])


def test_the_seed_decides_the_order(data):
    orders = {
        tuple(taken(next(dataset.batches(data, ["problem_seed"], batch_size=24, seed=seed))))
        for seed in (0, 1, 2, 2**64 - 1, 0)
    }
    assert len(orders) == 4


def test_an_epochs_order_is_the_same_on_every_machine_and_in_every_version():
    assert dataset.epoch_order(0, 8, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert dataset.epoch_order(0, 8, 1).tolist() == [5, 3, 7, 2, 4, 1, 0, 6]
    assert dataset.epoch_order(1, 8, 0).tolist() == [3, 5, 2, 7, 0, 6, 1, 4]


@given(st.integers(0, 20), st.integers(0, 20))
@settings(deadline=None, max_examples=20)
def test_a_saved_iterator_goes_on_where_it_was(shared_data, place, elsewhere):
    def batches():
        return dataset.batches(shared_data, ["problem_seed"], batch_size=5, seed=1)

    original, resumed = batches(), batches()  # an epoch is four batches
    for _ in range(place):
        next(original)
    for _ in range(elsewhere):
        next(resumed)
    resumed.set_state(json.loads(json.dumps(original.get_state())))
    for _ in range(6):
        assert taken(next(resumed)) == taken(next(original))


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory):
    data = tmp_path_factory.mktemp("shared") / "data"
    write(data, some_columns())
    return data


def test_orbax_saves_the_iterator_beside_a_model(data, tmp_path):
    def batches():
        return dataset.batches(data, ["problem_seed"], batch_size=5, seed=1)

    original, resumed = batches(), batches()
    for _ in range(7):
        next(original)
    model = {"weights": np.ones(3, np.float32)}
    ocp.save_checkpointables(tmp_path / "both", {"model": model, "data": original})
    next(original)
    ocp.load_checkpointables(tmp_path / "both", {"model": model, "data": resumed})
    next(resumed)
    assert taken(next(resumed)) == taken(next(original))


def test_no_thread_runs_ahead_of_the_iterator(data):
    before = threading.active_count()
    batches = dataset.batches(data, ["problem_seed"], batch_size=5, seed=1)
    next(batches)
    assert threading.active_count() == before


@pytest.mark.parametrize("column", ["hints", "parent"])
def test_a_column_that_is_not_there_or_is_text_is_named(column, data):
    there = "answers, classes, context, problem_seed, questions"
    with pytest.raises(AmplifyError, match=f"data: no column of numbers '{column}'; .* {there}$"):
        dataset.batches(data, ["answers", column], batch_size=5, seed=1)


def test_fewer_rows_than_a_batch_are_refused(data):
    with pytest.raises(AmplifyError, match="data: 24 rows are too few for batches of 25"):
        dataset.batches(data, ["answers"], batch_size=25, seed=1)
