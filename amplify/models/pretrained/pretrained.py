"""Loads and exports pretrained weights in Hugging Face checkpoint folders, without torch.

As in transformers, `model.safetensors` is read if it exists, and otherwise the files that
`model.safetensors.index.json` names; other weight files are ignored. Loading is strict: a tensor
that is missing, unused, duplicated, of another shape or not finite is an error that names it. The
families' names for parameters are in `families`.
"""

import collections
import contextlib
import functools
import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
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

from amplify.errors import AmplifyError, first_line
from amplify.models.decoder.causal_lm import CausalLM
from amplify.models.decoder.layers import Architecture
from amplify.models.pretrained.families import Family, read_config
from amplify.types import Place

DTYPES = {"F32": jnp.float32, "F16": jnp.float16, "BF16": jnp.bfloat16}
"""Supported dtypes, by their names in safetensors files."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
EXPORTED = (
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.tiktoken",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files that an export copies from the checkpoint folder: configuration, tokenizer, licence."""
NOT_EXPORTED = (INDEX, "adapter_config.json")


class Pretrained(NamedTuple):
    """A checkpoint folder whose configuration is supported; its weights are not read yet."""

    folder: Path
    family: Family
    architecture: Architecture


def open_tokenizer(opened: Pretrained) -> Any:
    """Loads the folder's tokenizer, a transformers one.

    Raises:
        AmplifyError: if it cannot be read.
    """
    from transformers import AutoTokenizer  # takes seconds, and most experiments do not need it

    try:
        return AutoTokenizer.from_pretrained(
            opened.folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers and tokenizers raise many kinds
        raise AmplifyError(f"{opened.folder}: tokenizer: {first_line(error)}") from None


def open_folder(folder: Path) -> Pretrained:
    """Opens a checkpoint folder by reading its `config.json`.

    Raises:
        AmplifyError: if there is none, or something in it is not supported.
    """
    return Pretrained(folder, *read_config(folder))


def load(
    pretrained: Pretrained,
    *,
    dtype: DTypeLike | None = None,
    place: Place | None = None,
) -> PyTree[Array]:
    """Loads a folder's weights.

    Args:
        pretrained: the checkpoint folder.
        dtype: of the parameters; None: that of each tensor, or float32 where layers differ.
        place: maps the parameters' shapes to their shardings; each device reads only its shard.
            None: the first device.

    Returns:
        The parameters of a `CausalLM` of the folder's architecture.

    Raises:
        AmplifyError: if a tensor is missing, unused, duplicated, of another shape or not finite, or
            a file cannot be read; names it.
    """
    abstract = abstract_params(pretrained.architecture)
    shapes = {path: leaf.shape for path, leaf in _flatten(abstract).items()}
    shardings = {} if place is None else _flatten(place(abstract))
    with contextlib.ExitStack() as files:
        tensors = _tensors(pretrained, files)
        slices = _slices(pretrained.family, shapes)
        _check_tensors(pretrained, tensors, slices, shapes)
        loaded = {}
        for path, parts in slices.items():
            shape = shapes[path]
            transposed = _is_transposed(pretrained.family, path)
            target = dtype or _common_dtype(tensors, parts)
            read = functools.partial(
                _read, pretrained.folder, tensors, parts, shape, transposed, target
            )
            sharding = shardings.get(path, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
            loaded[path] = jax.make_array_from_callback(shape, sharding, read)
    return _unflatten(abstract, loaded)


def abstract_params(architecture: Architecture) -> nnx.State:
    """Returns the shapes and dtypes of the parameters, without allocating them."""
    return nnx.eval_shape(lambda: nnx.state(CausalLM(architecture, nnx.Rngs(0)), nnx.Param))


class TensorSlice(NamedTuple):
    """The slice of a tensor that holds a parameter, or one layer of it."""

    tensor: str  # name without the family's prefix
    layer: int | None  # None: the parameter is not stacked
    start: int  # along the tensor's last axis, which may concatenate several parameters
    stop: int
    axis_length: int


def _slices(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[TensorSlice]]:
    """The slices of each parameter, one for each layer; in the order in which tensors concatenate
    parameters.
    """
    beside = collections.defaultdict(list)
    for path, name in family.names.items():
        if path in shapes:
            beside[name].append(path)
    slices = {}
    for name, paths in beside.items():
        stops = [0, *itertools.accumulate(shapes[path][-1] for path in paths)]
        for path, (start, stop) in zip(paths, itertools.pairwise(stops), strict=True):
            stacked = "{}" in name
            slices[path] = [
                TensorSlice(name.format(layer), layer if stacked else None, start, stop, stops[-1])
                for layer in range(shapes[path][0] if stacked else 1)
            ]
    return slices


def _files(folder: Path) -> dict[Path, frozenset[str] | None]:
    """The weight files, each with the names of its tensors that are read; None: all of them."""
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: None}
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        others += [path.name for path in folder.glob("pytorch_model*.bin")]
        beside = f"; {', '.join(others[:3])} is not read" if others else ""
        raise AmplifyError(
            f"{folder}: no weights here: there is neither {WEIGHTS} nor {INDEX}{beside}"
        )
    where = _read_index(folder / INDEX)
    files: dict[Path, frozenset[str] | None] = {}
    for name in sorted(set(where.values())):
        if not (folder / name).is_file():
            raise AmplifyError(f"{folder}: {name} is missing, which {INDEX} names")
        files[folder / name] = frozenset(tensor for tensor, at in where.items() if at == name)
    return files


def _read_index(file: Path) -> dict[str, str]:
    """Maps each tensor's name to its file's name."""
    try:
        where = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        if not where or not all(isinstance(name, str) for name in where.values()):
            raise ValueError("weight_map must name a file for each tensor")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AmplifyError(f"{file}: cannot be read: {first_line(error)}") from None
    for name in where.values():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
            raise AmplifyError(f"{file}: {name!r} is no .safetensors file in this folder")
    return where


def _tensors(pretrained: Pretrained, files: contextlib.ExitStack) -> dict[str, Any]:
    """Opens all tensors as lazily read slices, by name without the prefix."""
    tensors: dict[str, Any] = {}
    for path, names in _files(pretrained.folder).items():
        try:
            file = files.enter_context(safe_open(path, framework="numpy"))
        except (SafetensorError, OSError) as error:
            raise AmplifyError(f"{path}: cannot be read: {first_line(error)}") from None
        found = set(file.keys())
        for name in sorted(names or ()):
            if name not in found:
                raise AmplifyError(f"{path}: tensor {name} is missing, which {INDEX} says is here")
        for name in sorted(found if names is None else names):
            short = name.removeprefix(pretrained.family.prefix)
            if pretrained.family.ignores(short):
                continue
            if short in tensors:
                raise AmplifyError(f"{path}: tensor {name} is duplicated")
            tensors[short] = file.get_slice(name)
            if (dtype := tensors[short].get_dtype()) not in DTYPES:
                raise AmplifyError(
                    f"{path}: tensor {name} has dtype {dtype}; supported are {', '.join(DTYPES)}"
                )
    return tensors


def _is_transposed(family: Family, path: str) -> bool:
    # Every family stores the output layer as (out_features, in_features).
    return path.endswith(".kernel") and (family.transposed or path == "out.kernel")


def _common_dtype(tensors: Mapping[str, Any], parts: list[TensorSlice]) -> Any:
    kinds = {tensors[part.tensor].get_dtype() for part in parts}
    return DTYPES[kinds.pop()] if len(kinds) == 1 else jnp.float32


def _check_tensors(
    pretrained: Pretrained,
    tensors: Mapping[str, Any],
    slices: Mapping[str, list[TensorSlice]],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Checks that every parameter has its tensor, of the right shape, and that none is unused."""
    folder, family = pretrained.folder, pretrained.family
    used = set()
    for path, parts in slices.items():
        for part in parts:
            if part.tensor not in tensors:
                raise AmplifyError(f"{folder}: tensor {part.tensor} is missing")
            used.add(part.tensor)
            shape = list(shapes[path][part.layer is not None :])
            shape[-1] = part.axis_length
            if _is_transposed(family, path):
                shape.reverse()
            found = tensors[part.tensor].get_shape()
            if found != shape:
                raise AmplifyError(
                    f"{folder}: tensor {part.tensor} has shape {found}, but the configuration"
                    f" requires {shape}"
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
    folder: Path,
    tensors: Mapping[str, Any],
    parts: list[TensorSlice],
    shape: tuple[int, ...],
    transposed: bool,
    dtype: Any,
    index: tuple[slice, ...],
) -> np.ndarray:
    """Reads the shard of a parameter that one device holds."""
    stacked = parts[0].layer is not None
    *inside, last = (
        slice(*shard.indices(size)[:2])
        for shard, size in zip(index[stacked:], shape[stacked:], strict=True)
    )

    def read(part: TensorSlice) -> np.ndarray:
        where = (*inside, slice(part.start + last.start, part.start + last.stop))
        tensor = tensors[part.tensor]
        values = (tensor[where[::-1]].T if transposed else tensor[where]).astype(dtype)
        if not np.isfinite(values.astype(np.float32)).all():
            kind = "not a number" if np.isnan(values.astype(np.float32)).any() else "infinite"
            raise AmplifyError(f"{folder}: tensor {part.tensor} has values that are {kind}")
        return values

    if not stacked:
        return read(parts[0])
    return np.stack([read(part) for part in parts[index[0]]])


def export(pretrained: Pretrained, params: PyTree[Array], out: Path) -> None:
    """Writes a checkpoint folder that transformers can load.

    Weights keep their dtype, and the configuration says so, whatever the dtype of the original
    checkpoint: rounding weights trained in float32 back to bfloat16 would undo most of a short
    training. Where dtypes differ, all weights are written in float32.

    Args:
        pretrained: the original checkpoint, whose configuration and tokenizer are copied.
        params: parameters of a `CausalLM` of its architecture.
        out: the folder to be made.

    Raises:
        AmplifyError: if `out` exists.
    """
    if out.exists():
        raise AmplifyError(f"{out}: already exists; name a new folder")
    flat = jax.device_get(_flatten(params))
    dtypes = {array.dtype.name for array in flat.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    family = pretrained.family
    beside: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    for path, parts in _slices(family, {path: leaf.shape for path, leaf in flat.items()}).items():
        array = flat[path].astype(dtype)
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
    unfinished.mkdir(parents=True)
    for pattern in EXPORTED:
        for file in pretrained.folder.glob(pattern):
            if file.is_file() and file.name not in NOT_EXPORTED:
                shutil.copyfile(file, unfinished / file.name)
    # Older versions of transformers read torch_dtype.
    _change_json(unfinished / "config.json", {"dtype": dtype, "torch_dtype": dtype})
    if (unfinished / "tokenizer_config.json").is_file():
        _change_json(unfinished / "tokenizer_config.json", {})
    save_file(tensors, unfinished / WEIGHTS, metadata={"format": "pt"})
    unfinished.rename(out)


def _change_json(file: Path, changes: Mapping[str, Any]) -> None:
    """Sets values of a JSON file. auto_map names the folder's own code, which is not exported."""
    values = json.loads(file.read_text(encoding="utf-8"))
    values.pop("auto_map", None)
    text = json.dumps(values | changes, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _flatten(params: PyTree[Any]) -> dict[str, Any]:
    """Maps paths, joined by dots, to leaves."""
    flat = flatten_dict(nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params)
    return {".".join(path): leaf for path, leaf in flat.items()}


def _unflatten(like: PyTree[Any], flat: Mapping[str, Array]) -> PyTree[Array]:
    paths = jax.tree.leaves_with_path(nnx.to_pure_dict(like))
    leaves = [flat[".".join(key.key for key in path)] for path, _ in paths]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
