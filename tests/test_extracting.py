"""Extracting: sentences of the notes, verbatim, each with the lines it stands on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from studyrag.embedding import HashEmbedder, OnnxEmbedder
from studyrag.extracting import MOST_COMPARED, MOST_SENTENCES, extract
from studyrag.protocols import Embedder
from studyrag.records import Citation, Passage, Sentence
from tests.makers import passage

TEA = passage(
    "## Green tea\n\n"
    "Green tea is brewed at eighty degrees for two minutes. It should never be\n"
    "boiled, because boiling makes the leaves bitter.\n\n"
    "| tea | heat of the water in degrees |\n|---|---|\n| oolong tea | ninety degrees hot |\n\n"
    "```\nbrew green tea at eighty degrees exactly\n```\n",
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
    return extract(question, passages, embedder=embedder or HashEmbedder(), term_weights=equal_weights)


def test_the_sentence_that_speaks_to_the_question_comes_with_its_lines() -> None:
    sentences, citations = run("how many degrees for green tea", [TEA, BIKES])
    assert sentences[0] == Sentence("Green tea is brewed at eighty degrees for two minutes.\n", True, (1,))
    assert citations[0] == Citation(
        1,
        "tea.md",
        ("Tea", "Green tea"),
        7,
        7,
        "Green tea is brewed at eighty degrees for two minutes. It should never be",
    )


def test_a_sentence_over_two_lines_is_joined_and_cited_with_both(minilm: OnnxEmbedder) -> None:
    sentences, citations = run("Why should green tea leaves not be boiled?", [TEA, BIKES], minilm)
    boiled = next(sentence for sentence in sentences if "bitter" in sentence.text)
    assert boiled.text == "It should never be boiled, because boiling makes the leaves bitter.\n"
    (number,) = boiled.citations
    assert (citations[number - 1].first_line, citations[number - 1].last_line) == (7, 8)


FIVE = passage(
    "The kettle boils cold water.\n\n"
    "The oven bakes fresh bread slowly.\n\n"
    "The kettle then boils more water. What does the kettle boil for everyone?\n\n"
    "The kettle always boils water twice.\n\n"
    "The oven cools down over night.\n",
    headings=("Kitchen",),
)


def test_the_answer_is_a_run_of_neighbours_of_one_passage_in_reading_order() -> None:
    for question in ("kettle water", "oven", "bread kettle", "night kettle boils water"):
        sentences, citations = run(question, [FIVE, BIKES])
        assert 1 <= len(sentences) <= MOST_SENTENCES
        assert len({citation.note_id for citation in citations}) == 1
        said = " ".join(sentence.text.strip() for sentence in sentences)
        prose = " ".join(FIVE.text.split())
        assert said in prose
        assert [citation.first_line for citation in citations] == sorted(citation.first_line for citation in citations)


def test_a_run_never_goes_on_in_another_passage() -> None:
    one = passage("The kettle boils cold water.", 1, note_id="a.md")
    two = passage("What does it boil?\n\nThe kettle boils cold water twice.", 2, note_id="b.md")
    assert len(run("kettle boils cold water twice", [one, two])[0]) == 1


def test_every_sentence_is_verbatim_supported_and_cited_with_its_lines() -> None:
    for question in ("green tea degrees boiled", "bicycle chain", "oven bread"):
        sentences, citations = run(question, [TEA, BIKES, FIVE])
        assert [sentence.citations for sentence in sentences] == [(at,) for at in range(1, len(sentences) + 1)]
        assert [citation.number for citation in citations] == list(range(1, len(citations) + 1))
        for sentence, citation in zip(sentences, citations, strict=True):
            assert sentence.supported is True
            assert " ".join(sentence.text.split()) in " ".join(citation.quote.split())


@pytest.mark.parametrize(
    "text",
    [
        "What does the kettle boil for everyone?",
        "**Does the kettle boil water for everyone?**",
        "The kettle boils the water as follows:",
        "[The kettle boils water for everyone](kettle.md)",
        "![The kettle boils water for everyone](kettle.png)",
    ],
)
def test_questions_lead_ins_and_links_are_no_answers(text: str) -> None:
    assert run("kettle boil water everyone", [passage(text)]) == ((), ())


def test_a_table_row_may_answer_and_code_may_not() -> None:
    sentences, citations = run("oolong tea ninety degrees hot", [TEA])
    assert sentences[0].text == "| oolong tea | ninety degrees hot |\n"
    assert (citations[0].first_line, citations[0].last_line) == (12, 12)
    assert not any("exactly" in sentence.text for sentence in run("brew green tea exactly", [TEA])[0])


def test_unrelated_sentences_are_left_out() -> None:
    sentences, _ = run("bicycle chain oiled every two hundred kilometres", [TEA, BIKES])
    assert [sentence.text for sentence in sentences] == [BIKES.text + "\n"]


@pytest.mark.parametrize("passages", [[], [passage("# Only a heading\n\n```\ncode\n```")], [passage("Too short.")]])
def test_nothing_to_quote_is_no_sentence(passages: list[Passage]) -> None:
    assert run("anything", passages) == ((), ())


def test_a_question_of_stop_words_still_finds_something() -> None:
    assert run("what is it", [BIKES])[0]


def test_only_so_many_sentences_are_compared() -> None:
    class Counting(HashEmbedder):
        texts = 0

        def embed(self, texts: Sequence[str]):  # type: ignore[no-untyped-def]
            self.texts = len(texts)
            return super().embed(texts)

    embedder = Counting()
    long = passage("\n\n".join(f"The kettle number {at} boils cold water quickly." for at in range(200)))
    run("kettle", [long], embedder)
    assert embedder.texts == MOST_COMPARED + 1


def test_the_same_question_gets_the_same_answer_and_ties_go_to_the_first() -> None:
    twins = [passage("The kettle boils cold water.", 1, note_id=f"{name}.md") for name in "ab"]
    assert run("kettle water", twins) == run("kettle water", twins)
    assert [citation.note_id for citation in run("kettle water", twins)[1]] == ["a.md"]
