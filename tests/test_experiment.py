import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.errors import AmplifyError
from amplify.experiment import sections
from amplify.experiment.sections import Questions
from amplify.oversight.draws import draw_held_out, draw_round
from amplify.reading.experiment_file import read_experiment
from tests.tiny import TOML, tiny_experiment


def reading(tmp_path, toml: str):
    return read_experiment(tiny_experiment(tmp_path / "tiny", toml) / "experiment.toml")


def with_line(line: str) -> str:
    """The tiny experiment with a line put under the table it names: `training.stepz = 3`."""
    key, value = line.split(" = ", 1)
    table, _, name = key.rpartition(".")
    if not table:
        return f"{line}\n{TOML}"
    return TOML.replace(f"[{table}]\n", f"[{table}]\n{name} = {value}\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "training.look_evry = 3",
            "unknown key training.look_evry; did you mean training.look_every?",
        ),
        ("curiculum = 3", "unknown key curiculum; did you mean curriculum?"),
        ("training.stepz = 3", "training.stepz; did you mean training.steps?"),
        ("trainning = 3", "key trainning; did you mean training?"),
        # An absent key is likelier than a more similar one that is there.
        ("training.log_evry = 3", "training.log_evry; did you mean training.log_every?"),
        ("overseer.noyse = 3", "unknown key overseer.noyse; did you mean overseer.noise?"),
        ("overseer.noise = 1.5", "overseer.noise must be less than or equal to 1, got 1.5"),
        ("zzz = 3", "unknown key zzz; allowed are seed, task"),
        ("training.b2 = 1.5", "training.b2 must be less than 1, got 1.5"),
        (
            "training.target_horizon = 0",
            "training.target_horizon must be greater than or equal to 1, got 0",
        ),
        (
            'training.target_horizon = "100"',
            "training.target_horizon must be a whole number, got '100'",
        ),
        (
            "training.target_horizon = 1.5",
            "training.target_horizon must be a whole number, got 1.5",
        ),
        (
            "training.target_horizon = true",
            "training.target_horizon must be a whole number, got True",
        ),
        (
            "questions.at_deepest = 1.01",
            "questions.at_deepest must be less than or equal to 1, got 1.01",
        ),
        (
            "questions.deepest = [1, 0]",
            "questions.deepest.1 must be greater than or equal to 1, got 0",
        ),
        ("evals.seed = -1", "evals.seed must be greater than or equal to 0, got -1"),
        ("evals.seed = true", "evals.seed must be a whole number, got True"),
        ("seed = -1", "seed must be greater than or equal to 0, got -1"),
        ('seed = "x"', "seed must be a whole number, got 'x'"),
    ],
)
def test_a_bad_key_or_value_is_one_clear_line(tmp_path, line, said):
    with pytest.raises(AmplifyError) as error:
        reading(tmp_path, with_line(line))
    assert str(error.value).startswith(f"{tmp_path}/tiny/experiment.toml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("letters = 3", "letters = 0", "task.letters must be greater than or equal to 1, got 0"),
        ("letters = 3", "letters = 3.0", "task.letters must be a whole number, got 3.0"),
        ('"wildcard"', '"wildcrad"', "task.kind must be one of assignments, claims, documents"),
        ('"wildcard"', '"wildcrad"', "did you mean wildcard?"),
        ('"wildcard"', '"gone.py:Task"', "task.kind names"),
        (
            'kind = "simulated"',
            "",
            "overseer.kind must be one of simulated, learned, language-model, human, judge, got",
        ),
        (
            "batch = 8",
            "batch = 97",
            "training.batch must be at most questions.contexts (96), got 97",
        ),
        (
            "checkpoint_every = 20",
            "checkpoint_every = 25",
            "must be a multiple of training.log_every (10), got 25",
        ),
        ("[evals]", "evals = 3\n[other]", "evals must be a table, [evals], got 3"),
        ("heads = 2", "heads = 3", "assistant.heads must divide assistant.width (16), got 3"),
        ("[task]", "[task", "cannot be read as TOML"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, was, becomes, said):
    if becomes.startswith("evals"):
        toml = "evals = 3\n" + TOML.split("[evals]")[0]
    else:
        toml = TOML.replace(was, becomes)
    with pytest.raises(AmplifyError) as error:
        reading(tmp_path, toml)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny")
    (folder / "experiment.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(AmplifyError, match="cannot be read as TOML"):
        read_experiment(folder / "experiment.toml")


def test_the_digest_is_of_values_and_not_of_spelling(tmp_path):
    ours = reading(tmp_path / "a", TOML)
    spelt_out = reading(tmp_path / "b", "seed = 0\n" + TOML + "per_depth = 2\n")
    changed = reading(tmp_path / "c", TOML + "per_depth = 3\n")
    assert ours.digest == spelt_out.digest
    assert ours.digest != changed.digest


def test_every_key_with_its_value_is_in_the_record(tmp_path):
    values = reading(tmp_path, TOML).values
    assert values["training.steps"] == 60
    assert values["training.gradient_clip"] == 1.0
    assert values["task.letters"] == 3


def test_held_out_problems_have_a_seed_of_their_own(tmp_path):
    def drawn(folder, toml):
        experiment = reading(tmp_path / folder, toml)
        held_out, asked = draw_held_out(experiment, "final", 24), draw_round(experiment, 1)
        return np.asarray(held_out.contexts), np.asarray(asked.contexts), experiment.digest

    first, second = (drawn(f"{seed}", f"seed = {seed}\n{TOML}") for seed in (1, 2))
    shared = drawn("shared", "seed = 2\n" + with_line("evals.seed = 1"))
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(shared[0], first[0])
    assert np.array_equal(shared[1], second[1])
    assert len({first[2], second[2], shared[2]}) == 3


def test_the_largest_seed_is_allowed_for_held_out_problems_too(tmp_path):
    assert reading(tmp_path, with_line("evals.seed = 4294967295")).evals_seed == 2**32 - 1


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 64), st.floats(0, 1))
def test_a_round_asks_up_to_its_depth_and_the_share_at_the_deepest(number, max_depth, count, share):
    depths = Questions(per_context=count, at_deepest=share).depths(number, max_depth)
    deepest = min(number, max_depth)
    assert len(depths) == count
    assert set(depths) <= set(range(1, deepest + 1))
    if deepest > 1:
        assert depths.count(deepest) == round(share * count)


def test_depths_by_round_can_be_said_in_the_file():
    questions = Questions(per_context=2, deepest=(2, 4))
    assert [max(questions.depths(number, 6)) for number in (1, 2, 3)] == [2, 4, 4]
    assert max(questions.depths(2, 3)) == 3


def test_a_task_beside_the_experiment_file_is_found_and_is_part_of_the_identity(tmp_path):
    task = (
        "from amplify.tasks.algorithmic.wildcard import Wildcard\nclass Mine(Wildcard):\n    pass\n"
    )
    toml = TOML.replace('"wildcard"', '"mine.py:Mine"')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    (folder / "mine.py").write_text(task)
    first = read_experiment(folder / "experiment.toml")
    assert type(first.task).__name__ == "Mine"
    assert first.task.letters == 3
    (folder / "mine.py").write_text(task + "# changed\n")
    assert read_experiment(folder / "experiment.toml").digest != first.digest


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("x = 1", "names Mine, which .* does not define$"),
        ("class Mien: ...", "names Mine, which .* does not define; did you mean Mien?"),
    ],
)
def test_a_task_file_that_does_not_work_is_named(tmp_path, source, said):
    folder = tiny_experiment(tmp_path / "tiny", TOML.replace('"wildcard"', '"mine.py:Mine"'))
    (folder / "mine.py").write_text(source)
    with pytest.raises(AmplifyError, match=said):
        read_experiment(folder / "experiment.toml")


def test_choices_that_look_the_same_are_refused(tmp_path):
    (tmp_path / "asked.py").write_text(
        "import dataclasses\n"
        "from amplify.tasks.algorithmic.wildcard import Wildcard\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Asked(Wildcard):\n"
        "    choices = ('0', ' 0')\n"
    )
    text = TOML.replace('kind = "wildcard"', 'kind = "asked.py:Asked"')
    (tmp_path / "experiment.toml").write_text(text)
    with pytest.raises(AmplifyError, match="the choices '0' and ' 0' look the same"):
        read_experiment(tmp_path / "experiment.toml")


@pytest.mark.parametrize("choice", ["maybe", "Yes ", "Yes  no", ""])
def test_a_choice_that_can_never_be_chosen_is_refused(choice, tmp_path):
    (tmp_path / "asked.py").write_text(
        "import dataclasses\n"
        "from amplify.tasks.algorithmic.wildcard import Wildcard\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Asked(Wildcard):\n"
        f"    choices = ('0', {choice!r})\n"
    )
    text = TOML.replace('kind = "wildcard"', 'kind = "asked.py:Asked"')
    (tmp_path / "experiment.toml").write_text(text)
    with pytest.raises(AmplifyError, match=r"task: the choice .* can never be chosen") as caught:
        read_experiment(tmp_path / "experiment.toml")
    assert "\n" not in str(caught.value)


def test_the_warning_about_the_gate_has_as_many_digits_as_tell_the_gain_from_the_worthwhile_one(
    tmp_path,
):
    text = TOML.replace("select = 24\n", "select = 512\n")
    for worthwhile in (0.01, 0.0101, 0.00999):
        found = reading(tmp_path / f"{worthwhile}", f"{text}[gate]\nworthwhile = {worthwhile}\n")
        if warning := found.gate_warning():
            said = re.search(r"no gain below (\S+) points can be promoted", warning)
            assert float(said[1]) > 100 * worthwhile
    assert sections._above(1.0174, 1.0) == "1.02"
    assert sections._above(12.345, 1.0) == "12"


def test_a_gate_that_cannot_promote_what_it_calls_worthwhile_is_warned_of_in_one_line(tmp_path):
    warning = reading(tmp_path / "a", TOML).gate_warning()
    assert warning.startswith(
        "warning: gate.worthwhile = 0.01, but with 24 contexts no gain below "
    )
    assert "\n" not in warning
    tells = "select = 24\n", "select = 2048\n"
    assert reading(tmp_path / "b", TOML.replace(*tells)).gate_warning() is None
    worth_more = TOML + "[gate]\nworthwhile = 0.3\n"
    assert reading(tmp_path / "c", worth_more).gate_warning() is None
    nothing = TOML.replace("select = 24\n", "select = 2\n")
    assert (
        "with 2 contexts no gain can be promoted" in reading(tmp_path / "d", nothing).gate_warning()
    )
