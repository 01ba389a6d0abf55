"""Best of n: of the assistant's samples, the one that a scorer likes best is imitated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from amplify.oversight.amplification import distillation, trained_assistant
from amplify.oversight.draws import draw_round
from amplify.oversight.restore import load_assistant
from amplify.oversight.reviews.scorers import Gold
from amplify.oversight.work import Made
from amplify.tasks.problems import answer_keys, map_in_chunks
from amplify.trees.amplification import contexts_for


@dataclasses.dataclass(frozen=True)
class BestOf:
    samples: int = 4

    def roles(self, experiment):
        return [trained_assistant(experiment.assistant, experiment.training)]

    def phases(self, experiment, this):
        yield distillation(experiment.assistant, experiment.training)

    def signal(self, phase, work):
        experiment, number = work.experiment, work.this.number
        problems = draw_round(experiment, number)
        params, root = load_assistant(experiment, work.roles), jax.random.key(experiment.seed)
        best = functools.partial(
            best_of, experiment.task, experiment.assistant, self.samples, params, root
        )
        with work.watch("sampling", len(problems.seeds)) as advance:
            chunks = list(map_in_chunks(best, 32, problems, advance=advance))
        answers, scores = (np.concatenate(part) for part in zip(*chunks, strict=True))
        columns = {
            "context": jax.device_get(problems.contexts),
            "questions": jax.device_get(problems.questions),
            "answers": answers,
            "weight": scores,  # where no sample is right, none is imitated
        }
        facts = {
            "assistant_answers": self.samples * scores.size,
            "best_score": float(scores.mean()),
        }
        return Made(columns, [], facts, f"Round {number}: the best of {self.samples} samples.")


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def best_of(task, assistant, samples, params, root, problems):
    """The best answers, and their scores."""
    contexts, questions = problems.contexts, problems.questions
    memory = assistant.encode(params, contexts_for(task, contexts, questions))
    keys = answer_keys(root, problems.seeds, questions.shape[1])

    def draw(number):
        folded = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, number)))(keys)
        return assistant.answer(params, memory, questions, folded).tokens

    candidates = jnp.stack([draw(number) for number in range(samples)])
    scored = [Gold(task).score({}, contexts, questions, said, keys) for said in candidates]
    scores = jnp.stack([score.value for score in scored])
    chosen = jnp.argmax(scores, axis=0)
    best = jnp.take_along_axis(candidates, chosen[None, ..., None], axis=0)[0]
    return best, jnp.max(scores, axis=0)
