"""Loads the class that `kind = "file.py:Name"` names from an experiment's folder.

Reading an experiment runs this code with the rights of the user. It must be in the folder of the
experiment or of one of its bases. The file and the modules that it imports from there are part of
the experiment's identity, so they are always compiled from source: Python's bytecode cache, which
compares sizes and whole seconds, could run an older version.
"""

import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from amplify.errors import AmplifyError, first_line
from amplify.experiment.validation import suggestion
from amplify.reading.content import sha256_of
from amplify.types import Ask

PREFIX = "experiment_code_"
"""Prefix of the names of these modules in `sys.modules`."""


class OwnCode(NamedTuple):
    """A class loaded from an experiment's own code."""

    kind: Any  # the object of that name; not yet checked to be a class
    folder: Path  # the experiment's or base's folder that contains the file
    source: Path  # the file
    hashes: dict[str, str]  # SHA-256 of the file and its modules, by path relative to the folder


def is_own_code(kind: Any) -> bool:
    """Returns whether a kind has the form `file.py:Name`."""
    file, _, attribute = kind.partition(":") if isinstance(kind, str) else ("", "", "")
    return file.endswith(".py") and bool(attribute)


def load(kind: str, folders: Sequence[Path], named: str) -> OwnCode:
    """Runs a file and returns the class that it defines.

    Args:
        kind: "file.py:Name".
        folders: those of the experiment and its bases, nearest first.
        named: how errors begin, such as "experiment.toml: task.kind".

    Raises:
        AmplifyError: if the file is not in one of the folders, raises an error, or lacks the name.
    """
    file, _, attribute = kind.partition(":")
    folder, source = _find(file, folders, named)
    with _importing_from(dict.fromkeys((source.parent, folder))) as finder:
        module = _run(source)
    if not hasattr(module, attribute):
        defined = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise AmplifyError(
            f"{named} names {attribute}, which {source} does not define"
            f"{suggestion(attribute, defined)}"
        )
    with errors_in_one_line(source, "imports a module that cannot be read"):
        parts = sorted({source.resolve(), *_imported(source, folder), *finder.read})
    hashes = {path.relative_to(folder.resolve()).as_posix(): sha256_of(path) for path in parts}
    return OwnCode(getattr(module, attribute), folder, source, hashes)


@contextlib.contextmanager
def errors_in_one_line(source: Path, doing: str) -> Iterator[None]:
    """Turns any exception in the block, including SystemExit, into an AmplifyError.

    Args:
        source: the file, named if the location of the error is unknown.
        doing: what failed.

    Raises:
        AmplifyError: begins with the file and line in the experiment's own code.
    """
    try:
        yield
    except AmplifyError:
        raise
    except (Exception, SystemExit) as error:
        raise AmplifyError(
            f"{error_location(error) or source}: {doing}: {describe_error(error)}"
        ) from error


def describe_error(error: BaseException) -> str:
    """Returns an exception's type and first line.

    An error in a callback of a compiled function arrives as the text of a traceback, whose last
    error is returned.
    """
    _, _, text = str(error).partition("Traceback (most recent call last):")
    ends = [
        line
        for line in text.splitlines()
        if re.match(r"[A-Za-z_][\w.]*(Error|Exit|Exception)\b", line)
    ]
    if ends:
        return first_line(Exception(ends[-1]))
    said = error.msg if isinstance(error, SyntaxError) else first_line(error)
    return f"{type(error).__name__}: {said}{_hint(error)}"


def _hint(error: BaseException) -> str:
    """Says that a strategy may lack a yield, if it was computing with an `Ask`; or ""."""
    own = _own_frames(error)
    values = own[-1][0].f_locals if own else {}
    name = next((name for name, value in values.items() if isinstance(value, Ask)), None)
    return f"; {name} is an Ask, whose answer is what yield Ask(...) returns" if name else ""


def error_location(error: BaseException) -> str | None:
    """Returns where an exception was raised in an experiment's own code, as "file.py:12".

    Returns:
        The innermost location; None if no such code was involved.
    """
    places = [f"{frame.f_code.co_filename}:{line}" for frame, line in _own_frames(error)]
    # A file that cannot be parsed was not run. Its own name is no module's yet.
    if isinstance(error, SyntaxError) and error.filename and not _is_installed(error.filename):
        places.append(f"{error.filename}:{error.lineno}")
    # An error in a callback of a compiled function arrives as text.
    for file, line in re.findall(r'File "([^"\n]+)", line (\d+)', str(error)):
        if _is_own(file):
            places.append(f"{file}:{line}")
    return places[-1] if places else None


def _own_frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames and lines of an experiment's own code that an exception passed, in order."""
    return [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if isinstance(frame.f_globals.get("__loader__"), _FromSource)
    ]


def definition_location(function: Any) -> str | None:
    """Returns where a function is defined in an experiment's own code, as "file.py:12".

    Returns:
        The location; None if it is defined elsewhere.
    """
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    if code is None or not _is_own(code.co_filename):
        return None
    return f"{code.co_filename}:{code.co_firstlineno}"


def _is_own(file: str) -> bool:
    files = (str(module.__file__) for module in _own_modules().values())
    return Path(file).resolve() in {Path(own).resolve() for own in files}


def _is_installed(file: str) -> bool:
    return "site-packages" in Path(file).parts


def _find(file: str, folders: Sequence[Path], named: str) -> tuple[Path, Path]:
    """Returns the folder that contains the file, and the file's path."""
    parts = Path(file).parts
    if Path(file).is_absolute() or ".." in parts:
        raise AmplifyError(
            f"{named} must name a file in the experiment's folder or its base's, got {file!r}"
        )
    for folder in folders:
        source = folder / file
        if source.is_file():
            if not source.resolve().is_relative_to(folder.resolve()):
                raise AmplifyError(
                    f"{named} must name a file in the experiment's folder or its base's, but"
                    f" {source} is a link to {source.resolve()}"
                )
            return folder, source
    raise AmplifyError(f"{named} names {folders[0] / file}, which does not exist")


def _run(source: Path) -> ModuleType:
    name = f"{PREFIX}{sha256_of(source)[:12]}_{source.stem}"
    spec = importlib.util.spec_from_file_location(name, source, loader=_FromSource(name, source))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up annotations
    with errors_in_one_line(source, "cannot be imported"):
        spec.loader.exec_module(module)
    return module


class _FromSource(importlib.machinery.SourceFileLoader):
    """A loader that neither reads nor writes bytecode."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name, str(path))

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _own_modules() -> dict[str, ModuleType]:
    """Modules that were loaded from an experiment's folder, by name."""
    return {
        name: module
        for name, module in list(sys.modules.items())
        if isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _FromSource)
    }


class _FolderFinder(importlib.abc.MetaPathFinder):
    """Finds modules in an experiment's folder, and records which ones were loaded."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folder.resolve() for folder in folders)
        self.read: set[Path] = set()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        find = importlib.machinery.PathFinder.find_spec
        inside = [str(folder) for folder in self.folders]
        if path is not None and not any(self._has(Path(place)) for place in path):
            return None
        spec = find(fullname, inside if path is None else list(path))
        if spec is None:
            return None
        if spec.origin is None:  # a namespace package; a regular one elsewhere takes precedence
            return spec if path is not None or find(fullname) is None else None
        origin = Path(spec.origin).resolve()
        if not self._has(origin) or origin.suffix != ".py":
            return None
        self.read.add(origin)
        return importlib.util.spec_from_file_location(
            fullname,
            origin,
            loader=_FromSource(fullname, origin),
            submodule_search_locations=spec.submodule_search_locations,
        )

    def _has(self, path: Path) -> bool:
        return any(path.resolve().is_relative_to(folder) for folder in self.folders)


@contextlib.contextmanager
def _importing_from(folders: Any) -> Iterator[_FolderFinder]:
    """Searches these folders first in the block and last afterwards, for imports in functions."""
    finder = _FolderFinder(tuple(folders))
    for known in [one for one in sys.meta_path if isinstance(one, _FolderFinder)]:
        if known.folders == finder.folders:
            sys.meta_path.remove(known)
    for name in _own_modules():  # of another experiment, or loaded before an edit
        if not name.startswith(PREFIX):
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.meta_path.insert(0, finder)
    try:
        yield finder
    finally:
        sys.meta_path.remove(finder)
        sys.meta_path.append(finder)


def _imported(source: Path, folder: Path) -> set[Path]:
    """The modules in the folder that a file imports anywhere, directly or indirectly."""
    found: set[Path] = set()
    left = [source.resolve()]
    while left:
        path = left.pop()
        places = (path.parent, source.resolve().parent, folder.resolve())
        for names in _imports(path):
            for place in places:
                for module in _files_of(place, names):
                    if module not in found and module.is_relative_to(folder.resolve()):
                        found.add(module)
                        left.append(module)
    return found


def _imports(path: Path) -> Iterator[list[str]]:
    """The names in a file's import statements; a.b is ["a", "b"]."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [".."] * (node.level - 1) + (node.module or "").split(".") * bool(node.module)
            yield from ([*above, alias.name] for alias in node.names)


def _files_of(place: Path, names: list[str]) -> Iterator[Path]:
    """The existing files that importing `a.b.c` would run."""
    for depth in range(1, len(names) + 1):
        stem = place.joinpath(*names[:depth])
        for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            if names[depth - 1] != ".." and file.is_file():
                yield file.resolve()
