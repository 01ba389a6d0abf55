"""The stages of a round: each takes an experiment and folders, and leaves its result in one.

What a stage returns goes into the round's record. `round` says in which order they are done; what
they do is said by the modules that they call.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from amplify import checkpoint, dataset, distillation, evaluation, imitation, streaming
from amplify.chunks import amplify_problems
from amplify.distillation import steps_taken
from amplify.errors import AmplifyError
from amplify.evaluation import evaluate
from amplify.experiment import Experiment
from amplify.imitation import Apprentice
from amplify.items import SELECT, Items, both_measured, is_share
from amplify.labels import amplified_answers, ask_people, sample_trees, write_data
from amplify.loading import (
    abstract_state,
    learned,
    load_apprentice,
    load_assistant,
    load_overseer,
    load_weights,
    stage_key,
)
from amplify.overseers.exchanges import recording
from amplify.problems import EVALS, SPLITS, at_a_time, draw_problems
from amplify.progress import Watch
from amplify.statistics import carried_error_rate, judge
from amplify.store import RoundFolder, read_items, read_lines, write_lines
from amplify.types import HasWeights, LaysOut, Problems, Weights


def draw_weights(experiment: Experiment, this: RoundFolder) -> dict[str, Any]:
    """Round 0: untrained weights, or those that the assistant was given."""
    assistant, mesh = experiment.assistant, experiment.mesh
    params = assistant.load(mesh.of_tree) if isinstance(assistant, HasWeights) else None
    if params is None:
        key = mesh.place(jax.random.key(experiment.seed))
        there = mesh.of_tree(jax.eval_shape(assistant.init, key))  # no device draws them all
        params = jax.jit(assistant.init, out_shardings=there)(key)
    state = distillation.begin(assistant, mesh.place(params), experiment.training)
    checkpoint.save(this.checkpoint, mesh.place(state))
    return {"digest": checkpoint.digest(params)}


def draw_round(experiment: Experiment, number: int) -> Problems:
    """The problems of a round, the same whenever they are drawn."""
    asked = experiment.questions
    depths = asked.depths(number, experiment.task.max_depth)
    return draw_problems(
        experiment.task,
        experiment.seed,
        number,
        "train",
        asked.contexts,
        depths,
        apart=experiment.evals.apart,
    )


def draw_held_out(experiment: Experiment, split: str, count: int) -> Problems:
    """The first problems of a split, the same in every round."""
    task, evals = experiment.task, experiment.evals
    depths = evals.depths(task.max_depth)
    return draw_problems(task, experiment.seed, EVALS, split, count, depths, apart=evals.apart)


def write_amplified_answers(
    experiment: Experiment, best: RoundFolder, this: RoundFolder, watch: Watch
) -> dict[str, Any]:
    """Amplification: the round's questions, answered by the overseer with the best assistant's
    help; some of them by people, where people oversee.
    """
    problems = draw_round(experiment, this.number)
    params, digest = load_assistant(experiment, best)
    people = ask_people(experiment, best, this, problems, watch)
    weights = Weights(experiment.mesh.bring_here(params), load_overseer(experiment, this))
    with recording(this.path, "data") as exchanges:
        made = amplified_answers(experiment, weights, digest, problems, people, watch)
    written = write_data(this.data, this.number, digest, made)
    write_lines(this.interactions, made.trees)
    return {"digest": written, **made.facts, **exchanges.spent()}


def teach_overseer(
    experiment: Experiment, best: RoundFolder, this: RoundFolder, watch: Watch
) -> dict[str, Any]:
    """A learned overseer, from where the best round left it: demonstrations with the best
    assistant's help, and imitation of them.
    """
    params, _ = load_assistant(experiment, best)
    before = load_apprentice(experiment, best)
    known = int(jax.device_get(before.used))
    people = ask_people(experiment, best, this, draw_round(experiment, this.number), watch)
    if people is not None and people.demonstrated is not None:
        before = imitation.show(learned(experiment), before, people.demonstrated)
    apprentice = give_lessons(experiment, this, params, before, watch)
    checkpoint.save(this.overseer, apprentice)
    return describe_overseer(apprentice, known)


def give_lessons(
    experiment: Experiment,
    this: RoundFolder,
    params: PyTree[Array],
    apprentice: Apprentice,
    watch: Watch,
) -> Apprentice:
    lesson = imitation.make_lesson(experiment)
    root = experiment.mesh.place(stage_key(experiment, this, "overseer"))
    steps = learned(experiment).config.steps
    with watch("teaching the overseer", steps) as advance:
        for number in range(steps):
            apprentice = lesson(root, number, params, apprentice)
            if number % 10 == 9:
                jax.block_until_ready(apprentice.step)  # a progress bar is about what is done
                advance(10)
    return apprentice


def describe_overseer(apprentice: Apprentice, known: int) -> dict[str, Any]:
    """What a record says of it; `known` is how many demonstrations it had before the round."""
    used, loss = jax.device_get((apprentice.used, apprentice.validation_loss))
    return {
        "overseer_digest": checkpoint.digest(apprentice.params),
        "demonstrations": int(used) - known,
        "demonstrations_so_far": int(used),
        "overseer_loss": round(float(loss), 5),
    }


def distill(
    experiment: Experiment, best: RoundFolder, this: RoundFolder, watch: Watch
) -> dict[str, Any]:
    """Distillation: a child trained on the round's data, from the best assistant's weights."""
    assistant, training = experiment.assistant, experiment.training
    params, _ = load_assistant(experiment, best)
    overseer = load_overseer(experiment, this)
    with this.intact("data"):
        dataset.verify(this.data, this.record["stages"]["data"]["digest"])
        batches = dataset.batches(
            this.data,
            columns=("context", "questions", "answers"),
            batch_size=training.batch,
            seed=(experiment.seed << 32) + this.number,
            lay_out=assistant.lay_out if isinstance(assistant, LaysOut) else dict,
        )
    with (
        recording(this.path, "checkpoint") as exchanges,
        resumable_training(experiment, this, watch) as run,
    ):
        state = run(
            distillation.on_batches(assistant, training, batches, experiment.mesh),
            abstract_state(experiment),
            lambda: experiment.mesh.place(distillation.begin(assistant, params, training)),
            lambda state: (Weights(state.target, overseer), state.params),
            batches,
        )
    checkpoint.save(this.checkpoint, state, batches)
    this.drop_training()
    return {
        "digest": checkpoint.digest(state.target),
        "steps": training.steps,
        **describe_shares(experiment, state),
        **exchanges.spent(),  # by the evals along the way
    }


def describe_shares(experiment: Experiment, state: PyTree[Array]) -> dict[str, Any]:
    """How much of the state a device held, and which axes of parameters the mesh does not divide
    and so replicated, as `name length`.
    """
    mesh = experiment.mesh
    shares = mesh.shares(state)
    return {
        "state_bytes": shares.all,
        "state_bytes_per_device": shares.per_device,
        "replicated_axes": mesh.undivided(state),
    }


def stream(
    experiment: Experiment, best: RoundFolder, this: RoundFolder, watch: Watch
) -> dict[str, Any]:
    """Amplification and distillation side by side, from where the best round left off."""
    params, _ = load_assistant(experiment, best)
    apprentice = load_apprentice(experiment, best) if experiment.overseer_learns else None
    known = 0 if apprentice is None else int(jax.device_get(apprentice.used))
    size = best.record["stages"]["checkpoint"].get("size", experiment.curriculum.start)
    step = streaming.make_step(experiment)
    root = experiment.mesh.place(stage_key(experiment, this, "checkpoint"))

    def begin() -> streaming.Stream:
        first = apprentice
        if first is not None and not known:
            first = give_lessons(experiment, this, params, first, watch)
        return experiment.mesh.place(streaming.begin(experiment, params, first, size))

    with resumable_training(experiment, this, watch) as run:
        state = run(
            lambda state: step(root, state),
            experiment.mesh.place(streaming.abstract(experiment)),
            begin,
            lambda state: (state.weights, state.student.params),
        )
    sample = write_streamed_sample(experiment, this, state)
    facts = {} if state.apprentice is None else describe_overseer(state.apprentice, known)
    if state.apprentice is not None:
        checkpoint.save(this.overseer, state.apprentice)
    checkpoint.save(this.checkpoint, state.student)
    this.drop_training()
    return {
        "digest": checkpoint.digest(state.student.target),
        "steps": experiment.training.steps,
        "size": int(jax.device_get(state.growth.size)),
        **describe_shares(experiment, state),
        **sample,
        **facts,
        **count_answers(experiment, read_lines(this.metrics)),
    }


def count_answers(experiment: Experiment, log: list[dict[str, Any]]) -> dict[str, int]:
    """How many answers a streaming round took, from its training curve."""
    training = experiment.training
    batches = -(-training.steps // training.amplify_every)
    steps = np.diff([0, *(row["step"] for row in log)])
    assistants = sum(n * row["assistant_answers"] for n, row in zip(steps, log, strict=True))
    return {
        "overseer_answers": batches * training.batch * experiment.questions.per_context,
        "assistant_answers": round(float(assistants)),
    }


def write_streamed_sample(
    experiment: Experiment, this: RoundFolder, state: streaming.Stream
) -> dict[str, Any]:
    """The buffer's held-out part as a data set, and trees of the final target network."""
    task, mesh = experiment.task, experiment.mesh
    weights, buffer = mesh.bring_here((state.weights, state.buffer))
    held_out = jax.device_get(streaming.held_out(buffer))
    place = jnp.asarray(held_out["place"])
    problems = Problems(
        jnp.stack([jnp.full_like(place, this.number), place], axis=1).astype(jnp.uint32),
        jnp.asarray(held_out["context"]),
        jnp.asarray(held_out["questions"]),
    )
    [chunk, *_] = amplify_problems(
        task,
        experiment.assistant,
        experiment.overseer,
        weights,
        problems,
        experiment.seed,
        place=mesh.here.of_rows,
    )
    write_lines(this.interactions, sample_trees(experiment, problems, chunk))
    columns = {name: held_out[name] for name in ("context", "questions", "answers")}
    written = dataset.write(
        this.data,
        columns,
        name="amplified_answers",
        description=f"Round {this.number}: a sample of the streamed answers, never trained on.",
    )
    return {"data_digest": written}


Run = Callable[..., Any]


@contextlib.contextmanager
def resumable_training(experiment: Experiment, this: RoundFolder, watch: Watch) -> Iterator[Run]:
    """`run(step, like, begin, who, batches)` trains, and goes on where a killed process was.

    `like` has the shapes of the state that `begin` makes; `who` says whom to look at.
    """
    training, task = experiment.training, experiment.task
    mesh = experiment.mesh  # each process looks by itself
    looked_at = at_a_time(experiment.evals.select, evaluation.CHUNK, mesh.here.of_rows)
    problems = draw_held_out(experiment, "select", looked_at)
    problems = jax.device_put(problems, mesh.here.of_rows)
    root = mesh.here.place(jax.random.key(experiment.seed))
    this.claim_training(experiment)
    with checkpoint.training_checkpoints(this.training) as saved:

        def run(
            step: Callable[[Any], Any],
            like: Any,
            begin: Callable[[], Any],
            who: Callable[[Any], tuple[Weights, PyTree[Array]]],
            batches: grain.DatasetIterator | None = None,
        ) -> Any:
            def look(state: Any) -> dict[str, Any]:
                team = (task, experiment.assistant, experiment.overseer)
                weights, student = mesh.bring_here(who(state))
                return evaluation.look(*team, weights, student, problems, root)

            def save(state: Any, log: list[distillation.LogRow]) -> None:
                write_lines(this.metrics, log)
                saved.save(steps_taken(state), state, batches)

            log: list[distillation.LogRow] = []
            state = saved.restore(like, batches)
            if state is None:
                state = begin()
            elif taken := steps_taken(state):
                with this.intact("checkpoint"):
                    log = [row for row in read_lines(this.metrics) if row["step"] <= taken]
            with watch("distilling", training.steps) as advance:
                advance(steps_taken(state))
                state = distillation.train(
                    step, training, state, look=look, save=save, log=log, advance=advance
                )
            write_lines(this.metrics, log)
            return state

        yield run


def evaluate_held_out(experiment: Experiment, this: RoundFolder, watch: Watch) -> dict[str, Any]:
    """Evaluation: the same held-out questions in every round, in two splits that never mix."""
    evals = experiment.evals
    weights = experiment.mesh.bring_here(load_weights(experiment, this))
    items = []
    with (
        recording(this.path, "evals") as exchanges,
        watch("evaluating", evals.select + evals.final) as advance,
    ):
        for split in SPLITS:
            problems = draw_held_out(experiment, split, getattr(evals, split))
            items += evaluate(
                experiment.task,
                experiment.assistant,
                experiment.overseer,
                weights,
                problems,
                experiment.seed,
                split=split,
                advance=advance,
                place=experiment.mesh.here.of_rows,
            )
    return {
        "digest": write_lines(this.evals, [item.as_row() for item in items]),
        "items": len(items),
        **exchanges.spent(),
    }


def judge_child(experiment: Experiment, best: RoundFolder, this: RoundFolder) -> dict[str, Any]:
    """Comparison: the child against the best assistant, by the gate's measure on the same items of
    `select`.
    """
    measure = experiment.gate.measure
    before, after = comparable(best, this, measure)
    directly_before = best.number == this.number - 1
    verdict = judge(
        before.column(measure),
        after.column(measure),
        after.clusters,
        after.question,
        round_number=this.number,
        error_rate=experiment.gate.error_rate,
        worthwhile=experiment.gate.worthwhile,
        carried=carried_error_rate(best.verdict if directly_before else None),
        agreement=training_agreement(this),
    )
    return {"against": best.number, "measure": measure, **dataclasses.asdict(verdict)}


def comparable(best: RoundFolder, this: RoundFolder, measure: str) -> tuple[Items, Items]:
    """The items of `select` for which both rounds have a value of a measure, row by row the same.

    Raises AmplifyError if there are none, or values that are no shares.
    """
    before, after = (read_items(round_).only(SELECT) for round_ in (best, this))
    pairs = both_measured(before, after, measure)
    if pairs is None:
        raise AmplifyError(
            f"{this.evals}: there is no question for which this round and round {best.number} both"
            f" have the measure that the gate compares, {measure}"
        )
    if not all(is_share(items.column(measure)) for items in pairs):
        raise AmplifyError(f"{this.evals}: {measure} must be 0 to 1 for the gate to compare it")
    return pairs


def training_agreement(this: RoundFolder) -> float | None:
    """Share of its training answers that the assistant reproduced when training ended."""
    last = read_lines(this.metrics)[-1:]
    return float(last[0]["agreement"]) if last and "agreement" in last[0] else None
