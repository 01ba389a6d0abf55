"""What files contain, as part of an experiment's identity: two experiments are the same only if
every file that they read is the same, byte for byte.

Knows which files of a folder are read, and nothing of what they mean. `experiment_file` calls it.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from amplify.models.pretrained import hub
from amplify.tasks.text.sources import SUFFIXES, read_documents

LARGE = 2**20
"""Bytes from which a file's hash is kept for the rest of the process."""
TOKENIZER = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Of the files in a checkpoint folder that a configuration and a tokenizer are read from."""
READ = {
    "tokenizer": TOKENIZER,
    "pretrained": (*TOKENIZER, ".safetensors"),
    "documents": SUFFIXES,
}
"""By the key that names a folder: the suffixes of the files that are read in it."""
ELSEWHERE = ("tokenizer", "pretrained")
"""Keys whose value may be a name on the Hugging Face hub."""


def files_read(key: str, where: str) -> dict[str, str]:
    """The files that a key of an experiment file stands for, and what they contain.

    Args:
        key: the last part of its name, such as "documents".
        where: a file, a folder, or a name that is looked up elsewhere.

    Returns:
        the SHA-256 of each file by its path, seen from the folder; of a single file, by "".

    Raises:
        AmplifyError: if something that has to be looked up cannot be found.
    """
    path = Path(where)
    if not path.exists() and key in ELSEWHERE:
        path = hub.find_folder(where)
    if path.is_file():
        return {"": sha256_of(path)}
    if path.is_dir():
        return _hashes(path, _chosen(key, path))
    if key == "documents":  # a TFDS data set, by its name
        texts = json.dumps(read_documents(where)).encode()
        return {"": hashlib.sha256(texts).hexdigest()}
    return {}


def combined(hashes: Mapping[str, str]) -> str:
    """One digest of several files; that of a single file is its own."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listed = "".join(f"{sha}  {name}\n" for name, sha in sorted(hashes.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks. A large file is read once a process, as long as neither
    its size nor the time of its last change is another.
    """
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


def _chosen(key: str, folder: Path) -> list[Path]:
    """Those files of a folder that are read, in order."""
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
    """The files that a checkpoint's weights are read from, see `assistants.pretrained`; none if the
    folder does not say.
    """
    if (folder / "model.safetensors").is_file():
        return {folder / "model.safetensors"}
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return {folder / name for name in index["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()  # whoever loads the weights says what is wrong
