"""Calls a function of a task, and checks what comes back against what was promised.

Knows how a mistake is reported: in one line, with the place in the experiment's own code. What the
functions of a task promise is in `own_tasks`.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from amplify.errors import AmplifyError
from amplify.experiment.validation import shown
from amplify.reading.own_code import place_of, place_of_definition, told
from amplify.task_abilities import ARGUMENTS
from amplify.types import Task

TRACED = (
    "; values are not known yet when a function is compiled: choose with jnp.where in place of if,"
    " and compute with jnp in place of numpy"
)

ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float)
"""What a function may return an array as."""


class Promise(NamedTuple):
    """What a function returns for one problem."""

    dtype: str
    dims: tuple[int | str | None, ...]
    """Lengths, or names of the task's attributes that say them; None: any."""
    below: str | None = "vocabulary"
    """Which of the task's tuples integers index; None: any integer will do."""

    def of(self, *lead: int) -> "Promise":
        """What it returns for many problems at once."""
        return self._replace(dims=(*lead, *self.dims))

    def shape(self, task: Any) -> tuple[int | None, ...]:
        return tuple(getattr(task, dim) if isinstance(dim, str) else dim for dim in self.dims)

    def told(self, task: Any) -> str:
        """As an error says it: "int32 of shape (facts, fact_length) = (16, 2)"."""
        lengths = _tuple("any" if one is None else one for one in self.shape(task))
        names = _tuple("any" if dim is None else dim for dim in self.dims)
        return f"{self.dtype} of shape {names}" + f" = {lengths}" * (names != lengths)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A task whose functions are tried."""

    task: Any
    source: Path

    def has(self, name: str) -> bool:
        return getattr(self.task, name, None) is not None

    def error(self, name: str, what: str) -> AmplifyError:
        """What is wrong with one of the task's functions."""
        function = inspect.getattr_static(self.task, name, None)
        function = function.fget if isinstance(function, property) else function
        place = place_of_definition(function) or self.source
        return AmplifyError(f"{place}: {self._named(name)} {what}")

    @contextlib.contextmanager
    def running(self, name: str, *allowed: type[Exception]) -> Iterator[None]:
        """Whatever a function raises, sys.exit included, becomes one line; but for what is
        allowed.
        """
        try:
            yield
        except (Exception, SystemExit) as error:
            if isinstance(error, (AmplifyError, *allowed)):
                raise
            hint = TRACED if isinstance(error, jax.errors.JAXTypeError) else ""
            place = place_of(error)
            said = f"{told(error).rstrip('.')}{hint}"
            if place is None:
                raise self.error(name, f"cannot be called: {said}") from error
            raise AmplifyError(f"{place}: {self._named(name)}: {said}") from error

    def call(
        self,
        name: str,
        promise: Promise,
        *columns: Any,
        over: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
        hint: str = "",
    ) -> np.ndarray:
        """What a function returns for every item of some columns, compiled.

        Args:
            promise: what it must return for one item.
            columns: its arguments, with leading axes for items.
            over: makes of a function of one item a function of columns.
            hint: what an error says beside the promise.

        Raises:
            AmplifyError: if it takes other arguments, fails, or breaks the promise.
        """
        function = self.function(name)

        def checked(*arguments: Any) -> Any:
            with self.running(name):
                result = function(*arguments)
            self.check_form(name, promise, result, hint=hint)
            return result

        with self.running(name):
            result = jax.device_get(jax.jit(over(checked))(*columns))
        self.check_range(name, promise, result)
        return np.asarray(result)

    def function(self, name: str) -> Callable[..., Any]:
        """A function of the task. Raises AmplifyError if it is none, or takes other arguments."""
        with self.running(name):
            function = getattr(self.task, name)
        if not callable(function):
            raise self.error(name, f"must be a function, and is {shown(function)}")
        wanted = _arguments(name)
        try:
            inspect.signature(function).bind(*wanted)
        except TypeError:
            takes = ", ".join(["self", *inspect.signature(function).parameters])
            wants = ", ".join(["self", *wanted])
            raise self.error(name, f"must take ({wants}), and takes ({takes})") from None
        return function

    def check_form(
        self, name: str, promise: Promise, result: Any, verb: str = "return", hint: str = ""
    ) -> None:
        """Raises AmplifyError unless a value has the shape and dtype promised."""
        found = None if not isinstance(result, ARRAYS) else np.shape(result)
        fits = found is not None and len(found) == len(promise.dims)
        lengths = zip(promise.shape(self.task), found or (), strict=False)
        fits = fits and all(wanted in (length, None) for wanted, length in lengths)
        if not fits or jax.dtypes.result_type(result).name != promise.dtype:
            wanted = promise.told(self.task)
            raise self.error(name, f"must {verb} {wanted}{hint}; got {described(result)}")

    def check_range(
        self, name: str, promise: Promise, values: np.ndarray, verb: str = "return"
    ) -> None:
        """Raises AmplifyError unless integers are indices of what they are to index."""
        if promise.dtype != "int32" or promise.below is None or not values.size:
            return
        count = len(getattr(self.task, promise.below))
        outside = values[(values < 0) | (values >= count)]
        if outside.size:
            kind = "tokens" if promise.below == "vocabulary" else "an index"
            raise self.error(
                name,
                f"must {verb} {kind} 0 to {count - 1} ({promise.below} has {count}); got"
                f" {outside.flat[0]}",
            )

    def shown(self, tokens: Int[np.ndarray, " length"]) -> str:
        """Tokens as a person reads them. Raises AmplifyError if `show` fails or gives no text."""
        vocabulary, show = self.task.vocabulary, self.function("show")
        ends = np.flatnonzero(tokens)[-1:] + 1  # zeros at the end are left out, see `words`
        said = [vocabulary[token] for token in tokens[: max([1, *ends])]]
        with self.running("show"):
            text = show(said)
        if not isinstance(text, str):
            raise self.error("show", f"must return text; got {described(text)}")
        return text

    def words(self, name: str, text: str) -> list[str]:
        """What `parse` or `parse_answer` makes of a text.

        Raises:
            ValueError, KeyError: if it says that this is no question or answer.
            AmplifyError: if it fails in another way, or returns no words.
        """
        function = self.function(name)
        with self.running(name, ValueError, KeyError):
            found = function(text)
        if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
            raise self.error(
                name,
                f"must return a list of words, or raise ValueError; for {text!r} it returned"
                f" {described(found)}",
            )
        return list(found)

    def _named(self, name: str) -> str:
        return f"{type(self.task).__name__}.{name}"


def described(value: Any) -> str:
    """A value as an error quotes it."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"{jax.dtypes.result_type(value).name} of shape {_tuple(np.shape(value))}"
    return shown(value)


def one_of(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The first item where something is True."""
    return values[where][0]


def _arguments(name: str) -> list[str]:
    """Names of the arguments that a function of a task takes."""
    if name in ARGUMENTS:
        return [*ARGUMENTS[name]]
    return [*inspect.signature(getattr(Task, name)).parameters][1:]


def _tuple(items: Any) -> str:
    told = ", ".join(map(str, items))
    return f"({told},)" if told and "," not in told else f"({told})"
