"""When two answers are the same."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.answers import AnswerRule, normalize

same_answer = AnswerRule("normalized").same

SAME = """
Paris.|Paris            the Tamble|Tamble        The  Moon.|moon      \u201cParis\u201d|Paris
1,000|1000              1.50|1.5                 $5|5                 +3|3
.5|0.5                  U.S.|US                  well-known|wellknown   O'Brien|O\u2019Brien
Paris,France|Paris, France                       **Paris**|Paris      caf\u00e9|cafe\u0301
\uff11\uff15|15            \u6771\u4eac\u3002|\u6771\u4eac     an apple|Apple   -1|\u22121
the year 1815|year 1815                          STRASSE|stra\u00dfe
"""
DIFFERENT = """
the|A                   !|A                      a|the                !|?
15|1.5                  -5|5                     12|1/2               1030|10:30
C++|C                   C#|C++                   5%|5                 102|10\u00b2
19141918|1914-1918      vitamin|vitamin A        plan|plan a          1.000|1000
007|7                   1,00|100                 0|00                 example.com|examplecom
x_1|x1                  .|a                      the a|the            1e5|15
"""


def pairs(table: str) -> list[tuple[str, ...]]:
    return [tuple(pair.split("|")) for pair in re.split(r" {3,}|\n", table.strip())]


@pytest.mark.parametrize(("one", "other"), pairs(SAME))
def test_the_same_in_other_words(one, other):
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(("one", "other"), [*pairs(DIFFERENT), ("", "A")])
def test_what_makes_a_difference(one, other):
    assert not same_answer(one, other)
    assert not same_answer(other, one)


@given(st.text())
def test_something_counts_of_every_answer_that_says_something(text):
    assert bool(normalize(text)) == bool(text.split())


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_numbers_are_the_same_only_if_they_are_equal(one, other):
    assert same_answer(str(one), f"{other:,}") == (one == other)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.integers(0, 3))
def test_a_point_moved_is_another_number(number, places):
    moved = number.scaleb(places)
    assert same_answer(f"{number:f}", f"{moved:f}") == (number == moved)


@given(st.text(string.ascii_letters, min_size=2).filter(lambda w: w.lower() not in ("an", "the")))
def test_a_word_is_itself_in_any_case_and_with_a_full_stop(word):
    assert same_answer(word, word.upper() + ".")
