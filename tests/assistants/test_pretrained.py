"""Weights in and out, against transformers on torch, on checkpoints that transformers itself
writes.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file, save_file

from amplify.assistants import pretrained
from amplify.assistants.causal_lm import CausalLM
from amplify.errors import AmplifyError
from amplify.mesh import Mesh

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
GEMMA = SMALL | {"head_dim": 12, "sliding_window": 5, "query_pre_attn_scalar": 9}
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
CONFIGURATIONS = {
    "llama": ("LlamaConfig", SMALL | {"tie_word_embeddings": False}),
    "llama 3, tied": (
        "LlamaConfig",
        SMALL | {"rope_parameters": LLAMA_3, "tie_word_embeddings": True},
    ),
    "llama, linear rope, biases": (
        "LlamaConfig",
        SMALL
        | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}
        | {"attention_bias": True, "mlp_bias": True},
    ),
    "mistral": ("MistralConfig", SMALL | {"sliding_window": 5}),
    "qwen2": (
        "Qwen2Config",
        SMALL | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", SMALL | {"head_dim": 12}),
    "gemma2": (
        "Gemma2Config",
        GEMMA | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        GEMMA | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
}  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 97, (2, 30))


def written(folder, name="llama", dtype=None, **more):
    """A checkpoint of random weights, none of them at the value that they begin with."""
    kind, values = CONFIGURATIONS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**values, **more)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if dtype is not None:
        model = model.to(dtype)
    model.save_pretrained(folder)
    return model


def their_logits(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.float().numpy()


def our_logits(opened, params) -> np.ndarray:
    graph = nnx.graphdef(
        nnx.eval_shape(lambda: CausalLM(opened.architecture, nnx.Rngs(0), jnp.dtype("float32")))
    )
    positions = jnp.broadcast_to(jnp.arange(30), (2, 1, 30))

    @jax.jit
    def run(params, tokens):
        network = nnx.merge(graph, params)
        x, _ = network.read(tokens[:, None], positions)
        return network.logits(x)[:, 0]

    return np.asarray(run(params, jnp.asarray(TOKENS, jnp.int32)))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_are_those_of_transformers_and_survive_an_export(name, tmp_path):
    theirs = their_logits(written(tmp_path / "in", name))
    opened = pretrained.open_folder(tmp_path / "in")
    params = pretrained.load(opened)
    np.testing.assert_allclose(our_logits(opened, params), theirs, atol=1e-4)
    pretrained.export(opened, params, tmp_path / "out")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    np.testing.assert_allclose(their_logits(back), theirs, atol=1e-5)
    assert sorted(load_file(tmp_path / "out/model.safetensors")) == sorted(
        load_file(tmp_path / "in/model.safetensors")
    )


def test_many_files_are_read_as_one(tmp_path):
    model = written(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = (pretrained.open_folder(tmp_path / name) for name in ("one", "many"))
    same = jax.tree.map(
        lambda a, b: bool(jnp.all(a == b)), pretrained.load(one), pretrained.load(many)
    )
    assert all(jax.tree.leaves(same))


def test_weights_of_mixed_dtypes_are_taken_to_the_one_asked_for(tmp_path):
    written(tmp_path, dtype=torch.bfloat16)
    model = tmp_path / "model.safetensors"
    tensors = load_file(model)
    first = "model.layers.0.mlp.up_proj.weight"
    tensors[first] = tensors[first].astype(np.float32)
    save_file(tensors, model)
    opened = pretrained.open_folder(tmp_path)
    kept = pretrained.load(opened)
    assert kept["layers"]["mlp"]["up"]["kernel"][...].dtype == jnp.float32  # its layers differ
    assert kept["layers"]["mlp"]["down"]["kernel"][...].dtype == jnp.bfloat16
    wide = pretrained.load(opened, dtype=jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(
        wide["layers"]["mlp"]["up"]["kernel"][0], tensors[first].T, rtol=1e-6
    )


def test_each_device_reads_its_own_part(tmp_path):
    written(tmp_path)
    opened = pretrained.open_folder(tmp_path)
    mesh = jax.make_mesh((2,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "fsdp"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def place(params):
        return jax.tree.map(lambda leaf: split if leaf.ndim == 3 else whole, params)

    spread = pretrained.load(opened, place=place)
    kernel = spread["layers"]["attention"]["query"]["kernel"][...]
    assert kernel.addressable_shards[0].data.shape == (3, 16, 32)
    same = jax.tree.map(
        lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)),
        spread,
        pretrained.load(opened),
    )
    assert all(jax.tree.leaves(same))


def test_a_mesh_has_each_device_read_no_more_than_it_holds(tmp_path, monkeypatch):
    written(tmp_path)
    opened, spread, read = pretrained.open_folder(tmp_path), Mesh(fsdp=2), []
    original = pretrained._read

    def counting(*arguments):
        array = original(*arguments)
        read.append(array.nbytes)
        return array

    monkeypatch.setattr(pretrained, "_read", counting)
    params = pretrained.load(opened, place=spread.of_tree)
    shares = spread.shares(params)
    assert sum(read) <= 2 * shares.per_device < 1.1 * shares.all
    for leaf, place in zip(
        jax.tree.leaves(params), jax.tree.leaves(spread.of_tree(params)), strict=True
    ):
        assert leaf.sharding == place


def broken(folder, change) -> None:
    model = folder / "model.safetensors"
    tensors = load_file(model)
    change(tensors)
    save_file(tensors, model)


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(NORM), "tensor norm.weight is missing"),
        (
            lambda tensors: tensors.update({NORM: np.zeros(31, np.float32)}),
            r"tensor norm.weight has shape \[31\], but the configuration makes it \[32\]",
        ),
        (
            lambda tensors: tensors.update({"model.extra.weight": np.zeros(3, np.float32)}),
            "tensor extra.weight is not used by this architecture",
        ),
        (
            lambda tensors: tensors.update({"norm.weight": np.zeros(32, np.float32)}),
            "tensor model.norm.weight is there twice|tensor norm.weight is there twice",
        ),
    ],
    ids=["missing", "shape", "unused", "twice"],
)
def test_a_tensor_that_does_not_fit_is_named(change, said, tmp_path):
    written(tmp_path)
    broken(tmp_path, change)
    with pytest.raises(AmplifyError, match=said):
        pretrained.load(pretrained.open_folder(tmp_path))


def test_an_output_that_is_tied_must_be_the_embedding(tmp_path):
    written(tmp_path, "llama 3, tied")
    tensors = load_file(tmp_path / "model.safetensors")
    tied = {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    broken(tmp_path, lambda tensors: tensors.update(tied))
    pretrained.load(pretrained.open_folder(tmp_path))
    other = {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}
    broken(tmp_path, lambda tensors: tensors.update(other))
    with pytest.raises(AmplifyError, match=r"lm_head\.weight differs from the embedding"):
        pretrained.load(pretrained.open_folder(tmp_path))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(AmplifyError, match="not a checkpoint folder"):
        pretrained.open_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AmplifyError, match=r"config\.json"):
        pretrained.open_folder(tmp_path)
    written(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(AmplifyError, match=r"model\.safetensors: cannot be read"):
        pretrained.load(pretrained.open_folder(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(AmplifyError, match=r"there is no \.safetensors file"):
        pretrained.load(pretrained.open_folder(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bert"}, r"'bert' is not supported; supported are: llama, mistral"),
        ({"hidden_act": "relu"}, "'relu' of a llama model is not supported; supported are: silu"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type 'dynamic' of a llama model is not supported",
        ),
    ],
)
def test_what_is_not_supported_says_what_is(changes, said, tmp_path):
    written(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(AmplifyError, match=said):
        pretrained.open_folder(tmp_path)


def test_an_export_never_writes_over_a_folder(tmp_path):
    written(tmp_path / "in")
    opened = pretrained.open_folder(tmp_path / "in")
    (tmp_path / "out").mkdir()
    with pytest.raises(AmplifyError, match="is there already"):
        pretrained.export(opened, pretrained.load(opened), tmp_path / "out")
