"""Calls the functions of a custom task and checks their results against array specs.

Errors are one line that begins with the location in the experiment's own code. `own_tasks` and
`own_strategies` know the functions.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from amplify.errors import AmplifyError
from amplify.experiment.validation import quote_value
from amplify.reading.own_code import definition_location, describe_error, error_location
from amplify.task_abilities import ARGUMENTS
from amplify.types import Task

TRACED = (
    "; values are not known while a function is traced: use jnp.where instead of if, and jnp"
    " instead of numpy"
)


def leading(lead: tuple[int, ...]) -> str:
    """Returns a hint for functions that are called with many questions at once; "" for one.

    Args:
        lead: lengths of the leading axes of the questions.
    """
    if not lead:
        return ""
    return (
        f": {_tuple(lead)} are the leading axes of the questions that it is called with, so work on"
        " the last axis only: question[..., 0], jnp.stack(..., axis=-1),"
        " jnp.sum(..., axis=-1, keepdims=True)"
    )


AS_BOOL = "truth value of an array with more than one element is ambiguous"
"""In the message about `if` of an array, which goes on with advice that is wrong here."""

ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float)
"""Types that a function may return as an array."""


class ArraySpec(NamedTuple):
    """Dtype, shape and range of what a function returns for one problem."""

    dtype: str
    dims: tuple[int | str | None, ...]
    """Lengths, or names of the task's attributes that contain them; None: any length."""
    below: str | None = "vocabulary"
    """The tuple of the task that integers index; None: any integer is allowed."""

    def batched(self, *lead: int) -> "ArraySpec":
        """Returns the spec with leading axes added."""
        return self._replace(dims=(*lead, *self.dims))

    def shape(self, task: Any) -> tuple[int | None, ...]:
        """Returns the shape; None stands for any length."""
        return tuple(getattr(task, dim) if isinstance(dim, str) else dim for dim in self.dims)

    def describe(self, task: Any) -> str:
        """Returns a description for errors: "int32 of shape (facts, fact_length) = (16, 2)"."""
        lengths = _tuple("any" if one is None else one for one in self.shape(task))
        names = _tuple("any" if dim is None else dim for dim in self.dims)
        return f"{self.dtype} of shape {names}" + f" = {lengths}" * (names != lengths)


A_BOOL = ArraySpec("bool", ())
A_CONTEXT = ArraySpec("int32", ("facts", "fact_length"))
A_QUESTION = ArraySpec("int32", ("question_length",))
AN_ANSWER = ArraySpec("int32", ("answer_length",))
A_CLASS = ArraySpec("int32", (), below="classes")


class Samples(NamedTuple):
    """Sample problems for trying a task's functions: contexts, with a question at each depth."""

    contexts: Int[np.ndarray, "contexts facts fact_length"]
    questions: Int[np.ndarray, "contexts depths question_length"]
    keys: Key[Array, "contexts depths"]


@dataclasses.dataclass(frozen=True)
class TaskProbe:
    """Calls the functions of a task and checks what they return."""

    task: Any
    source: Path

    def has(self, name: str) -> bool:
        """Returns whether the task has an optional attribute."""
        return getattr(self.task, name, None) is not None

    def error(self, name: str, what: str) -> AmplifyError:
        """Returns an error about one of the task's functions, with the place of its definition.

        Args:
            name: of the function.
            what: the rest of the message.
        """
        function = inspect.getattr_static(self.task, name, None)
        function = function.fget if isinstance(function, property) else function
        place = definition_location(function) or self.source
        return AmplifyError(f"{place}: {self._named(name)} {what}")

    @contextlib.contextmanager
    def catching_errors(self, name: str, *allowed: type[Exception]) -> Iterator[None]:
        """Turns any exception in the block, including SystemExit, into an AmplifyError.

        Args:
            name: of the function that is called in the block.
            allowed: exceptions that are passed on.

        Raises:
            AmplifyError: with the location of the error.
        """
        try:
            yield
        except (Exception, SystemExit) as error:
            if isinstance(error, (AmplifyError, *allowed)):
                raise
            place = error_location(error)
            said, as_bool, _ = describe_error(error).partition(AS_BOOL)
            traced = as_bool or isinstance(error, jax.errors.JAXTypeError)
            said = f"{said.rstrip('.')}{as_bool}{TRACED * bool(traced)}"
            if place is None:
                raise self.error(name, f"cannot be called: {said}") from error
            raise AmplifyError(f"{place}: {self._named(name)}: {said}") from error

    def call(
        self,
        name: str,
        spec: ArraySpec,
        *columns: Any,
        over: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
        hint: str = "",
    ) -> np.ndarray:
        """Calls a function for all items of some arrays, under `jax.jit`.

        Args:
            name: of the function.
            spec: of its result for one item.
            columns: its arguments, with leading axes for the items.
            over: vectorises a function of one item over the columns.
            hint: added to the spec in errors.

        Returns:
            The results.

        Raises:
            AmplifyError: if the function takes other arguments, fails, or violates the spec.
        """
        function = self.function(name)

        def checked(*arguments: Any) -> Any:
            with self.catching_errors(name):
                result = function(*arguments)
            self.check_shape(name, spec, result, hint=hint)
            return result

        with self.catching_errors(name):
            result = jax.device_get(jax.jit(over(checked))(*columns))
        self.check_range(name, spec, result)
        return np.asarray(result)

    def function(self, name: str) -> Callable[..., Any]:
        """Returns a function of the task.

        Raises:
            AmplifyError: if it is not a function, or takes other arguments.
        """
        with self.catching_errors(name):
            function = getattr(self.task, name)
        if not callable(function):
            raise self.error(name, f"must be a function, got {quote_value(function)}")
        wanted = _arguments(name)
        try:
            inspect.signature(function).bind(*wanted)
        except TypeError:
            takes = ", ".join(["self", *inspect.signature(function).parameters])
            wants = ", ".join(["self", *wanted])
            raise self.error(name, f"must take ({wants}), but takes ({takes})") from None
        return function

    def check_shape(
        self, name: str, spec: ArraySpec, result: Any, verb: str = "return", hint: str = ""
    ) -> None:
        """Checks the shape and dtype of a value.

        Args:
            name: of the function that returned it.
            spec: what is expected.
            result: the value, possibly traced.
            verb: what the function does with it, in errors.
            hint: added to the spec in errors.

        Raises:
            AmplifyError: if they are not those of the spec.
        """
        found = None if not isinstance(result, ARRAYS) else np.shape(result)
        fits = found is not None and len(found) == len(spec.dims)
        lengths = zip(spec.shape(self.task), found or (), strict=False)
        fits = fits and all(wanted in (length, None) for wanted, length in lengths)
        if not fits or jax.dtypes.result_type(result).name != spec.dtype:
            wanted = spec.describe(self.task)
            raise self.error(name, f"must {verb} {wanted}{hint}; got {describe_value(result)}")

    def check_range(
        self, name: str, spec: ArraySpec, values: np.ndarray, verb: str = "return"
    ) -> None:
        """Checks that integers are valid indices.

        Args:
            name: of the function that returned them.
            spec: says what they index.
            values: the integers.
            verb: what the function does with them, in errors.

        Raises:
            AmplifyError: if one is negative or too large.
        """
        if spec.dtype != "int32" or spec.below is None or not values.size:
            return
        count = len(getattr(self.task, spec.below))
        outside = values[(values < 0) | (values >= count)]
        if outside.size:
            kind = "tokens" if spec.below == "vocabulary" else "an index"
            raise self.error(
                name,
                f"must {verb} {kind} 0 to {count - 1} ({spec.below} has {count}); got"
                f" {outside.flat[0]}",
            )

    def shown(self, tokens: Int[np.ndarray, " length"]) -> str:
        """Returns tokens as text, using the task's `show`.

        Raises:
            AmplifyError: if `show` fails or does not return text.
        """
        vocabulary, show = self.task.vocabulary, self.function("show")
        ends = np.flatnonzero(tokens)[-1:] + 1  # trailing zeros are left out, see `words`
        said = [vocabulary[token] for token in tokens[: max([1, *ends])]]
        with self.catching_errors("show"):
            text = show(said)
        if not isinstance(text, str):
            raise self.error("show", f"must return text; got {describe_value(text)}")
        return text

    def words(self, name: str, text: str) -> list[str]:
        """Returns the words that `parse` or `parse_answer` makes of a text.

        Args:
            name: of the function.
            text: its argument.

        Raises:
            ValueError, KeyError: if the function rejects the text with one of these.
            AmplifyError: if it fails in another way, or does not return words.
        """
        function = self.function(name)
        with self.catching_errors(name, ValueError, KeyError):
            found = function(text)
        if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
            raise self.error(
                name,
                f"must return a list of words or raise ValueError; for {text!r} it returned"
                f" {describe_value(found)}",
            )
        return list(found)

    def _named(self, name: str) -> str:
        return f"{type(self.task).__name__}.{name}"


def describe_value(value: Any) -> str:
    """Returns an array's dtype and shape, or another value's `repr`, for an error message."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"{jax.dtypes.result_type(value).name} of shape {_tuple(np.shape(value))}"
    return quote_value(value)


def first_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns the first item at which a mask is True."""
    return values[where][0]


def _arguments(name: str) -> list[str]:
    """Names of the arguments that a function of a task takes."""
    if name in ARGUMENTS:
        return [*ARGUMENTS[name]]
    return [*inspect.signature(getattr(Task, name)).parameters][1:]


def _tuple(items: Any) -> str:
    told = ", ".join(map(str, items))
    return f"({told},)" if told and "," not in told else f"({told})"
