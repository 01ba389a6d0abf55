"""Placeholder until the crowd's own module."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class CrowdConfig:
    """`[overseer.crowd]`."""

    people: int = 8
    error_rate: float = 0.0
    seed: int = 0
