"""Every kind of oversight must pass this; broken ones must not (see the `Broken...` fakes)."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amplify import stages
from amplify.oversight import OVERSIGHT
from amplify.oversight.amplification import Amplification
from amplify.oversight.work import WEIGHT, Made, Work
from amplify.records.round_folder import RoundFolder
from amplify.runtime.progress import unwatched
from amplify.store import Store
from amplify.tasks.batching import vmap_questions
from amplify.training.phase import Phase, Source, Update
from amplify.training.step import begin, fresh_role
from amplify.types import FAILED
from tests.helpers import CRITICISED_ESSAYS, untrained_helper
from tests.servers import completion, fake_server
from tests.tiny import AUDITED_ESSAYS, DEBATED, EXPERT_ESSAYS, JUDGED_ESSAYS, TOML, tiny_experiment

KINDS = Path(__file__).parent
LEARNED = TOML.replace('kind = "simulated"', 'kind = "learned"\nwidth = 16\nheads = 2\nlayers = 1')
ASKED = '[overseer]\nkind = "language-model"\nprompt = "prompt.txt"\nmodel = "m"\nendpoint = "HERE"'
STREAMED = LEARNED.replace("[training]", '[training]\ntargets = "streaming"')


def overseen_by(kind: str, toml: str = TOML) -> str:
    return f'{toml}\n[oversight]\nkind = "{kind}"\n'


EXPERIMENTS = {
    "amplification": TOML,
    "amplification, learned": LEARNED,
    "amplification, streaming": STREAMED,
    "truth": overseen_by("truth"),
    "direct": overseen_by("direct", TOML.replace('[overseer]\nkind = "simulated"', ASKED)),
    "reward-model": JUDGED_ESSAYS,
    "reward-model, PPO": JUDGED_ESSAYS.replace("reviews = 200", 'reviews = 200\nmethod = "ppo"'),
    "reward-model, audited": AUDITED_ESSAYS,
    "reward-model, expert iteration": EXPERT_ESSAYS,
    "debate": DEBATED,
    "critique": CRITICISED_ESSAYS,
    "debate, consultancy": DEBATED + 'protocol = "consultancy"\n',
    "best_of": overseen_by("best_of.py:BestOf"),
    "reinforce": overseen_by("reinforce.py:Reinforce"),
    "audits": overseen_by("audits.py:Audits"),
}
"""By name: the kinds that there are, and those that tests have beside experiments."""


def test_every_kind_is_tried():
    assert {*OVERSIGHT} <= {*EXPERIMENTS}
    fixtures = {path.stem for path in KINDS.glob("*.py") if not path.stem.startswith("test_")}
    assert fixtures - {"__init__"} <= {*EXPERIMENTS}


class Begun:
    """An experiment with its untrained roles, and round 1 before its first phase."""

    def __init__(self, folder: Path, toml: str) -> None:
        tiny_experiment(folder, toml)
        if "helper = " in toml:
            untrained_helper(folder.parent / "claims")
        (folder / "prompt.txt").write_text("Answer in one line.", encoding="utf-8")
        for path in KINDS.glob("*.py"):
            shutil.copy(path, folder)
        self.store = Store(folder)
        self.experiment = self.store.experiment
        self.oversight = self.experiment.oversight
        best, self.this = self.store.round(0), self.store.round(1)
        best.begin({"parent": None})
        trained = self.oversight.roles(self.experiment)
        best.stage("initial/checkpoint", stages.initialise_roles, self.experiment, best, trained)
        self.this.begin({"parent": {"round": 0, "digest": "0"}, "experiment": {}})
        self.best, self.roles = best, self.store.roles(best)

    def work(self) -> Work:
        return Work(self.experiment, self.this, self.best, self.roles, unwatched)

    def phases(self, this: RoundFolder | None = None) -> list[Phase]:
        """Those of the round, each asked for once the one before it is on record."""
        this = this or self.store.round(1)
        this.record = {**self.this.record, "stages": {}}
        found = []
        for phase in self.oversight.phases(self.experiment, this):
            found.append(phase)
            made = (
                {} if phase.source is not None else self.oversight.signal(phase, self.work()).facts
            )
            this.record["stages"] |= {f"{phase.name}/data": made, f"{phase.name}/checkpoint": {}}
        return found


@pytest.fixture(scope="module")
def server():
    with fake_server() as server:
        server.respond = lambda body, number: completion("Conclude: 0")
        yield server


@pytest.fixture(scope="module", params=EXPERIMENTS)
def begun(request, tmp_path_factory, server) -> Begun:
    toml = EXPERIMENTS[request.param].replace("HERE", server.address)
    return Begun(tmp_path_factory.mktemp("kind") / "tiny", toml)


def check_roles(begun: Begun) -> None:
    """Rounds train the assistant, and each role's model can be drawn and compared."""
    trained = begun.oversight.roles(begun.experiment)
    names = [one.role for one in trained]
    assert "assistant" in names
    assert len({*names}) == len(names)
    assert hash(tuple(trained)) == hash(tuple(begun.oversight.roles(begun.experiment)))
    assert begun.oversight.roles(begun.experiment) == trained


def check_phases(begun: Begun) -> None:
    """Phases are a function of the record, have names of their own, and train declared roles."""
    phases, again = begun.phases(), begun.phases()
    assert phases == again
    assert [hash(phase) for phase in phases] == [hash(phase) for phase in again]
    names = [phase.name for phase in phases]
    assert len({*names}) == len(names)
    assert all(name.isidentifier() and name not in ("initial", "evals") for name in names)
    roles = {one.role: one for one in begun.oversight.roles(begun.experiment)}
    for phase in phases:
        trained = {one.role for one in phase.trains}
        assert all(roles.get(one.role) == one for one in phase.trains)
        assert not trained & {role for role, _ in phase.frozen}
        assert {role for role, _ in phase.frozen} <= {*roles}
    assert any(one.role == "assistant" for phase in phases for one in phase.trains)


def check_signals(begun: Begun) -> None:
    """A stored signal is the same whenever it is made, and is what training reads."""
    for phase in begun.phases():
        if phase.source is None:
            made, again = (begun.oversight.signal(phase, begun.work()) for _ in range(2))
            _check_made(begun, phase, made)
            assert made.facts == again.facts
            assert made.trees == again.trees
            for name, column in made.columns.items():
                np.testing.assert_array_equal(column, again.columns[name])


def _check_made(begun: Begun, phase: Phase, made: Made) -> None:
    task = begun.experiment.task
    if phase.trains:
        assert {*phase.columns} <= {*made.columns}
    assert len({len(column) for column in made.columns.values()}) == 1
    for column in made.columns.values():
        assert column.dtype.kind not in "f" or np.isfinite(column).all()
    answers = made.columns["answers"]
    assert answers.shape == (*made.columns["questions"].shape[:-1], task.answer_length)
    assert ((answers >= 0) | (answers == FAILED)).all()
    assert (answers < len(task.vocabulary)).all()
    if WEIGHT in made.columns:
        assert made.columns[WEIGHT].shape == answers.shape[:-1]
    assert not {"digest", "digests", "seconds"} & {*made.facts}
    for tree in made.trees:
        assert {"row", "column", "question", "answer", "by", "steps"} <= {*tree}
    json.dumps([made.facts, made.trees], allow_nan=False)
    numbers = [value for value in made.facts.values() if isinstance(value, (int, float))]
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
    assert made.description


def check_sources(begun: Begun) -> None:
    """A source keeps the form of its state, trains what its phase does, and is a function of it."""
    for phase in begun.phases():
        if phase.source is not None:
            _check_source(begun, phase, phase.source)


def _check_source(begun: Begun, phase: Phase, source: Source) -> None:
    trained = {one.role: one for one in phase.trains}
    params = {
        role: one.model.init(jax.random.key(1))
        for role, one in {**trained, **{r: _Frozen(m) for r, m in phase.frozen}}.items()
    }
    frozen = {role: params[role] for role, _ in phase.frozen}
    roles = {role: fresh_role(one, params[role]) for role, one in trained.items()}
    state = begin(phase, roles, source.begin(begun.work(), {}))
    assert jax.eval_shape(lambda: state.source) == source.abstract()
    following = jax.jit(source.next) if source.traced else source.next
    key = jax.random.key(3)
    after, updates, metrics = following(frozen, state.roles, state.source, key)
    assert jax.eval_shape(lambda: after) == source.abstract()
    assert {*updates} == {*trained}
    assert all(isinstance(update, Update) for update in updates.values())
    for role, update in updates.items():
        loss, found = trained[role].objective(params[role], frozen, update.batch)
        assert loss.shape == ()
        assert bool(jnp.isfinite(loss))
        assert "answered" in found
    assert all(value.shape == () for value in metrics.values())
    again = following(frozen, state.roles, state.source, key)
    for one, two in zip(jax.tree.leaves((after, updates)), jax.tree.leaves(again[:2]), strict=True):
        np.testing.assert_array_equal(one, two)
    carried = source.carry(after)
    assert {*carried} <= {*trained}
    assert jax.eval_shape(lambda: carried) == source.abstract_carry()
    resumed = source.begin(begun.work(), carried)
    assert jax.eval_shape(lambda: resumed) == source.abstract()


@dataclasses.dataclass(frozen=True)
class _Frozen:
    model: object


CHECKS = (check_roles, check_phases, check_signals, check_sources)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_oversight_conforms(begun, check):
    check(begun)


# Broken kinds


class BrokenRoles(Amplification):
    """Declares the assistant under another name."""

    def roles(self, experiment):
        return [dataclasses.replace(one, role="pupil") for one in super().roles(experiment)]


class BrokenNames(Amplification):
    """Trains twice in phases of one name."""

    def phases(self, experiment, this):
        yield from super().phases(experiment, this)
        yield from super().phases(experiment, this)


class BrokenPhases(Amplification):
    """Trains a role that round 0 did not make."""

    def phases(self, experiment, this):
        for phase in super().phases(experiment, this):
            other = dataclasses.replace(phase.trains[0], role="critic")
            yield dataclasses.replace(phase, trains=(*phase.trains, other))


class BrokenChance(Amplification):
    """Answers anything, by chance of its own."""

    def signal(self, phase, work):
        made = super().signal(phase, work)
        answers = np.random.default_rng().integers(0, 3, made.columns["answers"].shape)
        return made._replace(columns=made.columns | {"answers": answers})


class BrokenColumns(Amplification):
    """Leaves out a row of answers."""

    def signal(self, phase, work):
        made = super().signal(phase, work)
        return made._replace(columns=made.columns | {"answers": made.columns["answers"][1:]})


class BrokenFacts(Amplification):
    """Records what JSON has no word for."""

    def signal(self, phase, work):
        made = super().signal(phase, work)
        return made._replace(facts=made.facts | {"share": math.nan})


@dataclasses.dataclass(frozen=True)
class Samples(Source):
    """The assistant's own answers, as what it should say."""

    experiment: object
    counts: bool = True
    """Whether its state keeps its dtype."""
    other: str = "assistant"
    """The role that it makes something for."""

    traced = True

    def begin(self, work, carried):
        return carried.get("assistant", jnp.zeros((), jnp.int32))

    def next(self, frozen, live, state, key):
        from amplify.oversight.work import draw_batch

        contexts, questions = draw_batch(self.experiment, key)
        answers = vmap_questions(self.experiment.task.truth)(contexts, questions)
        batch = {"context": contexts, "questions": questions, "answers": answers}
        state = state + 1 if self.counts else state + jnp.float32(1)
        return state, {self.other: Update(batch)}, {}

    def carry(self, state):
        return {"assistant": state}


@dataclasses.dataclass(frozen=True)
class Streams(Amplification):
    """Trains on `Samples`; conforms unless it is told not to."""

    counts: bool = True
    other: str = "assistant"

    def phases(self, experiment, this):
        for phase in super().phases(experiment, this):
            source = Samples(experiment, self.counts, self.other)
            yield dataclasses.replace(phase, source=source)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Begun:
    return Begun(tmp_path_factory.mktemp("plain") / "tiny", TOML)


def with_oversight(begun: Begun, oversight) -> Begun:
    other = object.__new__(Begun)
    other.__dict__ = begun.__dict__ | {"oversight": oversight}
    return other


def test_what_the_broken_kinds_are_made_of_conforms(plain):
    check_sources(with_oversight(plain, Streams()))
    check_phases(with_oversight(plain, Streams()))


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (check_roles, BrokenRoles()),
        (check_phases, BrokenNames()),
        (check_phases, BrokenPhases()),
        (check_signals, BrokenChance()),
        (check_signals, BrokenColumns()),
        (check_signals, BrokenFacts()),
        (check_sources, Streams(counts=False)),
        (check_sources, Streams(other="critic")),
    ],
)
def test_broken_oversight_is_caught(plain, check, broken):
    with pytest.raises((AssertionError, ValueError)):
        check(with_oversight(plain, broken))
