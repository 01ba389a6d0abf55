"""Families of pretrained models: their configurations, and their names for parameters.

A family is a function from its `config.json` to an `Architecture`, and a map from our parameters to
the tensors in its files. A key that is not supported, or has an impossible value, is an error that
names the key. Knows nothing of the files with the weights: see `pretrained`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError, first_line
from amplify.models.attention.rotary import Rotary
from amplify.models.decoder.layers import Architecture

Names = Mapping[str, str]
"""Maps the path of our parameter, joined by dots, to the name of the family's tensor, in which `{}`
stands for the layer's number. A tensor that concatenates several parameters is the value of each.
"""


@dataclasses.dataclass(frozen=True)
class Family:
    """How checkpoints of one `model_type` are read."""

    architecture: Callable[[Any], Architecture]
    """Maps a transformers configuration to an architecture."""
    names: Names
    transposed: bool = True  # whether kernels are stored as (out_features, in_features)
    prefix: str = "model."  # of every name but the output's; files may leave it out
    ignored: tuple[str, ...] = ()  # name endings of tensors that are not learned

    def ignores(self, tensor: str) -> bool:
        """Whether a tensor, named without the prefix, is not learned."""
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
    """Llama, and the families that differ from it in a few options."""
    layers, kinds = config.num_hidden_layers, getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or 0
    if kinds and len(kinds) != layers:
        raise AmplifyError(f"layer_types must have {layers} entries, got {len(kinds)}")
    # Without layer_types, the sliding window applies to all layers (Mistral).
    kinds = kinds or [("sliding" if window else "full") + "_attention"] * layers
    windows = {"full_attention": 0, "sliding_attention": window}
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
        head_width=getattr(config, "head_dim", None) or _head_width(config.hidden_size, heads),
        hidden=config.intermediate_size,
        windows=tuple(_one_of(config, "layer_types", kind, windows) for kind in kinds),
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
        head_width=_head_width(config.n_embd, config.n_head),
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


def _head_width(width: int, heads: int) -> int:
    if width % heads:
        raise AmplifyError(f"the number of heads ({heads}) must divide the width ({width})")
    return width // heads


def _rotary(config: Any, kind: str) -> Rotary:
    rope = config.rope_parameters
    rope = rope.get(kind, rope)  # Gemma 3 has one for each kind of layer
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise AmplifyError(
            "partial_rotary_factor: rotating only a part of each head is not supported"
        )
    scaling = _one_of(
        config, "rope_type", rope["rope_type"], {k: k for k in ("default", "linear", "llama3")}
    )
    if scaling == "default":
        return Rotary(rope["rope_theta"])
    if scaling == "linear":
        return Rotary(rope["rope_theta"], scaling, rope["factor"])
    return Rotary(
        rope["rope_theta"],
        scaling,
        rope["factor"],
        rope["low_freq_factor"],
        rope["high_freq_factor"],
        rope["original_max_position_embeddings"],
    )


def _one_of(config: Any, key: str, value: Any, allowed: Mapping[str, Any]) -> Any:
    if isinstance(value, str) and value in allowed:
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

SIZES = {
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 24, "n_positions": 1 << 24,
    "hidden_size": 1 << 20, "n_embd": 1 << 20,
    "intermediate_size": 1 << 24, "n_inner": 1 << 24,
    "num_hidden_layers": 4096, "n_layer": 4096,
    "num_attention_heads": 4096, "n_head": 4096, "num_key_value_heads": 4096, "head_dim": 1 << 16,
    "sliding_window": 1 << 30,
}  # fmt: skip
"""Integer keys of a configuration, with the largest supported value; the smallest is 1."""
OPTIONAL = ("n_inner", "num_key_value_heads", "head_dim", "sliding_window")
"""The keys among `SIZES` that may be null."""


def read_config(folder: Path) -> tuple[Family, Architecture]:
    """Reads the family and the architecture from a folder's `config.json`.

    No code in the folder is ever run.

    Args:
        folder: a Hugging Face checkpoint folder.

    Raises:
        AmplifyError: if there is no such file, or something in it is not supported.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise AmplifyError(f"{folder}: not a checkpoint folder: it has no config.json")
    try:
        values = _read_json(file)
        family = _family(values)
        _check_sizes(values)
        architecture = family.architecture(_configuration(folder))
        _check_architecture(architecture)
    except AmplifyError as error:
        raise AmplifyError(f"{file}: {error}") from None
    except Exception as error:  # transformers raises many kinds
        raise AmplifyError(f"{file}: cannot be read: {_one_line(error)}") from None
    return family, architecture


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AmplifyError(f"not JSON ({first_line(error)})") from None
    if not isinstance(values, dict):
        raise AmplifyError(f"must be a JSON object, got {type(values).__name__}")
    return values


def _family(values: Mapping[str, Any]) -> Family:
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise AmplifyError(
            f"model_type {kind!r} is not supported; supported are: {', '.join(FAMILIES)}"
        )
    for key in ("quantization_config", "compression_config"):
        if values.get(key):
            how = values[key].get("quant_method") if isinstance(values[key], dict) else None
            raise AmplifyError(
                f"{key}: quantised weights ({how or 'unknown method'}) are not supported; use a"
                " checkpoint in float32, bfloat16 or float16"
            )
    if values.get("transformers_weights"):
        raise AmplifyError(
            "transformers_weights: weights in a file of another name are not supported"
        )
    return FAMILIES[kind]


def _check_sizes(values: Mapping[str, Any]) -> None:
    # Before anything of that size is allocated.
    for key, most in SIZES.items():
        value = values.get(key, 1)
        if value is None and key in OPTIONAL:
            continue
        if type(value) is not int or not 1 <= value <= most:
            raise AmplifyError(f"{key} must be a whole number from 1 to {most}, got {value!r}")


def _configuration(folder: Path) -> Any:
    """The transformers configuration, with defaults filled in."""
    from transformers import AutoConfig  # takes seconds, and most experiments do not need it
    from transformers.utils import logging

    logging.set_verbosity_error()  # it also logs what it raises or what is checked here
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _check_architecture(architecture: Architecture) -> None:
    counts = ("vocabulary", "positions", "width", "heads", "key_heads", "head_width", "hidden")
    for name in counts:
        value = getattr(architecture, name)
        if type(value) is not int or value < 1:
            raise AmplifyError(f"the {name} of the model must be 1 or more, got {value!r}")
    if not architecture.windows:
        raise AmplifyError("the model has no layers")
    if architecture.heads % architecture.key_heads:
        raise AmplifyError(
            f"num_key_value_heads ({architecture.key_heads}) must divide num_attention_heads"
            f" ({architecture.heads})"
        )
    if architecture.rotary and architecture.head_width % 2:
        raise AmplifyError(f"head_width must be even, got {architecture.head_width}")
    positive = {
        "norm_epsilon": architecture.norm_epsilon,
        "attention_scale": architecture.attention_scale,
        "attention_cap": architecture.attention_cap,
        "logit_cap": architecture.logit_cap,
        **{
            f"rope {key}": value
            for rotary in architecture.rotary
            for key, value in _numbers(rotary).items()
        },
    }
    for name, number in positive.items():
        if number is not None and not _is_positive(number):
            raise AmplifyError(f"the {name} of the model must be a positive number, got {number!r}")
    for rotary in architecture.rotary:
        if rotary.scaling == "llama3" and not (
            rotary.low_frequency_factor < rotary.high_frequency_factor
        ):
            raise AmplifyError("rope low_freq_factor must be below high_freq_factor")
    if type(architecture.tied) is not bool:
        raise AmplifyError(f"tie_word_embeddings must be true or false, got {architecture.tied!r}")


def _numbers(rotary: Rotary) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(rotary).items() if key != "scaling"}


def _is_positive(number: Any) -> bool:
    return type(number) in (int, float) and math.isfinite(number) and number > 0


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else text[:197] + "...") or type(error).__name__
