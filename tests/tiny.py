"""A tiny experiment, a few seconds a round, for tests that run whole rounds."""

import shutil
from pathlib import Path

TOML = """
[task]
kind = "wildcard"
letters = 3

[assistant]
kind = "fact-transformer"
width = 16
heads = 2
encoder_layers = 0
decoder_layers = 1

[overseer]
kind = "simulated"

[questions]
contexts = 96
per_context = 4

[training]
steps = 60
batch = 8
learning_rate = 1e-2
warmup_steps = 5
log_every = 10
checkpoint_every = 20

[evals]
select = 24
final = 24
"""

DEBATED = (
    TOML.replace('kind = "wildcard"\nletters = 3', 'kind = "permutation"\nsymbols = 4\nbits = 3')
    + """
[oversight]
kind = "debate"
statements = 8
"""
)

JUDGED_ESSAYS = """
[task]
kind = "essays"
length = 5
families = 2
claims_per_family = 4
key_claims = 2
insights = 4
blind_family = 1

[assistant]
kind = "fact-transformer"
width = 16
heads = 2
encoder_layers = 0
decoder_layers = 1
copies = false

[overseer]
kind = "judge"

[oversight]
kind = "reward-model"
reviews = 200
fitting_batch = 32

[oversight.reward_model]
members = 2
width = 16

[oversight.fitting]
steps = 60
learning_rate = 1e-2
weight_decay = 0.1

[oversight.drafts]
steps = 60
learning_rate = 1e-2

[questions]
contexts = 64
per_context = 4

[training]
steps = 20
batch = 8
learning_rate = 1e-2
target_horizon = 1
log_every = 10
look_every = 10
checkpoint_every = 10

[evals]
select = 64
final = 64
per_depth = 1

[gate]
measure = "beats_draft"
worthwhile = 0.2
"""


AUDITED_ESSAYS = JUDGED_ESSAYS.replace(
    "[oversight.reward_model]",
    "[oversight.audit]\nevery = 8\nanswers = 64\n\n[oversight.reward_model]",
)
EXPERT_ESSAYS = JUDGED_ESSAYS.replace(
    "reviews = 200",
    'reviews = 200\nmethod = "expert-iteration"\n'
    "expert_iteration = { samples = 4, iterations = 2 }",
)
REVIEWED_ESSAYS = JUDGED_ESSAYS.replace(
    'kind = "judge"\n',
    'kind = "human"\npeople = "simulated"\nreviewed = 0.2\n'
    "[overseer.crowd]\npeople = 4\nskips = 0.1\nseconds = 0.02\n",
).replace("reviews = 200", "reviews = 60")
AUDITED_BY_PEOPLE = REVIEWED_ESSAYS.replace(
    "[oversight.reward_model]",
    "[oversight.audit]\nevery = 10\nanswers = 64\nreviews = 24\ncheck_reviews = 16\n\n"
    "[oversight.reward_model]",
)
"""People compare answers, and then score some in audits."""


def tiny_experiment(folder: Path, toml: str = TOML) -> Path:
    folder.mkdir(parents=True)
    (folder / "experiment.toml").write_text(toml, encoding="utf-8")
    return folder


def shipped(folder: Path, *names: str) -> None:
    """Copies files of experiments in `rounds/`, without rounds, to a folder of a test."""
    for name in names:
        (folder / name).mkdir()
        for file in (Path(__file__).parents[1] / "rounds" / name).glob("*.toml"):
            shutil.copy(file, folder / name)
