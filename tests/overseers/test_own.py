"""An overseer of one's own, in a file beside the experiment's."""

import json

import pytest

from amplify.cli.commands import main
from tests.tiny import TOML, tiny_experiment

OWN = '''
import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Mine:
    def build(self, task):
        return Follows(task)


@dataclasses.dataclass(frozen=True)
class Follows:
    """Follows the task's strategy, in Python."""

    task: object

    traced = False
    replayable = False

    def using(self, params=None):
        def strategy(questions, keys):
            assert not isinstance(questions, jax.core.Tracer)
            return (yield from self.task.strategy(questions))

        return strategy
'''
OWN_TOML = TOML.replace('kind = "simulated"', 'kind = "mine.py:Mine"')


def own_experiment(folder, code: str = OWN, toml: str = OWN_TOML):
    tiny_experiment(folder, toml)
    (folder / "mine.py").write_text(code, encoding="utf-8")
    return folder


def test_one_that_runs_in_python_makes_the_data_of_the_same_thoughts_compiled(tmp_path):
    folders = own_experiment(tmp_path / "own"), tiny_experiment(tmp_path / "simulated")
    digests = []
    for folder in folders:
        main(["round", str(folder), "--n", "1"])
        record = json.loads((folder / "001/record.json").read_text(encoding="utf-8"))
        digests.append(
            [record["stages"][stage]["digest"] for stage in ("distillation/data", "evals")]
        )
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("change", "toml", "said"),
    [
        (("    traced = False\n", ""), OWN_TOML, "mine.py:Mine: what build returned lacks traced"),
        (("traced = False", "traced = 3"), OWN_TOML, "traced must be True or False, got 3"),
        (("def using", "def use"), OWN_TOML, "what build returned lacks using"),
        (
            ("", ""),
            OWN_TOML.replace("[training]", '[training]\ntargets = "streaming"'),
            'training.targets must be "stored" for an overseer that is not traced',
        ),
    ],
)
def test_what_cannot_oversee_is_one_clear_line(change, toml, said, tmp_path, capsys):
    folder = own_experiment(tmp_path / "own", OWN.replace(*change), toml)
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(folder), "--n", "1"])
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
