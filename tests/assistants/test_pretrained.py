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

from amplify.errors import AmplifyError
from amplify.models.decoder.causal_lm import CausalLM
from amplify.models.pretrained import pretrained
from amplify.training.mesh import Mesh

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
        x, _ = network.forward(tokens[:, None], positions)
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
    params = pretrained.load(opened, place=spread.shardings)
    shares = spread.shares(params)
    assert sum(read) <= 2 * shares.per_device < 1.1 * shares.all
    for leaf, place in zip(
        jax.tree.leaves(params), jax.tree.leaves(spread.shardings(params)), strict=True
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
            r"tensor norm.weight has shape \[31\], but the configuration requires \[32\]",
        ),
        (
            lambda tensors: tensors.update({"model.extra.weight": np.zeros(3, np.float32)}),
            "tensor extra.weight is not used by this architecture",
        ),
        (
            lambda tensors: tensors.update({"norm.weight": np.zeros(32, np.float32)}),
            "tensor model.norm.weight is duplicated|tensor norm.weight is duplicated",
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
    with pytest.raises(AmplifyError, match=r"there is neither model\.safetensors nor"):
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
    with pytest.raises(AmplifyError, match="already exists"):
        pretrained.export(opened, pretrained.load(opened), tmp_path / "out")


def same_weights(first, second) -> bool:
    loaded = [pretrained.load(pretrained.open_folder(folder)) for folder in (first, second)]
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), *loaded)))


STRAYS = ("consolidated.safetensors", "adapter_model.safetensors", "model.old.safetensors",
          "model-00001-of-00009.safetensors")  # fmt: skip


@pytest.mark.parametrize("shards", [1, 3])
def test_what_lies_beside_the_weights_is_not_read_as_transformers_does(shards, tmp_path):
    model = written(tmp_path / "plain")
    folder = tmp_path / "in"
    model.save_pretrained(folder, max_shard_size="5GB" if shards == 1 else "20KB")
    with torch.no_grad():
        other = {
            name: 2 * value
            for name, value in load_file(folder.parent / "plain/model.safetensors").items()
        }
    for stray in STRAYS:
        save_file(other, folder / stray)
    assert same_weights(folder, tmp_path / "plain")
    if shards == 1:  # an index beside model.safetensors says nothing
        index = {"weight_map": dict.fromkeys(other, STRAYS[0])}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert same_weights(folder, tmp_path / "plain")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    np.testing.assert_array_equal(theirs.lm_head.weight.detach(), model.lm_head.weight.detach())


def sharded(folder):
    written(folder.parent / "whole").save_pretrained(folder, max_shard_size="20KB")
    file = folder / "model.safetensors.index.json"
    return file, json.loads(file.read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda index: index["weight_map"].update(x="gone.safetensors"), "gone.safetensors is"),
        (lambda index: index["weight_map"].update({NORM: "../x.safetensors"}), "is no .safetens"),
        (lambda index: index["weight_map"].update({NORM: 3}), "cannot be read"),
        (lambda index: index["weight_map"].clear(), "cannot be read"),
        (lambda index: index.clear(), "cannot be read"),
        (lambda index: index.update(weight_map=[1]), "cannot be read"),
    ],
)  # fmt: skip
def test_an_index_that_names_what_is_not_there_is_one_line(change, said, tmp_path):
    file, index = sharded(tmp_path / "many")
    change(index)
    file.write_text(json.dumps(index))
    with pytest.raises(AmplifyError, match=said) as caught:
        pretrained.load(pretrained.open_folder(tmp_path / "many"))
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    _, index = sharded(tmp_path / "many")
    name = index["weight_map"][NORM]
    (tmp_path / "many" / name).unlink()
    with pytest.raises(AmplifyError, match=f"{name} is missing"):
        pretrained.load(pretrained.open_folder(tmp_path / "many"))


def test_a_tensor_that_is_in_another_file_than_the_index_says_is_named(tmp_path):
    file, index = sharded(tmp_path / "many")
    first, *_ = (name for name in index["weight_map"].values() if name != index["weight_map"][NORM])
    index["weight_map"][NORM] = first
    file.write_text(json.dumps(index))
    with pytest.raises(AmplifyError, match=f"{first}: tensor {NORM} is missing"):
        pretrained.load(pretrained.open_folder(tmp_path / "many"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full(32, np.nan, np.float32), "tensor norm.weight has values that are not a number"),
        (np.full(32, -np.inf, np.float32), "tensor norm.weight has values that are infinite"),
        (np.ones(32, np.float64), "tensor model.norm.weight has dtype F64; supported are F32"),
        (np.ones(32, np.int8), "tensor model.norm.weight has dtype I8"),
    ],
)
def test_values_that_no_model_has_are_named(values, said, tmp_path):
    written(tmp_path)
    broken(tmp_path, lambda tensors: tensors.update({NORM: values}))
    with pytest.raises(AmplifyError, match=said):
        pretrained.load(pretrained.open_folder(tmp_path), dtype=jnp.float32)


NONSENSE = [
    {"num_attention_heads": 5}, {"num_attention_heads": 0}, {"num_attention_heads": "4"},
    {"num_key_value_heads": 3}, {"num_key_value_heads": 0}, {"vocab_size": "101"},
    {"vocab_size": -1}, {"vocab_size": 1.5}, {"vocab_size": None}, {"vocab_size": 10**30},
    {"num_hidden_layers": 0}, {"num_hidden_layers": 10**9}, {"num_hidden_layers": [3]},
    {"hidden_size": 0}, {"hidden_size": True}, {"intermediate_size": {}}, {"head_dim": 3},
    {"head_dim": "x"}, {"max_position_embeddings": -64}, {"rms_norm_eps": "1e-6"},
    {"rms_norm_eps": float("nan")}, {"rms_norm_eps": -1.0}, {"hidden_act": None},
    {"hidden_act": ["silu"]}, {"tie_word_embeddings": "yes"}, {"rope_parameters": []},
    {"rope_parameters": {"rope_type": "linear"}}, {"rope_parameters": {"rope_type": 3}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": "x"}},
    {"rope_parameters": LLAMA_3 | {"low_freq_factor": 4.0}}, {"model_type": None},
    {"model_type": ["llama"]}, {"model_type": "llama\n"}, {"quantization_config": "4bit"},
    {"transformers_weights": "consolidated.safetensors"},
]  # fmt: skip


@pytest.mark.parametrize("changes", NONSENSE, ids=str)
def test_a_configuration_that_makes_no_sense_is_one_line(changes, tmp_path):
    written(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(AmplifyError) as caught:
        pretrained.load(pretrained.open_folder(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"llama"', "{" * 100_000, "", "\ud83d"])
def test_a_configuration_that_is_no_table_is_one_line(text, tmp_path):
    written(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(AmplifyError) as caught:
        pretrained.open_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors"])
def test_quantised_weights_are_refused_by_name(method, tmp_path):
    written(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AmplifyError, match=rf"quantised weights \({method}\) are not supported"):
        pretrained.open_folder(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "strange"])
def test_code_in_a_checkpoint_folder_is_never_run_nor_asked_about(kind, tmp_path, monkeypatch):
    written(tmp_path)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": kind, "auto_map": {"AutoConfig": "theirs.C", "AutoModel": "theirs.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["theirs.C", None]}, "tokenizer_class": "C"})
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    if kind == "strange":
        with pytest.raises(AmplifyError, match="'strange' is not supported"):
            pretrained.open_folder(tmp_path)
    else:
        opened = pretrained.open_folder(tmp_path)
        with pytest.raises(AmplifyError, match="tokenizer: "):
            pretrained.open_tokenizer(opened)
        pretrained.export(opened, pretrained.load(opened), tmp_path / "out")
        assert "auto_map" not in (tmp_path / "out/config.json").read_text()
        assert not (tmp_path / "out/theirs.py").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_export_opens_as_the_model_that_was_trained(dtype, tmp_path):
    """Training changes weights by much less than bfloat16 can tell apart."""
    written(tmp_path / "in", dtype=getattr(torch, dtype))
    opened = pretrained.open_folder(tmp_path / "in")
    params = pretrained.load(opened, dtype=jnp.float32)
    trained = jax.tree.map(lambda leaf: leaf * (1 + 1e-3), params)
    pretrained.export(opened, trained, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {parameter.dtype for parameter in theirs.parameters()} == {torch.float32}
    before = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in").float()
    for new, old in zip(theirs.parameters(), before.parameters(), strict=True):
        np.testing.assert_allclose(new.detach(), old.detach() * (1 + 1e-3), rtol=1e-6)
    again = pretrained.load(pretrained.open_folder(tmp_path / "out"))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), again, trained)))
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float32"


def test_an_export_has_only_what_belongs_to_the_model(tmp_path):
    written(tmp_path / "in")
    strays = ["consolidated.safetensors", "pytorch_model.bin", "adapter_config.json"]
    for name in (*strays, "model.safetensors.index.json"):
        (tmp_path / "in" / name).write_text("{}")
    (tmp_path / "in/LICENSE").write_text("MIT")
    (tmp_path / "in/.git").mkdir()
    opened = pretrained.open_folder(tmp_path / "in")
    pretrained.export(opened, pretrained.load(opened), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"LICENSE", "config.json", "generation_config.json", "model.safetensors"}
