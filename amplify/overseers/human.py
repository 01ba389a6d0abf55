"""People as overseers: what a round asks of them, and who does the rest.

People answer some of a round's questions, through the pages of `amplify.web`; the other questions,
and the held-out ones of evals, are left to an overseer that can be asked at any hour. Knows how the
work is shared out, and nothing of pages or of the log.
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
from amplify.types import Ask, Overseer, OverseerKind, Strategy, Task

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclasses.dataclass(frozen=True)
class HumanConfig:
    """`[overseer]` of an experiment file."""

    PATHS: ClassVar = ("guide",)

    people: Literal["real", "simulated"] = "real"
    """Who opens the pages; simulated people use the same ones."""
    team: Count = 3
    """Real people who are given a link when the first round opens; more can be invited."""
    items: Count = 200
    """Questions a round that people answer."""
    overlap: Count = 1
    """People who answer the same question."""
    asks: Annotated[int, Field(ge=0, le=16)] = 4
    """Sub-questions that a person may ask about one question."""
    others: Literal["simulated", "learned", "nobody"] = "simulated"
    """Who answers the round's other questions, and those of evals: the task's own strategy, a model
    that learns from what people do, or nobody: then the others are not learned from, and evals ask
    the assistant itself."""
    learned: LearnedConfig = dataclasses.field(default_factory=LearnedConfig)
    """With others = "learned"."""
    reviewed: Share = 0.1
    """Share of the answers that somebody else checks, without seeing them."""
    reviewers: Count = 1
    """People who check the same answer."""
    gold: Share = 0.1
    """Share of the questions by whose known answers people are measured; none are where the task
    knows no truth."""
    withheld: Share = 0.0
    """Share of the questions that are answered without the assistant's help: the uplift trial."""
    skips: Count = 3
    """A question is withdrawn once so many people have skipped it."""
    lease: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without an act after which a question goes to somebody else."""
    guide: str = ""
    """A text file: what people are told about their work."""
    crowd: CrowdConfig = dataclasses.field(default_factory=CrowdConfig)
    """With people = "simulated"."""

    def build(self, task: Task) -> "Human":
        """Raises ValueError if so few people could never finish, or there is nothing to learn;
        AmplifyError if the guide cannot be read.
        """
        wanted = max(self.overlap, 1 + self.reviewers if self.reviewed else 1)
        if self.people == "simulated" and self.crowd.people < wanted:
            raise ValueError(
                f"overseer.crowd.people must be at least {wanted}, for overseer.overlap and"
                f" overseer.reviewers; got {self.crowd.people}"
            )
        if self.others == "learned" and not self.asks:
            raise ValueError('overseer.asks must be at least 1 where others = "learned"; got 0')
        if self.guide:
            try:
                Path(self.guide).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise AmplifyError(f"overseer.guide: {self.guide}: {error}") from None
        return Human(task, self, self._others(task))

    def _others(self, task: Any) -> OverseerKind:
        if self.others == "simulated":
            return SimulatedConfig().build(task)
        if self.others == "learned":
            return dataclasses.replace(self.learned.build(task), most_asks=self.asks)
        return PassesOn()


@dataclasses.dataclass(frozen=True)
class Human:
    task: Task
    config: HumanConfig
    others: OverseerKind

    @property
    def traced(self) -> bool:
        return self.others.traced

    @property
    def replayable(self) -> bool:
        return self.others.replayable

    def using(self, params: Any = None) -> Overseer:
        """Who answers what people do not."""
        return self.others.using(params)

    @property
    def learner(self) -> Learned | None:
        """Who learns from people, if anybody does."""
        return self.others if isinstance(self.others, Learned) else None

    @property
    def alone(self) -> bool:
        """Whether only what people answer is learned from."""
        return isinstance(self.others, PassesOn)


def learner_of(overseer: OverseerKind) -> Learned | None:
    """The overseer that learns, if there is one: the experiment's own, or one beside people."""
    if isinstance(overseer, Human):
        return overseer.learner
    return overseer if isinstance(overseer, Learned) else None


@dataclasses.dataclass(frozen=True)
class PassesOn:
    """Asks the assistant the question itself, and answers that."""

    traced = True
    replayable = True

    def using(self, params: Any = None) -> Overseer:
        return self._strategy

    def _strategy(
        self, questions: Int[Array, "*b question_length"], keys: Key[Array, "*b"]
    ) -> Strategy:
        answer = yield Ask(questions)
        return answer
