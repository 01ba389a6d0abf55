"""Tiny experiments in which one assistant helps the judge of another."""

from pathlib import Path

from amplify import stages
from amplify.store import Store
from tests.tiny import JUDGED_ESSAYS, tiny_experiment

TINY_CLAIMS = """
[task]
kind = "claims"
[task.essays]
topics = 500
length = 5
families = 2
claims_per_family = 4
key_claims = 2
insights = 4
blind_family = 1
sources = 2

[assistant]
kind = "fact-transformer"
width = 16
heads = 2
encoder_layers = 0
decoder_layers = 1
copies = false

[overseer]
kind = "simulated"

[questions]
contexts = 256
per_context = 4

[training]
steps = 60
batch = 8
learning_rate = 1e-2
warmup_steps = 5
log_every = 20
checkpoint_every = 60

[evals]
select = 64
final = 24

[gate]
patience = 1
"""
HELPED = 'kind = "judge"\nlooks = 1\nhelper = "../claims"\nhelper_asks = 2'
HELPED_ESSAYS = JUDGED_ESSAYS.replace('kind = "judge"', HELPED).replace(
    "blind_family = 1", "blind_family = 1\nsources = 2"
)
CRITICISED_ESSAYS = (
    HELPED_ESSAYS[: HELPED_ESSAYS.index("[oversight]")]
    + HELPED_ESSAYS[HELPED_ESSAYS.index("[questions]") :]
    + """
[oversight]
kind = "critique"
answers = 2
"""
)


def untrained_helper(folder: Path) -> None:
    """Writes an experiment about claims whose first round counts as promoted, without training."""
    store = Store(tiny_experiment(folder, TINY_CLAIMS))
    this, trained = store.round(1), store.experiment.oversight.roles(store.experiment)
    this.begin({"parent": None})
    this.stage("initial/checkpoint", stages.initialise_roles, store.experiment, this, trained)
    this.stage("verdict", lambda: {"verdict": "promoted"})
