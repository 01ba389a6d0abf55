"""Critique: a critic points at what is wrong with answers, they are refined, and the assistant
learns to give the refined answers at once.

Saunders et al. 2022 (arXiv:2206.05802), section 4.2. The critic is a helper: the assistant of
another experiment, see `overseers.helper`. People check what it points at, as far as their looks
go, or take its word for it. In the first round drafts are refined, later the assistant's own
answers.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key
from pydantic import Field

from amplify.experiment.sections import Experiment
from amplify.overseers.judge import Judge, JudgeConfig
from amplify.oversight.amplification import trained_assistant
from amplify.oversight.draws import draw_round
from amplify.oversight.restore import load, load_overseer
from amplify.oversight.reviews import samples
from amplify.oversight.work import Made, Work, check_stored
from amplify.records.round_folder import RoundFolder
from amplify.runtime import calls, effort
from amplify.task_abilities import draft_of
from amplify.task_helping import refine_of
from amplify.tasks.batching import fold_in
from amplify.tasks.problems import answer_keys, columns_in_chunks
from amplify.training.phase import Phase, Trained
from amplify.types import Problems, Roles, Task

REFINEMENT = "refinement"
"""Name of the phase that trains the assistant."""
CRITIC = "critic"
"""The part that is asked what is wrong, in the ledger."""


@dataclasses.dataclass(frozen=True)
class CritiqueOversight:
    """Oversight by critique: `[oversight] kind = "critique"`."""

    answers: Annotated[int, Field(ge=1, le=16)] = 4
    """Answers to each question that are criticised. The first one is refined: what is wrong with it
    is replaced by what is not found wrong in the others."""

    def adapt_overseer(self, task: Task, overseer: Any) -> Any:
        """Returns the overseer's section as it is.

        Raises:
            ValueError: if there is no critic, or the task's answers cannot be refined.
        """
        if refine_of(task) is None or draft_of(task) is None:
            raise ValueError(
                'oversight.kind = "critique" needs a task whose drafts can be refined, such as'
                f" essays, but those of {type(task).__name__} cannot"
            )
        if not isinstance(overseer, JudgeConfig) or not overseer.helper:
            raise ValueError(
                'oversight.kind = "critique" needs overseer.kind = "judge" with a helper, who'
                " criticises"
            )
        return overseer

    def check_sections(self, sections: Mapping[str, Any]) -> None:
        """Checks that signals are stored.

        Raises:
            ValueError: if they are streamed.
        """
        check_stored("critique", sections)

    def roles(self, experiment: Experiment) -> list[Trained]:
        """Returns the roles that rounds train and round 0 initialises."""
        return [trained_assistant(experiment.assistant, experiment.training)]

    def phases(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """Yields the phases of a round, in order.

        Args:
            experiment: whose assistant is trained.
            this: the round's folder.
        """
        yield Phase(REFINEMENT, tuple(self.roles(experiment)), experiment.training.schedule)

    def signal(self, phase: Phase, work: Work) -> Made:
        """Lets answers be criticised and refined.

        Args:
            phase: the one that trains on refined answers.
            work: the round so far.

        Returns:
            Refined answers, all with the same weight.
        """
        experiment, judge = work.experiment, work.experiment.overseer
        assert isinstance(judge, Judge)  # checked when the experiment file was read
        problems = draw_round(experiment, work.this.number)
        function = functools.partial(
            _refine,
            judge,
            {"overseer": load_overseer(experiment, work.roles)},
            jax.random.key(experiment.seed),
        )
        given = self._answers(work, problems)
        place = experiment.mesh.here.row_sharding
        with work.watch("criticising", len(problems.seeds)) as advance:
            found = columns_in_chunks(function, problems, given, advance=advance, place=place)
        calls.count(CRITIC, int(found["asks"].sum()))
        effort.count(effort.LOOK, int(found["looks"].sum()))
        contexts, questions, seeds = jax.device_get(
            (problems.contexts, problems.questions, problems.seeds)
        )
        columns = {
            "context": contexts,
            "questions": questions,
            "answers": found["answers"],
            "problem_seed": seeds.astype(np.int64),
            "parent": np.full(len(seeds), work.roles["assistant"].digest),
        }
        facts = {"struck": float(found["struck"].mean())}
        return Made(columns, [], {REFINEMENT: facts}, "Answers refined by what a critic says.")

    def _answers(
        self, work: Work, problems: Problems
    ) -> Int[np.ndarray, "contexts questions answers answer_length"]:
        """Drafts, or answers of the best assistant of earlier rounds."""
        experiment = work.experiment
        if not work.best.number:
            return samples.write_drafts(experiment, problems, self.answers, "drafts").answers
        params = load(experiment, experiment.assistant, work.roles["assistant"])
        return samples.sample_answers(experiment, params, problems, self.answers).answers


@functools.partial(jax.jit, static_argnums=0)
def _refine(
    judge: Judge,
    roles: Roles,
    root: Key[Array, ""],
    problems: Problems,
    answers: Int[Array, "batch questions answers answer_length"],
) -> dict[str, Array]:
    # Other streams of these keys drew the answers.
    keys = fold_in(answer_keys(root, problems.seeds, problems.questions.shape[1]), 2)
    found = judge.refine(roles, problems.contexts, problems.questions, answers, keys)
    return {
        "answers": found.answer.astype(jnp.int32),
        "struck": found.struck,
        "looks": found.looks,
        "asks": found.asks,
    }
