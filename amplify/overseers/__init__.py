"""Overseers, one file per kind. `OVERSEERS` maps the `kind` of an `[overseer]` section to its
configuration.
"""

from amplify.overseers.human import HumanConfig
from amplify.overseers.judge import JudgeConfig
from amplify.overseers.language_model import LanguageModelOverseerConfig
from amplify.overseers.learned import LearnedConfig
from amplify.overseers.simulated import SimulatedConfig

OVERSEERS = {
    "simulated": SimulatedConfig,
    "learned": LearnedConfig,
    "language-model": LanguageModelOverseerConfig,
    "human": HumanConfig,
    "judge": JudgeConfig,
}
