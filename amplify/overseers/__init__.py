"""Overseers: one file a kind. `OVERSEERS` names those that an experiment file may choose."""

from amplify.overseers.human import HumanConfig
from amplify.overseers.language_model import LanguageModelOverseerConfig
from amplify.overseers.learned import LearnedConfig
from amplify.overseers.simulated import SimulatedConfig

OVERSEERS = {
    "simulated": SimulatedConfig,
    "learned": LearnedConfig,
    "language-model": LanguageModelOverseerConfig,
    "human": HumanConfig,
}
