"""Pretrained weights, in and out: folders as Hugging Face keeps them, read without torch.

A family is a function from its configuration to our architecture, and names in its files for our
parameters. Loading is strict: a tensor that is missing, left over, there twice, or of another shape
is an error that names it.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from amplify.assistants.causal_lm import Architecture, CausalLM
from amplify.assistants.rotary import Rotary
from amplify.errors import AmplifyError, first_line
from amplify.types import Place

Names = Mapping[str, str]
"""Our parameter, its path joined by dots, to the name of the family's tensor; `{}` stands for the
layer's number. Where a tensor holds several parameters side by side, it is named for each.
"""


@dataclasses.dataclass(frozen=True)
class Family:
    architecture: Callable[[Any], Architecture]
    names: Names
    transposed: bool = True  # linear maps are stored as (out, into)
    prefix: str = "model."  # of all names but that of the output; may be left out in a file
    ignored: tuple[str, ...] = ()  # endings of tensors that hold nothing learned

    def ignores(self, tensor: str) -> bool:
        return any(tensor.endswith("." + ending) for ending in self.ignored)


LLAMA: Names = {
    "embedding": "embed_tokens.weight",
    "out_norm.scale": "norm.weight",
    "out.kernel": "lm_head.weight",
    "layers.attention_norm.scale": "layers.{}.input_layernorm.weight",
    "layers.mlp_norm.scale": "layers.{}.post_attention_layernorm.weight",
    **{
        f"layers.attention.{ours}.{kind}": f"layers.{{}}.self_attn.{theirs}.{its}"
        for ours, theirs in [
            ("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "o_proj")
        ]
        for kind, its in [("kernel", "weight"), ("bias", "bias")]
    },
    **{
        f"layers.mlp.{ours}.{kind}": f"layers.{{}}.mlp.{ours}_proj.{its}"
        for ours in ("gate", "up", "down")
        for kind, its in [("kernel", "weight"), ("bias", "bias")]
    },
    "layers.attention.query_norm.scale": "layers.{}.self_attn.q_norm.weight",
    "layers.attention.key_norm.scale": "layers.{}.self_attn.k_norm.weight",
}  # fmt: skip
GEMMA: Names = {
    **LLAMA,
    "layers.attention_out_norm.scale": "layers.{}.post_attention_layernorm.weight",
    "layers.mlp_norm.scale": "layers.{}.pre_feedforward_layernorm.weight",
    "layers.mlp_out_norm.scale": "layers.{}.post_feedforward_layernorm.weight",
}
DTYPES = {"F32": jnp.float32, "F16": jnp.float16, "BF16": jnp.bfloat16}
GPT2: Names = {
    "embedding": "wte.weight",
    "positions": "wpe.weight",
    "out.kernel": "lm_head.weight",
    **{
        f"{ours}.{kind}": f"{theirs}.{its}"
        for ours, theirs in [
            ("out_norm", "ln_f"),
            ("layers.attention_norm", "h.{}.ln_1"),
            ("layers.mlp_norm", "h.{}.ln_2"),
        ]
        for kind, its in [("scale", "weight"), ("bias", "bias")]
    },
    **{
        f"{ours}.{kind}": f"{theirs}.{its}"
        for ours, theirs in [
            ("layers.attention.query", "h.{}.attn.c_attn"),
            ("layers.attention.key", "h.{}.attn.c_attn"),
            ("layers.attention.value", "h.{}.attn.c_attn"),
            ("layers.attention.out", "h.{}.attn.c_proj"),
            ("layers.mlp.up", "h.{}.mlp.c_fc"),
            ("layers.mlp.down", "h.{}.mlp.c_proj"),
        ]
        for kind, its in [("kernel", "weight"), ("bias", "bias")]
    },
}
ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu",
}  # fmt: skip


def _llama(config: Any) -> Architecture:
    """Llama and all that were made after its plan."""
    layers, kinds = config.num_hidden_layers, getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or 0
    # Without kinds of layers, a window holds for all of them (Mistral).
    kinds = kinds or [("sliding" if window else "full") + "_attention"] * layers
    biased = set()
    if getattr(config, "attention_bias", False):
        biased |= {"query_key_value", "out"}
    if getattr(config, "mlp_bias", False):
        biased.add("mlp")
    heads = config.num_attention_heads
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    return Architecture(
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        width=config.hidden_size,
        heads=heads,
        key_heads=config.num_key_value_heads or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        hidden=config.intermediate_size,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
        rotary=tuple(_rotary(config, kind) for kind in kinds),
        norm_epsilon=config.rms_norm_eps,
        activation=_one_of(config, "activation", activation, ACTIVATIONS),
        biased=frozenset(biased),
        tied=config.tie_word_embeddings,
    )


def _qwen2(config: Any) -> Architecture:
    return dataclasses.replace(_llama(config), biased=frozenset({"query_key_value"}))


def _qwen3(config: Any) -> Architecture:
    return dataclasses.replace(_llama(config), norms_heads=True)


def _gemma2(config: Any) -> Architecture:
    return dataclasses.replace(
        _llama(config),
        norm_offset=1.0,
        norms_outputs=True,
        attention_scale=config.query_pre_attn_scalar**-0.5,
        attention_cap=config.attn_logit_softcapping,
        logit_cap=config.final_logit_softcapping,
        embedding_scale=config.hidden_size**0.5,
    )


def _gemma3(config: Any) -> Architecture:
    if config.use_bidirectional_attention:
        raise AmplifyError("use_bidirectional_attention: only causal models are supported")
    return dataclasses.replace(_gemma2(config), norms_heads=True)


def _gpt2(config: Any) -> Architecture:
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if getattr(config, key):
            raise AmplifyError(f"{key}: not supported for gpt2")
    return Architecture(
        vocabulary=config.vocab_size,
        positions=config.n_positions,
        width=config.n_embd,
        heads=config.n_head,
        key_heads=config.n_head,
        head_width=config.n_embd // config.n_head,
        hidden=config.n_inner or 4 * config.n_embd,
        windows=(0,) * config.n_layer,
        norm="layer",
        norm_epsilon=config.layer_norm_epsilon,
        activation=_one_of(config, "activation", config.activation_function, ACTIVATIONS),
        gated=False,
        biased=frozenset({"query_key_value", "out", "mlp"}),
        attention_scale=None if config.scale_attn_weights else 1.0,
        tied=config.tie_word_embeddings,
    )


def _rotary(config: Any, kind: str) -> Rotary:
    of = config.rope_parameters
    of = of.get(kind, of)  # Gemma 3 has one for each kind of layer
    if of.get("partial_rotary_factor", 1.0) != 1.0:
        raise AmplifyError("partial_rotary_factor: rotating a part of a head is not supported")
    scaling = _one_of(
        config, "rope_type", of["rope_type"], {k: k for k in ("default", "linear", "llama3")}
    )
    if scaling == "default":
        return Rotary(of["rope_theta"])
    if scaling == "linear":
        return Rotary(of["rope_theta"], scaling, of["factor"])
    return Rotary(
        of["rope_theta"],
        scaling,
        of["factor"],
        of["low_freq_factor"],
        of["high_freq_factor"],
        of["original_max_position_embeddings"],
    )


def _one_of(config: Any, key: str, value: str, allowed: Mapping[str, Any]) -> Any:
    if value in allowed:
        return allowed[value]
    raise AmplifyError(
        f"{key} {value!r} of a {config.model_type} model is not supported; supported are:"
        f" {', '.join(allowed)}"
    )


FAMILIES = {
    "llama": Family(_llama, LLAMA, ignored=("rotary_emb.inv_freq",)),
    "mistral": Family(_llama, LLAMA),
    "qwen2": Family(_qwen2, LLAMA),
    "qwen3": Family(_qwen3, LLAMA),
    "gemma2": Family(_gemma2, GEMMA),
    "gemma3_text": Family(_gemma3, GEMMA),
    "gpt2": Family(
        _gpt2,
        GPT2,
        transposed=False,
        prefix="transformer.",
        ignored=("attn.bias", "attn.masked_bias"),
    ),
}


class Pretrained(NamedTuple):
    """A checkpoint folder whose configuration was understood; no weights are read yet."""

    folder: Path
    family: Family
    architecture: Architecture


def open_tokenizer(opened: Pretrained) -> Any:
    """The folder's tokenizer, as transformers has it. Raises AmplifyError if it cannot be read."""
    from transformers import AutoTokenizer  # takes seconds, and most experiments need none of it

    try:
        return AutoTokenizer.from_pretrained(opened.folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise AmplifyError(f"{opened.folder}: tokenizer: {first_line(error)}") from None


def open_folder(folder: Path) -> Pretrained:
    """Reads `config.json`.

    Raises:
        AmplifyError: if there is none, or it asks for what is not supported; it says what is.
    """
    if not (folder / "config.json").is_file():
        raise AmplifyError(f"{folder}: not a checkpoint folder: there is no config.json in it")
    from transformers import AutoConfig  # takes seconds, and most experiments need none of it

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise AmplifyError(f"{folder}/config.json: {str(error).splitlines()[0]}") from None
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise AmplifyError(
            f"{folder}/config.json: model_type {config.model_type!r} is not supported; supported"
            f" are: {', '.join(FAMILIES)}"
        )
    try:
        return Pretrained(folder, family, family.architecture(config))
    except AmplifyError as error:
        raise AmplifyError(f"{folder}/config.json: {error}") from None


def load(
    pretrained: Pretrained,
    *,
    dtype: DTypeLike | None = None,
    place: Place | None = None,
) -> PyTree[Array]:
    """The folder's weights, as parameters of a `CausalLM` of its architecture.

    Args:
        pretrained: where from.
        dtype: of the parameters; None: as each is in its file, float32 where layers differ.
        place: where each parameter goes, given their shapes; each device reads its part alone.
            None: the default device.

    Raises:
        AmplifyError: naming the tensor that is missing, unused, there twice, of a wrong shape, or
            in a file that cannot be read.
    """
    abstract = abstract_params(pretrained.architecture)
    shapes = {path: leaf.shape for path, leaf in _flat(abstract).items()}
    shardings = {} if place is None else _flat(place(abstract))
    with contextlib.ExitStack() as files:
        tensors = _tensors(pretrained, files)
        wanted = _wanted(pretrained.family, shapes)
        _check(pretrained, tensors, wanted, shapes)
        loaded = {}
        for path, parts in wanted.items():
            shape = shapes[path]
            transposed = _is_transposed(pretrained.family, path)
            to = dtype or _common_dtype(tensors, parts)
            read = functools.partial(_read, tensors, parts, shape, transposed, to)
            there = shardings.get(path, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
            loaded[path] = jax.make_array_from_callback(shape, there, read)
    return _unflat(abstract, loaded)


def abstract_params(architecture: Architecture) -> nnx.State:
    """Shapes and dtypes of the parameters, nothing allocated."""
    return nnx.eval_shape(lambda: nnx.state(CausalLM(architecture, nnx.Rngs(0)), nnx.Param))


class Part(NamedTuple):
    """Where a parameter, or one layer of it, is in the files."""

    tensor: str  # without the family's prefix
    layer: int | None
    start: int  # along the tensor's last axis, where several parameters lie side by side
    stop: int
    of: int  # the whole axis


def _wanted(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[Part]]:
    """The parts of each parameter, in the order in which they lie side by side."""
    beside = collections.defaultdict(list)
    for path, name in family.names.items():
        if path in shapes:
            beside[name].append(path)
    wanted = {}
    for name, paths in beside.items():
        stops = [0, *itertools.accumulate(shapes[path][-1] for path in paths)]
        for path, (start, stop) in zip(paths, itertools.pairwise(stops), strict=True):
            stacked = "{}" in name
            wanted[path] = [
                Part(name.format(layer), layer if stacked else None, start, stop, stops[-1])
                for layer in range(shapes[path][0] if stacked else 1)
            ]
    return wanted


def _tensors(pretrained: Pretrained, files: contextlib.ExitStack) -> dict[str, Any]:
    """A slice that can be read for each tensor in the folder, by name without the prefix."""
    paths = sorted(pretrained.folder.glob("*.safetensors"))
    if not paths:
        raise AmplifyError(f"{pretrained.folder}: there is no .safetensors file in it")
    tensors: dict[str, Any] = {}
    for path in paths:
        try:
            file = files.enter_context(safe_open(path, framework="numpy"))
        except (SafetensorError, OSError) as error:
            raise AmplifyError(f"{path}: cannot be read: {error}") from None
        for name in file.keys():  # noqa: SIM118  it is no mapping
            short = name.removeprefix(pretrained.family.prefix)
            if pretrained.family.ignores(short):
                continue
            if short in tensors:
                raise AmplifyError(f"{path}: tensor {name} is there twice")
            tensors[short] = file.get_slice(name)
    return tensors


def _is_transposed(family: Family, path: str) -> bool:
    """The output is stored as (out, into) by every family."""
    return path.endswith(".kernel") and (family.transposed or path == "out.kernel")


def _common_dtype(tensors: Mapping[str, Any], parts: list[Part]) -> Any:
    kinds = {tensors[part.tensor].get_dtype() for part in parts}
    return DTYPES[kinds.pop()] if len(kinds) == 1 else jnp.float32


def _check(
    pretrained: Pretrained,
    tensors: Mapping[str, Any],
    wanted: Mapping[str, list[Part]],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """That the folder has what is wanted, in its shape, and nothing else."""
    folder, family = pretrained.folder, pretrained.family
    used = set()
    for path, parts in wanted.items():
        for part in parts:
            if part.tensor not in tensors:
                raise AmplifyError(f"{folder}: tensor {part.tensor} is missing")
            used.add(part.tensor)
            shape = list(shapes[path][part.layer is not None :])
            shape[-1] = part.of
            if _is_transposed(family, path):
                shape.reverse()
            found = tensors[part.tensor].get_shape()
            if found != shape:
                raise AmplifyError(
                    f"{folder}: tensor {part.tensor} has shape {found}, but the configuration"
                    f" makes it {shape}"
                )
    unused = set(tensors) - used
    output = family.names["out.kernel"]
    if pretrained.architecture.tied and output in unused:
        unused.remove(output)
        if not np.array_equal(tensors[output][:], tensors[family.names["embedding"]][:]):
            raise AmplifyError(
                f"{folder}: tensor {output} differs from the embedding, but the configuration ties"
                " them"
            )
    if unused:
        raise AmplifyError(
            f"{folder}: tensor {min(unused)} is not used by this architecture"
            + (f", nor are {len(unused) - 1} others" if len(unused) > 1 else "")
        )


def _read(
    tensors: Mapping[str, Any],
    parts: list[Part],
    shape: tuple[int, ...],
    transposed: bool,
    dtype: Any,
    index: tuple[slice, ...],
) -> np.ndarray:
    """The piece of a parameter that one device holds."""
    stacked = parts[0].layer is not None
    *inside, last = (
        slice(*piece.indices(size)[:2])
        for piece, size in zip(index[stacked:], shape[stacked:], strict=True)
    )

    def read(part: Part) -> np.ndarray:
        where = (*inside, slice(part.start + last.start, part.start + last.stop))
        slices = tensors[part.tensor]
        return slices[where[::-1]].T if transposed else slices[where]

    if not stacked:
        return read(parts[0]).astype(dtype)
    return np.stack([read(part).astype(dtype) for part in parts[index[0]]])


def export(pretrained: Pretrained, params: PyTree[Array], out: Path) -> None:
    """Writes a folder that transformers opens: the weights, with the configuration and tokenizer of
    the folder that they came from.

    Raises:
        AmplifyError: if `out` is there already.
    """
    if out.exists():
        raise AmplifyError(f"{out}: is there already; name a new folder")
    flat = _flat(params)
    family = pretrained.family
    beside: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    for path, parts in _wanted(family, {path: leaf.shape for path, leaf in flat.items()}).items():
        array = np.asarray(flat[path])
        for part in parts:
            one = array if part.layer is None else array[part.layer]
            beside[part.tensor].append(one.T if _is_transposed(family, path) else one)
    output = family.names["out.kernel"]
    tensors = {
        name if name == output else family.prefix + name: np.ascontiguousarray(
            np.concatenate(arrays, axis=-1)
        )
        for name, arrays in beside.items()
    }
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(
        pretrained.folder,
        unfinished,
        ignore=shutil.ignore_patterns("*.safetensors*", "*.bin", "*.pt", "*.gguf"),
    )
    save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
    unfinished.rename(out)


def _flat(params: PyTree[Any]) -> dict[str, Any]:
    """By path, joined by dots."""
    flat = flatten_dict(nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params)
    return {".".join(path): leaf for path, leaf in flat.items()}


def _unflat(like: PyTree[Any], flat: Mapping[str, Array]) -> PyTree[Array]:
    paths = jax.tree.leaves_with_path(nnx.to_pure_dict(like))
    leaves = [flat[".".join(key.key for key in path)] for path, _ in paths]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
