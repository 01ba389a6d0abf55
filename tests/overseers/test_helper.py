"""A judge who asks a helper: what it learns, what that costs, and which helpers are refused."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify.__main__ import main
from amplify.errors import AmplifyError
from amplify.models.fact_transformer import FactTransformer, FactTransformerConfig
from amplify.overseers.helper import Helper
from amplify.overseers.judge import Judge, JudgeConfig
from amplify.reading.experiment_file import read_experiment, runs_own_code
from amplify.reading.ready import check_ready
from amplify.runtime.effort import of_record
from amplify.store import Store
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.batching import vmap_questions
from amplify.tasks.essays.claims import Claims
from amplify.tasks.essays.task import Essays
from amplify.types import Answers
from tests.helpers import HELPED_ESSAYS, TINY_CLAIMS
from tests.tasks.test_essays import drafts, gold
from tests.tiny import tiny_experiment

TASK = Essays(sources=3, blind_family=-1)
ASKS_ABOUT_ALL = JudgeConfig(
    looks=0, credulity=0.0, noise=0.0, errors=0.0, trust="believe", helper="x", helper_asks=12
)


@dataclasses.dataclass(frozen=True)
class Knows(FactTransformer):
    """An assistant that has nothing to learn about claims; or says that all are right."""

    trusting: bool = False

    def encode(self, params, contexts):
        return contexts

    def answer(self, params, memory, questions, keys):
        truth = vmap_questions(self.task.truth)(memory, questions)
        right = jnp.full_like(truth, self.task.vocabulary.index("right"))
        return Answers(right if self.trusting else truth, jnp.zeros(truth.shape[:-1]))


def judge(config: JudgeConfig, trusting: bool = False, task: Essays = TASK) -> Judge:
    claims = Claims(dataclasses.replace(task, topics=9))
    helper = Helper(claims, Knows(FactTransformerConfig(), claims, trusting), Path(), "")
    return Judge(task, config).with_helper(helper)


def scores(judge: Judge, contexts, essays):
    asked = jnp.ones((len(essays), 1, 1), jnp.int32)
    keys = jax.random.split(jax.random.key(0), (len(essays), 1))
    score = jax.jit(lambda *of: judge.score({"overseer": {}}, *of))
    found = score(contexts, asked, essays[:, None], keys)
    return jax.tree.map(lambda part: np.asarray(part)[:, 0], found)


def test_a_judge_who_believes_a_helper_that_knows_sees_gold_without_looking():
    contexts, essays = drafts(TASK, 100)
    found = scores(judge(ASKS_ABOUT_ALL), contexts, essays)
    np.testing.assert_allclose(found.value, gold(TASK, contexts, essays), rtol=1e-4, atol=1e-4)
    distinct = [len(set(essay)) for essay in essays.tolist()]
    assert found.asks.tolist() == distinct, "a repeated claim is asked about once"
    assert not found.looks.any()


def test_no_claim_of_the_blind_family_is_asked_about():
    task = dataclasses.replace(TASK, blind_family=0)
    contexts, essays = drafts(task, 100)
    found = scores(judge(ASKS_ABOUT_ALL, task=task), contexts, essays)
    blind = range(1, 1 + task.claims_per_family)
    seen = [[claim for claim in essay if claim not in blind] for essay in essays.tolist()]
    assert found.asks.tolist() == [len(set(essay)) for essay in seen]


def test_who_asks_less_knows_less_and_pays_less():
    contexts, essays = drafts(TASK, 500)
    truth = np.asarray(gold(TASK, contexts, essays))
    errors, asks = [], []
    for number in (1, 4, 12):
        found = scores(
            judge(dataclasses.replace(ASKS_ABOUT_ALL, helper_asks=number)), contexts, essays
        )
        errors.append(float(np.mean((found.value - truth) ** 2)))
        asks.append(int(found.asks.max()))
    assert errors[0] > errors[1] > errors[2]
    assert asks == [1, 4, 12]


def test_who_verifies_looks_where_the_helper_points_and_is_not_fooled_by_one_that_praises():
    task = dataclasses.replace(TASK, topics=500)
    contexts, essays = drafts(task, 500)
    truth = np.asarray(gold(task, contexts, essays))

    def correlation(trust: str, trusting: bool) -> float:
        config = dataclasses.replace(ASKS_ABOUT_ALL, trust=trust, looks=4)
        found = scores(judge(config, trusting, task), contexts, essays)
        return float(np.corrcoef(found.value, truth)[0, 1])

    pointed, praised = correlation("verify", False), correlation("verify", True)
    assert pointed > praised + 0.05, "the helper points at flaws"
    assert praised > correlation("believe", True) + 0.05, "all claims are said to be right"


def helped(folder: Path, claims: str = TINY_CLAIMS, essays: str = HELPED_ESSAYS) -> Path:
    tiny_experiment(folder / "claims", claims)
    return tiny_experiment(folder / "essays", essays)


@pytest.mark.parametrize(
    ("claims", "essays", "said"),
    [
        (TINY_CLAIMS, HELPED_ESSAYS.replace("../claims", "../clams"), "clams: no such folder"),
        (TINY_CLAIMS, HELPED_ESSAYS.replace("../claims", "../claims/007"), "007: no such folder"),
        (
            TINY_CLAIMS,
            HELPED_ESSAYS.replace("helper_asks = 2", "critic = 0.5"),
            "overseer.critic must be 0 if there is a helper, got 0.5",
        ),
        (TINY_CLAIMS, HELPED_ESSAYS.replace("helper_asks = 2", "helper_asks = 0"), "helper_asks"),
        (
            TINY_CLAIMS,
            HELPED_ESSAYS.replace("reviews = 200", 'reviews = 200\nreward = "judge"'),
            'needs overseer.kind = "judge", without a helper',
        ),
    ],
)
def test_a_helper_that_cannot_help_is_refused_in_one_line(claims, essays, said, tmp_path):
    folder = helped(tmp_path, claims, essays)
    with pytest.raises(AmplifyError, match=said) as found:
        read_experiment(folder / "experiment.toml")
    assert "\n" not in str(found.value)


def test_no_round_is_run_with_a_helper_that_cannot_help_yet(tmp_path):
    folder = helped(tmp_path)
    experiment = read_experiment(folder / "experiment.toml")
    with pytest.raises(AmplifyError, match=r"claims: none of its rounds was promoted.*--n 1"):
        check_ready(experiment, folder / "experiment.toml")


def test_answers_of_which_no_part_can_be_asked_about_get_no_helper():
    with pytest.raises(ValueError, match="helper needs a task"):
        JudgeConfig(helper="../claims").build(Permutation(4, 3))


@pytest.mark.slow
def test_a_helper_without_rounds_is_trained_first_and_then_helps(tmp_path, capsys):
    folder = helped(tmp_path)
    main(["round", str(folder), "--n", "1"])
    said = capsys.readouterr().err
    assert f"{folder} needs the help of {tmp_path / 'claims'}" in said
    claims, essays = Store(tmp_path / "claims"), Store(folder)
    best = max(n for n in claims.rounds() if n and claims.round(n).verdict["verdict"] == "promoted")
    digest = claims.round(best).roles()["assistant"].digest
    record = essays.round(1).record
    assert record["experiment"]["overseer.helper"] == "../claims"
    assert record["experiment"]["overseer.helper (content)"] == digest
    effort = of_record(record)
    assert effort["comparison"] == 200
    assert 0 < effort["ask"] <= 200 * 2 * 2
    assert 0 < effort["look"] <= 200 * 2

    main(["round", str(folder), "--n", "1"])
    assert "needs the help" not in capsys.readouterr().err

    text = (folder / "experiment.toml").read_text()
    other = tiny_experiment(tmp_path / "other", text.replace("families = 2", "families = 4"))
    with pytest.raises(SystemExit, match="2"):
        main(["round", str(other), "--n", "1"])
    line = capsys.readouterr().err
    assert "overseer.helper must be an experiment of task.kind" in line
    assert line.count("\n") == 1


def test_experiments_that_help_each_other_are_refused(tmp_path):
    folder = helped(tmp_path, essays=HELPED_ESSAYS)
    (tmp_path / "claims" / "experiment.toml").write_text(
        HELPED_ESSAYS.replace("../claims", "../essays")
    )
    for name in ("claims", "essays"):
        record = tmp_path / name / "001" / "record.json"
        record.parent.mkdir()
        stages = (
            '{"verdict": {"verdict": "promoted"}, "d/checkpoint": {"digests": {"assistant": "x"}}}'
        )
        record.write_text('{"round": 1, "layout": 2, "stages": ' + stages + "}")
    with pytest.raises(AmplifyError, match="this experiment helps that one"):
        read_experiment(folder / "experiment.toml")
    assert not runs_own_code(folder / "experiment.toml")
