"""How a language model may frame a question or a conclusion."""

import pytest

from amplify.overseers.replies import read_reply

QUESTIONS = {
    "plain": "Ask: who?",
    "lower case": "ask: who?",
    "no space": "ASK:who?",
    "full width": "Ask\uff1a who?",
    "after thoughts": "I know nothing of that yet.\n\nAsk: who?",
    "with the rest imagined": "Ask: who?\nAnswer: me\nConclude: me",
    "item of a list": "1. Ask: who?",
    "bullet": "* Ask: who?",
    "quote": "> Ask: who?",
    "bold word": "**Ask:** who?",
    "bold word, colon outside": "**Ask**: who?",
    "bold line": "**Ask: who?**",
    "code": "```\nAsk: who?\n```",
    "reasoning": "<think>\nConclude: no, wait\n</think>\n\nAsk: who?",
    "only the end of reasoning": "Conclude: hm\n</think>Ask: who?",
    "on the next line": "Ask:\nwho?",
    "windows": "Well.\r\nAsk: who?\r\n",
}  # fmt: skip


@pytest.mark.parametrize("form", QUESTIONS)
def test_a_question_is_read_however_it_is_framed(form):
    said = read_reply(QUESTIONS[form])
    assert said.asks
    assert said.readings[0] == "who?"


def test_a_conclusion_is_read_without_quotes_first():
    assert read_reply('Conclude: "The Moon"').readings == ("The Moon", '"The Moon"')
    assert read_reply("Conclude: **4**").readings == ("4", "**4**")
    assert not read_reply("conclude: 4").asks


@pytest.mark.parametrize("pattern", ["*ab", "ab*", "****", "*a*", "**"])
def test_stars_that_are_a_question_stay(pattern):
    assert pattern in read_reply(f"Ask: {pattern}").readings
    assert pattern in read_reply(f"**Ask:** {pattern}").readings


UNUSABLE = {
    "": "said nothing",
    " \n": "said nothing",
    "<think>Ask: who?": "said nothing",
    "Well, who knows.": "said 'Well, who knows.', which is neither a question nor an answer",
    "Answer: me": "neither a question nor an answer",
    "Asking: who?": "neither a question nor an answer",
    "Ask:": "with nothing after it",
    "**Conclude:**": "with nothing after it",
}


@pytest.mark.parametrize("reply", UNUSABLE)
def test_what_cannot_be_used_says_why(reply):
    assert UNUSABLE[reply] in read_reply(reply)


def test_a_line_that_was_cut_off_is_not_used():
    assert "cut off" in read_reply("Conclude: The Uni", cut_off=True)
    assert "cut off" in read_reply("<think>Let me", cut_off=True)
    assert read_reply("Conclude: The Moon\nBecause", cut_off=True).readings == ("The Moon",)
    assert read_reply("Conclude:\nThe Moon\nBecause", cut_off=True).readings == ("The Moon",)
    assert "cut off" in read_reply("Conclude:\nThe Mo", cut_off=True)


def test_a_reply_of_any_length_is_read_at_once():
    for part in ("<think>", "</think>", "*", "Ask", "- ", "**Ask", "\n", "* "):
        read_reply(part * (100_000 // len(part)))
