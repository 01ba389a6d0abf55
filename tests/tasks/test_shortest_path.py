import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import shortest_path

from amplify.tasks.algorithmic.shortest_path import ShortestPath
from tests.tasks.common import overseen, play, say

TASK = ShortestPath(vertices=7, edges=12)
DRAW = jax.jit(lambda seed, size: TASK.draw_context_of_size(jax.random.key(seed), size))
DISTANCES = jax.jit(TASK._distances)


def edges_of(context) -> list[tuple[int, int]]:
    return [(a, b) for a, b in np.asarray(context).tolist() if a]


@given(st.integers(0, 10_000), st.integers(2, 7))
def test_distances_are_those_of_scipy(seed, size):
    context = DRAW(seed, jnp.int32(size))
    edges = edges_of(context)
    assert len(edges) == len(set(edges)) == min(12 * size // 7, size * (size - 1))
    graph = np.zeros((8, 8))
    for a, b in edges:
        assert a != b
        graph[a, b] = 1
    expected = shortest_path(graph, unweighted=True)
    ours = np.asarray(DISTANCES(context)).astype(float)
    ours[ours == 10**6] = np.inf
    assert (ours[1:, 1:] == expected[1:, 1:]).all()


def context_of(*edges: tuple[int, int]) -> jnp.ndarray:
    padding = [(0, 0)] * (TASK.edges - len(edges))
    return jnp.array([*edges, *padding], jnp.int32)


TWO_WAYS = context_of((1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (1, 6))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("D v1 v5", "3"), ("D v1 v2", "1"), ("D v5 v1", "unreachable"), ("S v1 v5", "v2"),
        ("S v6 v5", "unreachable"), ("edge v1 v2", "yes"), ("edge v2 v1", "no"), ("D v1 v1", "?"),
        ("next v2", "v4"), ("next v5", "unreachable"), ("S v1 v1", "?"),
    ],
)  # fmt: skip
def test_golden_truths(question, answer):
    assert say(TASK, TWO_WAYS, question) == answer


def test_every_first_step_of_a_shortest_path_is_right_and_no_other():
    question = jnp.array([TASK._words[4], 1, 5], jnp.int32)
    right = [bool(TASK.is_right(TWO_WAYS, question, jnp.array([v]))) for v in range(8)]
    assert right == [False, False, True, True, False, False, False, False]


def test_random_neighbours_are_all_neighbours_equally_often():
    question = jnp.array([TASK._words[6], 1, 0], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = jax.vmap(lambda key: TASK.environment(TWO_WAYS, question, key))(keys)
    vertices, counts = np.unique(np.asarray(drawn), return_counts=True)
    assert vertices.tolist() == [2, 3, 6]
    assert (abs(counts - 1000) < 150).all()


def test_golden_decomposition_of_a_distance():
    asked = ["edge v1 v5", "S v1 v5", "D v2 v5"]
    assert play(TASK, "D v1 v5", ["no", "v2", "2"]) == (asked, "3")
    assert play(TASK, "D v1 v5", ["yes"]) == (asked[:1], "1")
    assert play(TASK, "D v1 v5", ["no", "unreachable"]) == (asked[:2], "unreachable")


def test_golden_decomposition_of_a_step():
    asked = [
        "edge v1 v5", "S v1 v5", "S v1 v5", "next v1", "edge v1 v2", "edge v1 v7", "D v2 v5",
        "D v6 v5",
    ]  # fmt: skip
    told = ["no", "v2", "v7", "v6", "yes", "no", "2", "unreachable"]
    assert play(TASK, "S v1 v5", told) == (asked, "v2")
    told = ["no", "unreachable", "unreachable", "unreachable"]
    assert play(TASK, "S v1 v5", told) == (asked[:4], "unreachable")
    told = ["no", "v2", "v7", "v6", "yes", "yes", "4", "3", "2"]
    assert play(TASK, "S v1 v5", told) == ([*asked[:7], "D v7 v5", "D v6 v5"], "v6")


@pytest.mark.parametrize(
    ("question", "answers"),
    [("D v1 v5", ["?"]), ("D v1 v5", ["no", "3"]), ("D v1 v5", ["no", "v2", "v3"]),
     ("S v1 v5", ["v1"]), ("S v1 v5", ["no", "1", "yes", "v6", "v2"])],
)  # fmt: skip
def test_sub_answers_of_the_wrong_type_give_dont_know(question, answers):
    assert play(TASK, question, answers)[1] == "?"


def test_search_over_poor_proposals_is_right_more_often_than_they_are():
    """Half of the assistant's sub-answers are random, and yet most steps come out right."""
    tree, right = overseen(TASK, wrong=0.5, count=256)
    is_step = tree.question[..., 0] == TASK._words[4]
    assert right[is_step].mean() > 0.6
    answers = tree.answer[is_step][:, 0]
    assert ((answers <= TASK.vertices) | (answers == TASK._words[0])).all()


def test_more_edges_than_there_can_be_are_refused():
    with pytest.raises(ValueError, match="edges must be at most 12 between 4 vertices, got 13"):
        ShortestPath(vertices=4, edges=13)
