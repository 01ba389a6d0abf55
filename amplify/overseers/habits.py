"""Behaviour of simulated people: their speed, error rate and bad habits.

A person's decisions about an item depend only on the seed, the person and the item, so a crowd that
is restarted decides the same. Imports neither jax nor httpx.
"""

import dataclasses
import functools
import math
import random
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

Fraction = Annotated[float, Field(ge=0, le=1)]

SKIP, TRUST, LAZY, GUESS, CAREFUL = "skip", "trust", "lazy", "guess", "careful"
"""Behaviours for an item: skip it; ask the assistant the question itself and submit its answer (out
of trust, or out of laziness); guess; or decompose the question.
"""


@dataclasses.dataclass(frozen=True)
class CrowdConfig:
    """`[overseer.crowd]` of an experiment file."""

    people: Annotated[int, Field(ge=1, le=1000)] = 8
    """Number of simulated people."""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Mean time before each action, in seconds."""
    error_rate: Fraction = 0.0
    """Fraction of final answers that are replaced by a wrong one."""
    careless: Fraction = 0.0
    """Fraction of people whose error rate is `careless_error_rate`."""
    careless_error_rate: Fraction = 0.5
    """Error rate of careless people."""
    laziness: Fraction = 0.0
    """Fraction of items that are not decomposed: the person asks the assistant the question itself,
    or guesses."""
    trust: Fraction = 0.0
    """Fraction of items for which the person asks the assistant the question itself and believes
    the answer."""
    skips: Fraction = 0.0
    """Fraction of items that are skipped."""
    seed: int = 0
    """Seed of all decisions."""
    version: Literal[1] = 1
    """Version of the behaviour. Changes get a new version, so that earlier findings about a bad
    habit remain reproducible."""


@dataclasses.dataclass(frozen=True)
class Habits:
    """The behaviour of one person."""

    config: CrowdConfig
    person: str  # a pseudonym
    number: int = 0  # index in the crowd, from 0

    @functools.cached_property
    def is_careless(self) -> bool:
        """Whether the person is careless. The fraction of the crowd is exact, up to rounding."""
        config = self.config

        def place(number: int) -> float:
            return random.Random(f"{config.version} {config.seed} careless {number}").random()

        first = sorted(range(config.people), key=place)[: round(config.careless * config.people)]
        return self.number in first

    def choose_behavior(self, item: str) -> str:
        """How the person handles an item.

        Args:
            item: the item.

        Returns:
            `SKIP`, `TRUST`, `LAZY`, `GUESS` or `CAREFUL`.
        """
        if self._chance("skips", item) < self.config.skips:
            return SKIP
        if self._chance("trust", item) < self.config.trust:
            return TRUST
        if self._chance("laziness", item) < self.config.laziness:
            return LAZY if self._chance("which laziness", item) < 0.5 else GUESS
        return CAREFUL

    def makes_error(self, item: str) -> bool:
        """Whether the person's final answer is replaced by a wrong one.

        Args:
            item: the item.
        """
        config = self.config
        rate = config.careless_error_rate if self.is_careless else config.error_rate
        return self._chance("errs", item) < rate  # the stream of random numbers has kept its name

    def pick(self, what: str, item: str, options: Sequence[str]) -> str:
        """Draws one of several options uniformly.

        Args:
            what: names the decision; different names are independent.
            item: the item.
            options: the options, at least one.
        """
        return options[int(self._chance(what, item) * len(options))]

    def seconds(self, item: str, act: int) -> float:
        """Time before an action, in seconds; exponentially distributed.

        Args:
            item: the item.
            act: the number of the action.
        """
        return -self.config.seconds * math.log1p(-self._chance(f"seconds {act}", item))

    def _chance(self, what: str, item: str) -> float:
        """Uniform in [0, 1). Python's seeding with a string is the same on every platform."""
        config = self.config
        return random.Random(f"{config.version} {config.seed} {self.person} {item} {what}").random()
