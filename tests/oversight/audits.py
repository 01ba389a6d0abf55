"""A scorer that is asked from Python, and says whether the assistant is trained a second time."""

import dataclasses

import jax
import numpy as np

from amplify.oversight.amplification import distillation, trained_assistant
from amplify.oversight.draws import draw_round
from amplify.oversight.restore import load_weights
from amplify.oversight.work import Made
from amplify.training.phase import Phase
from amplify.trees.chunks import amplify_problems
from amplify.words import is_right


@dataclasses.dataclass(frozen=True)
class Audits:
    """Of each round's answers some are looked at; if too many are wrong, those that are right are
    learned from once more.
    """

    looked_at: int = 20
    enough: float = 0.99

    def roles(self, experiment):
        return [trained_assistant(experiment.assistant, experiment.training)]

    def phases(self, experiment, this):
        first = distillation(experiment.assistant, experiment.training)
        yield dataclasses.replace(first, name="first")
        yield Phase("audit", (), experiment.training.schedule)
        if this.record["stages"]["audit/data"]["share_right"] < self.enough:
            yield dataclasses.replace(first, name="second")

    def signal(self, phase, work):
        experiment, number = work.experiment, work.this.number
        problems = draw_round(experiment, number)
        parts = (experiment.task, experiment.assistant, experiment.overseer)
        weights = load_weights(experiment, work.roles)
        chunks = list(amplify_problems(*parts, weights, problems, experiment.seed))
        contexts, questions = jax.device_get((problems.contexts, problems.questions))
        answers = np.concatenate([chunk.answers for chunk in chunks])
        facts = {"overseer_answers": answers[..., 0].size}
        if phase.name == "audit":
            rows = slice(self.looked_at)
            contexts, questions, answers = contexts[rows], questions[rows], answers[rows]
            right = [
                [is_right(experiment.task, context, *pair) for pair in zip(*asked, strict=True)]
                for context, *asked in zip(contexts, questions, answers, strict=True)
            ]
            facts = {"human_answers": answers[..., 0].size, "share_right": float(np.mean(right))}
        columns = {"context": contexts, "questions": questions, "answers": answers}
        return Made(columns, [], facts, f"Round {number}: {phase.name}.")
