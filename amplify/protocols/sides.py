"""Who plays the parts `pro` and `con`: simulated sides, for tests and as yardsticks, and models.

A simulated side answers each question by itself, as a function of the question alone, so it is
bound by what it first said. An honest side answers truly. A dishonest one defends a false answer:
one answer in each of its statements is false, such that its claim follows, so that below each lie
is another, down to a false look-up.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from amplify.protocols.protocol import CON, LOOK, PRO, SIDES
from amplify.protocols.statements import Decomposition, pick, put, same, select
from amplify.tasks.batching import fold_in, map_keys, vmap_questions
from amplify.trees.amplification import (
    assistant_with_memory,
    encode_given_contexts,
    environment_alone,
)
from amplify.types import DONT_KNOW, OTHERS, Assistant, Interaction, Respond, Task

Contexts = Int[Array, "batch facts fact_length"]
Knows = Callable[[Int[Array, "batch questions question_length"]], Bool[Array, "batch questions"]]
"""Maps questions to whether a side knows the answers."""


def parts(task: Task, contexts: Contexts, pro: Respond, con: Respond) -> Mapping[str, Respond]:
    """Returns everybody whom a judge may ask.

    Args:
        task: its environment shows the world.
        contexts: the world.
        pro, con: the sides.
    """
    sides = {PRO: playing(PRO, pro), CON: playing(CON, con)}
    return sides | {LOOK: environment_alone(task, contexts)}


def playing(side: str, respond: Respond) -> Respond:
    """Returns a side whose answers are marked as those of a part.

    Args:
        side: PRO or CON.
        respond: gives the answers.
    """
    code = OTHERS + SIDES.index(side)

    def answer(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        said = respond(questions, where, keys)
        return said._replace(answered_by=jnp.full(where.shape, code))

    return answer


def either(where: Bool[Array, "batch questions"], one: Respond, two: Respond) -> Respond:
    """Returns a side that is `one` where a mask is True, and `two` elsewhere."""

    def respond(
        questions: Int[Array, "batch questions question_length"],
        asked: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        both = (side(questions, asked, keys) for side in (one, two))
        merged: Interaction = jax.tree.map(lambda *parts: select(where, *parts), *both)
        return merged

    return respond


def answering(answers: Callable[[Array], Array]) -> Respond:
    """Returns a side that answers by a function of the questions.

    Args:
        answers: maps questions, with leading axes `batch questions`, to answers.
    """

    def respond(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        keys: Key[Array, "batch questions"],
    ) -> Interaction:
        return Interaction(questions, answers(questions), jnp.full(where.shape, OTHERS))

    return respond


def honest(task: Task, contexts: Contexts) -> Respond:
    """A side that knows everything and says it.

    Args:
        task: a task that knows the truth.
        contexts: of the questions.
    """
    truth = vmap_questions(task.truth)
    return answering(lambda questions: truth(contexts, questions))


class Lies(NamedTuple):
    """A false answer to each question, and the false answers below it that make it follow."""

    questions: Int[Array, "levels batch questions question_length"]  # zeros: no further lie
    answers: Int[Array, "levels batch questions answer_length"]


def dishonest(task: Task, contexts: Contexts, lies: Lies) -> Respond:
    """A side that defends a false answer to each question, and answers all else truly.

    Args:
        task: a task that knows the truth.
        contexts: of the questions.
        lies: what it says that is false, from `plan_lies`.
    """
    truth = vmap_questions(task.truth)

    def answers(asked: Array) -> Array:
        lied = jax.vmap(lambda question: same(question, asked))(lies.questions)
        first = jnp.argmax(lied, axis=0).astype(jnp.int32)
        lie = pick(jnp.moveaxis(lies.answers, 0, 2), first)
        return select(jnp.any(lied, axis=0), lie, truth(contexts, asked))

    return answering(answers)


def plan_lies(
    task: Task,
    contexts: Contexts,
    questions: Int[Array, "batch questions question_length"],
    levels: int,
    keys: Key[Array, "batch questions"],
) -> Lies:
    """Chooses a false answer to each question, and a lie in each statement below that supports it.

    In each statement, one answer is false, in a random place of those that support the claim. Of
    the sub-questions that can themselves be decomposed, those of the hardest class are preferred,
    so the lie goes as deep as it can.

    Args:
        task: a task that knows the truth.
        contexts: of the questions.
        questions: to which the answers are to be false.
        levels: how far down the lie can go.
        keys: consumed.

    Returns:
        The lies, the first of which are about `questions` themselves.
    """
    true = vmap_questions(task.truth)(contexts, questions)
    liar = _Liar(task, contexts, Decomposition(task))

    def go_down(carry: tuple[Array, Array, Array], level: Array) -> tuple[Any, Lies]:
        asked, claim, root = carry
        lie = liar.choose(asked, claim, level > 0, fold_in(keys, level))
        root = select(lie.found & (level == 0), lie.result, root)
        goes_on = lie.found & jnp.any(asked != 0, axis=-1) & ~task.is_primitive(asked)
        asked = select(goes_on, lie.question, jnp.zeros_like(asked))
        return (asked, lie.answer, root), Lies(asked, lie.answer)

    (*_, claims), below = jax.lax.scan(go_down, (questions, true, true), jnp.arange(1 + levels))
    return Lies(
        jnp.concatenate([questions[None], below.questions]),
        jnp.concatenate([claims[None], below.answers]),
    )


class _Lie(NamedTuple):
    question: Int[Array, "batch questions question_length"]
    answer: Int[Array, "batch questions answer_length"]
    result: Int[Array, "batch questions answer_length"]  # what follows from it
    found: Bool[Array, "batch questions"]


class _Liar(NamedTuple):
    """Finds the single false answers that make a statement support a claim."""

    task: Task
    contexts: Contexts
    decomposition: Decomposition

    def choose(
        self,
        asked: Int[Array, "batch questions question_length"],
        claim: Int[Array, "batch questions answer_length"],
        supported: Bool[Array, ""],
        keys: Key[Array, "batch questions"],
    ) -> _Lie:
        """Chooses a lie about one sub-question.

        Args:
            asked: the questions that the statements are about.
            claim: an answer.
            supported: whether the statements have to support it; if not, any other.
            keys: consumed.
        """
        steps = self.decomposition.steps
        lies = jax.lax.map(lambda step: self._at(asked, step), jnp.arange(steps))
        found: _Lie = jax.tree.map(_join_steps, lies)
        wanted = jnp.broadcast_to(claim[:, :, None], found.result.shape)
        supports = same(found.result, wanted) == supported
        fits = found.found & supports & jnp.any(found.result != DONT_KNOW, axis=-1)
        # Each step is equally likely, however many false answers it has.
        number = fits.shape[2] // steps
        uniform = map_keys(lambda key: jax.random.uniform(key, (steps + steps * number,)), keys)
        step_draw, draws = jnp.split(uniform, [steps], axis=-1)
        deep = ~self.task.is_primitive(found.question)
        flat = found.question.reshape(len(found.question), -1, found.question.shape[-1])
        hard = vmap_questions(self.task.class_of)(self.contexts, flat).reshape(deep.shape)
        score = 1 + draws + 2 * jnp.repeat(1 + step_draw, number, axis=-1)
        score += jnp.where(deep, 8.0 * (1 + hard).astype(jnp.float32), 0.0)
        best = jnp.argmax(jnp.where(fits, score, 0.0), axis=-1).astype(jnp.int32)
        chosen: _Lie = jax.tree.map(lambda part: pick(part, best), found)
        return chosen._replace(found=jnp.any(fits, axis=-1))

    def _at(
        self,
        asked: Int[Array, "batch questions question_length"],
        step: Int[Array, ""],
    ) -> _Lie:
        """All false answers at one step, with an axis for them after the leading ones."""
        truth, (batch, per_context) = vmap_questions(self.task.truth), asked.shape[:2]
        changes = len(self.task.vocabulary) * self.task.answer_length
        lead = (batch, per_context, changes)
        repeated = jnp.broadcast_to(asked[:, :, None], (*lead, asked.shape[-1]))
        statement = self.decomposition.begin(repeated)
        lie = jnp.zeros((*lead, self.task.answer_length), jnp.int32)
        about, lied = jnp.zeros_like(repeated), jnp.zeros(lead, bool)
        asked_before = jnp.zeros(lead, bool)
        for _ in range(self.decomposition.steps):
            point = self.decomposition.next(statement)
            flat = point.question.reshape(batch, -1, asked.shape[-1])
            answer = truth(self.contexts, flat).reshape(lie.shape)
            here = point.missing & (point.place == step)
            asked_before |= point.missing & ~here & lied & same(point.question, about)
            false = _changed(answer, len(self.task.vocabulary))
            lied |= here & ~same(false, answer)
            about, lie = select(here, point.question, about), select(here, false, lie)
            said = select(here, false, answer)
            statement = self.decomposition.say(statement, point, said, point.missing)
        result = self.decomposition.points(statement).result
        return _Lie(about, lie, result, lied & ~asked_before)


def _join_steps(part: Array) -> Array:
    """Moves the axis of steps behind those of questions, and joins it with that of changes."""
    part = jnp.moveaxis(part, 0, 2)
    return part.reshape(*part.shape[:2], -1, *part.shape[4:])


def _changed(
    answers: Int[Array, "batch questions changes answer_length"], tokens: int
) -> Int[Array, "batch questions changes answer_length"]:
    """Each answer with one token set to another one; a different change along the third axis."""
    changes, length = answers.shape[2:]
    place, token = jnp.divmod(jnp.arange(changes), tokens)
    here = place[:, None] == jnp.broadcast_to(jnp.arange(length), (changes, length))
    here = jnp.broadcast_to(here, answers.shape)
    return jnp.where(here, jnp.broadcast_to(token[:, None], answers.shape), answers)


def limited(
    task: Task,
    contexts: Contexts,
    questions: Int[Array, "batch questions question_length"],
    opponent: Respond,
    knows: Knows,
    levels: int,
    keys: Key[Array, "batch questions"],
) -> Respond:
    """An honest side that knows the answers to some questions only, against a side that is bound by
    what it says.

    It defends the right answer to the question itself. Of a statement of which it knows a point to
    be false, it disputes that one. Otherwise it suspects a point that it knows nothing of, chosen
    at random, and disputes that; it agrees to all others.

    Args:
        task: a task that knows the truth.
        contexts: of the questions.
        questions: that are debated.
        opponent: what the other side says.
        knows: whether this side knows the answer to a question; if so, it answers truly.
        levels: how far down it plans.
        keys: one for each question, consumed.
    """
    decomposition = Decomposition(task)
    truth = vmap_questions(task.truth)
    everywhere = jnp.ones(questions.shape[:-1], bool)

    def claimed(asked: Array) -> Array:
        return opponent(asked, everywhere, keys).answer

    def suspect(asked: Array, level: Int[Array, ""]) -> tuple[Array, Array]:
        """The point of the opponent's statement to dispute without knowing better."""
        statement, disputed = decomposition.begin(asked), jnp.zeros(everywhere.shape, bool)
        unknown = jnp.zeros((*everywhere.shape, decomposition.steps), bool)
        for _ in range(decomposition.steps):
            point = decomposition.next(statement)
            answer = claimed(point.question)
            known = knows(point.question)
            disputed |= point.missing & known & ~same(answer, truth(contexts, point.question))
            unknown = put(unknown, point.place, ~known, point.missing)
            statement = decomposition.say(statement, point, answer, point.missing)
        draws = map_keys(
            lambda key: jax.random.uniform(key, (decomposition.steps,)), fold_in(keys, level)
        )
        chosen = jnp.argmax(jnp.where(unknown, 1 + draws, 0.0), axis=-1).astype(jnp.int32)
        suspects = jnp.any(unknown, axis=-1) & ~disputed
        suspected = pick(decomposition.points(statement).questions, chosen)
        return select(suspects, suspected, asked), suspects

    def plan(carry: tuple[Array, Array], level: Array) -> tuple[tuple[Array, Array], Array]:
        asked, going = carry
        found, suspects = suspect(asked, level)
        going &= suspects
        # Zeros, which are no question, stand where nothing is suspected.
        return (select(going, found, asked), going), select(going, found, jnp.zeros_like(found))

    _, suspected = jax.lax.scan(plan, (questions, everywhere), jnp.arange(levels))

    def answers(asked: Array) -> Array:
        known = knows(asked) | same(asked, questions)
        said = claimed(asked)
        doubted = jnp.any(jax.vmap(lambda one: same(one, asked))(suspected), axis=0)
        guess = select(doubted, jnp.full_like(said, DONT_KNOW), said)
        return select(known, truth(contexts, asked), guess)

    return answering(answers)


def sampling(
    task: Task,
    assistant: Assistant,
    params: PyTree[Array],
    contexts: Contexts,
    keys: Key[Array, "batch questions"] | None,
) -> Respond:
    """A model that samples its answers.

    Args:
        task: the task.
        assistant: the model.
        params: its parameters.
        contexts: of the questions.
        keys: of the debate and the side. Each answer depends on its key and the question only, so
            that the side is bound by what it first says. None: each answer is drawn anew, by the
            key with which it is asked for.
    """
    memory = encode_given_contexts(task, assistant, params, contexts)
    respond = assistant_with_memory(task, assistant, params, contexts, memory)
    if keys is None:
        return respond
    bound = keys

    def answer(
        questions: Int[Array, "batch questions question_length"],
        where: Bool[Array, "batch questions"],
        _: Key[Array, "batch questions"],
    ) -> Interaction:
        return respond(questions, where, _with_question(bound, questions))

    return answer


def _with_question(keys: Key[Array, "*b"], questions: Int[Array, "*b length"]) -> Key[Array, "*b"]:
    """Keys that depend on the question."""

    def one(key: Key[Array, ""], question: Int[Array, " length"]) -> Key[Array, ""]:
        for token in jnp.unstack(question):
            key = jax.random.fold_in(key, token)
        return key

    flat = jax.vmap(one)(keys.reshape(-1), questions.reshape(-1, questions.shape[-1]))
    return flat.reshape(keys.shape)
