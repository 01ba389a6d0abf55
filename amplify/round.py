"""One round, from checkpoint to checkpoint. Read this file first.

A round makes the assistant of round n into that of round n+1:

    phases        an experiment's oversight divides the round into phases; each phase has
      data          a signal: overseers, helped by the best models so far, turn questions into rows
      checkpoint    training: the phase's roles (models with their own weights) train on the signal
    evals         the new assistant answers held-out questions; every item is kept
    verdict       a paired test against the best round so far: promoted, rejected or inconclusive

In iterated amplification, the default, the assistant of the best round answers the overseer's
sub-questions, and the next assistant is trained to give the overseer's answers by itself. Other
kinds of oversight have other phases, but this page stays the same. Phases are requested one at a
time, so a phase may depend on the results of earlier ones.

Each stage writes its results to the round's folder and records them before the next stage begins. A
stage that is recorded is not run again, so a killed round resumes where it stopped and ends with
the same result. `stages` and `judging` implement the stages, `store` finds the rounds of an
experiment, and `launch` calls `run`.
"""

from amplify import judging, stages
from amplify.oversight.work import Work
from amplify.records import provenance
from amplify.records.round_folder import RoundFolder
from amplify.runtime.progress import Watch
from amplify.store import Store


def run(store: Store, number: int, watch: Watch) -> RoundFolder:
    """Runs round `number`, or resumes it.

    Args:
        store: the experiment's folder, which must contain all earlier rounds.
        number: 0 or more; round 0 is the untrained one, see `start`.
        watch: reports progress.

    Returns:
        The finished round.

    Raises:
        AmplifyError: if an earlier round is missing or has changed.
    """
    if number == 0:
        return start(store, watch)
    experiment, best, this = store.experiment, store.best_before(number), store.round(number)
    this.begin(provenance.describe(experiment, parent=best.identity))
    best = store.parent_of(this)
    roles = store.roles(best)
    for phase in experiment.oversight.phases(experiment, this):
        work = Work(experiment, this, best, roles, watch)
        if phase.source is None:
            this.stage(f"{phase.name}/data", stages.store_signal, phase, work)
        if phase.trains:
            this.stage(f"{phase.name}/checkpoint", stages.train_roles, phase, work)
        roles |= this.roles()
    this.stage("evals", stages.evaluate_held_out, experiment, this, roles, watch)
    this.stage("verdict", judging.judge_round, experiment, best, this)
    this.update_record(
        provenance.ledger(this.record) | provenance.performance(this.training_curve())
    )
    this.finish()
    return this


def start(store: Store, watch: Watch) -> RoundFolder:
    """Runs round 0, or resumes it: initialises every role and evaluates the untrained assistant.

    Args:
        store: the experiment's folder.
        watch: reports progress.

    Returns:
        The finished round, which has no parent and no verdict.
    """
    experiment, this = store.experiment, store.round(0)
    this.begin(provenance.describe(experiment, parent=None))
    trained = experiment.oversight.roles(experiment)
    this.stage("initial/checkpoint", stages.initialise_roles, experiment, this, trained)
    this.stage("evals", stages.evaluate_held_out, experiment, this, this.roles(), watch)
    this.update_record(provenance.ledger(this.record))
    this.finish()
    return this
