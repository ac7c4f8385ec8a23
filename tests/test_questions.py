"""Questions: what one asks, in parts that can be looked for alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.questions import MOST_ASPECTS, aspects


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        (
            "How is green tea brewed, and why is it never boiled?",
            ("How is green tea brewed", "why is it never boiled?"),
        ),
        ("What is a kettle and how does it work?", ("What is a kettle", "how does it work?")),
        (
            "When would you boil the water, and when leave it cold?",
            ("When would you boil the water", "when leave it cold?"),
        ),
        (
            "A kettle holds two litres. How long does it boil? What does that cost a year?",
            ("A kettle holds two litres. How long does it boil?", "What does that cost a year?"),
        ),
        ("whats a kettle n how hot, hows it cleaned", ("whats a kettle n how hot", "hows it cleaned")),
        ("hows tea made, and whats a kettle for", ("hows tea made", "whats a kettle for")),
        (
            "Derive the heat of the kettle, and say why it falls.",
            ("Derive the heat of the kettle", "say why it falls."),
        ),
    ],
)
def test_questions_that_ask_several_things_have_several_aspects(question: str, parts: tuple[str, ...]) -> None:
    assert aspects(question) == parts


@pytest.mark.parametrize(
    "question",
    [
        "How is green tea brewed?",
        "When water boils, what does the kettle do?",
        "In a kettle, how does water boil?",
        "Why is black and green tea brewed, and why?",
        "how do kettles and ovens differ",
        "kettle vs oven, whats better",
        "What is the difference between what boils and cold water?",
        "",
        "What, why, how, who?",
        "What is it? " * 9,
    ],
)
def test_others_have_one_which_is_themselves(question: str) -> None:
    assert aspects(question) == (question,)


def test_what_asks_nothing_by_itself_stays_with_what_follows_it() -> None:
    assert aspects("In a kettle with a lid, what boils first, and what does the lid change?") == (
        "In a kettle with a lid what boils first",
        "what does the lid change?",
    )


@given(st.text(max_size=300))
def test_any_text_has_aspects(question: str) -> None:
    assert 1 <= len(aspects(question)) <= MOST_ASPECTS
