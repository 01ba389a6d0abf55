"""One round, from checkpoint to checkpoint: read this first.

    signal        models that the best round left, overseen  ->  rows to train on
    training      a phase's signal                           ->  the roles that it trains
    evaluation    the new assistant, on held-out problems    ->  what it gets right, item by item
    comparison    the new assistant against the best         ->  promoted, rejected, inconclusive

What kind of oversight an experiment has decides which phases a round has; a phase may depend on
what those before it left, and is asked for only then. Each stage leaves its
result in the round's folder before the next begins, and what is there is not done again: a round
that was killed goes on where it was and ends as if it had not been. What the stages do is in
`stages`; `launch` writes the round's report.
"""

from amplify import stages
from amplify.oversight.work import Work
from amplify.records import provenance
from amplify.records.round_folder import RoundFolder
from amplify.runtime.progress import Watch
from amplify.store import Store


def run(store: Store, number: int, watch: Watch) -> RoundFolder:
    """Round `number`; the rounds before it are there."""
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
    this.stage("verdict", stages.judge_child, experiment, best, this)
    this.note(provenance.ledger(this.record) | provenance.performance(this.training_curve()))
    this.finish()
    return this


def start(store: Store, watch: Watch) -> RoundFolder:
    """Round 0: the untrained roles, of which the first round trains some further."""
    experiment, this = store.experiment, store.round(0)
    this.begin(provenance.describe(experiment, parent=None))
    trained = experiment.oversight.roles(experiment)
    this.stage("initial/checkpoint", stages.initialise_roles, experiment, this, trained)
    this.stage("evals", stages.evaluate_held_out, experiment, this, this.roles(), watch)
    this.note(provenance.ledger(this.record))
    this.finish()
    return this
