"""Packing: what is laid out in fewer lines is trained on as if each question had its own."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from amplify.models.attention.attention_parts import PADDING
from amplify.models.attention.rotary import Rotary
from amplify.models.decoder.causal_lm import CausalLM
from amplify.models.decoder.layers import Architecture
from amplify.models.language_model import LanguageModelConfig
from amplify.models.packing import choose_packing
from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.tasks.problems import draw_problems

TASK = UnionFind(4)
MODEL = LanguageModelConfig(width=16, heads=2, key_heads=1, layers=2, reach=3).build(TASK)


def rows(contexts: int = 6) -> dict[str, np.ndarray]:
    problems = draw_problems(TASK, 0, 1, "train", contexts, [1, 2, 1, 2, 1, 1])
    shape = (*problems.questions.shape[:2], TASK.answer_length)
    answers = jax.random.randint(jax.random.key(0), shape, 0, len(TASK.vocabulary))
    return {
        "context": np.asarray(problems.contexts),
        "questions": np.asarray(problems.questions),
        "answers": np.asarray(answers),
    }


def test_loss_and_gradient_are_those_of_one_question_to_a_line():
    given_rows, params = rows(), jax.jit(MODEL.init)(jax.random.key(0))
    packed = MODEL.lay_out(given_rows)
    assert packed["tokens"].shape[1] < given_rows["questions"].shape[1]
    gradient = jax.jit(jax.value_and_grad(MODEL.loss, has_aux=True))
    (loose_loss, loose), loose_gradient = gradient(params, given_rows)
    (loss, metrics), packed_gradient = gradient(params, packed)
    np.testing.assert_allclose(loss, loose_loss, rtol=1e-5)
    assert metrics["agreement"] == loose["agreement"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), packed_gradient, loose_gradient
    )


def test_a_segment_cannot_be_seen_from_another():
    """Everything of one is changed; what is made of the others is the same to the last bit."""
    architecture = Architecture(
        vocabulary=11, positions=32, width=16, heads=2, key_heads=1, head_width=8, hidden=32,
        windows=(0, 0), rotary=(Rotary(10_000.0),) * 2, reach=3,
    )  # fmt: skip
    network = CausalLM(architecture, nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 3, 12), 0, 11)
    segments = jnp.broadcast_to(jnp.repeat(jnp.arange(3), 4), tokens.shape)
    positions = jnp.broadcast_to(jnp.tile(jnp.arange(4), 3), tokens.shape)
    read = jax.jit(lambda tokens: network.forward(tokens, positions, segments=segments)[0])
    before, after = read(tokens), read(tokens.at[:, :, 4:8].set((tokens[:, :, 4:8] + 1) % 11))
    assert (np.asarray(before == after)[:, :, [0, 1, 2, 3, 8, 9, 10, 11]]).all()
    assert not np.asarray(before == after)[:, :, 4:8].all(-1).any()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 20), min_size=5, max_size=5), min_size=1, max_size=4))
def test_questions_lie_beside_each_other_and_fill_no_more_than_lines_of_their_own(lengths):
    lengths = np.array(lengths)
    placement, room = choose_packing(lengths)
    for line, start, length in zip(placement.sequence, placement.start, lengths, strict=True):
        taken = [
            (n, at) for n, s, k in zip(line, start, length, strict=True) for at in range(s, s + k)
        ]
        assert len(set(taken)) == length.sum()
        assert all(at < room for _, at in taken)
    longest = -(-lengths.max() // 8) * 8
    assert (placement.sequence.max() + 1) * room <= lengths.shape[1] * longest


def test_padding_is_left_out_wherever_it_stood():
    packed = MODEL.lay_out(rows())
    assert (np.diff(np.int32(packed["context"] == PADDING), axis=1) >= 0).all()
    inside = np.diff(np.int32(packed["tokens"] == PADDING), axis=-1)
    assert (inside >= 0).all()
