"""Oversight: ways to make a training signal, one file each; the default is amplification."""

from amplify.oversight.amplification import Amplification
from amplify.oversight.critique import CritiqueOversight
from amplify.oversight.debate import DebateOversight
from amplify.oversight.direct import Direct
from amplify.oversight.reward_model import RewardModelling
from amplify.oversight.truth import Truth

OVERSIGHT = {
    "amplification": Amplification,
    "truth": Truth,
    "direct": Direct,
    "reward-model": RewardModelling,
    "debate": DebateOversight,
    "critique": CritiqueOversight,
}
"""Maps `[oversight] kind` of an experiment file to a class."""
