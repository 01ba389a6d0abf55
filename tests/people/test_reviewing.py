"""People who compare two answers on the pages, from questions to the reward model's data."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify import replay
from amplify.cli.commands import main
from amplify.crowd.page_reader import Page
from amplify.crowd.simulated_policy import Action, review
from amplify.errors import AmplifyError
from amplify.overseers.habits import CrowdConfig, Habits
from amplify.people.impressions import read_impressions, write_impressions
from amplify.people.items import RoundStage
from amplify.people.log import EVENTS, Log
from amplify.people.rules import Queue, adjudicate
from amplify.people.trees import read_trees
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.task_abilities import choices_of, knows_truth
from amplify.tasks.essays.task import Essays
from amplify.tasks.reviews import Reviewing
from amplify.training import dataset
from amplify.types import Task
from amplify.words import format_tokens, read_answer, read_question
from tests.people.killing import events, kill_after
from tests.tiny import REVIEWED_ESSAYS, tiny_experiment

ESSAYS = Essays(length=5, families=2, claims_per_family=4, key_claims=2, blind_family=-1)
TASK = Reviewing(ESSAYS)


def drawn(seed: int = 0):
    keys = jax.random.split(jax.random.key(seed))
    context = TASK.draw_context(keys[0])
    return context, TASK.draw_question(keys[1], context, jnp.int32(1))


def test_a_comparison_shows_the_question_and_both_answers_on_lines_of_their_own():
    assert isinstance(TASK, Task)
    _, question = drawn()
    lines = format_tokens(TASK, np.asarray(question)).split("\n")
    answers = [format_tokens(ESSAYS, np.asarray(part)) for part in (question[1:6], question[6:])]
    assert lines == [
        "Which answer is better?",
        "Question: write",
        f"A: {answers[0]}",
        f"B: {answers[1]}",
    ]


def test_padding_at_the_end_of_an_answer_is_not_shown():
    _, question = drawn()
    short = np.asarray(question.at[3:6].set(0).at[7:].set(0))
    _, _, first, second = format_tokens(TASK, short).split("\n")
    assert first == f"A: {format_tokens(ESSAYS, short[1:6])}"
    assert second == f"B: {format_tokens(ESSAYS, short[6:])}"


def test_the_answer_is_one_of_two_choices_and_nobody_knows_the_right_one():
    assert choices_of(TASK) == ("A", "B")
    assert not knows_truth(TASK)
    first, second = (int(read_answer(TASK, name)[0]) for name in ("A", "B"))
    assert (first, second) == (len(ESSAYS.vocabulary), len(ESSAYS.vocabulary) + 1)
    assert format_tokens(TASK, np.array([second])) == "B"
    with pytest.raises(AmplifyError, match="nobody types a review"):
        read_question(TASK, "Which answer is better?")


def test_equal_answers_leave_nothing_to_ask():
    context, question = drawn()
    equal = question.at[6:].set(question[1:6])
    both = jnp.stack([question, equal])
    assert TASK.is_primitive(both).tolist() == [False, True]
    assert TASK.class_of(context, question) == ESSAYS.class_of(context, question[:1])


def page(text: str = "A or B?", item: str = "7") -> Page:
    return Page(item=item, question=text, choices=["A", "B"])


def test_whoever_looks_prefers_what_seems_better():
    person = Habits(CrowdConfig(), "person-01")
    for seem, better in (((1.0, 2.0), "B"), ((2.0, -1.0), "A")):
        assert review({"A or B?": seem}, person, page()) == Action("submit", better)
        wrong = Habits(CrowdConfig(error_rate=1.0), "person-01")
        assert review({"A or B?": seem}, wrong, page()).text != better
    assert review({}, person, page()).form == "skip"
    assert review({"A or B?": (1.0, 2.0)}, Habits(CrowdConfig(skips=1.0), "p"), page()).form == (
        "skip"
    )


@pytest.mark.parametrize(
    ("config", "seem"), [(CrowdConfig(), (1.0, 1.0)), (CrowdConfig(laziness=1.0), (1.0, 2.0))]
)
def test_whoever_sees_no_difference_or_does_not_look_prefers_either(config, seem):
    person = Habits(config, "person-01")
    said = [review({"A or B?": seem}, person, page(item=str(n))).text for n in range(200)]
    assert 70 < said.count("A") < 130


def test_the_best_of_several_answers_is_asked_for_by_name():
    several = Reviewing(ESSAYS, 3)
    context = several.draw_context(jax.random.key(0))
    question = several.draw_question(jax.random.key(1), context, jnp.int32(1))
    lines = format_tokens(several, np.asarray(question)).split("\n")
    assert lines[0] == "Which answer is best?"
    assert [line[:3] for line in lines[2:]] == ["A: ", "B: ", "C: "]
    assert choices_of(several) == ("A", "B", "C")
    two_equal = question.at[6:11].set(question[1:6])
    all_equal = two_equal.at[11:].set(question[1:6])
    found = several.is_primitive(jnp.stack([question, two_equal, all_equal]))
    assert found.tolist() == [False, False, True]


def test_one_answer_is_scored():
    one = Reviewing(ESSAYS, 1)
    context = one.draw_context(jax.random.key(0))
    question = one.draw_question(jax.random.key(1), context, jnp.int32(1))
    lines = format_tokens(one, np.asarray(question)).split("\n")
    assert lines[0] == "How good is this answer, from 0 to 10?"
    assert lines[2] == f"Answer: {format_tokens(ESSAYS, np.asarray(question[1:]))}"
    assert choices_of(one) == tuple(str(score) for score in range(11))
    assert int(read_answer(one, "10")[0]) == len(ESSAYS.vocabulary) + 10
    assert not one.is_primitive(question)


def test_whoever_looks_at_several_answers_chooses_the_one_that_seems_best():
    person, three = Habits(CrowdConfig(), "person-01"), ["A", "B", "C"]
    seen = Page(item="7", question="Which?", choices=three)
    assert review({"Which?": (1.0, 3.0, 2.0)}, person, seen) == Action("submit", "B")
    wrong = Habits(CrowdConfig(error_rate=1.0), "person-01")
    items = [dataclasses.replace(seen, item=str(n)) for n in range(60)]
    said = [review({"Which?": (1.0, 3.0, 2.0)}, wrong, page).text for page in items]
    assert {*said} == {"A", "C"}
    said = [review({"Which?": (3.0, 3.0, 2.0)}, person, page).text for page in items]
    assert {*said} == {"A", "B"}


@pytest.mark.parametrize(
    ("seem", "score"), [(0.0, "5"), (1.0, "7"), (-1.6, "2"), (9.0, "10"), (-9.0, "0")]
)
def test_whoever_looks_at_one_answer_scores_it_by_how_good_it_seems(seem, score):
    seen = Page(item="7", question="How good?", choices=[str(n) for n in range(11)])
    person = Habits(CrowdConfig(), "person-01")
    assert review({"How good?": (seem,)}, person, seen) == Action("submit", score)
    wrong = Habits(CrowdConfig(error_rate=1.0), "person-01")
    assert review({"How good?": (seem,)}, wrong, seen).text != score


def test_impressions_are_found_by_the_text_on_the_page(tmp_path):
    write_impressions(tmp_path, {"A or B?\nA: x\nB: y": (0.5, 1.0)})
    assert read_impressions(tmp_path) == {"A or B? A: x B: y": (0.5, 1.0)}
    assert (tmp_path / "people/impressions.json").stat().st_mode & 0o077 == 0
    with pytest.raises(AmplifyError, match="puts up reviews"):
        read_impressions(tmp_path / "other")


# A whole round


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A round that was killed while people reviewed, and run again."""
    folder = tiny_experiment(tmp_path_factory.mktemp("reviews") / "tiny", REVIEWED_ESSAYS)
    kill_after(folder, 20, "reviews/data")
    assert not events(folder, "closed")
    main(["round", str(folder), "--n", "1"])
    return folder


def reviews_of(folder: Path) -> dict[str, np.ndarray]:
    rows = list(dataset.read(folder / "001/reviews/data"))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.slow
def test_reviews_are_what_people_said_whichever_answer_they_saw_first(ran):
    """These people never err, so that each review is in the order of gold."""
    rows, task = reviews_of(ran), Store(ran).experiment.task
    gold = jax.jit(jax.vmap(jax.vmap(task.gold, in_axes=(None, 0, 0))))
    value = np.asarray(gold(rows["context"], rows["questions"], rows["answers"]))
    first, second = value[:, ::2], value[:, 1::2]
    chosen, others = rows["chosen"][:, ::2], rows["chosen"][:, 1::2]
    weight = rows.get("weight", np.ones(value.shape))
    obtained = weight[:, ::2] == 1
    np.testing.assert_array_equal(weight[:, 1::2] == 1, obtained)
    told = obtained & (first != second)
    assert told.sum() > 40
    np.testing.assert_array_equal(chosen[told] == 1, (first > second)[told])
    np.testing.assert_array_equal(chosen + others, obtained)


@pytest.mark.slow
def test_every_comparison_is_asked_once_and_either_answer_is_shown_first(ran):
    queue = Queue(events(ran))
    items = [queue.items[name] for name in queue.stages[RoundStage(1, "reviews/data")].items]
    roots = [item for item in items if item.review_of is None]
    made = Store(ran).round(1).record["stages"]["reviews/data"]
    assert len(roots) == 60
    assert all(item.choices == ("A", "B") and item.budget == 0 for item in roots)
    assert all(item.gold is None for item in items)
    assert {len(item.submissions) for item in roots if not item.withdrawn} == {1}
    assert made["reviews"] == sum(item.withdrawn is None for item in roots) > 50
    said = [item.submissions[0].answer for item in roots if not item.withdrawn]
    assert 10 < said.count("A") < len(said) - 10


@pytest.mark.slow
def test_the_ledger_counts_peoples_answers_and_time(ran):
    record = Store(ran).round(1).record
    submitted = events(ran, "submitted")
    calls = {(row["stage"], row["part"]): row["calls"] for row in record["ledger"]["calls"]}
    assert calls["reviews/data", "people"] == len(submitted) > 60
    assert ("reviews/data", "judge") not in calls
    assert record["ledger"]["human_answers"] == len(submitted)
    seconds = sum(event.seconds or 0 for event in events(ran))
    assert record["ledger"]["human_seconds"] == pytest.approx(seconds, abs=0.1)
    assert seconds > 0


@pytest.mark.slow
def test_a_round_is_replayed_bit_for_bit_without_asking_anybody(ran, capsys):
    store, before = Store(ran), len(events(ran))
    found = replay.replay(store, 1, unwatched)
    assert found.same
    assert found.by_people == store.round(1).record["stages"]["reviews/data"]["reviews"]
    assert len(events(ran)) == before
    with pytest.raises(AmplifyError, match="only a replay makes again"):
        replay.swap(store, 1, None, "nobody", unwatched)


@pytest.mark.slow
def test_a_round_that_is_run_again_asks_nobody_again(ran, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(ran, again)
    shutil.rmtree(again / "001")
    main(["round", str(again), "--n", "1"])
    one, two = (Store(folder).round(1).record["stages"] for folder in (ran, again))
    assert one["reviews/data"]["digest"] == two["reviews/data"]["digest"]
    assert one["reinforcement/checkpoint"]["digests"] == two["reinforcement/checkpoint"]["digests"]
    assert len(events(again)) == len(events(ran))


@pytest.mark.slow
def test_a_decision_after_closing_counts_once_the_data_is_made_again(ran, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(ran, again)
    queue = Queue(events(again))
    item = next(item for item in queue.items.values() if item.submissions and not item.review_of)
    other = "B" if item.submissions[0].answer == "A" else "A"
    log = Log(again / EVENTS)
    log.append(*adjudicate(queue, item.id, other, "admin"))
    log.close()
    main(["round", str(again), "--n", "1", "--redo", "reviews/data"])
    before, after = (reviews_of(folder)["chosen"] for folder in (ran, again))
    both = [[item.row, 2 * item.column], [item.row, 2 * item.column + 1]]
    assert np.argwhere(before != after).tolist() == both


@pytest.mark.slow
def test_the_trees_say_who_compared_what(ran):
    lines = (ran / "001/reviews/interactions.jsonl").read_text(encoding="utf-8").splitlines()
    trees, rows = [json.loads(line) for line in lines], reviews_of(ran)
    task = Store(ran).experiment.task
    known = {event.id: event for event in events(ran)}
    assert len(read_trees(ran)) == len(trees) > 50, "the pages show them"
    for tree in trees:
        at = tree["row"], tree["column"]
        assert known[tree["event"]].person == tree["person"]
        shown = {"A": tree["question"].split("\n")[2], "B": tree["question"].split("\n")[3]}
        preferred = rows["answers"][at[0], at[1] + (0 if rows["chosen"][at] else 1)]
        assert shown[tree["answer"]] == f"{tree['answer']}: {format_tokens(task, preferred)}"
