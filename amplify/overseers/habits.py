"""How simulated people behave: how fast and careful they are, and which bad habits they have.

What a person does with an item depends only on the seed, the person and the item, so a crowd that
is stopped and started again decides the same. Imports neither jax nor httpx.
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
"""Ways to deal with an item: skip it; ask the assistant the question itself and submit its answer,
out of trust or out of laziness; guess; or decompose it.
"""


@dataclasses.dataclass(frozen=True)
class CrowdConfig:
    """`[overseer.crowd]` of an experiment file."""

    people: Annotated[int, Field(ge=1, le=1000)] = 8
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Mean time that a person thinks before each act."""
    error_rate: Fraction = 0.0
    """Share of final answers that are replaced by a wrong one."""
    careless: Fraction = 0.0
    """Share of the people who err more often."""
    careless_error_rate: Fraction = 0.5
    laziness: Fraction = 0.0
    """Share of items that are not decomposed: the assistant is asked the question itself, or the
    answer is guessed."""
    trust: Fraction = 0.0
    """Share of items for which the assistant is asked the question itself, and believed."""
    skips: Fraction = 0.0
    """Share of items that are skipped."""
    seed: int = 0
    version: Literal[1] = 1
    """Version of this behaviour. A change of it gets a new version, so that earlier findings about
    a bad habit can be reproduced."""


@dataclasses.dataclass(frozen=True)
class Habits:
    """The behaviour of one person."""

    config: CrowdConfig
    person: str  # a pseudonym
    number: int = 0  # among the crowd, from 0

    @functools.cached_property
    def is_careless(self) -> bool:
        """The share of careless people is exact, up to rounding."""
        config = self.config

        def place(number: int) -> float:
            return random.Random(f"{config.version} {config.seed} careless {number}").random()

        first = sorted(range(config.people), key=place)[: round(config.careless * config.people)]
        return self.number in first

    def manner(self, item: str) -> str:
        """The way in which this person deals with an item: `SKIP`, `TRUST`, ..."""
        if self._chance("skips", item) < self.config.skips:
            return SKIP
        if self._chance("trust", item) < self.config.trust:
            return TRUST
        if self._chance("laziness", item) < self.config.laziness:
            return LAZY if self._chance("which laziness", item) < 0.5 else GUESS
        return CAREFUL

    def errs(self, item: str) -> bool:
        """Whether this person's final answer is replaced by a wrong one."""
        config = self.config
        rate = config.careless_error_rate if self.is_careless else config.error_rate
        return self._chance("errs", item) < rate

    def pick(self, what: str, item: str, options: Sequence[str]) -> str:
        """One of several options, each equally likely."""
        return options[int(self._chance(what, item) * len(options))]

    def seconds(self, item: str, act: int) -> float:
        """Time to think before this person's act of this number; exponentially distributed."""
        return -self.config.seconds * math.log1p(-self._chance(f"seconds {act}", item))

    def _chance(self, what: str, item: str) -> float:
        """Uniform in [0, 1). Python seeds with a string in the same way everywhere."""
        config = self.config
        return random.Random(f"{config.version} {config.seed} {self.person} {item} {what}").random()
