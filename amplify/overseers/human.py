"""People as overseers, who answer some of a round's questions on web pages. Another overseer, which
is always available, answers the other questions and those of evals.

This module configures how the work is divided. It does not depend on the pages, which are
`amplify.web`, or on the log.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from jaxtyping import Array, Int, Key
from pydantic import Field

from amplify.errors import AmplifyError
from amplify.overseers.habits import CrowdConfig
from amplify.overseers.learned import Learned, LearnedConfig
from amplify.overseers.simulated import SimulatedConfig
from amplify.task_abilities import impression_of
from amplify.types import Ask, Overseer, OverseerKind, Strategy, Task

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclasses.dataclass(frozen=True)
class HumanConfig:
    """`[overseer]` of an experiment file."""

    PATHS: ClassVar = ("guide",)

    people: Literal["real", "simulated"] = "real"
    """Real or simulated people; both use the same pages."""
    team: Count = 3
    """Number of people who receive a link when the first round opens; more can be invited."""
    items: Count = 200
    """Questions per round that people answer."""
    overlap: Count = 1
    """People who answer the same question."""
    asks: Annotated[int, Field(ge=0, le=16)] = 4
    """Maximum number of sub-questions per question."""
    others: Literal["simulated", "learned", "nobody"] = "simulated"
    """What answers the round's other questions and those of evals: the task's strategy, a model
    that imitates people, or nobody (the other questions are excluded from training, and evals ask
    the assistant directly)."""
    learned: LearnedConfig = dataclasses.field(default_factory=LearnedConfig)
    """The model for others = "learned"."""
    reviewed: Share = 0.1
    """Fraction of answers that another person checks, without seeing them."""
    reviewers: Count = 1
    """People who check the same answer."""
    gold: Share = 0.1
    """Fraction of questions with known answers, by which people's accuracy is measured; none if the
    task does not know the truth."""
    withheld: Share = 0.0
    """Fraction of questions that are answered without the assistant's help, for the uplift trial.
    """
    skips: Count = 3
    """A question is withdrawn after this many people have skipped it."""
    lease: Annotated[float, Field(gt=0)] = 600.0
    """Seconds of inactivity after which a question is assigned to somebody else."""
    guide: str = ""
    """A text file with instructions for people."""
    crowd: CrowdConfig = dataclasses.field(default_factory=CrowdConfig)
    """The simulated people for people = "simulated"."""

    def build(self, task: Task) -> "Human":
        """Builds the overseer.

        Args:
            task: the task.

        Raises:
            ValueError: if there are too few people, or nothing to imitate.
            AmplifyError: if the guide cannot be read.
        """
        self._check()
        if self.others == "learned" and not self.asks:
            raise ValueError('overseer.asks must be at least 1 where others = "learned"; got 0')
        return Human(task, self, self._others(task))

    def _check(self) -> None:
        wanted = max(self.overlap, 1 + self.reviewers if self.reviewed else 1)
        if self.people == "simulated" and self.crowd.people < wanted:
            raise ValueError(
                f"overseer.crowd.people must be at least {wanted}, for overseer.overlap and"
                f" overseer.reviewers; got {self.crowd.people}"
            )
        if self.guide:
            try:
                Path(self.guide).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise AmplifyError(f"overseer.guide: {self.guide}: {error}") from None

    def _others(self, task: Any) -> OverseerKind:
        if self.others == "simulated":
            return SimulatedConfig().build(task)
        if self.others == "learned":
            return dataclasses.replace(self.learned.build(task), most_asks=self.asks)
        return PassThrough()


@dataclasses.dataclass(frozen=True)
class Human:
    """People, and the overseer that answers what they do not."""

    task: Task
    config: HumanConfig
    others: OverseerKind

    @property
    def traced(self) -> bool:
        """Whether `others` is traced."""
        return self.others.traced

    @property
    def replayable(self) -> bool:
        """Whether `others` is replayable."""
        return self.others.replayable

    def using(self, params: Any = None) -> Overseer:
        """The overseer that answers what people do not; see `OverseerKind.using`."""
        return self.others.using(params)

    @property
    def learner(self) -> Learned | None:
        """The model that imitates people; None if there is none."""
        return self.others if isinstance(self.others, Learned) else None

    @property
    def people_only(self) -> bool:
        """Whether only people's answers are used for training."""
        return isinstance(self.others, PassThrough)


@dataclasses.dataclass(frozen=True)
class HumanReviewConfig(HumanConfig):
    """`[overseer]` of an experiment file whose oversight needs people who review answers."""

    def build(self, task: Task) -> Any:
        """Builds the reviewers; see `HumanConfig.build`.

        Raises:
            ValueError: if there are too few people, or the task says nothing that simulated people
                could go by.
            AmplifyError: if the guide cannot be read.
        """
        self._check()
        if self.people == "simulated" and impression_of(task) is None:
            raise ValueError(
                'overseer.people = "simulated" needs a task with an `impression` of its answers,'
                f" but {type(task).__name__} has none"
            )
        return HumanReviewers(task, self)


@dataclasses.dataclass(frozen=True)
class HumanReviewers:
    """People who review answers, through the log of a round and not as a `Reviewer`; see
    `oversight.people.reviewing`."""

    task: Task
    config: HumanReviewConfig

    traced = False
    replayable = False
    using: Any = None
    """They answer no questions."""

    def asked(self, reviewing: Task, items: int) -> Human:
        """The same people, as overseers to whom reviews are put as questions.

        Args:
            reviewing: the task that has these questions.
            items: number of them.
        """
        config = dataclasses.replace(self.config, items=items)
        return Human(reviewing, config, PassThrough())


def learner_of(overseer: OverseerKind) -> Learned | None:
    """The learned overseer of an experiment, alone or beside people; None if there is none.

    Args:
        overseer: the experiment's overseer.
    """
    if isinstance(overseer, Human):
        return overseer.learner
    return overseer if isinstance(overseer, Learned) else None


@dataclasses.dataclass(frozen=True)
class PassThrough:
    """An overseer that passes the question to the assistant, and returns its answer."""

    traced = True
    replayable = True

    def using(self, params: Any = None) -> Overseer:
        """The overseer, which has no parameters."""
        return self._strategy

    def _strategy(
        self, questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]
    ) -> Strategy:
        answer = yield Ask(questions)
        return answer
