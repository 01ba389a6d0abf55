"""SIGKILL at twenty random moments of four rounds of the default experiment changes nothing in the
end.
"""

import shutil
from pathlib import Path

from tests.test_round import kill_and_resume, outcome

ROOT = Path(__file__).parents[2]


def test_twenty_kills_end_bit_identical(tmp_path):
    folders = []
    for name, kills in (("undisturbed", 0), ("killed", 20)):
        folder = tmp_path / name / "wildcard"
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "rounds/wildcard/experiment.toml", folder)
        done = kill_and_resume(folder, last=4, kills=kills, seed=1, between=(3.0, 12.0))
        assert done == kills
        folders.append(folder)
    undisturbed, killed = map(outcome, folders)
    assert killed == undisturbed
    print(f"\n20 kills, {len(killed)} results, all bit-identical")
