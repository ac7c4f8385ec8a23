"""Quoting: sentences of the notes, verbatim, each with the lines it stands on."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from studyrag.embedding import HashEmbedder, OnnxEmbedder
from studyrag.protocols import Embedder
from studyrag.quoting import FEW, Weighed, choose, quoted, weigh
from studyrag.records import Citation, Passage, Sentence
from studyrag.statements import Statement, statements
from tests.makers import passage

TEA = passage(
    "## Green tea\n\n"
    "Green tea is brewed at eighty degrees for two minutes. It should never be\n"
    "boiled, because boiling makes the leaves bitter.\n\n"
    "| tea | heat of the water in degrees |\n|---|---|\n| oolong tea | ninety degrees hot |\n\n"
    "```\n" + "brew green tea at eighty degrees exactly\n" * 20 + "```\n",
    1,
    note_id="tea.md",
    headings=("Tea", "Green tea"),
    first_line=5,
)
BIKES = passage("A bicycle chain is oiled every two hundred kilometres.", 2, note_id="bikes.md", first_line=9)


def equal_weights(words: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(words, 1.0)


def run(
    question: str, passages: Sequence[Passage], embedder: Embedder | None = None
) -> tuple[tuple[Sentence, ...], tuple[Citation, ...]]:
    found = weigh(question, statements(passages), embedder=embedder or HashEmbedder(), term_weights=equal_weights)
    return quoted(choose([found], most=[FEW]))


def with_chances(made: Sequence[Statement], chances: Sequence[float]) -> list[Weighed]:
    return [Weighed(one, chance, {}) for one, chance in zip(made, chances, strict=True)]


def numbers(made: Sequence[Statement], chances: Sequence[float], most: int = FEW) -> list[int]:
    return [one.number for one in choose([with_chances(made, chances)], most=[most])]


# -- weighing --------------------------------------------------------------------------------------------------------


def test_the_sentence_that_speaks_to_the_question_comes_with_its_lines() -> None:
    sentences, citations = run("how many degrees for green tea", [TEA, BIKES])
    assert sentences[0].text.strip() == "Green tea is brewed at eighty degrees for two minutes."
    assert citations[0].note_id == "tea.md"
    assert citations[0].headings == ("Tea", "Green tea")
    assert citations[0].first_line == 7


def test_a_sentence_over_two_lines_is_joined_and_cited_with_both(minilm: OnnxEmbedder) -> None:
    sentences, citations = run("Why should green tea leaves not be boiled?", [TEA, BIKES], minilm)
    boiled = next(sentence for sentence in sentences if "bitter" in sentence.text)
    assert boiled.text.strip() == "It should never be boiled, because boiling makes the leaves bitter."
    (number,) = boiled.citations
    assert citations[number - 1].first_line <= 7 and citations[number - 1].last_line == 8


def test_what_a_generator_points_to_counts() -> None:
    made = statements([TEA, BIKES])
    for favourite in range(len(made)):
        opinion = [0.0 if at == favourite else -8.0 for at in range(len(made))]
        plain = weigh(["xyzzy"], made, embedder=HashEmbedder(), term_weights=equal_weights)
        swayed = weigh(["xyzzy"], made, embedder=HashEmbedder(), term_weights=equal_weights, pointed=opinion)
        assert max(swayed, key=lambda one: one.probability).statement is made[favourite]
        assert set(plain[0].features) < set(swayed[0].features)


def test_probabilities_are_probabilities_whatever_the_generator_says() -> None:
    made = statements([TEA, BIKES])
    wild = [-1e9, 0.0, -50.0, -0.1][: len(made)]
    found = weigh(["tea"], made, embedder=HashEmbedder(), term_weights=equal_weights, pointed=wild)
    assert all(0 <= one.probability <= 1 for one in found)


def test_nothing_to_quote_is_no_sentence() -> None:
    for passages in ([], [passage("# Only a heading\n\n```\ncode\n```")], [passage("Too short.")]):
        assert run("anything", passages) == ((), ())


def test_a_question_of_stop_words_still_finds_something() -> None:
    assert run("what is it", [BIKES])[0]


# -- choosing --------------------------------------------------------------------------------------------------------

KITCHEN = passage(
    "The kettle boils cold water. The oven bakes fresh bread. The fridge cools sour milk. The tap runs hot water.\n\n"
    "The kettle whistles loud tunes. This wakes the old cat.\n\n"
    "Three things break often:\n\n- the old kettle lid\n- the new oven door\n"
)
OF_KITCHEN = statements([KITCHEN])


def test_the_most_probable_is_always_there_and_no_more_than_asked_for() -> None:
    assert numbers(OF_KITCHEN[:4], [0.01, 0.0001, 0.0, 0.0]) == [1]
    assert numbers(OF_KITCHEN[:4], [0.9, 0.9, 0.9, 0.9], most=2) in ([1, 2], [2, 3], [3, 4])
    assert numbers(OF_KITCHEN[:4], [0.0, 0.0, 0.0, 0.0]) == [1]


def test_neighbours_are_preferred_to_fragments() -> None:
    chances = [0.9, 0.15, 0.02, 0.16]
    assert numbers(OF_KITCHEN[:4], chances, most=2) == [1, 2]


def test_what_points_back_brings_what_it_points_to() -> None:
    at = next(one.number for one in OF_KITCHEN if one.text.startswith("This wakes"))
    assert numbers(OF_KITCHEN, [1.0 if one.number == at else 0.0 for one in OF_KITCHEN]) == [at - 1, at]


def test_an_item_brings_what_announces_its_list_and_that_never_comes_alone() -> None:
    lead = next(one.number for one in OF_KITCHEN if one.leads)
    last = len(OF_KITCHEN)
    assert numbers(OF_KITCHEN, [1.0 if one.number == last else 0.0 for one in OF_KITCHEN]) == [lead, last]
    assert lead not in numbers(OF_KITCHEN, [0.9 if one.number == lead else 0.01 for one in OF_KITCHEN])[:1] or last


def test_a_count_is_quoted_whole_and_no_further() -> None:
    made = statements(
        [
            passage(
                "A cold kettle is checked in order. First look at the plug. Second, the switch may be off."
                " Last comes the fuse. The oven has no fuse inside.\n\nFirst of all the fridge is cold."
            )
        ]
    )
    assert len(made) == 6
    for chosen in (2, 3, 4):
        assert numbers(made, [1.0 if one.number == chosen else 0.0 for one in made]) == [2, 3, 4]
    assert numbers(made, [1.0, *[0.0] * 5]) == [1]
    assert numbers(made, [*[0.0] * 5, 1.0]) == [6]


def test_passages_with_better_statements_come_first_each_in_reading_order() -> None:
    made = statements([TEA, BIKES])
    assert [one.passage.number for one in choose([with_chances(made, [0.4, 0.4, 0.0, 0.9])], most=[3])] == [2, 1, 1]


@given(st.lists(st.floats(0, 1), min_size=len(OF_KITCHEN), max_size=len(OF_KITCHEN)), st.integers(1, 6))
def test_choices_are_few_distinct_and_complete(chances: list[float], most: int) -> None:
    chosen = choose([with_chances(OF_KITCHEN, chances)], most=[most])
    found = [one.number for one in chosen]
    assert 1 <= len(set(found)) == len(found)
    needed = sum(one.leads or (at + 1 < len(chosen) and chosen[at + 1].points_back) for at, one in enumerate(chosen))
    assert len(found) - needed <= most
    assert all(one.number - 1 in found for one in chosen if one.points_back)
    assert not chosen[-1].leads


def test_each_aspect_gets_its_statement() -> None:
    one, two = with_chances(OF_KITCHEN[:4], [0.9, 0.0, 0.0, 0.0]), with_chances(OF_KITCHEN[:4], [0.5, 0.0, 0.0, 0.6])
    assert [one.number for one in choose([one, two], most=[1, 1])] == [1, 4]
    assert choose([], most=[]) == choose([[], []], most=[3, 3]) == []


# -- quoting ---------------------------------------------------------------------------------------------------------


def test_touching_statements_share_a_citation_of_all_their_lines() -> None:
    sentences, citations = quoted(OF_KITCHEN[:2])
    assert citations == (Citation(1, "note.md", ("Note",), 1, 1, KITCHEN.text.split("\n")[0]),)
    assert [sentence.citations for sentence in sentences] == [(1,), (1,)]
    assert sentences[0].text == "The kettle boils cold water. "


def test_items_are_shown_as_items_under_what_announces_them() -> None:
    sentences, _ = quoted(OF_KITCHEN[-3:])
    assert "".join(one.text for one in sentences).strip() == (
        "Three things break often:\n- the old kettle lid\n- the new oven door"
    )


def test_what_does_not_touch_stands_in_paragraphs_of_its_own() -> None:
    sentences, citations = quoted([OF_KITCHEN[0], OF_KITCHEN[4]])
    assert "".join(one.text for one in sentences).strip() == (
        "The kettle boils cold water.\n\nThe kettle whistles loud tunes."
    )
    assert [citation.number for citation in citations] == [1, 2]


def test_every_sentence_is_verbatim_supported_and_cited_with_its_lines() -> None:
    for question in ("green tea degrees boiled", "bicycle chain", "oven bread"):
        sentences, citations = run(question, [TEA, BIKES, passage(KITCHEN.text, 3, note_id="kitchen.md")])
        by_number = {citation.number: citation for citation in citations}
        assert list(by_number) == list(range(1, len(citations) + 1))
        for sentence in sentences:
            (number,) = sentence.citations
            assert sentence.supported is True
            held = {word.strip(":;") for word in by_number[number].quote.replace("|", " ").split()}
            words = sentence.text.removeprefix("- ").replace(" — ", " ").split()
            assert {word.strip(":;") for word in words} - held <= {"heat", "of", "the", "water", "in", "degrees"}


def test_a_table_row_may_answer_and_long_code_may_not() -> None:
    sentences, citations = run("oolong tea ninety degrees hot", [TEA])
    assert "- oolong tea — heat of the water in degrees: ninety degrees hot" in [one.text.strip() for one in sentences]
    assert 12 in {citation.last_line for citation in citations}
    assert not any("exactly" in sentence.text for sentence in run("brew green tea exactly", [TEA])[0])


def test_the_same_question_gets_the_same_answer_and_ties_go_to_the_first() -> None:
    twins = [passage("The kettle boils cold water.", 1, note_id=f"{name}.md") for name in "ab"]
    assert run("kettle water", twins) == run("kettle water", twins)
    assert run("kettle water", twins)[1][0].note_id == "a.md"
