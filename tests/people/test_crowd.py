"""Simulated people, alone and on the real pages."""

import asyncio
import collections
import functools
import math
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from amplify.crowd.__main__ import invite_crowd
from amplify.crowd.page_reader import Page, ReadExchange, read_page
from amplify.crowd.simulated import Diary, run_crowd
from amplify.crowd.simulated_policy import Action, decide
from amplify.errors import AmplifyError
from amplify.overseers.habits import CAREFUL, GUESS, LAZY, SKIP, TRUST, CrowdConfig, Habits
from amplify.people.log import Log
from amplify.people.roster import Member, Roster
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.text.search import Search
from amplify.words import format_tokens, read_answer, read_question
from tests.people.staff import Round, check_nothing_is_lost, let_people_work
from tests.people.worker import truth
from tests.tiny import tiny_experiment

pytestmark = pytest.mark.slow

ITEMS = [str(number) for number in range(500)]


def near(rate: float, share: float, count: int) -> bool:
    """Whether a share of so many is no wonder where each has this chance."""
    return scipy.stats.binomtest(round(share * count), count, rate).pvalue > 1e-4


# Habits


def test_what_somebody_does_depends_on_seed_person_and_item_alone():
    config = CrowdConfig(error_rate=0.5, laziness=0.5, seconds=2.0)
    habits = Habits(config, "person-01", 0)

    def acts(habits, items):
        return {
            i: (habits.choose_behavior(i), habits.makes_error(i), habits.seconds(i, 0))
            for i in items
        }

    assert acts(habits, ITEMS) == acts(Habits(config, "person-01", 0), reversed(ITEMS))
    assert acts(habits, ITEMS) != acts(Habits(config, "person-02", 0), ITEMS)
    other = Habits(CrowdConfig(error_rate=0.5, laziness=0.5, seconds=2.0, seed=1), "person-01")
    assert acts(habits, ITEMS) != acts(other, ITEMS)


def test_version_1_is_pinned():
    """Whoever changes how simulated people behave gives that another version."""
    habits = Habits(CrowdConfig(skips=0.2, trust=0.2, laziness=0.5, error_rate=0.3), "person-01")
    did = [habits.choose_behavior(item)[0] + "!" * habits.makes_error(item) for item in ITEMS[:12]]
    assert " ".join(did) == "c! l g s! c t c g t l s! l"
    assert habits.seconds("0", 0) == 0.0
    assert habits.pick("slip", "0", ["a", "b", "c", "d"]) == "b"


def test_shares_are_as_configured():
    config = CrowdConfig(skips=0.1, trust=0.2, laziness=0.5, error_rate=0.3, seconds=2.0)
    habits = Habits(config, "person-01")
    behaviors = collections.Counter(map(habits.choose_behavior, ITEMS))
    expected = {SKIP: 0.1, TRUST: 0.9 * 0.2, LAZY: 0.18, GUESS: 0.18, CAREFUL: 0.36}
    for behavior, share in expected.items():
        assert near(share, behaviors[behavior] / len(ITEMS), len(ITEMS)), (behavior, behaviors)
    errors = sum(map(habits.makes_error, ITEMS)) / len(ITEMS)
    assert near(0.3, errors, len(ITEMS))
    seconds = [habits.seconds(item, 0) for item in ITEMS]
    assert abs(np.mean(seconds) - 2) < 4 * 2 / math.sqrt(len(ITEMS))


@pytest.mark.parametrize(("people", "share", "count"), [(8, 0.25, 2), (3, 0.5, 2), (5, 0.0, 0)])
def test_so_many_are_careless(people, share, count):
    config = CrowdConfig(people=people, careless=share, careless_error_rate=1.0)
    crowd = [Habits(config, f"person-{number}", number) for number in range(people)]
    assert sum(habits.is_careless for habits in crowd) == count
    assert sum(habits.makes_error("1") for habits in crowd) == count


# Reading


def test_a_page_is_read_as_it_was_meant():
    page = read_page("""<!doctype html><main id="work" data-item="1-&lt;2" data-withheld="false"
      data-review="true" data-budget="2"><h1>Check</h1><p id="question">Is 1 &lt; <b>2</b>?</p>
      <ol><li class="exchange" data-number="1" data-state="answered"><p class="asked">a &amp; b</p>
      <p><span class="told">yes</span><span class="confidence">90 % sure</span></p>
      <ol><li class="exchange" data-number="2" data-state="problem"><p class="asked">why</p>
      <p class="told bad">no <span>idea</span></p></li></ol></li>
      <li class="exchange" data-number="3" data-state="pending"><p class="asked">and?</p></li></ol>
      <div id="waiting" hx-get="/items/1/exchanges?after=1&amp;x=2"></div>
      <form id="submit" action="/s"><input type="hidden" name="csrf" value="&quot;c&quot;">
      <input type="radio" name="answer" value="1"><input type="radio" name="answer" value="2">
      </form><datalist><option value="x"></datalist><p class="notice">it was: cut</p></main>""")
    assert page == Page(
        item="1-<2", review=True, left=2, question="Is 1 < 2?", returned="it was: cut",
        again="/items/1/exchanges?after=1&x=2", choices=["1", "2"], forms=page.forms,
        exchanges=[ReadExchange(1, "answered", "a & b", "yes"),
              ReadExchange(2, "problem", "why", "no idea"),
              ReadExchange(3, "pending", "and?", "")],
    )  # fmt: skip
    assert page.forms["submit"].fields == {"csrf": '"c"'}
    assert page.waits
    assert read_page('<div id="nothing" data-finished="true">').finished
    assert not read_page('<div id="nothing" data-finished="false">').finished


# Thinking

TASKS = [Permutation(symbols=16, bits=4), Wildcard(3), Search(regions=64, hops=3)]


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: type(task).__name__)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def asked(task):
    """A context, and questions about it at each depth, as texts."""
    key = jax.random.key(1)
    context = task.draw_context(key)
    depths = [1 + number % task.max_depth for number in range(6)]
    questions = [
        task.draw_question(jax.random.fold_in(key, number), context, jnp.int32(depth))
        for number, depth in enumerate(depths)
    ]
    return context, [format_tokens(task, np.asarray(question)) for question in questions]


def tell(task, context, text):
    return format_tokens(
        task, np.asarray(task.truth(context, jnp.asarray(read_question(task, text))))
    )


def go_through(task, context, question, habits, **facts):
    """What somebody does in the end, and the page then."""
    facts = {"item": "7", "left": 3, "question": question} | facts
    page = Page(**facts)
    while (act := decide(task, habits, page)).form == "ask":
        assert page.left > 0
        number = len(page.exchanges) + 1
        page.exchanges.append(
            ReadExchange(number, "answered", act.text, tell(task, context, act.text))
        )
        page.left -= 1
    return act, page


careful = Habits(CrowdConfig(), "person-01")


def test_the_careful_take_it_apart_and_end_with_the_truth(task, asked):
    context, questions = asked
    for question in questions:
        act, page = go_through(task, context, question, careful)
        assert act == Action("submit", tell(task, context, question))
        assert page.exchanges
        assert question not in [exchange.question for exchange in page.exchanges]


def test_reviewers_make_their_own_of_what_somebody_else_was_told(task, asked):
    context, questions = asked
    for question in questions:
        _, page = go_through(task, context, question, careful)
        page.exchanges.reverse()
        page.exchanges.insert(0, ReadExchange(9, "problem", "what?", "is no question"))
        page.review, page.left = True, 0
        assert decide(task, careful, page) == Action("submit", tell(task, context, question))


def test_the_trusting_and_the_lazy_ask_the_question_itself(task, asked):
    context, [question, *_] = asked
    for config in (CrowdConfig(trust=1.0), CrowdConfig(laziness=1.0)):
        habits = next(
            h
            for n in range(9)
            if (h := Habits(config, f"person-{n}")).choose_behavior("7") != GUESS
        )
        act, page = go_through(task, context, question, habits)
        assert [exchange.question for exchange in page.exchanges] == [question]
        assert act == Action("submit", tell(task, context, question))
        page.exchanges = [ReadExchange(1, "answered", question, "false")]
        assert decide(task, habits, page) == Action("submit", "false"), "believed"


def test_whoever_errs_submits_something_else_that_can_be_read(task, asked):
    context, questions = asked
    for question in questions:
        act, _ = go_through(task, context, question, Habits(CrowdConfig(error_rate=1.0), "p"))
        right = tell(task, context, question)
        assert act.form == "submit"
        assert act.text != right
        assert (read_answer(task, act.text) != read_answer(task, right)).any()


def test_whoever_has_no_help_guesses(task, asked):
    context, [question, *_] = asked
    act, _ = go_through(task, context, question, careful, withheld=True)
    assert act.form == "submit"
    read_answer(task, act.text)
    act, _ = go_through(task, context, question, careful, withheld=True, choices=["x", "y"])
    assert act.text in ("x", "y")


def test_whoever_cannot_find_out_skips(task, asked):
    context, [*_, question] = asked
    assert go_through(task, context, question, careful, left=0)[0].form == "skip"
    lost = Page(item="7", left=3, question=question, returned="is no answer")
    assert decide(task, careful, lost).form == "skip"
    silent = [ReadExchange(number, "problem", "x", "no answer") for number in (1, 2, 3)]
    assert decide(task, careful, Page(item="7", question=question, exchanges=silent)).form == "skip"
    unknown = [ReadExchange(number, "answered", "x", "?") for number in (1, 2, 3)]
    assert (
        decide(task, careful, Page(item="7", question=question, exchanges=unknown)).form == "skip"
    )
    unreadable = Page(item="7", left=3, question="\u2603")
    assert decide(task, careful, unreadable).form == "skip"
    assert decide(task, Habits(CrowdConfig(skips=1.0), "p"), lost).form == "skip"


# On the pages


@pytest.fixture
def experiment(tmp_path):
    return tmp_path / "people"


def rows(round_):
    return [
        (mine.person, mine.answer, truth(item.row, item.question), item)
        for item in round_.queue.items.values()
        for mine in item.submissions
    ]


def test_people_who_err_are_as_right_as_theory_says(experiment):
    round_ = Round(experiment, 100)
    config = CrowdConfig(people=5, error_rate=0.25, seed=3)
    diary = let_people_work(round_, config, seconds=120)
    check_nothing_is_lost(round_, diary)
    right = [answer == true for _, answer, true, _ in rows(round_)]
    assert len(right) == 100
    assert near(0.75, sum(right) / 100, 100)
    # And exactly those are wrong who were to err.
    crowd = {f"person-{n + 1:02d}": Habits(config, f"person-{n + 1:02d}", n) for n in range(5)}
    for person, answer, true, item in rows(round_):
        assert (answer != true) == crowd[person].makes_error(item.id)


def test_reviews_find_the_careless(experiment):
    round_ = Round(experiment, 48)
    config = CrowdConfig(people=6, careless=0.34, careless_error_rate=0.7, error_rate=0.05)

    def have_them_reviewed(*_):
        round_.wait(60)
        round_.review(share=1.0, overlap=3)

    diary = let_people_work(round_, config, seconds=120, meanwhile=have_them_reviewed)
    check_nothing_is_lost(round_, diary)
    answers = collections.defaultdict(dict)  # of each question: who said what
    for person, answer, _, item in rows(round_):
        question = item.review_of[0] if item.review_of else item.id
        assert person not in answers[question], "reviewed their own"
        answers[question][person] = answer
    agreed = collections.defaultdict(list)
    for said in answers.values():
        assert len(said) == 4
        for person, answer in said.items():
            others = collections.Counter(a for p, a in said.items() if p != person)
            agreed[person].append(others[answer] / 3)
    crowd = [Habits(config, f"person-{n + 1:02d}", n) for n in range(6)]
    careless = {habits.person for habits in crowd if habits.is_careless}
    assert len(careless) == 2
    agreement = {person: sum(shares) / len(shares) for person, shares in agreed.items()}
    assert {*sorted(agreement, key=agreement.get)[:2]} == careless, agreement


def test_killed_servers_lose_nothing_and_ask_nobody_twice(experiment):
    round_ = Round(experiment, 40, overlap=2)

    def kill(_, web, worker):
        for process, done in ((web, 15), (worker, 35), (web, 55)):
            while sum(len(item.submissions) for item in round_.queue.items.values()) < done:
                time.sleep(0.01)
            process.kill()
            process.start()

    config = CrowdConfig(people=6, seconds=0.02, error_rate=0.2)
    diary = let_people_work(round_, config, seconds=120, meanwhile=kill)
    assert diary.failures, "nobody noticed"
    check_nothing_is_lost(round_, diary)


def test_a_crowd_stops_when_told_to_and_comes_back_as_the_same_people(tmp_path):
    folder = tiny_experiment(tmp_path / "tiny")
    Log(folder / "events.sqlite").close()
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            command = [sys.executable, "-m", "amplify.crowd", str(folder), "--address",
                       f"http://127.0.0.1:{listening.getsockname()[1]}"]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crowd:
                listening.accept()[0].close()
                crowd.send_signal(signal.SIGTERM)
                said, _ = crowd.communicate(timeout=60)
        assert (crowd.returncode, said) == (0, "8 simulated people submitted 0 answers\n")
    assert len(Roster(folder).members()) == 8
    assert all(member.simulated for member in Roster(folder).members())


def test_members_are_used_again_unless_their_links_have_expired(tmp_path):
    roster = Roster(tmp_path)
    [person] = roster.invite(["Ann"], 0.0)
    first = invite_crowd(roster, 2, 0.0)
    assert person not in first
    assert invite_crowd(roster, 3, 1.0)[:2] == first
    assert invite_crowd(roster, 1, 1.0) == first[:1]
    assert not {*invite_crowd(roster, 2, 1e9)} & {*first}


def test_a_link_that_does_not_work_is_said(experiment):
    def stray(address, *_):
        member = Member("person-99", "no such token", None, True)
        crowd = run_crowd(
            functools.partial(decide, TASKS[0]), CrowdConfig(), [member], address, Diary()
        )
        with pytest.raises(ExceptionGroup) as errors:
            asyncio.run(crowd)
        [error] = errors.value.exceptions
        assert isinstance(error, AmplifyError)
        assert "person-99: This link is not valid" in str(error)

    let_people_work(Round(experiment, 1), CrowdConfig(people=1), seconds=60, meanwhile=stray)
