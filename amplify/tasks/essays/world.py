"""The hidden side of essays: which claims are right, and what an essay is worth.

An essay makes claims, and a claim consists of statements. Each topic draws which statements are
right; a claim is right if all of its statements are. *Gold*, the worth of an essay, is the sum of

- its distinct claims, each its weight if it is right and minus its weight if not: a few *key*
  claims have most of the weight, and the others are filler;
- *insights*, worth that a pair of claims has together and no claim has by itself;
- a cost for repeating a claim, which grows faster than the number of repeats;

in standard deviations of *drafts*, the essays of a writer who does not know what is right. Only
scorers and evals may read gold; whoever makes a training signal sees what statements seem.

Some claims may be the *focus*. A focused draft makes no other claims, and gold has two parts: what
the claims of the focus are worth by themselves, and what all others add to them.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key, UInt32

from amplify.task_abilities import GoldParts

STATEMENTS = 3
"""Statements of a claim."""
RIGHT = 0.5 ** (1 / STATEMENTS)
"""Share of statements that are right, so that half of the claims are."""
DRAFTS = 1 << 13
"""Drafts by which gold is scaled."""


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """What decides a world: equal values give equal worlds."""

    number: int
    claims: int
    length: int
    key_claims: int
    insights: int
    insight_share: float
    repeat_cost: float
    seeming: float
    topics: int
    focus: tuple[int, ...]
    """Numbers of the claims in focus; all, if there is none."""


class World(NamedTuple):
    """What claims are worth, in every topic, and how drafts are written.

    All of it is arrays with axes, which JAX can pass to compiled programs as arguments, see
    `launch.share_programs`: then worlds of equal shapes share one program.
    """

    weight: Float32[Array, " claims"]
    insight: Float32[Array, "claims claims"]  # of a pair; symmetric, zero on the diagonal
    draft: Float32[Array, "claims+1 claims"]  # cumulative probability of the next claim
    focused_draft: Float32[Array, "claims+1 claims"]  # likewise; 0 for claims that are not in focus
    focus: Float32[Array, " claims"]  # 1 for each claim in focus, 0 for the others
    statements: UInt32[Array, "2"]  # data of the key that decides which statements are right
    numbers: Float32[Array, "4"]

    @property
    def repeat_cost(self) -> Float32[Array, ""]:
        """Cost of the first repeat of a claim, before scaling."""
        return self.numbers[0]

    @property
    def mean(self) -> Float32[Array, ""]:
        """The mean worth of drafts, before scaling."""
        return self.numbers[1]

    @property
    def scale(self) -> Float32[Array, ""]:
        """The standard deviation of the worth of drafts, before scaling."""
        return self.numbers[2]

    @property
    def focus_mean(self) -> Float32[Array, ""]:
        """The mean worth of drafts of which only claims in focus are read, before scaling."""
        return self.numbers[3]


@functools.lru_cache(maxsize=64)
def make_world(config: WorldConfig) -> World:
    """Draws a world.

    Args:
        config: what decides it.

    Returns:
        A world in which the gold of drafts has mean 0 and standard deviation 1, over all topics;
        insights have a share of `insight_share` in the variance of the sum of claims and insights.
    """
    random = np.random.default_rng(config.number)
    claims = config.claims
    weight = random.uniform(0.25, 0.75, claims)
    weight[random.choice(claims, config.key_claims, replace=False)] = random.uniform(
        2.0, 3.0, config.key_claims
    )
    insight = np.zeros((claims, claims))
    for _ in range(config.insights):
        pair = random.choice(claims, 2, replace=False)
        insight[tuple(pair)] += random.normal()
    insight += insight.T
    popularity = -np.log1p(random.permutation(claims))
    logits = popularity + 0.5 * random.normal(size=(claims + 1, claims))
    odds = np.exp(logits)
    probability = odds / odds.sum(axis=1, keepdims=True)
    focus = np.isin(np.arange(claims), config.focus)
    # A process that resumes a round may ask for its world first within a training step, where no
    # transfer is allowed.
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        key = jax.random.fold_in(jax.random.key(config.number), 1)
        unscaled = World(
            jnp.asarray(weight, jnp.float32),
            jnp.asarray(insight, jnp.float32),
            jnp.asarray(np.cumsum(probability, axis=1), jnp.float32),
            jnp.asarray(np.cumsum(probability * focus, axis=1), jnp.float32),
            jnp.asarray(focus, jnp.float32),
            jax.random.key_data(key),
            jnp.array([config.repeat_cost, 0.0, 1.0, 0.0], jnp.float32),
        )
        return _scaled(config, unscaled)


def _scaled(config: WorldConfig, world: World) -> World:
    """Scales weights, insights and gold by their spread over drafts about many topics."""
    key = jax.random.key(config.number)
    topic_key, draft_key = jax.random.split(key)
    topics = jax.random.randint(topic_key, (DRAFTS,), 0, config.topics)
    essays = jax.vmap(lambda key: write_draft(world, config.length, key))(
        jax.random.split(draft_key, DRAFTS)
    )
    present = presence(essays, config.claims)
    values = jax.vmap(functools.partial(claim_values, world))(topics)
    from_claims = np.asarray(jnp.sum(present * values, axis=-1))
    from_insights = np.asarray(_insight(world, present))
    share = config.insight_share
    weight = world.weight * np.float32((1 - share) ** 0.5 / from_claims.std())
    spread = from_insights.std()
    insight = world.insight * np.float32(share**0.5 / spread if spread else 0)
    world = world._replace(weight=weight, insight=insight)
    gold = np.asarray(jax.vmap(functools.partial(essay_gold, world))(topics, essays))
    parts = jax.vmap(functools.partial(essay_gold_parts, world))(topics, essays)
    focus_mean = np.asarray(parts.focus).mean()
    numbers = jnp.array([config.repeat_cost, gold.mean(), gold.std(), focus_mean], jnp.float32)
    return world._replace(numbers=numbers)


def statements_right(world: World, topic: Int[Array, ""]) -> Bool[Array, "claims statements"]:
    """Which statements are right about a topic.

    Args:
        world: the one it is part of.
        topic: its number.
    """
    key = jax.random.fold_in(_topic_key(world, topic), 0)
    return jax.random.bernoulli(key, RIGHT, (len(world.weight), STATEMENTS))


def statements_seeming(
    world: World, seeming: float, topic: Int[Array, ""]
) -> Bool[Array, "claims statements"]:
    """Which statements seem right: correlated with being right by `seeming`.

    Args:
        world: the one that the topic is part of.
        seeming: the correlation, 0 to 1.
        topic: its number.
    """
    honest_key, other_key = jax.random.split(jax.random.fold_in(_topic_key(world, topic), 1))
    right = statements_right(world, topic)
    honest = jax.random.bernoulli(honest_key, seeming, right.shape)
    return jnp.where(honest, right, jax.random.bernoulli(other_key, RIGHT, right.shape))


def statement_sources(
    world: World, numbers: int, topic: Int[Array, ""]
) -> tuple[Int[Array, "claims statements"], Int[Array, "claims statements"]]:
    """The number that each statement cites, and the one that its source says: they are equal if the
    statement is right.

    Args:
        world: the one that the topic is part of.
        numbers: how many there are, 2 or more; each is equally likely.
        topic: its number.
    """
    cited_key, other_key = jax.random.split(jax.random.fold_in(_topic_key(world, topic), 2))
    right = statements_right(world, topic)
    cited = jax.random.randint(cited_key, right.shape, 0, numbers)
    other = cited + jax.random.randint(other_key, right.shape, 1, numbers)
    return cited, jnp.where(right, cited, other % numbers)


def _topic_key(world: World, topic: Int[Array, ""]) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.wrap_key_data(world.statements), topic)


def claims_right(world: World, topic: Int[Array, ""]) -> Bool[Array, " claims"]:
    """Which claims are right about a topic: those with right statements only."""
    return jnp.all(statements_right(world, topic), axis=-1)


def claim_values(world: World, topic: Int[Array, ""]) -> Float[Array, " claims"]:
    """What each claim adds to an essay about a topic, by itself."""
    return jnp.where(claims_right(world, topic), world.weight, -world.weight)


def essay_gold(
    world: World, topic: Int[Array, ""], essay: Int[Array, " length"]
) -> Float[Array, ""]:
    """The worth of an essay about a topic, in standard deviations of drafts.

    Args:
        world: the one it describes.
        topic: the topic's number.
        essay: its claims, from 0; negative ones say nothing.
    """
    return value_essay(world, claim_values(world, topic), essay)


def value_essay(
    world: World, values: Float[Array, " claims"], essay: Int[Array, " length"]
) -> Float[Array, ""]:
    """The worth of an essay given what its claims are worth, or are believed to be worth.

    Args:
        world: insights, the cost of repeats and the scale.
        values: of each claim.
        essay: its claims, from 0; negative ones say nothing.

    Returns:
        In standard deviations of drafts; their mean is 0.
    """
    return (_total(world, values, counts(essay, len(values))) - world.mean) / world.scale


def _total(
    world: World, values: Float[Array, " claims"], count: Float[Array, " claims"]
) -> Float[Array, ""]:
    """The worth of an essay by how often it makes each claim, before scaling."""
    present = jnp.minimum(count, 1)
    extra = jnp.maximum(count - 1, 0)
    total = jnp.sum(present * values) + _insight(world, present)
    return total - world.repeat_cost * jnp.sum(extra**1.5)


def essay_gold_parts(
    world: World, topic: Int[Array, ""], essay: Int[Array, " length"]
) -> GoldParts:
    """Divides the worth of an essay between the claims in focus and all others.

    The focus has what the essay would be worth if all other claims were struck out: its distinct
    claims, insights between two of them, and what it costs to repeat them. The others have the
    rest: insights between a claim in focus and another one, too.

    Args:
        world: the one it describes.
        topic: the topic's number.
        essay: its claims, from 0; negative ones say nothing.

    Returns:
        Two parts that add up to `essay_gold`, and have mean 0 over drafts.
    """
    values, count = claim_values(world, topic), counts(essay, len(world.weight))
    kept = count * world.focus
    focus = (_total(world, values, kept) - world.focus_mean) / world.scale
    outside = jnp.sum(count - kept) / jnp.maximum(jnp.sum(count), 1)
    return GoldParts(focus, essay_gold(world, topic, essay) - focus, outside)


def counts(essay: Int[Array, "*b length"], claims: int) -> Float[Array, "*b claims"]:
    """How often an essay makes each claim."""
    return jnp.sum(jax.nn.one_hot(essay, claims), axis=-2)


def presence(essay: Int[Array, "*b length"], claims: int) -> Float[Array, "*b claims"]:
    """1 for each claim that an essay makes, 0 for the others."""
    return jnp.minimum(counts(essay, claims), 1)


def _insight(world: World, present: Float[Array, "*b claims"]) -> Float[Array, "*b"]:
    return 0.5 * jnp.einsum("...i,ij,...j->...", present, world.insight, present)


def write_draft(
    world: World, length: int, key: Key[Array, ""], *, focused: bool = False
) -> Int[Array, " length"]:
    """Writes an essay as somebody does who does not know what is right: by popularity, and by which
    claim usually follows which.

    Args:
        world: what is popular.
        length: number of claims.
        key: consumed.
        focused: whether it makes no claims but those in focus, with the same odds between them.
    """
    table = world.focused_draft if focused else world.draft

    def add(last: Int[Array, ""], uniform: Float[Array, ""]) -> tuple[Array, Array]:
        # The inverse of the distribution function: much faster than a categorical draw.
        claim = jnp.sum(table[last] < uniform * table[last, -1]).astype(jnp.int32)
        return claim, claim

    start = jnp.int32(table.shape[1])
    # Above 0, where a first claim with probability 0 would be drawn.
    return jax.lax.scan(add, start, jax.random.uniform(key, (length,), minval=1e-30))[1]
