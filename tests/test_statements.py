"""Statements: sentences with their formulas, items and rows that can be read alone, each with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.records import Passage
from studyrag.statements import MOST_STATEMENTS, Statement, statements
from tests.makers import passage


def texts(*markdown: str) -> list[str]:
    return [one.text for one in statements([passage(text, at) for at, text in enumerate(markdown, start=1)])]


def test_sentences_of_all_passages_are_numbered_in_order_with_their_lines() -> None:
    one = passage("## Tea\n\nGreen tea is brewed hot. Black tea is\nbrewed with boiling water.", 1, first_line=5)
    two = passage("A bicycle chain needs oil.", 2, note_id="bikes.md", first_line=9)
    found = statements([one, two])
    assert [(s.number, s.passage, s.first_line, s.last_line, s.text) for s in found] == [
        (1, one, 7, 7, "Green tea is brewed hot."),
        (2, one, 7, 8, "Black tea is brewed with boiling water."),
        (3, two, 9, 9, "A bicycle chain needs oil."),
    ]


def test_a_formula_belongs_to_the_sentence_before_it_and_takes_the_clause_after_it_along() -> None:
    text = (
        "The attention weights are given by\n\n$$\na = b\n$$\n\nwhere $b$ is the score of a key."
        " Other things follow later."
    )
    assert texts(text) == [
        "The attention weights are given by\n$$\na = b\n$$\nwhere $b$ is the score of a key.",
        "Other things follow later.",
    ]


def test_a_sentence_after_a_formula_that_begins_anew_is_its_own() -> None:
    assert texts("Attention weights are scores:\n$$\na = b\n$$\nThe kettle boils water.")[1:] == [
        "The kettle boils water."
    ]


def test_a_question_is_quoted_with_the_sentence_that_answers_it() -> None:
    assert texts("**Follow-up:** Which kettle boils first? Only the old kettle. The new one waits for it.") == [
        "**Follow-up:** Which kettle boils first? Only the old kettle.",
        "The new one waits for it.",
    ]
    assert texts("Which kettle boils first?\n\nOnly the old kettle boils.") == ["Only the old kettle boils."]


def test_a_row_names_its_columns_and_the_header_is_none() -> None:
    text = (
        "| tea | heat | minutes |\n|---|---|---|\n| oolong tea | ninety degrees | four |\n| sencha tea | seventy | |\n"
    )
    found = statements([passage(text)])
    assert [one.text for one in found] == [
        "oolong tea — heat: ninety degrees; minutes: four",
        "sencha tea — heat: seventy",
    ]
    assert all(one.item and one.block == found[0].block for one in found)
    assert [one.first_line for one in found] == [3, 4]


def test_a_row_without_its_header_shows_its_cells() -> None:
    assert texts("| oolong tea | ninety degrees | four minutes |") == ["oolong tea — ninety degrees; four minutes"]


def test_items_share_a_block_and_what_announces_them_leads() -> None:
    found = statements(
        [passage("Three teas need cool water:\n\n- green tea leaves\n- white tea leaves\n\nBlack tea leaves do not.")]
    )
    assert [(one.leads, one.item) for one in found] == [(True, False), (False, True), (False, True), (False, False)]
    assert found[1].block == found[2].block == found[0].block + 1
    assert found[3].block != found[2].block


def test_paragraphs_are_blocks() -> None:
    one, two, three = statements([passage("The kettle boils water. The oven bakes bread.\n\nThe fridge cools milk.")])
    assert one.block == two.block != three.block


@pytest.mark.parametrize(
    "text",
    [
        "What does the kettle boil for everyone?",
        "**Does the kettle boil water for everyone?**",
        "[The kettle boils water for everyone](kettle.md)",
        "![The kettle boils water for everyone](kettle.png)",
        "```\n" + "the kettle boils water for everyone\n" * 20 + "```",
        "[[the kettle boils water for everyone]]",
        "- [[the kettle]] · [[boils water]], [[for everyone]]",
        "# The kettle boils water for everyone",
        "Too short.",
    ],
)
def test_questions_links_long_code_headings_and_scraps_are_none(text: str) -> None:
    assert texts(text) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("- [ ] 750 g sugar per litre", "[ ] 750 g sugar per litre"),
        ("- [x] descale the old kettle", "[x] descale the old kettle"),
        ("[[Kettle]] goes on the left shelf.", "[[Kettle]] goes on the left shelf."),
        ("- port: 9271", "port: 9271"),
        ("> [!tip] Boil the water\n> in the old kettle.", "Boil the water in the old kettle."),
        ("```bash\nkettle --boil  # at once\n```", "```bash\nkettle --boil  # at once\n```"),
    ],
)
def test_tasks_pages_short_items_callouts_and_commands_are_statements(text: str, shown: str) -> None:
    assert texts(text) == [shown]


def test_a_command_needs_the_line_that_announces_it() -> None:
    lead, code = statements([passage("To boil the water:\n\n```\nkettle boil --now\n```")])
    assert lead.leads and code.block == lead.block + 1


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("This makes the kettle boil.", True),
        ("*It* boils all the cold water.", True),
        ("Without it the kettle stays cold.", True),
        ("The former boils water quickly.", True),
        ("The kettle boils its water.", False),
        ("Sound travels through water quickly.", False),
        ("Thistle tea is brewed hot.", False),
    ],
)
def test_sentences_that_point_back_are_known_by_their_first_words(text: str, points: bool) -> None:
    (found,) = statements([passage(text)])
    assert found.points_back is points


def test_only_so_many_are_made() -> None:
    long = passage("\n\n".join(f"The kettle number {at} boils cold water quickly." for at in range(200)))
    assert [one.number for one in statements([long])] == list(range(1, MOST_STATEMENTS + 1))


PARTS = [
    "The kettle boils water.",
    "It is hot water now.",
    "- green tea leaves",
    "| a tea | b heat | c time |",
    "|---|---|---|",
    "$$\nx = y\n$$",
    "where x is the kettle heat.",
    "Teas that need water:",
    "Why does water boil?",
    "```\ncode here now\n```",
    "",
]


@given(st.lists(st.sampled_from(PARTS), max_size=14), st.integers(1, 90))
def test_every_statement_is_lines_of_its_passage_in_order(parts: list[str], first_line: int) -> None:
    made: Passage = passage("\n".join(parts), first_line=first_line)
    found: tuple[Statement, ...] = statements([made])
    lines = made.text.split("\n")
    for one in found:
        quote = "\n".join(lines[one.first_line - first_line : one.last_line - first_line + 1])
        assert made.text[one.start : one.end] in quote
        assert one.item or one.text.replace("\n", " ").split() == made.text[one.start : one.end].split()
    assert [one.start for one in found] == sorted(one.start for one in found)
    assert [one.block for one in found] == sorted(one.block for one in found)
