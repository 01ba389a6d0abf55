"""Debate: the assistant argues for two of its own answers to a question, a judge who cannot check
them decides, and the assistant learns to say what the winner said.

Self-play by expert iteration on the judge's verdict. Irving, Christiano and Amodei 2018
(arXiv:1805.00899); Anthony, Tian and Barber 2017 (arXiv:1705.08439). By consultancy, the control,
only one of the two answers is argued for, at the same cost to the judge.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from amplify.errors import AmplifyError
from amplify.evaluation.measures import Measure
from amplify.experiment.sections import Experiment
from amplify.overseers.simulated import SimulatedConfig
from amplify.oversight.amplification import trained_assistant
from amplify.oversight.arguing import argue, sample_transcripts
from amplify.oversight.restore import load_assistant, phase_stream
from amplify.oversight.reviews.counting import JUDGE
from amplify.oversight.work import WEIGHT, Made, Work, check_stored
from amplify.protocols import PROTOCOLS
from amplify.protocols.protocol import SIDES, JudgeProtocol
from amplify.records.round_folder import RoundFolder
from amplify.runtime import calls, effort
from amplify.task_abilities import knows_truth, search_of, strategy_of
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import (
    columns_in_chunks,
    draw_problems,
)
from amplify.training.phase import Phase, Trained
from amplify.types import (
    Problems,
    Roles,
    Task,
)

Count = Annotated[int, Field(ge=1)]

ARGUMENTS = "arguments"
"""What the phases are called, followed by the number of the iteration: arguments_2."""

JUDGED = Measure(
    "judged",
    "judge is right",
    "Held-out questions to which the assistant, sampled twice, gives one right and one wrong"
    " answer: whether the judge accepts the right one. An undecided verdict counts half.",
    of="judge",
)
BOTH_WRONG = Measure(
    "both_wrong",
    "both wrong",
    "Held-out questions to which the assistant, sampled twice, gives two wrong answers, so that no"
    " verdict can be right.",
    of="assistant",
)


@dataclasses.dataclass(frozen=True)
class DebateOversight:
    """Oversight by debate: `[oversight] kind = "debate"`."""

    protocol: Literal["direct", "consultancy", "debate"] = "debate"
    """How the judge decides between two answers: by looking alone, by hearing an argument for one,
    or by hearing both."""
    turns: Annotated[int, Field(ge=0)] = 0
    """Levels of sub-questions that an argument can go down; 0: as many as the task's questions
    have."""
    precommitment: bool = True
    """Whether a side is bound by what it first said; in a debate only."""
    looks: Annotated[int, Field(ge=0)] = 1
    """Looks at the world that the judge has for each question."""
    errors: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the judge's verdicts that are the wrong way around."""
    statements: Count = 32
    """Statements about each context that the assistant is trained on, drawn from the winners'. If
    they made fewer, the rest have weight 0."""
    iterations: Count = 1
    """Iterations in a round, each of `training.steps` steps, on arguments of the assistant that the
    one before trained."""

    measures: ClassVar = (JUDGED, BOTH_WRONG)
    """See `oversight.work.Oversight`."""

    def adapt_overseer(self, task: Task, overseer: Any) -> Any:
        """Returns the overseer's section as it is; the judge follows the same strategy.

        Raises:
            ValueError: if there is no strategy to follow, or the assistant reads what each question
                finds.
        """
        if not isinstance(overseer, SimulatedConfig):
            raise ValueError(
                'oversight.kind = "debate" needs overseer.kind = "simulated": its judge follows'
                " the task's own strategy"
            )
        if strategy_of(task) is None:
            raise ValueError(
                'oversight.kind = "debate" needs a task with a strategy, by which its questions are'
                f" divided, but {type(task).__name__} has none"
            )
        if search_of(task) is not None:
            raise ValueError(
                'oversight.kind = "debate" needs a task whose contexts are drawn: in'
                f" {type(task).__name__}, each question finds its own"
            )
        return overseer

    def check_sections(self, sections: Mapping[str, Any]) -> None:
        """Checks that signals are stored.

        Raises:
            ValueError: if they are streamed.
        """
        check_stored("debate", sections)

    def rules(self, task: Task) -> JudgeProtocol:
        """Returns the protocol for a task."""
        more: dict[str, Any] = {}
        if self.protocol == "debate":
            more["precommitment"] = self.precommitment
        turns = self.turns or task.max_depth
        made: JudgeProtocol = PROTOCOLS[self.protocol](
            task, turns, looks=self.looks, errors=self.errors, **more
        )
        return made

    def roles(self, experiment: Experiment) -> list[Trained]:
        """Returns the roles that rounds train and round 0 initialises."""
        return [trained_assistant(experiment.assistant, experiment.training)]

    def phases(self, experiment: Experiment, this: RoundFolder) -> Iterator[Phase]:
        """Yields the phases of a round, in order.

        Args:
            experiment: whose assistant is trained.
            this: the round's folder.
        """
        for number in range(1, self.iterations + 1):
            yield Phase(
                f"{ARGUMENTS}_{number}",
                tuple(self.roles(experiment)),
                experiment.training.schedule,
            )

    def signal(self, phase: Phase, work: Work) -> Made:
        """Lets the assistant argue with itself, and the judge decide.

        Args:
            phase: the one that trains on what the winners said.
            work: the round so far; its latest assistant plays both sides.

        Returns:
            Statements with their weights, a row for each context.

        Raises:
            AmplifyError: if the judge decides nothing.
        """
        experiment = work.experiment
        problems = self._draw(phase, work)
        params = experiment.mesh.bring_here(load_assistant(experiment, work.roles))
        kept: list[Any] = []

        def argue_about(chunk: Problems) -> dict[str, Array]:
            found: dict[str, Any] = argue(
                experiment.task,
                experiment.assistant,
                self.rules(experiment.task),
                (self.statements, self.precommitment),
                params,
                jax.random.key(experiment.seed),
                chunk,
            )
            transcripts = found.pop("transcripts")
            if not kept:  # those of one chunk are enough, and they are large
                kept.append(transcripts)
            return found

        place = experiment.mesh.here.row_sharding
        with work.watch("arguing", len(problems.seeds)) as advance:
            found = columns_in_chunks(argue_about, problems, advance=advance, place=place)
        _check_decided(found)
        trees = sample_transcripts(experiment.task, problems, kept[0])
        contexts, seeds = jax.device_get((problems.contexts, problems.seeds))
        columns = {
            "context": contexts,
            "questions": found["questions"],
            "answers": found["answers"],
            WEIGHT: found["weight"],
            "problem_seed": seeds.astype(np.int64),
            "parent": np.full(len(seeds), work.roles["assistant"].digest),
        }
        said = f"What the winners said, by {self.protocol}."
        return Made(columns, trees, _count(found), said)

    def measure_held_out(
        self, experiment: Experiment, weights: Roles, problems: Problems
    ) -> dict[str, Float[np.ndarray, "batch questions"]]:
        """Lets the assistant argue about held-out questions, and compares with the truth.

        Args:
            experiment: the experiment.
            weights: of the assistant.
            problems: the held-out questions.

        Returns:
            The `measures`, with NaN where there is none.
        """
        task = experiment.task
        if not knows_truth(task):
            return {}

        def measure(problems: Problems) -> dict[str, Array]:
            found = argue(
                task,
                experiment.assistant,
                self.rules(task),
                (1, self.precommitment),
                weights["assistant"],
                jax.random.key(experiment.seed),
                problems,
            )
            return _compare(task, problems, found)

        place = experiment.mesh.here.row_sharding
        measured = columns_in_chunks(measure, problems, place=place)
        calls.count(calls.ASSISTANT, int(measured.pop("asked").sum()))
        return measured

    def _draw(self, phase: Phase, work: Work) -> Problems:
        """The round's problems in the first iteration, and as many others in each other one."""
        experiment, number = work.experiment, work.this.number
        asked, first = experiment.questions, phase.name == f"{ARGUMENTS}_1"
        return draw_problems(
            experiment.task,
            experiment.seed,
            number if first else phase_stream(phase.name, number),
            "train",
            asked.contexts,
            asked.depths(number, experiment.task.max_depth),
            apart=experiment.evals.apart,
        )


@functools.partial(jax.jit, static_argnums=0)
def _compare(task: Task, problems: Problems, found: dict[str, Any]) -> dict[str, Array]:
    """Compares verdicts with the truth, which nothing is trained on."""
    verdicts, step = found["transcripts"]
    is_right = vmap_questions(task.is_right)
    pro, con = (
        is_right(problems.contexts, problems.questions, step.sub.answer[:, :, side])
        for side in range(len(SIDES))
    )
    accepted = is_right(problems.contexts, problems.questions, verdicts.answer)
    value = jnp.where(found["undecided"], 0.5, accepted.astype(jnp.float32))
    return {
        JUDGED.name: jnp.where(pro != con, value, jnp.nan),
        BOTH_WRONG.name: (~pro & ~con).astype(jnp.float32),
        "asked": found["asked"],
    }


def _check_decided(found: Mapping[str, np.ndarray]) -> None:
    """Checks that the judge's verdicts can teach something.

    Raises:
        AmplifyError: if the sides disagreed, and the judge never decided between them.
    """
    if found["undecided"].any() and not found["weight"].any():
        raise AmplifyError(
            f"the judge decided none of {found['undecided'].sum():,} questions on which the sides"
            " disagreed, so that nobody can be imitated: increase oversight.looks"
        )


def _count(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts what a signal took in the ledger; returns facts for the record."""
    calls.count(calls.ASSISTANT, int(found["asked"].sum()))
    calls.count(calls.ENVIRONMENT, int(found["looked"].sum()))
    argued = ~found["agreed"]
    calls.count(JUDGE, int(argued.sum()))
    effort.count(effort.READ, int(found["asked"][argued].sum()))
    effort.count(effort.LOOK, int(found["looked"].sum()))
    effort.count(effort.COMPARISON, int(argued.sum()))
    shares = ("agreed", "undecided", "pro_won")
    facts = {name: float(found[name].mean()) for name in shares}
    return {"arguments": facts | {"trained_on": int(found["weight"].sum())}}
