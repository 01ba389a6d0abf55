"""Human effort: what simulated people do is counted, and priced by `[prices]`."""

import dataclasses

import jax
import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.experiment.sections import Prices
from amplify.oversight.draws import draw_round
from amplify.oversight.make_data import amplified_answers
from amplify.reading.experiment_file import read_experiment, read_prices
from amplify.report import efforts
from amplify.report.group_rows import read_groups
from amplify.runtime import effort
from amplify.runtime.progress import unwatched
from amplify.store import Store
from tests.tiny import AUDITED_ESSAYS, DEBATED, JUDGED_ESSAYS, TOML, tiny_experiment

LEARNED = TOML.replace('kind = "simulated"', 'kind = "learned"\nwidth = 16\nheads = 2\nlayers = 1')
STATEMENTS = 5 * 3
"""Of an essay of five claims."""


def effort_of(folder, number: int = 1) -> dict[str, int]:
    return Store(folder).round(number).record["ledger"]["effort"]


def test_actions_are_counted_by_the_innermost_tally_only():
    effort.count(effort.LOOK, 3)
    with effort.Tally() as outer, effort.Tally() as inner:
        effort.count(effort.LOOK, 3)
        effort.count_all({effort.LOOK: 1, effort.ASK: jax.numpy.arange(3)})
    assert (inner.counts, outer.counts) == ({"look": 4, "ask": 3}, {})
    assert effort.facts(inner.counts) == {"effort": {"look": 4, "ask": 3}}
    assert effort.facts({"look": 0}) == {}


def test_actions_in_a_training_log_and_in_stages_are_summed():
    log = [{"step": 5, "effort/look": 2, "calls/judge": 9}, {"step": 9, "effort/look": 4}]
    assert effort.of_training(log) == {"look": 6}
    stages = {"a/data": {"effort": {"score": 2, "read": 3}}, "b/data": {"effort": {"read": 4}}}
    assert effort.of_record({"stages": stages | {"evals": {}}}) == {"read": 7, "score": 2}
    assert effort.of_record({}) == {}


def test_every_action_has_a_price():
    assert {field.name for field in dataclasses.fields(Prices)} == {*effort.ACTIONS}
    assert Prices().seconds({}) == 0
    assert Prices(look=20.0, ask=7.5).seconds({"look": 3, "ask": 2}) == 75


@pytest.mark.parametrize(
    ("prices", "said"),
    [("look = -1", "prices.look"), ("glance = 3", "glance"), ('ask = "ten"', "prices.ask")],
)
def test_prices_are_checked(tmp_path, prices: str, said: str):
    file = tiny_experiment(tmp_path / "tiny", f"{TOML}\n[prices]\n{prices}\n") / "experiment.toml"
    for read in (read_experiment, read_prices):
        with pytest.raises(AmplifyError, match=said) as error:
            read(file)
        assert "\n" not in str(error.value)


def test_prices_are_no_part_of_the_identity(tmp_path):
    files = [
        tiny_experiment(tmp_path / name, TOML + more) / "experiment.toml"
        for name, more in (("plain", ""), ("priced", "\n[prices]\nlook = 7\n"))
    ]
    plain, priced = map(read_experiment, files)
    assert plain.digest == priced.digest
    assert (plain.prices.look, priced.prices.look) == (20, 7)
    assert priced.prices == read_prices(files[1])


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        # A pattern with one wildcard is the sum of two that have none, which are looked up.
        (1, {"look": 768, "answer": 384}),
        # In round 2, half of the patterns have two: the assistant is asked for their halves.
        (2, {"look": 384, "ask": 384, "answer": 384}),
    ],
)
def test_a_simulated_overseer_answers_looks_and_asks(tmp_path, number: int, expected):
    experiment = read_experiment(tiny_experiment(tmp_path / "tiny") / "experiment.toml")
    weights = {"assistant": experiment.assistant.init(jax.random.key(0)), "overseer": None}
    problems = draw_round(experiment, number)
    with effort.Tally() as worked:
        amplified_answers(experiment, number, weights, "", problems, None, unwatched)
    assert effort.facts(worked.counts)["effort"] == expected


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tiny_experiment(tmp_path_factory.mktemp("learned") / "tiny", LEARNED)
    main(["round", str(folder), "--n", "1"])
    return folder


@pytest.mark.slow
def test_of_an_overseer_that_learns_only_demonstrations_are_human_work(learned):
    """More are made than the budget has room for in the last batch, as the ledger's calls have
    it.
    """
    ledger = Store(learned).round(1).record["ledger"]
    [made] = [row["calls"] for row in ledger["calls"] if row["part"] == "demonstrator"]
    assert ledger["effort"] == {"demonstration": made}
    assert made >= ledger["demonstrations"] > 0


@pytest.mark.slow
def test_streaming_counts_demonstrations_and_a_simulated_overseers_answers(tmp_path):
    streaming = '[training]\ntargets = "streaming"\nlook_every = 10'
    for name, toml in (("learned", LEARNED), ("simulated", TOML)):
        folder = tiny_experiment(tmp_path / name, toml.replace("[training]", streaming))
        main(["round", str(folder), "--n", "1"])
        ledger = Store(folder).round(1).record["ledger"]
        if name == "learned":
            assert [*ledger["effort"]] == ["demonstration"]
        else:
            assert ledger["effort"]["answer"] == ledger["overseer_answers"] == 60 * 8 * 4
            assert ledger["effort"]["look"] + ledger["effort"]["ask"] == 2 * 60 * 8 * 4


@pytest.mark.slow
def test_a_judge_reads_checks_and_compares(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", JUDGED_ESSAYS)
    main(["round", str(folder), "--n", "1"])
    found = effort_of(folder)
    assert found["comparison"] == 200
    assert found["read"] == 200 * 2 * STATEMENTS
    assert 200 * 2 * 3 <= found["look"] <= found["read"]  # a repeated claim is checked once
    assert {*found} == {"comparison", "read", "look"}
    axis = efforts.effort(read_groups([Store(folder)]))
    prices = 5 * 200 + 3 * found["read"] + 20 * found["look"]
    assert axis.title.startswith("simulated human work, in ")
    assert "No people took part" in axis.note
    assert "read 3, look 20, comparison 5" in axis.note
    unit = {"hours": 3600, "minutes": 60, "seconds": 1, "days": 86400}[axis.title.split()[-1]]
    assert axis.lines[0] == pytest.approx([0, prices / unit])


@pytest.mark.slow
def test_a_judge_with_few_looks_makes_no_more(tmp_path):
    toml = JUDGED_ESSAYS.replace('kind = "judge"', 'kind = "judge"\nlooks = 2')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    main(["round", str(folder), "--n", "1"])
    assert effort_of(folder)["look"] == 200 * 2 * 2


@pytest.mark.slow
def test_audits_are_scores(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", AUDITED_ESSAYS)
    main(["round", str(folder), "--n", "1"])
    stages = Store(folder).round(1).record["stages"]
    audits = [one for name, one in stages.items() if name.startswith(("audit_", "check_"))]
    assert audits
    for one in audits:
        found = one["effort"]
        assert found["score"] == one["reviews"]
        assert found["read"] == one["reviews"] * STATEMENTS
        assert 0 < found["look"] <= found["read"]


@pytest.mark.slow
def test_a_judge_who_rewards_every_answer_is_charged_for_each(tmp_path):
    toml = JUDGED_ESSAYS.replace("reviews = 200", 'reviews = 200\nreward = "judge"')
    folder = tiny_experiment(tmp_path / "tiny", toml)
    main(["round", str(folder), "--n", "1"])
    found = Store(folder).round(1).record["stages"]["reinforcement/checkpoint"]["effort"]
    assert found["score"] == 20 * 8 * 4
    assert found["read"] == found["score"] * STATEMENTS


@pytest.mark.slow
def test_a_judge_of_debates_hears_statements_and_looks_once_at_most(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny", DEBATED)
    main(["round", str(folder), "--n", "1"])
    this = Store(folder).round(1)
    agreed = this.record["stages"]["arguments_1/data"]["arguments"]["agreed"]
    found = effort_of(folder)
    assert found["comparison"] == round((1 - agreed) * 96 * 4)
    assert 0 < found["look"] <= found["comparison"]
    assert found["read"] >= 2 * found["comparison"]
