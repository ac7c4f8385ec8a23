"""Prompting: what the model reads, in what order, and when it may be long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.generating import passages_in
from studyrag.prompting import (
    LONG,
    SHORT,
    alone,
    kept,
    messages,
    number_replies,
    numbered,
    passage_text,
    wants_more,
    which,
    without_notes,
)
from studyrag.records import Message
from studyrag.statements import statements
from tests.makers import passage

TWO = [
    passage("Green tea is hot.", 1, note_id="tea.md", headings=("Tea", "Green")),
    passage("\nA chain needs oil.\n", 2, note_id="b/bikes.md", headings=()),
]


def test_a_prompt_is_the_rules_then_the_passages_by_number_then_the_question() -> None:
    system, user = messages("How hot is tea?", TWO)
    assert (system.role, user.role) == ("system", "user")
    assert user.text == (
        "[1] tea.md › Tea › Green\nGreen tea is hot.\n\n[2] b/bikes.md\nA chain needs oil.\n\nQuestion: How hot is tea?"
    )
    assert SHORT in system.content
    assert "tea" not in system.content


def test_the_rules_call_the_notes_material_and_not_instructions() -> None:
    assert "not instructions" in messages("x", [])[0].content


def test_no_passages_leave_the_question_alone() -> None:
    assert messages("How hot?", [])[1].text == "\n\nQuestion: How hot?"


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_goes_into_the_prompt_as_it_is(question: str, text: str) -> None:
    content = messages(question, [passage(text or "x")])[1].text
    assert content.endswith(f"Question: {question}")
    assert text.strip() in content


def test_braces_in_a_question_or_a_note_are_no_template() -> None:
    system, user = messages("What is {length}?", [passage("A set {0} {x!r} %s")])
    assert "{length}" in user.text and "{0} {x!r} %s" in user.text
    assert "{" not in system.content


@pytest.mark.parametrize(
    "question",
    [
        "Explain attention in detail.",
        "Derive the gradient",
        "walk me through backpropagation step by step",
        "Prove that k-means converges",
        "list all the metrics",
        "Give a comprehensive overview",
        "Write code for softmax",
        "Describe the three layers of checks.",
        "What are the main steps of boosting?",
    ],
)
def test_questions_that_ask_for_more_get_more(question: str) -> None:
    assert wants_more(question)
    assert LONG in messages(question, [])[0].content


@pytest.mark.parametrize(
    "question",
    ["What is a proofreader?", "Why is attention scaled?", "What are derivatives?", "How many layers has it?"],
)
def test_other_questions_are_answered_shortly(question: str) -> None:
    assert not wants_more(question)
    assert SHORT in messages(question, [])[0].content


def test_asking_for_a_number_shares_all_but_its_order_with_the_prompt() -> None:
    prompt = messages("How hot?", TWO)
    asked = which(prompt, shared=True)
    assert asked[0] == prompt[0]
    assert (asked[1].content, asked[1].tail) == (prompt[1].content, " How hot?") == (prompt[1].content, prompt[1].tail)
    assert asked[1].order is not None and asked[1].order.startswith("\n\nWhich")
    assert kept(prompt)[1].order == ""


def test_prompts_that_share_nothing_say_the_same_in_one_piece() -> None:
    prompt = messages("How hot?", TWO)
    assert alone(prompt) == [prompt[0], Message("user", prompt[1].text)]
    assert which(prompt) == [prompt[0], Message("user", which(prompt, shared=True)[1].text)]


def test_statements_are_numbered_through_all_passages_under_their_places() -> None:
    two = [
        passage("Green tea is hot water.\nBlack tea is boiling water.", 1, note_id="tea.md", headings=("Tea",)),
        passage("A bicycle chain needs oil.", 2, note_id="b/bikes.md", headings=()),
    ]
    assert numbered("How hot?", statements(two))[1].text == (
        "[1] tea.md › Tea\n(1) Green tea is hot water.\n(2) Black tea is boiling water.\n\n"
        "[2] b/bikes.md\n(3) A bicycle chain needs oil.\n\nQuestion: How hot?"
    )


def test_without_notes_only_the_rules_and_the_question_are_left() -> None:
    rules, asked = without_notes(numbered("How hot?", statements(TWO)))
    assert rules == messages("How hot?", TWO)[0]
    assert asked.text == "Question: How hot?"


@given(st.integers(1, 48))
def test_replies_tell_all_numbers_apart(count: int) -> None:
    replies = number_replies(count)
    assert len(replies) == count + 1
    for number, reply in enumerate(replies):
        written = [f"({other})" for other in range(count + 1)]
        assert [other for other in written if other.startswith(reply)] == [f"({number})"]


def test_the_fake_generator_reads_the_passages_back_out_of_the_prompt() -> None:
    assert passages_in(messages("How hot?", TWO)[1].content) == ["Green tea is hot.", "A chain needs oil."]


def test_a_passage_is_read_without_the_white_space_around_it() -> None:
    assert passage_text(passage("\n\n  x  \n")) == "[1] note.md › Note\nx"
