"""One round, from checkpoint to checkpoint: read this first.

    amplification    the best assistant so far, overseen  ->  answers, the round's data set
    distillation     the data set                         ->  a child, trained from the best
    evaluation       the child, on held-out problems      ->  what it gets right, item by item
    comparison       the child against the best           ->  promoted, rejected, inconclusive

Each stage leaves its result in the round's folder before the next begins, and what is there is not
done again: a round that was killed goes on where it was and ends as if it had not been.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from amplify import checkpoint, dataset, distillation, provenance, report, words
from amplify.amplification import Amplified, amplify_problems
from amplify.comparison import judge
from amplify.errors import AmplifyError
from amplify.evaluation import evaluate
from amplify.experiment import Experiment
from amplify.problems import EVALS, SPLITS, draw_problems
from amplify.progress import Watch
from amplify.store import RoundFolder, Store, read_evals, read_lines, write_lines
from amplify.types import Problems

SAMPLED_TREES = 50
"""Decomposition trees kept in `interactions.jsonl`; any other can be recomputed."""


def run(store: Store, number: int, watch: Watch) -> RoundFolder:
    """Round `number`; the rounds before it are there. Round 0 is the untrained assistant."""
    if number == 0:
        return start(store, watch)
    experiment, best, this = store.experiment, store.best_before(number), store.round(number)
    this.begin(provenance.describe(experiment, parent=best.identity))
    this.stage("data", write_amplified_answers, experiment, best, this, watch)
    this.stage("checkpoint", distill, experiment, best, this, watch)
    this.stage("evals", evaluate_held_out, experiment, this, watch)
    this.stage("verdict", judge_child, experiment, best, this)
    this.note(provenance.ledger(this.record))
    report.write_round_page(store, this)
    this.finish()
    return this


def start(store: Store, watch: Watch) -> RoundFolder:
    """Round 0: the untrained assistant, which the first round is judged against."""
    experiment, this = store.experiment, store.round(0)
    this.begin(provenance.describe(experiment, parent=None))
    this.stage("checkpoint", draw_weights, experiment, this)
    this.stage("evals", evaluate_held_out, experiment, this, watch)
    this.note(provenance.ledger(this.record))
    this.finish()
    return this


def draw_weights(experiment: Experiment, this: RoundFolder) -> dict[str, Any]:
    params = experiment.assistant.init(jax.random.key(experiment.seed))
    checkpoint.save(this.checkpoint, distillation.begin(params, experiment.training))
    return {"digest": checkpoint.digest(params)}


def draw_round(experiment: Experiment, number: int) -> Problems:
    """The problems of a round, the same whenever they are drawn."""
    asked = experiment.questions
    depths = asked.depths(number, experiment.task.max_depth)
    return draw_problems(experiment.task, experiment.seed, number, "train", asked.contexts, depths)


def write_amplified_answers(
    experiment: Experiment, best: RoundFolder, this: RoundFolder, watch: Watch
) -> dict[str, Any]:
    """Amplification: the round's questions, answered by the overseer with the best assistant's
    help.
    """
    problems = draw_round(experiment, this.number)
    params, digest = load_assistant(experiment, best)
    with watch("amplifying", len(problems.seeds)) as advance:
        chunks = list(
            amplify_problems(
                experiment.task,
                experiment.assistant,
                experiment.overseer,
                params,
                problems,
                experiment.seed,
                advance=advance,
            )
        )
    answers = np.concatenate([chunk.answers for chunk in chunks])
    written = dataset.write(
        this.data,
        {
            "context": np.asarray(problems.contexts),
            "questions": np.asarray(problems.questions),
            "answers": answers,
            "classes": np.concatenate([chunk.classes for chunk in chunks]),
            "problem_seed": np.asarray(problems.seeds, np.int64),
            "parent": np.full(len(answers), digest),
        },
        name="amplified_answers",
        description=f"Round {this.number}: questions answered by an overseer with {digest}.",
    )
    write_lines(this.interactions, sample_trees(experiment, problems, chunks[0]))
    helped = int(sum(chunk.assistant_answers.sum() for chunk in chunks))
    return {
        "digest": written,
        "overseer_answers": answers[..., 0].size,
        "assistant_answers": helped,
    }


def sample_trees(
    experiment: Experiment, problems: Problems, first: Amplified
) -> list[dict[str, Any]]:
    """The tree of one question each of the first problems."""
    contexts = np.asarray(problems.contexts)
    places = [(row, row % experiment.questions.per_context) for row in range(len(first.answers))]
    return [
        {"row": row, "column": column}
        | words.tree(experiment.task, contexts[row], first.trees, row, column)
        for row, column in places[:SAMPLED_TREES]
    ]


def distill(
    experiment: Experiment, best: RoundFolder, this: RoundFolder, watch: Watch
) -> dict[str, Any]:
    """Distillation: a child trained on the round's data, from the best assistant's weights."""
    assistant, training = experiment.assistant, experiment.training
    params, _ = load_assistant(experiment, best)
    state, log = distillation.begin(params, training), []
    with this.intact("data"):
        dataset.verify(this.data, this.record["stages"]["data"]["digest"])
        batches = dataset.batches(
            this.data,
            columns=("context", "questions", "answers"),
            batch_size=training.batch,
            seed=(experiment.seed << 32) + this.number,
        )
    with (
        checkpoint.training_checkpoints(this.training) as saved,
        watch("distilling", training.steps) as advance,
    ):
        resumed = saved.restore(state, batches)
        if resumed is not None:
            state = resumed
            with this.intact("checkpoint"):
                log = [row for row in read_lines(this.metrics) if row["step"] <= state.step]
            advance(int(state.step))

        def save(state: distillation.TrainState, log: list[distillation.LogRow]) -> None:
            write_lines(this.metrics, log)
            saved.save(int(state.step), state, batches)

        state = distillation.train(
            assistant, training, state, batches, save=save, log=log, advance=advance
        )
    write_lines(this.metrics, log)
    checkpoint.save(this.checkpoint, state, batches)
    this.drop_training()
    return {"digest": checkpoint.digest(state.target), "steps": training.steps}


def load_assistant(experiment: Experiment, round_: RoundFolder) -> tuple[PyTree[Array], str]:
    """The target network of a round's checkpoint, and its digest."""
    like = distillation.abstract_state(experiment.assistant, experiment.training)
    with round_.intact("checkpoint"):
        target = checkpoint.restore(round_.checkpoint, like).target
        digest = checkpoint.digest(target)
        if digest != round_.record["stages"]["checkpoint"]["digest"]:
            raise AmplifyError(f"{round_.checkpoint}: not the checkpoint that was written")
    return target, digest


def evaluate_held_out(experiment: Experiment, this: RoundFolder, watch: Watch) -> dict[str, Any]:
    """Evaluation: the same held-out questions in every round, in two splits that never mix."""
    evals, task = experiment.evals, experiment.task
    depths = [depth for depth in range(1, task.max_depth + 1) for _ in range(evals.per_depth)]
    params, _ = load_assistant(experiment, this)
    items = []
    with watch("evaluating", evals.select + evals.final) as advance:
        for split in SPLITS:
            problems = draw_problems(
                task, experiment.seed, EVALS, split, getattr(evals, split), depths
            )
            items += evaluate(
                task,
                experiment.assistant,
                experiment.overseer,
                params,
                problems,
                experiment.seed,
                split=split,
                advance=advance,
            )
    return {
        "digest": write_lines(this.evals, [item.as_row() for item in items]),
        "items": len(items),
    }


def judge_child(experiment: Experiment, best: RoundFolder, this: RoundFolder) -> dict[str, Any]:
    """Comparison: the child's own answers against the best assistant's, on the same items of
    `select`.
    """
    before, after = (
        [item for item in read_evals(round_) if item["split"] == "select"]
        for round_ in (best, this)
    )
    verdict = judge(
        np.array([item["alone"] for item in before]),
        np.array([item["alone"] for item in after]),
        np.unique([item["problem"] for item in after], return_inverse=True)[1],
        round_number=this.number,
        error_rate=experiment.gate.error_rate,
        worthwhile=experiment.gate.worthwhile,
    )
    return {"against": best.number, **dataclasses.asdict(verdict)}
