"""How much memory an experiment's numbers ask for, so that absurd ones are refused when the file is
read, and not by the kernel in the middle of a round.

The estimates are lower bounds, computed from the numbers alone: nothing is allocated and nothing is
compiled. Called by `experiment_file`.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError
from amplify.overseers.human import HumanConfig
from amplify.overseers.learned import LearnedConfig

LARGEST_HOST = 256 * 2**30
"""Bytes. A file that another machine with so much memory can run can be read on every machine."""
STATE_BYTES = 16
"""Of each weight in training: the weight, its target, and two moments of the optimizer."""
TOKEN_BYTES = 4


def check_data(sections: Mapping[str, Any], path: Path) -> None:
    """Raises AmplifyError if the problems of a round, or those of evals, cannot fit in memory."""
    task, asked, evals = sections["task"], sections["questions"], sections["evals"]
    facts = task.facts * task.fact_length
    question = task.question_length + task.answer_length
    each = TOKEN_BYTES * (facts + asked.per_context * question)
    told = f"{asked.contexts} of {asked.per_context} questions each"
    _refuse_more("questions.contexts", f"a round's contexts, {told},", asked.contexts * each, path)
    held_out = TOKEN_BYTES * (facts + evals.per_depth * task.max_depth * question)
    for split in ("select", "final"):
        count = getattr(evals, split)
        _refuse_more(f"evals.{split}", f"{count} held-out contexts", count * held_out, path)
    for name, learner in _learners(sections["overseer"]):
        size = learner.demonstrations * question * TOKEN_BYTES
        told = f"{learner.demonstrations} demonstrations"
        _refuse_more(f"{name}.demonstrations", told, size, path)


def check_networks(sections: Mapping[str, Any], path: Path) -> None:
    """Raises AmplifyError if a network in training cannot fit on the mesh's devices together."""
    devices = sections["mesh"].size
    networks = [*_learners(sections["overseer"])]
    if hasattr(sections["assistant"], "width") and not getattr(
        sections["assistant"], "pretrained", ""
    ):
        networks.append(("assistant", sections["assistant"]))
    for name, network in networks:
        weights = _weights(network)
        told = f"a network of {weights:.2g} weights"
        _refuse_more(f"{name}.width", told, weights * STATE_BYTES, path, devices)


def _learners(overseer: Any) -> Iterator[tuple[str, LearnedConfig]]:
    if isinstance(overseer, LearnedConfig):
        yield "overseer", overseer
    elif isinstance(overseer, HumanConfig) and overseer.others == "learned":
        yield "overseer.learned", overseer.learned


def _weights(network: Any) -> int:
    """At least so many: of attention and of the layers after it. How many tokens are embedded may
    take a tokenizer to tell, and is left out.
    """
    if hasattr(network, "encoder_layers"):
        layers = network.encoder_layers + network.decoder_layers
    else:
        layers = network.layers
    attention, mlp = 2, 2 * network.mlp_ratio
    embedded = network.width * getattr(network, "reach", 0)
    return layers * (attention + mlp) * network.width**2 + embedded


def _refuse_more(key: str, what: str, size: int, path: Path, hosts: int = 1) -> None:
    room = hosts * max(LARGEST_HOST, _memory())
    if size > room:
        raise AmplifyError(
            f"{path}: {key} is too large: {what} would take {_gib(size)}, and there is room for"
            f" at most {_gib(room)}"
        )


def _gib(size: int) -> str:
    return f"{size // 2**30:,} GiB" if size < 2**70 else f"{float(size / 2**30):.1e} GiB"


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
