"""What tasks and models may have beside what all have: read as values, whatever they are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.answers import EXACT, AnswerRule
from amplify.errors import AmplifyError
from amplify.models.abilities import (
    EVERYTHING,
    exporter_of,
    layout_of,
    loader_of,
    preparer_of,
    trainable_of,
)
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.language_model import LanguageModelConfig
from amplify.overseers.learned import LearnedConfig
from amplify.overseers.simulated import SimulatedConfig
from amplify.reading.experiment_file import read_experiment
from amplify.task_abilities import (
    answer_parser_of,
    choices_of,
    expander_of,
    knows_truth,
    rule_of,
    search_of,
    sizes_of,
    strategy_of,
)
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.text.search import Search
from tests.malformed import TASK
from tests.tiny import TOML, tiny_experiment

OPTIONAL = (
    *("strategy", "smallest", "largest", "draw_context_of_size", "find", "supports"),
    *("parse_answer", "choices", "answer_rule", "expand", "truth", "is_right"),
)
WITHOUT = dataclasses.make_dataclass(
    "Without", [], bases=(Search,), namespace=dict.fromkeys(OPTIONAL), frozen=True
)()
"""A task that has None in place of everything that it may lack."""


def test_a_task_that_lacks_everything_or_has_none_in_its_place_does_without():
    bare = Wildcard(2)
    assert [sizes_of(bare), search_of(bare), answer_parser_of(bare), expander_of(bare)] == 4 * [
        None
    ]
    assert rule_of(bare) == EXACT
    for ability in (strategy_of, sizes_of, search_of, answer_parser_of, expander_of):
        assert ability(WITHOUT) is None
    assert choices_of(WITHOUT) == ()
    assert rule_of(WITHOUT) == EXACT
    assert knows_truth(bare)
    assert not knows_truth(WITHOUT)


def test_what_a_task_has_is_what_it_does():
    sizes = sizes_of(Permutation(5, 3))
    assert (sizes.smallest, sizes.largest) == (
        Permutation(5, 3).smallest,
        Permutation(5, 3).largest,
    )
    key, size = jax.random.key(0), jnp.int32(sizes.smallest)
    drawn = Permutation(5, 3).draw_context_of_size(key, size)
    np.testing.assert_array_equal(sizes.draw_context(key, size), drawn)
    task = Search(regions=64)
    assert rule_of(task) == AnswerRule(separator=" > ")
    assert search_of(task).find == task.find
    assert search_of(task).supports == task.supports
    assert preparer_of(task) == task.prepare


def test_a_size_is_none_where_a_part_of_it_is_missing():
    class Partly(Permutation):
        draw_context_of_size = None

    assert sizes_of(Partly(5, 3)) is None


def test_models_do_without_what_they_lack():
    overseer = SimulatedConfig().build(Wildcard(2))
    for model in (FactTransformerConfig(width=8, heads=1).build(Wildcard(2)), overseer):
        assert [loader_of(model), exporter_of(model), preparer_of(model)] == [None, None, None]
        assert layout_of(model) is dict
        assert trainable_of(model) is EVERYTHING
    params = {"a": jnp.ones(2)}
    assert EVERYTHING.join(*EVERYTHING.split(params)) is params


def test_models_have_what_they_have():
    model = LanguageModelConfig(width=8, heads=1, key_heads=1, layers=1).build(Wildcard(2))
    assert loader_of(model) == model.load
    assert exporter_of(model) == model.export
    assert layout_of(model) == model.lay_out
    params = model.init(jax.random.key(0))
    trainable = trainable_of(model)
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, trainable.join(*trainable.split(params)), params)
    )


@pytest.mark.parametrize("overseer", ["simulated", "learned"])
def test_whoever_follows_a_strategy_needs_a_task_with_one(tmp_path, overseer):
    toml = TOML.replace('"wildcard"\nletters = 3', '"tally.py:Tally"\nbits = 4')
    folder = tiny_experiment(tmp_path / "tiny", toml.replace('"simulated"', f'"{overseer}"'))
    file, none = folder / "experiment.toml", f"{TASK}\n    strategy = None\n"
    (folder / "tally.py").write_text(TASK, encoding="utf-8")
    read_experiment(file)
    (folder / "tally.py").write_text(none, encoding="utf-8")
    with pytest.raises(AmplifyError, match="needs a task with a strategy to follow or to learn"):
        read_experiment(file)


def test_a_learner_counts_the_asks_of_the_tasks_strategy():
    assert LearnedConfig().build(Wildcard(3)).asks == 2
