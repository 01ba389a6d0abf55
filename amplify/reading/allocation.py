"""Estimates the memory that an experiment needs, to reject impossible sizes early.

Estimates are lower bounds, computed from the numbers in the file. Nothing is allocated or compiled.
Called by `experiment_file`.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError
from amplify.models import ASSISTANTS
from amplify.overseers.human import HumanConfig
from amplify.overseers.learned import LearnedConfig

LARGEST_HOST = 256 * 2**30
"""Bytes of memory that are always accepted, so that a file for a large machine can be read on any.
"""
STATE_BYTES = 16
"""Bytes for each weight in training: the weight, its target, and two moments of the optimizer."""
TOKEN_BYTES = 4


def check_data(sections: Mapping[str, Any], path: Path) -> None:
    """Checks that the problems of a round and of evals fit in memory.

    Args:
        sections: the experiment's sections by name.
        path: the experiment file.

    Raises:
        AmplifyError: if they do not fit.
    """
    task, asked, evals = sections["task"], sections["questions"], sections["evals"]
    facts = task.facts * task.fact_length
    question = task.question_length + task.answer_length
    each = TOKEN_BYTES * (facts + asked.per_context * question)
    what = f"{asked.contexts} of {asked.per_context} questions each"
    _reject_larger(
        "questions.contexts", f"a round's contexts, {what},", asked.contexts * each, path
    )
    held_out = TOKEN_BYTES * (facts + evals.per_depth * task.max_depth * question)
    for split in ("select", "final"):
        count = getattr(evals, split)
        _reject_larger(f"evals.{split}", f"{count} held-out contexts", count * held_out, path)
    for name, learner in _learners(sections["overseer"]):
        size = learner.demonstrations * question * TOKEN_BYTES
        what = f"{learner.demonstrations} demonstrations"
        _reject_larger(f"{name}.demonstrations", what, size, path)


def check_networks(sections: Mapping[str, Any], path: Path) -> None:
    """Checks that each network in training fits in the memory of the mesh's devices together.

    Args:
        sections: the experiment's sections by name.
        path: the experiment file.

    Raises:
        AmplifyError: if one does not fit.
    """
    devices, assistant = sections["mesh"].size, sections["assistant"]
    networks = [*_learners(sections["overseer"])]
    # What the width of a network of the experiment's own code means is not known here.
    if type(assistant) in ASSISTANTS.values() and not getattr(assistant, "pretrained", ""):
        networks.append(("assistant", assistant))
    for name, network in networks:
        weights = _weights(network)
        what = f"a network of {weights:.2g} weights"
        _reject_larger(f"{name}.width", what, weights * STATE_BYTES, path, devices)


def _learners(overseer: Any) -> Iterator[tuple[str, LearnedConfig]]:
    if isinstance(overseer, LearnedConfig):
        yield "overseer", overseer
    elif isinstance(overseer, HumanConfig) and overseer.others == "learned":
        yield "overseer.learned", overseer.learned


def _weights(network: Any) -> int:
    """A lower bound on the number of weights: attention and MLPs, without token embeddings."""
    if hasattr(network, "encoder_layers"):
        layers = network.encoder_layers + network.decoder_layers
    else:
        layers = network.layers
    attention, mlp = 2, 2 * network.mlp_ratio
    embedded = network.width * getattr(network, "reach", 0)
    return layers * (attention + mlp) * network.width**2 + embedded


def _reject_larger(key: str, what: str, size: int, path: Path, hosts: int = 1) -> None:
    room = hosts * max(LARGEST_HOST, _memory())
    if size > room:
        raise AmplifyError(
            f"{path}: {key} is too large: {what} would take {_gib(size)} of memory, at most"
            f" {_gib(room)} is allowed"
        )


def _gib(size: int) -> str:
    return f"{size // 2**30:,} GiB" if size < 2**70 else f"{float(size / 2**30):.1e} GiB"


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
