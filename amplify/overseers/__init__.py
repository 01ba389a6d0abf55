"""Overseers: one file a kind. `OVERSEERS` names those that an experiment file may choose."""

from amplify.overseers.simulated import SimulatedConfig

OVERSEERS = {"simulated": SimulatedConfig}
