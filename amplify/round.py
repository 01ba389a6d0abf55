"""One round, from checkpoint to checkpoint: read this first.

    amplification    the best assistant so far, overseen  ->  answers, the round's data set
    distillation     the data set                         ->  a child, trained from the best
    evaluation       the child, on held-out problems      ->  what it gets right, item by item
    comparison       the child against the best           ->  promoted, rejected, inconclusive

Each stage leaves its result in the round's folder before the next begins, and what is there is not
done again: a round that was killed goes on where it was and ends as if it had not been. What the
stages do is in `stages`; `running` writes the round's report.
"""

from amplify import provenance, stages
from amplify.progress import Watch
from amplify.store import RoundFolder, Store


def run(store: Store, number: int, watch: Watch) -> RoundFolder:
    """Round `number`; the rounds before it are there. Round 0 is the untrained assistant."""
    if number == 0:
        return start(store, watch)
    experiment, best, this = store.experiment, store.best_before(number), store.round(number)
    this.begin(provenance.describe(experiment, parent=best.identity))
    best = store.parent_of(this)
    if experiment.training.targets == "streaming":  # amplification and distillation side by side
        this.stage("checkpoint", stages.stream, experiment, best, this, watch)
    else:
        if experiment.overseer_learns:
            this.stage("overseer", stages.teach_overseer, experiment, best, this, watch)
        this.stage("data", stages.write_amplified_answers, experiment, best, this, watch)
        this.stage("checkpoint", stages.distill, experiment, best, this, watch)
    this.stage("evals", stages.evaluate_held_out, experiment, this, watch)
    this.stage("verdict", stages.judge_child, experiment, best, this)
    this.note(provenance.ledger(this.record) | provenance.performance(this.training_curve()))
    this.finish()
    return this


def start(store: Store, watch: Watch) -> RoundFolder:
    """Round 0: the untrained assistant, which the first round is judged against."""
    experiment, this = store.experiment, store.round(0)
    this.begin(provenance.describe(experiment, parent=None))
    this.stage("checkpoint", stages.draw_weights, experiment, this)
    this.stage("evals", stages.evaluate_held_out, experiment, this, watch)
    this.note(provenance.ledger(this.record))
    this.finish()
    return this
