"""The search task: an encyclopedia, what can be asked about it, what a search finds, and who sees
what.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.overseers.simulated import Simulated
from amplify.tasks.batching import vmap_questions
from amplify.tasks.problems import answer_keys, draw_problems
from amplify.tasks.text.collection import Collection, Document
from amplify.tasks.text.encyclopedia import (
    ENTITIES_PER_REGION,
    KINDS,
    NEW_PAIRS,
    RELATIONS,
    ParsedQuestion,
    chains,
    generate,
    parse,
    phrase_question,
)
from amplify.tasks.text.retrieval import SEARCH_PREFIX
from amplify.tasks.text.search import STEP_SEPARATOR, Search, ask_inside, ask_last_hop, conclude
from amplify.tasks.text.text_tokenizer import train_tokenizer
from amplify.trees.amplification import amplified, contexts_for, true_answers
from amplify.words import describe_tree, format_tokens, read_answer, read_question

TASK = Search(regions=128)
WORLD = generate(128, 0)
TOKENIZER = train_tokenizer([text for _, text in WORLD.documents], 400)


def problems(split: str, count: int = 16, depths=(1, 2, 3, 3), task=TASK):
    return draw_problems(task, 0, 1 if split == "train" else 0, split, count, depths)


def texts(tokens, task=TASK) -> list[str]:
    rows = np.asarray(tokens)
    return [format_tokens(task, row) for row in rows.reshape(-1, rows.shape[-1])]


def test_every_entity_has_a_name_of_its_own_and_a_document_that_says_what_it_has():
    assert len(set(WORLD.numbers)) == 128 * ENTITIES_PER_REGION == len(WORLD.documents)
    for (title, text), held in zip(WORLD.documents, WORLD.holds, strict=True):
        there = [
            relation.sentence.format(title, WORLD.documents[other].title)
            for relation, other in zip(RELATIONS, held, strict=True)
            if other >= 0
        ]
        assert text == " ".join(there)
        assert there


def test_relations_stay_in_their_region_and_give_another_entity_of_the_right_kind():
    for entity, held in enumerate(WORLD.holds):
        for relation, other in zip(RELATIONS, held, strict=True):
            assert (other >= 0) == (KINDS[entity % ENTITIES_PER_REGION] == relation.of)
            if other >= 0:
                assert other // ENTITIES_PER_REGION == entity // ENTITIES_PER_REGION
                assert other != entity
                assert KINDS[other % ENTITIES_PER_REGION] == relation.gives


def test_another_seed_is_another_world():
    assert generate(128, 1).documents != WORLD.documents


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_a_question_says_what_it_asks_for(hops):
    for chain in chains(hops):
        assert parse(phrase_question("Zelto", chain)) == ParsedQuestion("Zelto", chain)


def test_the_answer_is_where_one_comes_hop_by_hop():
    for entity, chain in itertools.product(range(0, 128 * ENTITIES_PER_REGION, 97), chains(3)):
        name = WORLD.documents[entity].title
        reached, path = name, []
        for relation in chain:
            if reached:
                path.append([WORLD.numbers[reached]])
                reached = WORLD.answer(phrase_question(reached, (relation,)))
        assert WORLD.answer(phrase_question(name, chain)) == reached
        assert WORLD.path(phrase_question(name, chain)) == (path if reached else [])


@pytest.mark.parametrize(
    "text", ["", "Who founded?", "Who founded Nobody?", "hello", SEARCH_PREFIX]
)
def test_what_is_no_question_has_no_answer(text):
    assert WORLD.answer(text) == ""
    assert WORLD.path(text) == []


def test_new_pairs_of_hops_are_made_of_hops_that_other_pairs_have():
    old = [pair for pair in chains(2) if pair not in NEW_PAIRS]
    assert 0 < len(NEW_PAIRS) < len(old)
    for first, second in NEW_PAIRS:
        assert first in [pair[0] for pair in old]
        assert second in [pair[1] for pair in old]


def test_no_round_asks_about_a_held_out_region_or_a_new_chain():
    trained, held_out = problems("train", 64), problems("final", 64)
    asked = [parse(text) for text in texts(trained.questions)]
    assert not any(one.is_new for one in asked)
    named = {one.name for one in asked}
    evaluated = [parse(text) for text in texts(held_out.questions)]
    assert any(one.is_new for one in evaluated)
    assert any(not one.is_new and len(one.chain) == 3 for one in evaluated)
    regions = {int(row) for row in np.asarray(held_out.contexts).ravel()}
    assert not any(WORLD.numbers[name] // ENTITIES_PER_REGION + 1 in regions for name in named)


def test_classes_count_hops_and_tell_new_chains():
    drawn = problems("final", 64)
    classes = np.asarray(vmap_questions(TASK.class_of)(drawn.contexts, drawn.questions)).ravel()
    for text, index in zip(texts(drawn.questions), classes, strict=True):
        asked = parse(text)
        hops = len(asked.chain)
        expected = f"{hops} hop{'s' * (hops > 1)}{', new chain' * asked.is_new}"
        assert TASK.classes[index] == expected
    assert set(classes) == set(range(len(TASK.classes)))


@pytest.fixture(scope="module")
def overseen():
    """Held-out questions, taken apart by the overseer with true sub-answers."""
    drawn = problems("final", 32)

    @jax.jit
    def run(drawn):
        told = true_answers(TASK, drawn.contexts)
        respond = amplified(TASK, Simulated(TASK).using(), told, drawn.contexts, depth=1)
        everywhere = jnp.ones(drawn.questions.shape[:2], bool)
        keys = answer_keys(jax.random.key(0), drawn.seeds, drawn.questions.shape[1])
        return respond(drawn.questions, everywhere, keys)

    return drawn, jax.tree.map(np.asarray, run(drawn))


def test_the_overseer_told_the_truth_gives_the_truth(overseen):
    drawn, given = overseen
    right = vmap_questions(TASK.is_right)(drawn.contexts, drawn.questions, given.answer)
    assert bool(jnp.all(right))
    silent = jnp.zeros_like(given.answer)
    assert not bool(jnp.any(vmap_questions(TASK.is_right)(drawn.contexts, drawn.questions, silent)))


def test_a_single_hop_is_searched_for_and_read_and_a_longer_chain_is_taken_apart(overseen):
    drawn, given = overseen
    contexts = np.asarray(drawn.contexts)
    one, two, three = (describe_tree(TASK, contexts[0], given, 0, column) for column in (0, 1, 2))
    [step] = one["steps"]
    assert step["by"] == "environment"
    assert step["question"].startswith(SEARCH_PREFIX)
    assert one["answer"] in step["answer"]
    for whole in (two, three):
        inside, last = whole["steps"]
        asked = parse(whole["question"])
        assert parse(inside["question"]) == ParsedQuestion(asked.name, asked.chain[:-1])
        assert parse(last["question"]) == ParsedQuestion(inside["answer"], asked.chain[-1:])
        assert last["answer"] == whole["answer"]


def test_an_overseer_that_finds_nothing_does_not_know():
    assert ask_last_hop("Where was the founder of Zelto born?", "") == ""
    assert conclude("Who founded Zelto?", "Zelto is big.", "") == ""
    assert conclude("Who founded Zelto?", "Bulma was founded by Mirat.", "") == ""
    assert ask_inside("hello") == ""


WORKING = dataclasses.replace(TASK, show_work=True)


def test_work_that_is_shown_names_what_was_found_hop_by_hop():
    seeds, contexts, questions = problems("final", 8, task=WORKING)
    told = true_answers(WORKING, contexts)
    strategy = Simulated(WORKING).using()
    respond = amplified(WORKING, strategy, told, contexts, depth=WORKING.hops)
    everywhere = jnp.ones(questions.shape[:2], bool)
    answers = respond(questions, everywhere, answer_keys(jax.random.key(0), seeds, 4)).answer
    assert bool(jnp.all(vmap_questions(WORKING.is_right)(contexts, questions, answers)))
    for text, way in zip(texts(questions, WORKING), texts(answers, WORKING), strict=True):
        asked = parse(text)
        ends = [
            phrase_question(asked.name, asked.chain[: hop + 1]) for hop in range(len(asked.chain))
        ]
        assert way.split(STEP_SEPARATOR) == [WORLD.answer(question) for question in ends]


def test_of_work_that_is_shown_only_the_end_counts():
    _, contexts, questions = problems("final", 1, (2,), WORKING)
    question = questions[0, 0]
    truth = WORLD.answer(texts(question, WORKING)[0])

    def right(text):
        answer = jnp.asarray(read_answer(WORKING, text))
        return bool(WORKING.is_right(contexts[0], question, answer))

    other = WORLD.documents[0].title
    assert right(truth)
    assert right(f"{other} > {truth}")
    assert not right(f"{truth} > {other}")
    assert not right(f"{truth} >")


def test_all_that_an_answer_rests_on_is_found_and_what_is_missing_is_noticed():
    drawn = problems("final", 32)
    found = contexts_for(TASK, drawn.contexts, drawn.questions)
    supported = vmap_questions(TASK.supports)
    assert bool(jnp.all(supported(found, drawn.questions)))
    path = WORLD.path(texts(drawn.questions)[0])
    place = texts(found[0]).index(WORLD.documents[path[0][0]].text)
    less = found.at[0, place].set(0)
    assert not bool(supported(less, drawn.questions)[0, 0])


def test_without_follow_ups_only_a_single_hop_is_found():
    shy = dataclasses.replace(TASK, follow_ups=0)
    drawn = problems("final", 16, (1, 2))
    alone = [drawn.questions[:, n : n + 1] for n in (0, 1)]
    one, two = (vmap_questions(shy.supports)(shy.find(asked), asked) for asked in alone)
    assert bool(jnp.all(one))
    assert not bool(jnp.any(two))


def test_nothing_is_found_for_nothing():
    assert not bool(jnp.any(TASK.find(jnp.zeros((2, 3, TASK.question_length), jnp.int32))))


def test_only_a_search_is_primitive_and_it_gives_a_sentence():
    drawn = problems("final", 8)
    assert not bool(jnp.any(TASK.is_primitive(drawn.questions)))
    title, text = WORLD.documents[11]
    asked = jnp.asarray(read_question(TASK, f"{SEARCH_PREFIX} {title} born"))
    assert bool(TASK.is_primitive(asked))
    told = TASK.environment(drawn.contexts[0], asked, jax.random.key(0))
    assert texts(told)[0] in text


def test_questions_read_back_as_they_are_shown_and_others_are_refused():
    for question in np.asarray(problems("final", 4).questions).reshape(-1, TASK.question_length):
        assert read_question(TASK, format_tokens(TASK, question)).tolist() == question.tolist()
    with pytest.raises(ValueError, match="a question is such as"):
        TASK.parse("hello")
    with pytest.raises(ValueError, match="at most 20 tokens"):
        TASK.parse(f"{SEARCH_PREFIX} {'long ' * 24}")


DOCUMENTS = [
    Document("Ants", "Ants live in hills. They follow Beetles."),
    Document("Beetles", "Beetles are older than Cats and Dogs."),
    Document("Cats", "Cats sleep. Dogs do not."),
    Document("Dogs", "Dogs bark."),
]


def test_a_search_follows_names_from_what_it_found():
    collection = Collection(DOCUMENTS)
    assert collection.search(["hills", "zebra"], 2) == [(0,), ()]
    assert collection.titles_in(1) == ("Cats", "Dogs")
    assert collection.search_with_follow_ups(["hills"], 1, 0) == [(0,)]
    assert collection.search_with_follow_ups(["hills"], 1, 2) == [(0, 1, 2)]
    assert collection.search_with_follow_ups(["hills", "zebra"], 1, 9) == [(0, 1, 2, 3), ()]
    assert collection.sentence(2, "who sleep") == "Cats sleep."


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="\u2581")))
def test_any_text_is_read_as_it_was_written(text):
    text = " ".join(text.split())
    length = len(TOKENIZER.encode(text)) + 1
    rows = TOKENIZER.encode_batch([text, text], length)
    assert TOKENIZER.decode_batch(rows) == [text.strip()] * 2
    assert not rows[:, -1].any()
