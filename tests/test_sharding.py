"""How parameters name their axes, and where a mesh puts them: by shapes alone, mostly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from amplify.models.attention.rotary import Rotary
from amplify.models.axes import axes
from amplify.models.decoder.layers import Architecture
from amplify.models.decoder.lora import LoRA
from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.language_model import LanguageModel, LanguageModelConfig
from amplify.models.prompts import default_format
from amplify.overseers.learned import Learned, LearnedConfig
from amplify.oversight.amplification import trained_assistant
from amplify.oversight.imitation import trained_overseer
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.training import mesh
from amplify.training.mesh import Mesh
from amplify.training.options import Training
from amplify.training.step import abstract_role
from tests.training import untrained

LLAMA = Architecture(
    vocabulary=32_000,
    positions=2_048,
    width=2_048,
    heads=32,
    key_heads=4,
    head_width=64,
    hidden=5_632,
    windows=(0,) * 22,
    rotary=(Rotary(10_000.0),) * 22,
    tied=False,
)
SWITCHED_ON = dataclasses.replace(  # all that a model may have beside Llama's parameters
    LLAMA,
    rotary=(),
    norm="layer",
    norms_heads=True,
    norms_outputs=True,
    biased=frozenset({"query_key_value", "out", "mlp"}),
    reach=3,
    lora=LoRA(16, 16.0),
)


def language_model(architecture):
    task = Wildcard(3)
    return LanguageModel(LanguageModelConfig(), task, architecture, default_format(task))


def training_state(assistant, optimizer="adam"):
    return abstract_role(trained_assistant(assistant, Training(optimizer=optimizer)))


def fact_transformer():
    """Of the paper's size."""
    sizes = {"width": 512, "heads": 8, "encoder_layers": 6, "decoder_layers": 3}
    return FactTransformerConfig(**sizes).build(Permutation(64, 6))


STATES = {
    "Llama of 1.1 B parameters, Adam": lambda: training_state(language_model(LLAMA)),
    "the same, Muon": lambda: training_state(language_model(LLAMA), "muon"),
    "the same, LoRA of rank 16": lambda: training_state(
        language_model(dataclasses.replace(LLAMA, lora=LoRA(16, 16.0)))
    ),
    "fact transformer of width 512": lambda: training_state(fact_transformer()),
}


@pytest.mark.parametrize("spread", [Mesh(fsdp=8), Mesh(tensor=2, fsdp=4)], ids=str)
@pytest.mark.parametrize("name", STATES)
def test_eight_devices_hold_an_eighth_of_a_state_each(name, spread):
    state = STATES[name]()
    shares = spread.shares(state)
    print(
        f"\n{name}, {spread}: {shares.all / 1e9:.3f} GB, {shares.per_device / 1e9:.3f} GB on each"
        f" device, {8 * shares.per_device / shares.all:.4f} eighths"
    )
    assert shares.all == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert shares.per_device == pytest.approx(shares.all / 8, rel=0.05)


def test_replicas_hold_as_much_as_fewer_devices_would():
    state = STATES["Llama of 1.1 B parameters, Adam"]()
    assert Mesh(data=2, fsdp=4).shares(state) == Mesh(fsdp=4).shares(state)
    assert Mesh().shares(state).per_device == Mesh().shares(state).all


def parameters(tree):
    leaves, _ = jax.tree.flatten(tree, is_leaf=lambda node: isinstance(node, nnx.Variable))
    return leaves


def test_every_parameter_names_each_of_its_axes():
    overseer = Learned(LearnedConfig(), Permutation(8, 3))
    key = jax.random.key(0)
    for assistant in (language_model(SWITCHED_ON), fact_transformer(), overseer):
        found = parameters(jax.eval_shape(assistant.init, key))
        assert len(found) > 10
        for one in found:
            names = one.get_metadata()["out_sharding"]
            assert len(names) == one.get_value().ndim, one
            assert set(names) - {None, "layers", "norm"} <= {name for name, _ in mesh.RULES}


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_moments_and_the_target_network_lie_where_their_parameter_does(optimizer):
    state = training_state(language_model(LLAMA), optimizer)
    leaves = jax.tree_util.tree_leaves_with_path(Mesh(tensor=2, fsdp=4).specs(state))
    specs = {jax.tree_util.keystr(path, simple=True, separator="."): spec for path, spec in leaves}
    params = {path: spec for path, spec in specs.items() if path.startswith("params.")}
    assert len({*params.values()}) > 3
    for path, spec in params.items():
        name = path.removeprefix("params.")
        like = [other for other in specs if other.endswith(f".{name}")]
        like = [other for other in like if "layers" not in other.removesuffix(name)]
        assert len(like) >= 3  # itself, the average, and one or two moments
        assert {specs[other] for other in like} == {spec}


def test_a_learned_overseer_is_spread_with_its_moments():
    overseer = Learned(LearnedConfig(width=128, heads=4, layers=4), Permutation(64, 6))
    state = abstract_role(trained_overseer(overseer))
    for part in (state.params, state.optimizer):
        shares = Mesh(fsdp=8).shares(part)
        assert shares.per_device == pytest.approx(shares.all / 8, rel=0.05)


def test_axes_of_a_parameter_go_where_the_rules_say():
    spread = Mesh(tensor=2, fsdp=4)
    assert spread.partition_spec(("embed", "mlp"), (16, 8)) == PartitionSpec("fsdp", "tensor")
    assert spread.partition_spec(("layers", "mlp", "embed"), (3, 8, 16)) == PartitionSpec(
        None, "tensor", "fsdp"
    )
    assert spread.partition_spec(("embed", "rank"), (16, 8)) == PartitionSpec("fsdp", "tensor")
    assert spread.partition_spec(("rank", "mlp"), (8, 16)) == PartitionSpec("fsdp", "tensor")
    assert spread.partition_spec(("norm",), (8,)) == PartitionSpec(None)


def test_an_axis_that_does_not_divide_evenly_is_replicated_and_said_to_be():
    spread = Mesh(tensor=2, fsdp=4)
    assert spread.partition_spec(("vocabulary", "embed"), (11, 8)) == PartitionSpec(None, "fsdp")
    table, low = (jax.ShapeDtypeStruct((length, 8), jnp.float32) for length in (11, 2))
    tree = {
        "table": nnx.Param(table, **axes("vocabulary", "embed")),
        "low": nnx.Param(low, **axes("rank", "mlp")),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    assert spread.replicated_axes(tree) == ["vocabulary 11"]  # the rank goes to tensor instead
    assert Mesh(fsdp=4).replicated_axes(tree) == ["rank 2"]
    assert Mesh().replicated_axes(tree) == []


def test_devices_hold_what_was_worked_out_from_shapes():
    model = LanguageModelConfig(width=32, heads=4, key_heads=2, layers=2).build(Wildcard(3))
    training = Training(steps=10)
    for spread in (Mesh(fsdp=2), Mesh(tensor=2)):
        params = jax.jit(model.init)(jax.random.key(0))
        state = spread.place(untrained(model, params, training))
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
        assert held == spread.shares(state).per_device
        assert held < 0.6 * spread.shares(state).all


def test_numbers_that_name_no_axes_are_on_every_device():
    placed = Mesh(fsdp=2).place({"plain": np.zeros((4, 8), np.float32)})
    assert placed["plain"].sharding.is_fully_replicated
