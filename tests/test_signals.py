"""A round's signal as a file, and as a data frame: the same rows, which a stranger can read."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds

import amplify
from amplify import signals
from amplify.cli.commands import main
from amplify.oversight.work import Made
from amplify.stages import write_data
from amplify.store import Store
from amplify.training import dataset
from amplify.types import FAILED
from amplify.words import read_answer, read_question
from tests.tiny import TOML, tiny_experiment


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tiny_experiment(tmp_path_factory.mktemp("signals") / "tiny")
    amplify.open(folder).run(1)
    return folder


@pytest.fixture
def folder(ran, tmp_path):
    shutil.copytree(ran, tmp_path / "tiny")
    return tmp_path / "tiny"


def export(folder, out, *more: str):
    main(["data", str(folder), str(out), "--round", "1", *more])
    return out


def replace_signal(folder, task_columns, descriptions=None, described=True):
    """Puts another signal in place of round 1's."""
    store = Store(folder)
    made = Made(task_columns, [], {}, "Another.", descriptions or {})
    task = store.experiment.task if described else None
    digest = write_data(store.round(1).main.data, made, task)
    path = folder / "001/record.json"
    record = json.loads(path.read_text())
    record["stages"]["distillation/data"]["digest"] = digest
    path.write_text(json.dumps(record))


def own_columns(task, **more):
    question, answer = read_question(task, "a**"), read_answer(task, "+2")
    none = np.full_like(answer, FAILED)
    rows = 2
    return {
        "context": np.ones((rows, task.facts, task.fact_length), np.int32),
        "questions": np.stack([question] * 3)[None].repeat(rows, 0),
        "answers": np.stack([answer, none, answer])[None].repeat(rows, 0),
        **more,
    }


def test_parquet_jsonl_and_the_data_frame_have_the_same_rows(ran, tmp_path, capsys):
    frame = amplify.open(ran).round(1).signal
    parquet = pd.read_parquet(export(ran, tmp_path / "a.parquet"))
    lines = export(ran, tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert "a.parquet, 384 questions of round 1" in capsys.readouterr().out
    assert len(frame) == len(lines) == 96 * 4
    pd.testing.assert_frame_equal(frame, parquet)
    rows = json.loads(frame.to_json(orient="records"))
    assert [json.loads(line) for line in lines] == rows
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "a.jsonl"}


def test_texts_are_those_that_people_see_and_numbers_lead_to_the_tree(ran):
    this = amplify.open(ran).round(1)
    frame = this.signal.set_index(["context_number", "question_number"])
    for tree in this.trees[:5]:
        row = frame.loc[(tree["row"], tree["column"])]
        assert (row.question, row.answer) == (tree["question"], tree["answer"])
        assert row["class"] == tree["class"]
    stored = dataset.read(ran / "001/distillation/data")[7]
    row = frame.loc[(7, 2)]
    assert row.context.splitlines()[0] == "aaa = " + row.context[6:8]
    assert np.array_equal(np.stack(row.context_tokens), stored["context"])
    assert row.question_tokens.tolist() == stored["questions"][2].tolist()
    assert row.answer_tokens.tolist() == stored["answers"][2].tolist()
    assert row.problem == "{}:{}".format(*stored["problem_seed"])
    assert row.parent == this.record["parent"]["digest"]


def test_a_rounds_tfds_data_set_has_the_same_texts_and_describes_every_field(ran):
    builder = tfds.builder_from_directory(ran / "001/distillation/data")
    row, features = builder.as_data_source("train")[7], builder.info.features
    assert all(feature.doc.desc for feature in features.values())
    frame = amplify.open(ran).round(1).signal.query("context_number == 7")
    assert [text.decode() for text in row["question_texts"]] == frame.question.tolist()
    assert [text.decode() for text in row["answer_texts"]] == frame.answer.tolist()
    assert [features["classes"].int2str(label) for label in row["classes"]] == [*frame["class"]]
    words = builder.info.metadata["vocabulary"]
    assert [words[token] for token in row["answers"][:, 0]] == frame.answer.tolist()


def test_parquet_says_where_it_is_from_and_what_each_column_is(ran, tmp_path):
    schema = pyarrow.parquet.read_schema(export(ran, tmp_path / "a.parquet"))
    digest = Store(ran).round(1).record["stages"]["distillation/data"]["digest"]
    origin = {"experiment": "tiny", "round": "1", "phase": "distillation", "digest": digest}
    assert {key.decode(): value.decode() for key, value in schema.metadata.items()} == origin
    assert all(field.metadata[b"description"] for field in schema)
    attrs = amplify.open(ran).round(1).signal.attrs
    assert {key: str(value) for key, value in attrs.items() if key != "columns"} == origin
    assert [*attrs["columns"]] == schema.names


def test_rows_are_written_a_few_contexts_at_a_time(ran, tmp_path, monkeypatch):
    whole = pyarrow.parquet.read_table(export(ran, tmp_path / "whole.parquet"))
    monkeypatch.setattr(signals, "CONTEXTS", 40)
    parts = pyarrow.parquet.ParquetFile(export(ran, tmp_path / "parts.parquet"))
    assert [parts.metadata.row_group(n).num_rows for n in range(parts.num_row_groups)] == [
        160,
        160,
        64,
    ]
    assert parts.read().equals(whole)


@pytest.mark.parametrize("described", [True, False], ids=["now", "earlier versions"])
def test_a_question_without_an_answer_has_none_and_weights_and_further_columns_are_there(
    folder, tmp_path, described
):
    task = Store(folder).experiment.task
    weight = np.array([[1, 0, 0.5]] * 2, np.float32)
    score = np.array([[[1, 2], [3, 4], [5, 6]]] * 2, np.int32)
    columns = own_columns(task, weight=weight, score=score, origin=np.array(["here", "there"]))
    replace_signal(folder, columns, {"score": "Scores of two judges."}, described)
    frame = amplify.open(folder).round(1).signal
    assert frame.answer.isna().tolist() == [False, True, False] * 2
    assert set(frame.answer.dropna()) == {"+2"}
    assert frame.weight.tolist() == [1, 0, 0.5] * 2
    assert [score.tolist() for score in frame.score[:3]] == [[1, 2], [3, 4], [5, 6]]
    assert frame.origin.tolist() == ["here"] * 3 + ["there"] * 3
    assert "class" not in frame
    said = frame.attrs["columns"]["score"]
    assert said == "Scores of two judges." if described else "does not describe" in said
    line = export(folder, tmp_path / "a.jsonl").read_text().splitlines()[1]
    assert json.loads(line)["answer"] is None


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit, match="2"):
        main([str(argument) for argument in arguments])
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_what_cannot_be_exported_is_one_clear_line_and_nothing_is_written(ran, tmp_path, capsys):
    out = tmp_path / "a.parquet"
    (tmp_path / "folder.parquet").mkdir()
    for arguments, said in [
        (["a.csv", 1], "a.csv: data are written as .parquet or .jsonl"),
        (["folder.parquet", 1], "folder.parquet: is a folder"),
        (["none/a.parquet", 1], "there is no folder"),
        (["a.parquet", 0], "round 0 has no data; rounds that have: 1"),
        (["a.parquet", 7], "round 7 has no data; rounds that have: 1"),
        (["a.parquet", -1], "round -1 has no data; rounds that have: 1"),
    ]:
        name, number = arguments
        assert said in refused(capsys, "data", ran, tmp_path / name, "--round", number)
    line = refused(capsys, "data", ran, out, "--round", 1, "--phase", "critic")
    assert "round 1 has no phase 'critic' with data; phases that have: distillation" in line
    assert [path.name for path in tmp_path.iterdir()] == ["folder.parquet"]


def test_damage_is_noticed_before_anything_is_written(folder, tmp_path, capsys):
    out = export(folder, tmp_path / "a.jsonl")
    before = out.read_bytes()
    capsys.readouterr()
    [file] = (folder / "001/distillation/data").glob("*array_record*")
    file.write_bytes(file.read_bytes()[:-100])
    line = refused(capsys, "data", folder, out, "--round", 1)
    assert "damaged data set" in line
    assert "--redo distillation/data" in line
    assert out.read_bytes() == before


def test_a_failure_while_writing_leaves_what_was_there(folder, tmp_path, monkeypatch):
    out = export(folder, tmp_path / "a.parquet")
    before = out.read_bytes()
    monkeypatch.setattr(signals, "CONTEXTS", 40)
    texts, calls = signals.texts, iter(range(100))
    monkeypatch.setattr(
        signals, "texts", lambda *given: texts(*given) if next(calls) < 90 else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        export(folder, out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.glob("*parquet*")] == ["a.parquet"]


def test_a_signal_of_something_else_is_named(folder, tmp_path, capsys):
    replace_signal(folder, {"better": np.arange(3), "answers": np.zeros((3, 2, 1), np.int32)})
    line = refused(capsys, "data", folder, tmp_path / "a.jsonl", "--round", 1)
    assert "not a signal of questions with answers; its columns are" in line


@pytest.mark.slow
def test_the_sample_of_a_streamed_signal_is_a_table_too(tmp_path):
    toml = TOML.replace("[training]", '[training]\ntargets = "streaming"')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    frame = amplify.open(folder).run(1).round(1).signal
    assert frame.attrs["phase"] == "streaming"
    assert set(frame.question.str.len()) == {3}


def test_the_export_says_which_answers_are_right(folder):
    task = Store(folder).experiment.task
    rows = list(dataset.read(folder / "001/distillation/data"))
    columns = {
        name: np.stack([row[name] for row in rows]) for name in ("context", "questions", "answers")
    }
    true = columns["answers"].copy()  # round 1 asks what the environment knows
    columns["answers"][:, 0] = read_answer(task, "+4")
    columns["answers"][5, 1] = FAILED
    replace_signal(folder, columns)
    frame = amplify.open(folder).round(1).signal
    expected = np.all(columns["answers"] == true, axis=-1).astype(object)
    expected[5, 1] = None
    assert frame.right.tolist() == expected.ravel().tolist()
    assert False in expected
