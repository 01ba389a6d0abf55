"""A tiny experiment, a few seconds a round, for tests that run whole rounds."""

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


def tiny_experiment(folder: Path, toml: str = TOML) -> Path:
    folder.mkdir(parents=True)
    (folder / "experiment.toml").write_text(toml, encoding="utf-8")
    return folder
