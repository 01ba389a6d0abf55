"""Mistakes in a first task of one's own: each is one line that names the place and the function,
and says what was expected and what was found.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from amplify.cli import commands
from amplify.errors import AmplifyError
from amplify.reading import own_strategies
from amplify.reading.experiment_file import read_experiment
from amplify.reading.own_code import load
from amplify.reading.own_tasks import check_functions
from amplify.reading.probing import TaskProbe
from amplify.store import Store
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.shortest_path import ShortestPath
from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.text.search import Search

ROOT = Path(__file__).parents[1]
TALLY = (ROOT / "rounds/tally/tally.py").read_text(encoding="utf-8")
TOML = (ROOT / "rounds/tally/experiment.toml").read_text(encoding="utf-8")
FIRST_LINES = {name: TALLY[: TALLY.index(f"def {name}(")].count("\n") + 1 for name in (
    "draw_context", "draw_question", "truth", "is_right", "class_of", "is_primitive", "environment",
    "strategy", "parse", "show",
)}  # fmt: skip


class Mistake(NamedTuple):
    name: str  # the function with the mistake
    was: str
    becomes: str
    said: str  # after the place and the name; a regular expression
    line: int = 0  # of the place, counted from the function's first


DRAWN = "return ZERO + jnp.c_[jnp.arange(self.bits), jax.random.randint(key, (self.bits,), 0, 2)]"
ASKED = "return ZERO + jnp.stack([start, start + 2**depth])"
COUNTED = "return ZERO + jnp.sum(jnp.where(inside, context[:, 1] - ZERO, 0), keepdims=True)"
JUDGED = "return jnp.all(answer == self.truth(context, question))"
CLASS = "return jnp.argmax(2 ** jnp.arange(1, self.max_depth + 1) == question[1] - question[0])"
PRIMITIVE = "return question[..., 1] - question[..., 0] == 1"
TOLD = (
    "def environment(self, context, question, key):\n        return self.truth(context, question)"
)
LEFT = "left = yield Ask(jnp.stack([start, middle], axis=-1))"
CONCLUDED = "return jnp.where(known, left + right - ZERO, DONT_KNOW)"
GENERATOR = "def strategy(self, question):\n"
NO_GENERATOR = f"{GENERATOR}        return question\n\n    def other(self, question):\n"
PARSED = 'return text.split("-")\n'
SHOWN = 'return "-".join(words)'

MISTAKES = {
    "a context of another shape": Mistake(
        "draw_context", DRAWN, f"{DRAWN}[:-1]",
        r"must return int32 of shape \(facts, fact_length\) = \(8, 2\); got int32 of shape \(7, 2",
    ),
    "floats in a context": Mistake(
        "draw_context", DRAWN, f"{DRAWN}.astype(jnp.float32)",
        r"must return int32 of shape .*; got float32 of shape \(8, 2\)",
    ),
    "small integers in a context": Mistake(
        "draw_context", DRAWN, f"{DRAWN}.astype(jnp.uint8)",
        r"must return int32 of shape .*; got uint8 of shape \(8, 2\)",
    ),
    "a token that is not in the vocabulary": Mistake(
        "draw_context", "0, 2)]", "0, 20)]",
        r"must return tokens 0 to 9 \(vocabulary has 10\); got \d+",
    ),
    "a negative token": Mistake(
        "draw_context", DRAWN, DRAWN.replace("ZERO +", "-1 +"),
        r"must return tokens 0 to 9 \(vocabulary has 10\); got -1",
    ),
    "a function that returns nothing": Mistake(
        "draw_context", DRAWN, DRAWN.removeprefix("return "),
        r"must return int32 of shape \(facts, fact_length\) = \(8, 2\); got None",
    ),
    "a key that is not used": Mistake(
        "draw_context", "randint(key, (self.bits,)", "randint(jax.random.key(3), (self.bits,)",
        r"must use its key; 34 keys gave the same context",
    ),
    "an argument that is missing": Mistake(
        "draw_question", "(self, key, context, depth)", "(self, key, depth)",
        r"must take \(self, key, context, depth\), but takes \(self, key, depth\)",
    ),
    "a list in place of an array": Mistake(
        "draw_question", ASKED, "return [start, start + 2**depth]",
        r"must return int32 of shape \(question_length,\) = \(2,\); got \[.*\]",
    ),
    "if on a value that is traced": Mistake(
        "draw_question", ASKED, f"if depth > 1:\n            start = 0\n        {ASKED}",
        r": TracerBoolConversionError: .*; values are not known while .* jnp.where instead of if",
        line=2,
    ),
    "range of a value that is traced": Mistake(
        "draw_question", ASKED, f"start = sum(range(depth))\n        {ASKED}",
        r": TracerIntegerConversionError: .* jnp.where instead of if", line=2,
    ),
    "numpy on a value that is traced": Mistake(
        "truth", COUNTED, "import numpy\n        return numpy.asarray(context)[0, :1]",
        r": TracerArrayConversionError: .* and jnp instead of numpy", line=3,
    ),
    "a question that goes past the end": Mistake(
        "draw_question", "self.bits - 2**depth + 1)", "self.bits + 1)",
        r"must return tokens 0 to 9 \(vocabulary has 10\); got 1\d",
    ),
    "a name that is not defined": Mistake(
        "truth", COUNTED, COUNTED.replace("ZERO", "ZERRO"),
        r": NameError: name 'ZERRO' is not defined", line=2,
    ),
    "an attribute that is misspelt": Mistake(
        "draw_context", DRAWN, DRAWN.replace("self.bits", "self.bit"),
        r": AttributeError: 'Tally' object has no attribute 'bit'", line=1,
    ),
    "an answer without its axis": Mistake(
        "truth", ", keepdims=True", "",
        r"must return int32 of shape \(answer_length,\) = \(1,\); got int32 of shape \(\)",
    ),
    "a mean in place of a sum": Mistake(
        "truth", "jnp.sum", "jnp.mean", r"must return int32 of .*; got float32 of shape \(1,\)",
    ),
    "shapes that do not go together": Mistake(
        "truth", COUNTED, f"{COUNTED} + jnp.zeros((3, 7), jnp.int32) @ context",
        r": TypeError: dot_general requires contracting dimensions .*", line=2,
    ),
    "a callback that fails": Mistake(
        "truth", COUNTED, "one = jax.ShapeDtypeStruct((1,), jnp.int32)\n"
        "        return jax.pure_callback("
        "lambda place: 1 // 0, one, question, vmap_method='sequential')",
        r": ZeroDivisionError: integer division or modulo by zero", line=3,
    ),
    "an answer for each token": Mistake(
        "is_right", JUDGED, JUDGED.replace("jnp.all", ""),
        r"must return bool of shape \(\); got bool of shape \(1,\)",
    ),
    "a number in place of a bool": Mistake(
        "is_right", JUDGED, JUDGED.replace("jnp.all", "jnp.sum"),
        r"must return bool of shape \(\); got int32 of shape \(\)",
    ),
    "bool() of an array": Mistake(
        "is_right", JUDGED, "return bool(jnp.all(answer == self.truth(context, question)))",
        r": TracerBoolConversionError: .*", line=1,
    ),
    "a truth of zeros": Mistake(
        "truth", COUNTED, "return jnp.zeros(1, jnp.int32)",
        r"must not be zeros \(\"don't know\"\); it is for '\d-\d'",
    ),
    "a truth that is always the same": Mistake(
        "truth", COUNTED, "return jnp.ones(1, jnp.int32)",
        r"must depend on the question; all that were drawn get '0'",
    ),
    "the truth is not right": Mistake(
        "is_right", JUDGED, JUDGED.replace("==", "== 1 +"),
        r"must be True of the truth; it is False of '\d+', the truth of '\d-\d'",
    ),
    "everything is right": Mistake(
        "is_right", JUDGED, "return True",
        r"must be False of \"don't know\", an answer of zeros; it is True of it for '\d-\d'",
    ),
    "a class that is not there": Mistake(
        "class_of", CLASS, f"{CLASS} + 1", r"must return an index 0 to 2 \(classes has 3\); got 3",
    ),
    "a class by its name": Mistake(
        "class_of", CLASS, "return self.classes[0]",
        r"must return int32 of shape \(\); got '2 bits'",
    ),
    "primitive for a single question alone": Mistake(
        "is_primitive", PRIMITIVE, "return question[1] - question[0] == 1",
        r"must return bool of shape \(34, 3\): \(34, 3\) are the leading axes of the questions .*"
        r"question\[..., 0\].*keepdims=True\); got bool of shape \(3, 2\)",
    ),
    "every question is primitive": Mistake(
        "is_primitive", "== 1", ">= 1",
        r"must be False of a question that has to be decomposed; it is True of all .* '\d-\d'",
    ),
    "an environment without a key": Mistake(
        "environment", "question, key):", "question):",
        r"must take \(self, context, question, key\), but takes \(self, context, question\)",
    ),
    "an environment that says too much": Mistake(
        "environment", TOLD, TOLD + " + 30", r"must return tokens 0 to 9 .*; got 3\d",
    ),
    "an environment of another form": Mistake(
        "environment", TOLD, TOLD + "[0]",
        r"must return int32 of shape \(answer_length,\) = \(1,\); got int32 of shape \(\)",
    ),
    "a question that is not wrapped": Mistake(
        "strategy", LEFT, "left = yield jnp.stack([start, middle], axis=-1)",
        r"must yield Ask\(question\); got int32 of shape \(2,\)",
    ),
    "a sub-question along another axis": Mistake(
        "strategy", LEFT, LEFT.replace(", axis=-1", ""),
        r"must yield Ask with a question, int32 of shape \(34, 3, question_length\) = \(34, 3, 2\):"
        r" \(34, 3\) are the leading axes of the questions.*; got int32 of shape \(2, 34, 3\)",
    ),
    "a strategy that reduces over the batch": Mistake(
        "strategy", "known = (left", "known = jnp.all(left",
        r"must answer each question by itself, but if some sub-answers .* to '\d-\d' depends on",
    ),
    "a strategy that forgets that there may be no answer": Mistake(
        "strategy", "known = (left > DONT_KNOW) & (right > DONT_KNOW) &",
        "left, right = (jnp.where(one, one, 2) for one in (left, right))\n        known =",
        r"must say \"don't know\", an answer of zeros, if that is all it is told: to '\d-\d' it",
    ),
    "an if in a strategy": Mistake(
        "strategy", "known = (left",
        "if left == DONT_KNOW:\n            return left\n        known = (left",
        r": .*use jnp.where instead of if, and jnp instead of numpy", line=5,
    ),
    "an Ask that is not yielded": Mistake(
        "strategy", LEFT, LEFT.replace("yield ", ""),
        r": TypeError: .*; left is an Ask, whose answer is what yield Ask\(...\) returns", line=5,
    ),
    "a sub-question of three tokens": Mistake(
        "strategy", LEFT, LEFT.replace("[start,", "[start, start,"),
        r"must yield Ask with a question, int32 .* = \(2,\); got int32 of shape \(3,\)",
    ),
    "where for each token": Mistake(
        "strategy", LEFT, LEFT.replace("axis=-1))", "axis=-1), question > 0)"),
        r"must yield Ask with where, bool of shape \(\); got bool of shape \(2,\)",
    ),
    "an answer without its axis, of the strategy": Mistake(
        "strategy", CONCLUDED, CONCLUDED + "[..., 0]",
        r"must return int32 of shape \(answer_length,\) = \(1,\); got int32 of shape \(\)",
    ),
    "a strategy that returns nothing": Mistake(
        "strategy", CONCLUDED, "", r"must return int32 .* = \(1,\); got None",
    ),
    "a strategy that does not ask": Mistake(
        "strategy", "yield Ask", "self.ask",
        r": AttributeError: 'Tally' object has no attribute 'ask'", line=3,
    ),
    "a strategy that is no generator": Mistake(
        "strategy", GENERATOR, NO_GENERATOR,
        r"must be a generator, which yields Ask\(...\); got int32 of shape \(2,\)",
    ),
    "a strategy without end": Mistake(
        "strategy", LEFT, f"while True:\n            {LEFT}",
        r"must end; it asks more than 4 sub-questions",
    ),
    "a sub-question that is none": Mistake(
        "strategy", LEFT, LEFT.replace("middle]", "middle + 9]"),
        r"must ask with tokens 0 to 9 \(vocabulary has 10\); got 1\d",
    ),
    "a strategy that contradicts the truth": Mistake(
        "strategy", CONCLUDED, CONCLUDED.replace(" - ZERO", ""),
        r"and truth disagree about \d+ of 102 questions: to '\d-\d', with the facts 0-\d; .*; 7-\d,"
        r" truth says '\d', and strategy says '\d' when truth answers what it asks; either may be"
        r" wrong \(.*\)",
    ),
    "a strategy that asks its own question": Mistake(
        "strategy", "middle = (start + end) // 2", "middle = end",
        r"must not ask its own question and repeat the answer: for '\d-\d' it asks '\d-\d' again,"
        r" which no help can ever improve; so it does for \d+ of 102 questions",
    ),
    "a strategy that never knows": Mistake(
        "strategy", CONCLUDED, "return jnp.zeros_like(left)",
        r"must answer given true sub-answers; it says \"don't know\" to all 102 questions",
    ),
    "if in a strategy": Mistake(
        "strategy", LEFT, f"if start[0] > 3:\n            start = end\n        {LEFT}",
        r": .*(Error|Index).*", line=3,
    ),
    "text in place of words": Mistake(
        "parse", PARSED, "return text\n", r"must return a list of words or raise ValueError; for"
        r" '\d-\d' it returned '\d-\d'",
    ),
    "parse returns nothing": Mistake(
        "parse", PARSED, "pass\n        return None\n",
        r"must return a list of words or raise ValueError; for '\d-\d' it returned None",
    ),
    "parse turns a question round": Mistake(
        "parse", PARSED, "return text.split(\"-\")[::-1]\n",
        r"must read '\d-\d' as the words it was shown for, \['\d', '\d'\]; got \['\d', '\d'\]",
    ),
    "parse does not read what is shown": Mistake(
        "parse", '{start}-{start', '{start}..{start',
        r"must read what show makes of tokens, '\d-\d'; it says: a question is two places",
    ),
    "parse fails at what is no question": Mistake(
        "parse", "if text in", 'text.split("-")[1]\n        if text in',
        r": IndexError: list index .*", line=2,
    ),
    "words are shown as a list": Mistake(
        "show", SHOWN, "return words", r"must return text; got \['\d+', '\d+'\]",
    ),
    "show fails at answers": Mistake(
        "show", SHOWN, "return words[0] + words[1]", r": IndexError: list index out of range",
        line=1,
    ),
}  # fmt: skip


def trial_of(folder: Path, source: str) -> TaskProbe:
    (folder / "tally.py").write_text(source, encoding="utf-8")
    return TaskProbe(load("tally.py:Tally", [folder], "task").kind(8), folder / "tally.py")


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line_that_says_where_and_what(what, tmp_path, monkeypatch):
    monkeypatch.setattr(own_strategies, "MAX_ASKS", 4)
    mistake = MISTAKES[what]
    assert TALLY.count(mistake.was) >= 1
    start = TALLY.index(f"def {mistake.name}(")
    assert mistake.was in TALLY[start:]
    trial = trial_of(tmp_path, TALLY[:start] + TALLY[start:].replace(*mistake[1:3], 1))
    with pytest.raises(AmplifyError) as error:
        check_functions(trial)
    line = FIRST_LINES[mistake.name] + mistake.line
    where = f"{tmp_path}/tally.py:{line}: Tally.{mistake.name}"
    between = "" if mistake.said.startswith(":") else " "
    assert re.fullmatch(f"{re.escape(where)}{between}{mistake.said}.*", str(error.value))


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("def class_of", "def clas_of", "which lacks class_of; did you mean clas_of?"),
        ("fact_length, question_length, answer_length", "fact_length, question_length, answer_size",
         "which lacks answer_length"),
        ("2, 2, 1 ", "2, 2, 1.0 ", "answer_length must be 1 or more, got 1.0"),
        ("lambda self: self.bits)", "lambda self: None)", "facts must be 1 or more, got None"),
        ('("?", *map', '("?", "0", *map', "vocabulary must not have '0' twice"),
        ('("?", *map(str, range(self.bits + 1)))', '"?0123"',
         "vocabulary must be a tuple of strings, got '?0123'"),
        ('f"{2**d} bits" for', '"bits" for', "classes must not have 'bits' twice"),
        ("self.bits.bit_length()", "self.length()", "tally.py:19: tally.py:Tally: AttributeError:"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_class_is_found_when_the_file_is_read(was, becomes, said, tmp_path):
    assert was in TALLY
    (tmp_path / "tally.py").write_text(TALLY.replace(was, becomes), encoding="utf-8")
    (tmp_path / "experiment.toml").write_text(TOML, encoding="utf-8")
    with pytest.raises(AmplifyError) as error:
        read_experiment(tmp_path / "experiment.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


OPTIONAL = """
    smallest = 2
    largest = property(lambda self: self.bits)
    answer_rule = AnswerRule()
    draw_context_of_size = lambda self, key, size: self.draw_context(key)
    parse_answer = lambda self, text: [text]
    expand = lambda self, part: part + "-" + part
    find = lambda self, asked: jnp.zeros((len(asked), self.facts, self.fact_length), jnp.int32)
    supports = lambda self, context, question: jnp.any(context)
"""


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("smallest = 2", "", "largest requires smallest"),
        ("smallest = 2", "smallest = 2.0", "smallest must be 1 or more; got 2.0"),
        ("smallest = 2", "smallest = 99", r"smallest must be at most largest \(8\); got 99"),
        ("AnswerRule()", "'exact'", "answer_rule must be an AnswerRule; got 'exact'"),
        (
            "self.draw_context(key)",
            "size",
            r"draw_context_of_size must return int32 of shape \(facts",
        ),
        ("key, size:", "size:", r"draw_context_of_size must take \(self, key, size\), but takes"),
        ("[text]", "text", "parse_answer must return a list of words or raise ValueError"),
        ("[text]", "[text[::-1], text]", "parse_answer must read '.' as the words it was shown"),
        ('part + "-" + part', "[part]", r"expand must return text; got \['.'\]"),
        ("jnp.zeros((len", "jnp.ones((len", "find must find nothing, zeros alone, for a question"),
        ("(len(asked), self.facts", "(self.facts", r"find must return int32 of shape \(34, facts"),
        ("jnp.any(context)", "context", r"supports must return bool of shape \(\); got int32"),
        ("    supports", "    suports", "find requires supports"),
    ],
)
def test_a_mistake_in_an_optional_part_is_found(was, becomes, said, tmp_path):
    there = "from amplify.answers import AnswerRule\n" + TALLY
    check_functions(trial_of(tmp_path, there + OPTIONAL))
    assert was in OPTIONAL
    with pytest.raises(AmplifyError, match=rf"tally.py:\d+: Tally.{said}|tally.py: Tally.{said}"):
        check_functions(trial_of(tmp_path, there + OPTIONAL.replace(was, becomes)))


@pytest.mark.parametrize(
    "task",
    [
        Wildcard(1),
        Permutation(4, 3),
        ShortestPath(5, 6),
        UnionFind(5, 3),
        Search(regions=64, show_work=True),
    ],
    ids=str,
)
def test_tasks_that_are_as_they_should_be_pass(task):
    check_functions(TaskProbe(task, Path("task.py")))


def test_an_overseer_may_not_know_and_may_err_as_often_as_the_task_says(tmp_path):
    known = "known = (left > DONT_KNOW)"
    check_functions(trial_of(tmp_path, TALLY.replace(known, known + " & (left < 4)")))
    said = "jnp.where(left < 4, left + right - ZERO, 9)"
    errs = TALLY.replace(CONCLUDED, f"return jnp.where(known, {said}, DONT_KNOW)")
    with pytest.raises(AmplifyError, match=r"disagree about \d+ of 102 questions"):
        check_functions(trial_of(tmp_path, errs))
    check_functions(trial_of(tmp_path, errs + "    strategy_accuracy = 0.5\n"))
    with pytest.raises(AmplifyError, match=r"disagree about \d+ of 102 questions"):
        check_functions(trial_of(tmp_path, errs + "    strategy_accuracy = 0.99\n"))
    with pytest.raises(
        AmplifyError, match="strategy_accuracy must be a number from 0 to 1; got 80"
    ):
        check_functions(trial_of(tmp_path, errs + "    strategy_accuracy = 80\n"))


def test_a_wrong_truth_is_not_blamed_on_the_strategy_alone(tmp_path):
    with pytest.raises(AmplifyError) as error:
        check_functions(trial_of(tmp_path, TALLY.replace("jnp.sum", "jnp.max")))
    said = re.search(
        r"disagree about \d+ of 102 .*: to '\d-\d', with .*, truth says '1', and strategy says"
        r" '(\d)' when truth answers what it asks; either may be wrong",
        str(error.value),
    )
    assert int(said[1]) > 1


REPEATS = f"{GENERATOR}        told = yield Ask(question)\n        return told\n"


@pytest.mark.parametrize(
    "body",
    [
        # The vote of several samples is better than one of them.
        "one = yield Ask(question)\n        two = yield Ask(question)\n"
        "        return jnp.where(one == two, one, DONT_KNOW)\n",
        # An answer that is verified by the environment is better than one that is not.
        "told = yield Ask(question)\n        seen = yield Ask(question, to='environment')\n"
        "        return jnp.where(told == seen, told, DONT_KNOW)\n",
        # The environment may be asked anything.
        "told = yield Ask(question, to='environment')\n        return told\n",
    ],
)
def test_a_strategy_may_ask_its_own_question_if_that_can_help(body, tmp_path):
    own = f"{GENERATOR}        {body}\n    def other(self, question):\n"
    check_functions(trial_of(tmp_path, TALLY.replace(GENERATOR, own)))


@pytest.mark.parametrize("has_truth", [True, False])
def test_a_strategy_that_only_repeats_what_it_is_told_is_found(has_truth, tmp_path):
    source = TALLY.replace(GENERATOR, f"{REPEATS}\n    def other(self, question):\n")
    if not has_truth:
        source += "    truth = is_right = None\n"
    source = source.replace(TOLD, TOLD.replace("self.truth(context, question)", "context[0, :1]"))
    with pytest.raises(AmplifyError, match=r"it asks '\d-\d' again, .* for \d+ of 102 questions"):
        check_functions(trial_of(tmp_path, source))


def test_one_context_is_enough_if_none_is_kept_from_training(tmp_path):
    one = TALLY.replace("randint(key, (self.bits,)", "randint(jax.random.key(3), (self.bits,)")
    trial = trial_of(tmp_path, one)
    check_functions(trial, apart=False)
    with pytest.raises(AmplifyError, match="draw_context must use its key"):
        check_functions(trial)


@pytest.mark.parametrize("what", ["an answer without its axis", "if on a value that is traced"])
def test_a_command_says_it_in_one_line_before_anything_is_written(what, tmp_path, capsys):
    mistake = MISTAKES[what]
    (tmp_path / "tally.py").write_text(TALLY.replace(*mistake[1:3]), encoding="utf-8")
    (tmp_path / "experiment.toml").write_text(TOML, encoding="utf-8")
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        commands.main(["round", str(tmp_path), "--n", "1"])
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"tally.py:{FIRST_LINES[mistake.name] + mistake.line}: " in captured.err
    assert sorted(tmp_path.rglob("*")) == there


def test_an_error_in_own_code_that_nothing_foresaw_is_one_line_too(tmp_path, capsys, monkeypatch):
    trial = trial_of(tmp_path, TALLY.replace(SHOWN, "return words[5]"))

    def fails(store, folder, *, runs_code):
        trial.task.show(["1"])

    monkeypatch.setattr(Store, "__init__", fails)
    with pytest.raises(SystemExit) as end:
        commands.main(["compare", str(tmp_path)])
    assert end.value.code == 2
    where = f"{tmp_path}/tally.py:{FIRST_LINES['show'] + 1}"
    assert capsys.readouterr().err == f"amplify: {where}: IndexError: list index out of range\n"


@pytest.mark.parametrize("text", ["0-1", "0-16", "3-5", "12-16"])
def test_the_task_of_the_readme_reads_its_questions(text):
    assert "-".join(tally().parse(text)) == text


@pytest.mark.parametrize(
    "text", ["8-4", "3-9", "0-17", "-1-1", "4", "4-4", "a-b", "", "3-5-7", "03-5"]
)
def test_the_task_of_the_readme_rejects_what_has_no_answer(text):
    with pytest.raises(ValueError, match="a question is two places a power of 2 apart"):
        tally().parse(text)


def tally() -> Any:
    return read_experiment(ROOT / "rounds/tally/experiment.toml").task


@pytest.mark.parametrize("broken", ["def draw_context(self, key)", "    def truth(self: context"])
def test_a_file_that_is_no_python_is_one_line_with_its_place(tmp_path, broken):
    (tmp_path / "tally.py").write_text(f"import jax\n\n{broken}\n", encoding="utf-8")
    with pytest.raises(AmplifyError) as error:
        load("tally.py:Tally", [tmp_path], "task.kind")
    said = str(error.value)
    assert said.startswith(f"{tmp_path}/tally.py:3: cannot be imported: ")
    assert "(tally.py" not in said
    assert "\n" not in said
