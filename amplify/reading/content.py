"""Digests of the files that an experiment reads, as part of its identity.

Knows which files of a folder are read, but not what they mean. Called by `experiment_file`.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from amplify.models.pretrained import hub
from amplify.reading import helpers
from amplify.tasks.text.sources import SUFFIXES, read_documents

LARGE = 2**20
"""Size in bytes from which a file's hash is cached for the rest of the process."""
TOKENIZER = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Suffixes of the files in a checkpoint folder that configurations and tokenizers are read from."""
READ = {
    "tokenizer": TOKENIZER,
    "pretrained": (*TOKENIZER, ".safetensors"),
    "documents": SUFFIXES,
}
"""Suffixes of the files that are read in a folder, by the key that names it."""
ELSEWHERE = ("tokenizer", "pretrained")
"""Keys whose value may be the name of a repository on the Hugging Face hub."""


def files_read(key: str, where: str) -> dict[str, str]:
    """Returns the hashes of all files that a key of an experiment file refers to.

    Args:
        key: the last part of the key, such as "documents".
        where: a file, a folder, or a name that is resolved elsewhere.

    Returns:
        SHA-256 of each file by its path relative to the folder; of a single file, by "". Of a
        helper, only the digest of its assistant.

    Raises:
        AmplifyError: if a name cannot be resolved.
    """
    if key == helpers.KEY:
        best = helpers.helper_round(where, key)
        return {} if best is None else {"": best.roles()["assistant"].digest}
    path = Path(where)
    if not path.exists() and key in ELSEWHERE:
        path = hub.find_folder(where)
    if path.is_file():
        return {"": sha256_of(path)}
    if path.is_dir():
        return _hashes(path, _files_to_read(key, path))
    if key == "documents":  # a TFDS data set, by its name
        texts = json.dumps(read_documents(where)).encode()
        return {"": hashlib.sha256(texts).hexdigest()}
    return {}


def combine_hashes(hashes: Mapping[str, str]) -> str:
    """Returns one digest of several files; for a single file, its own.

    Args:
        hashes: SHA-256 of each file, by relative path.
    """
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listed = "".join(f"{sha}  {name}\n" for name, sha in sorted(hashes.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file; large ones are cached by size and modification time."""
    stat = path.stat()
    if stat.st_size < LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return _sha256_of_large(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _sha256_of_large(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashes(folder: Path, paths: list[Path]) -> dict[str, str]:
    with ThreadPoolExecutor(thread_name_prefix="content") as workers:
        hashes = workers.map(sha256_of, paths)
        return {
            path.relative_to(folder).as_posix(): sha
            for path, sha in zip(paths, hashes, strict=True)
        }


def _files_to_read(key: str, folder: Path) -> list[Path]:
    """The files in a folder that are read, sorted."""
    is_tfds = (folder / "dataset_info.json").is_file()
    suffixes = None if is_tfds else READ.get(key)
    # Checkpoints keep other formats of the same weights in subfolders; documents may be anywhere.
    patterns = ("*", "additional_chat_templates/*") if key in ELSEWHERE else ("**/*",)
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    if key == "pretrained" and (weights := _weights(folder)):
        found = {path for path in found if path.suffix != ".safetensors"} | weights
    read = (path for path in found if suffixes is None or path.suffix in suffixes)
    return sorted(path for path in read if path.is_file())


def _weights(folder: Path) -> set[Path]:
    """Files that a checkpoint's weights are read from; empty if unknown."""
    if (folder / "model.safetensors").is_file():
        return {folder / "model.safetensors"}
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return {folder / name for name in index["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()  # loading the weights raises a clear error
