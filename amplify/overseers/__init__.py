"""Overseers: one file a kind. `OVERSEERS` names those that an experiment file may choose."""

from amplify.overseers.learned import LearnedConfig
from amplify.overseers.simulated import SimulatedConfig

OVERSEERS = {"simulated": SimulatedConfig, "learned": LearnedConfig}
