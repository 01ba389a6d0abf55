"""What readers of answers do, whatever the task: they check some parts first, as critics advise."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from amplify.task_abilities import Critic


def criticise(
    critic: Critic, right: Bool[Array, "*parts"], key: Key[Array, ""]
) -> Bool[Array, "*parts"]:
    """Draws which parts a critic says are wrong.

    Args:
        critic: how often it errs.
        right: which parts are right.
        key: consumed.
    """
    errs = ~jax.random.bernoulli(key, critic.accuracy, right.shape)
    return ~right ^ errs


def first_parts(
    order: Float[Array, "*parts"], there: Bool[Array, "*parts"], number: int
) -> Bool[Array, "*parts"]:
    """The parts of an answer that come first in an order.

    Args:
        order: of each part; the lowest come first.
        there: which parts the answer has.
        number: of parts to be chosen, or all that there are.
    """
    order = jnp.where(there, order, jnp.inf)
    rank = jnp.argsort(jnp.argsort(order, axis=None)).reshape(order.shape)
    return there & (rank < min(number, order.size))
