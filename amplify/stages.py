"""The stages of a round, in the order in which `round` runs them.

Each stage writes its results to the folder of the round in progress, `this` or `work.this`, and
returns what the round's record says about them: digests, facts, and the calls to overseers and
models that it took. The work itself is done in `oversight`, `training` and `evaluation`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
from jaxtyping import Array, PyTree

from amplify.evaluation.measuring import CHUNK, evaluate, evaluate_during_training, is_costly
from amplify.experiment.sections import Experiment
from amplify.files.json_lines import read_lines, write_lines
from amplify.models.abilities import layout_of, loader_of
from amplify.overseers.exchanges import Exchanges, recording
from amplify.oversight.draws import draw_held_out
from amplify.oversight.readable import describe
from amplify.oversight.restore import (
    load,
    load_carried,
    load_overseer,
    load_role,
    load_weights,
    order_seed,
    phase_key,
    role_key,
)
from amplify.oversight.work import WEIGHT, Made, Work, without_ones
from amplify.records import constant_measures
from amplify.records.record import ASSISTANT
from amplify.records.round_folder import Handle, RoundFolder
from amplify.runtime import calls, effort
from amplify.runtime.calls import Call
from amplify.runtime.progress import Watch
from amplify.tasks.problems import SPLITS, chunk_rows
from amplify.training import checkpoint, dataset
from amplify.training.loop import LogRow, steps_taken, train
from amplify.training.phase import Phase, RoleState, Trained
from amplify.training.step import TrainState, abstract_state, begin, fresh_role, make_step
from amplify.types import Roles, Task


def initialise_roles(
    experiment: Experiment, this: RoundFolder, trained: Sequence[Trained]
) -> dict[str, Any]:
    """Initialises the roles of round 0, or loads the weights that their models were given.

    Args:
        experiment: the experiment.
        this: round 0.
        trained: the roles that the experiment's phases train.
    """
    digests = {}
    for one in trained:
        params = _initial_params(experiment, one)
        state = fresh_role(one, experiment.mesh.place(params))
        folder = this.phase("initial").checkpoint(one.role)
        checkpoint.save(folder, experiment.mesh.place(state))
        digests[one.role] = checkpoint.digest(params)
    return {"digests": digests}


def _initial_params(experiment: Experiment, trained: Trained) -> PyTree[Array]:
    model, mesh = trained.model, experiment.mesh
    load_given = loader_of(model)
    params = load_given(mesh.shardings) if load_given else None
    if params is not None:
        return params
    key = mesh.place(role_key(experiment, trained.role))
    shardings = mesh.shardings(jax.eval_shape(model.init, key))  # no device holds all weights
    return jax.jit(model.init, out_shardings=shardings)(key)


def store_signal(phase: Phase, work: Work) -> dict[str, Any]:
    """Makes the signal of a phase before its training and stores it as a data set.

    Args:
        phase: the phase.
        work: the round in progress: its folder, its parent and the latest checkpoints.
    """
    stage = f"{phase.name}/data"
    with (
        recording(work.this.path, stage) as exchanges,
        calls.counting(calls.SIGNAL) as asked,
        effort.Tally() as worked,
    ):
        made: Made = work.experiment.oversight.signal(phase, work)
    costs = _costs(exchanges, asked.calls(stage)) | effort.facts(worked.counts)
    return _write_signal(phase, work, made) | costs


def _costs(exchanges: Exchanges, asked: Iterable[Call]) -> dict[str, Any]:
    return exchanges.usage() | calls.facts([*asked, *exchanges.call_counts()])


def _write_signal(phase: Phase, work: Work, made: Made) -> dict[str, Any]:
    folder = work.this.phase(phase.name)
    digest = write_data(folder.data, made, work.experiment.task)
    write_lines(folder.interactions, made.trees)
    return {"digest": digest, **made.facts}


def write_data(folder: Any, made: Made, task: Task | None = None) -> str:
    """Writes a signal's data set to a new folder; returns its digest, which depends on the rows.

    Args:
        folder: becomes the data set's folder.
        made: the signal.
        task: formats tokens as text; None: without texts, where nothing but the digest is wanted.
    """
    columns = without_ones(made.columns)
    described = None if task is None else describe(task, columns, made.descriptions)
    return dataset.write(
        folder,
        columns,
        name="amplified_answers",
        description=made.description,
        described=described,
    )


def train_roles(phase: Phase, work: Work) -> dict[str, Any]:
    """Trains the roles of a phase on its signal, resuming if a training checkpoint exists.

    Args:
        phase: the phase.
        work: the round in progress: its folder, its parent and the latest checkpoints.
    """
    experiment, this, mesh = work.experiment, work.this, work.experiment.mesh
    batches = _stored_batches(phase, work) if phase.source is None else None
    root = mesh.place(phase_key(experiment, phase.name, this.number))
    step = make_step(phase, _frozen(phase, work), root, batches, mesh)
    stage = f"{phase.name}/checkpoint"
    with recording(this.path, stage) as exchanges, calls.counting(calls.SIGNAL) as asked:
        with resumable_training(phase, work) as run:
            like = mesh.place(abstract_state(phase))
            state = run(step, like, functools.partial(_first_state, phase, work), batches)
        facts = _describe_source(phase, work, state)
    log = read_lines(this.phase(phase.name).metrics)
    counted = calls.of_training(stage, log)
    for role, trained in state.roles.items():
        checkpoint.save(this.phase(phase.name).checkpoint(role), trained)
    this.drop_training(phase.name)
    return {
        "digests": {
            role: checkpoint.digest(trained.answering) for role, trained in state.roles.items()
        },
        "steps": phase.schedule.steps,
        **describe_sharding(experiment, state),
        **facts,
        **_costs(exchanges, [*counted, *asked.calls(stage)]),
        **effort.facts(effort.of_training(log)),
    }


def _first_state(phase: Phase, work: Work) -> TrainState:
    mesh = work.experiment.mesh
    before = {one.role: _before(phase, one, work) for one in phase.trains}
    source = None
    if phase.source is not None:
        source = mesh.place(phase.source.begin(work, _carried(phase, work)))
    return mesh.place(begin(phase, before, source))


def _before(phase: Phase, trained: Trained, work: Work) -> RoleState:
    """The state that the training of a role begins with."""
    begin = {one.role: one for one in phase.begins}.get(trained.role)
    if begin is None:
        return load_role(work.experiment, trained, work.roles[trained.role])
    handle, model = work.checkpoint(begin.checkpoint), trained.model
    weights = load(work.experiment, begin.model or model, handle)
    if begin.model is not None:
        adapted: Any = model
        weights = jax.jit(adapted.begin_with)(weights)
    return fresh_role(trained, weights)


def _frozen(phase: Phase, work: Work) -> Roles:
    return {role: load(work.experiment, model, work.roles[role]) for role, model in phase.frozen}


def _carried(phase: Phase, work: Work) -> Roles:
    """Source state that earlier phases saved with the roles that this phase trains."""
    if phase.source is None:
        return {}
    return {
        role: load_carried(work.experiment, work.roles[role], abstract)
        for role, abstract in phase.source.abstract_carry().items()
        if work.roles[role].carried.exists()
    }


def _stored_batches(phase: Phase, work: Work) -> grain.DatasetIterator:
    experiment, this = work.experiment, work.this
    folder, model = this.phase(phase.name).data, phase.trains[0].model
    with this.redo_hint(f"{phase.name}/data"):
        dataset.verify(folder, this.record["stages"][f"{phase.name}/data"]["digest"])
        return dataset.batches(
            folder,
            columns=phase.columns,
            optional=(WEIGHT,),
            batch_size=phase.schedule.batch,
            seed=order_seed(experiment, phase.name, this.number),
            lay_out=layout_of(model),
        )


def _describe_source(phase: Phase, work: Work, state: TrainState) -> dict[str, Any]:
    """Saves a source's carried state and a sample of its signal; returns facts for the record."""
    source = phase.source
    if source is None:
        return {}
    folder = work.this.phase(phase.name)
    for role, tree in source.carry(state.source).items():
        checkpoint.save(folder.carry(role), tree)
    log = read_lines(folder.metrics)
    facts = source.facts(_carried(phase, work), state.source, log)
    made = source.sample(work, state.roles, state.source)
    if made is None:
        return facts
    written = _write_signal(phase, work, made)
    return facts | {"data_digest": written.pop("digest")} | written


def describe_sharding(experiment: Experiment, state: PyTree[Array]) -> dict[str, Any]:
    """Returns bytes of the training state, in all and on one device, and replicated axes.

    A parameter axis, given as "NAME LENGTH", is replicated if the mesh does not divide it.
    """
    mesh = experiment.mesh
    shares = mesh.shares(state)
    return {
        "state_bytes": shares.all,
        "state_bytes_per_device": shares.per_device,
        "replicated_axes": mesh.replicated_axes(state),
    }


Run = Callable[..., TrainState]


@contextlib.contextmanager
def resumable_training(phase: Phase, work: Work) -> Iterator[Run]:
    """Yields a function that trains a phase, resuming from its last training checkpoint.

    The function is `run(step, like, start, batches)`: the training step, the shapes of the training
    state, a function that makes the first state, and the batches of a stored signal (None: the step
    makes its own). It raises AmplifyError if the log of a killed run is damaged.
    """
    this, folder = work.this, work.this.phase(phase.name)
    this.claim_training(work.experiment, phase.name)
    trains_assistant = any(trained.role == ASSISTANT for trained in phase.trains)
    evaluate_now = _evaluator_during_training(phase, work) if trains_assistant else lambda _: {}
    with checkpoint.training_checkpoints(folder.training) as saved:

        def run(
            step: Callable[[TrainState], Any],
            like: TrainState,
            start: Callable[[], TrainState],
            batches: grain.DatasetIterator | None,
        ) -> TrainState:
            def save(state: TrainState, log: list[LogRow]) -> None:
                write_lines(folder.metrics, log)
                saved.save(steps_taken(state), state, batches)

            log: list[LogRow] = []
            state: TrainState | None = saved.restore(like, batches)
            if state is None:
                state = start()
            if taken := steps_taken(state):
                with this.redo_hint(f"{phase.name}/checkpoint"):
                    log = [row for row in read_lines(folder.metrics) if row["step"] <= taken]
            with work.watch(phase.name, phase.schedule.steps, taken) as advance:
                state = train(
                    step,
                    phase.schedule,
                    state,
                    evaluate=evaluate_now,
                    save=save,
                    log=log,
                    advance=advance,
                )
            write_lines(folder.metrics, log)
            return state

        yield run


def _evaluator_during_training(
    phase: Phase, work: Work
) -> Callable[[TrainState], Mapping[str, Any]]:
    """Evaluates the assistant on held-out problems of `select`, in each process separately.

    A costly overseer is asked only if the experiment file says so.
    """
    experiment, mesh = work.experiment, work.experiment.mesh
    count = chunk_rows(experiment.evals.select, CHUNK, mesh.here.row_sharding)
    problems = draw_held_out(experiment, "select", count)
    problems = jax.device_put(problems, mesh.here.row_sharding)
    root = mesh.here.place(jax.random.key(experiment.seed))
    learns = any(trained.role == "overseer" for trained in phase.trains)
    asks = experiment.evals.ask_during_training or not is_costly(experiment.overseer)
    overseer = load_overseer(experiment, work.roles) if asks and not learns else None

    def evaluate_now(state: TrainState) -> Mapping[str, Any]:
        roles: dict[str, RoleState] = state.roles
        both = (roles[ASSISTANT].answering, roles[ASSISTANT].params)
        assistant, student = mesh.bring_here(both)
        params = mesh.bring_here(roles["overseer"].answering) if learns else overseer
        team = (experiment.task, experiment.assistant, experiment.overseer)
        weights = {"assistant": assistant, "overseer": params}
        with calls.counting(calls.LOOKS) as asked:
            means = evaluate_during_training(*team, weights, student, problems, root, asks=asks)
        return {**means, "look_calls": dict(asked.counts)}

    return evaluate_now


def evaluate_held_out(
    experiment: Experiment, this: RoundFolder, roles: Mapping[str, Handle], watch: Watch
) -> dict[str, Any]:
    """Evaluates the assistant on the held-out problems, which are the same in every round."""
    evals = experiment.evals
    weights = load_weights(experiment, roles)
    copied = constant_measures.find(experiment, this)
    own = getattr(experiment.oversight, "measure_held_out", None)
    also = None if own is None else functools.partial(own, experiment, weights)
    items = []
    with (
        recording(this.path, "evals") as exchanges,
        calls.counting(calls.EVALS) as asked,
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
                skip=copied.names,
                advance=advance,
                place=experiment.mesh.here.row_sharding,
                also=also,
            )
    items = copied.fill_in(items)
    return {
        "digest": write_lines(this.evals, [item.as_row() for item in items]),
        "items": len(items),
        **constant_measures.sources(experiment, this, copied, exchanges.count_unanswered()),
        **_costs(exchanges, asked.calls("evals")),
    }
