"""Attributing, with the real embedder: what the notes say is cited, what they do not say is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.attributing import Attributor, without_markers
from studyrag.embedding import HashEmbedder, OnnxEmbedder
from studyrag.protocols import Embedder
from tests.makers import passage

CACHE = passage(
    "## KV cache\n\n"
    "The KV cache stores the keys and values of every past token, so that each decoding step computes\n"
    "only one new row.\n\n"
    "Its size grows linearly with the sequence length: 2 bytes a number, 32 layers and 8 heads give\n"
    "131,072 bytes a token. Attention costs $O(n^2)$ without it.\n\n"
    "Grouped-query attention does not change the number of query heads.\n\n"
    "- The prefill phase is compute bound.\n"
    "- The decode phase is memory bound.\n\n"
    "| method | memory |\n|---|---|\n| multi-query attention | one key head |\n\n"
    "```python\ncache = [None] * 48\n```\n",
    1,
    note_id="cache.md",
    headings=("Inference", "KV cache"),
    first_line=10,
)
TEA = passage(
    "Green tea is brewed at 80 degrees for two minutes.", 2, note_id="tea.md", headings=("Tea",), first_line=3
)


def equal_weights(words: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(words, 1.0)


def attributor(embedder: Embedder, question: str = "How does a KV cache work?") -> Attributor:
    return Attributor(question, [CACHE, TEA], embedder=embedder, term_weights=equal_weights)


@pytest.mark.parametrize(
    ("claim", "lines"),
    [
        ("The KV cache stores the keys and values of every past token.", (12, 13)),
        ("The KV cache keeps keys and values of all past tokens, so a decoding step computes one new row.", (12, 13)),
        ("The size grows linearly with the sequence length.", (15, 16)),
        ("With 32 layers and 8 heads it takes 131072 bytes a token.", (15, 16)),
        ("Attention costs O(n²) without the KV cache.", (16, 16)),
        ("Grouped-query attention does not change the number of query heads.", (18, 18)),
        ("1. The prefill phase is compute bound.\n", (20, 20)),
        ("- Decode is memory bound.", (21, 21)),
        ("Multi-query attention has one key head.", (25, 25)),
        ("Green tea is brewed for 2 minutes at 80 degrees.", (3, 3)),
    ],
)
def test_a_sentence_or_paraphrase_of_the_notes_is_supported_by_its_lines(
    minilm: OnnxEmbedder, claim: str, lines: tuple[int, int]
) -> None:
    made = attributor(minilm)
    sentence = made.sentence(claim)
    assert (sentence.supported, sentence.citations, sentence.text) == (True, (1,), claim)
    (citation,) = made.citations()
    assert citation.first_line <= lines[0] and lines[1] <= citation.last_line
    assert citation.last_line - citation.first_line <= 4


@pytest.mark.parametrize(
    "claim",
    [
        "With 16 layers and 8 heads it takes 131072 bytes a token.",
        "The KV cache grows linearly: 32 layers and 8 heads give 131,073 bytes a token.",
        "Green tea is brewed at 90 degrees for two minutes.",
        "Green tea is brewed at 80 degrees for three minutes.",
        "The KV cache does not store the keys and values of past tokens.",
        "The KV cache never stores keys and values.",
        "The decode phase isn't memory bound.",
        "Paris is the capital of France.",
        "Steep green tea leaves briefly in warm water.",
        "Rotary embeddings encode positions by rotating queries and keys.",
        "Attention is a mechanism that lets tokens exchange information.",
    ],
)
def test_a_changed_number_an_added_negation_and_what_is_not_in_the_notes_are_unsupported(
    minilm: OnnxEmbedder, claim: str
) -> None:
    made = attributor(minilm)
    sentence = made.sentence(claim)
    assert (sentence.supported, sentence.citations) == (False, ())
    assert made.citations() == ()


@pytest.mark.parametrize(
    "text", ["There are two phases:\n", "```python\nx = 1\n```", "", "  \n", "- ", "---", "It is."]
)
def test_what_claims_nothing_is_neither_supported_nor_unsupported(minilm: OnnxEmbedder, text: str) -> None:
    sentence = attributor(minilm).sentence(text)
    assert (sentence.supported, sentence.text) == (None, text)


def test_a_number_of_the_question_may_be_repeated(minilm: OnnxEmbedder) -> None:
    claim = "At 4096 tokens the KV cache still stores the keys and values of every past token."
    assert attributor(minilm, "How large is the KV cache at 4096 tokens?").sentence(claim).supported
    assert not attributor(minilm).sentence(claim).supported


def test_citations_are_numbered_as_they_are_first_used_and_touching_lines_share_one(minilm: OnnxEmbedder) -> None:
    made = attributor(minilm)
    numbers = [
        made.sentence(claim).citations
        for claim in (
            "Green tea is brewed at 80 degrees.",
            "The decode phase is memory bound.",
            "The prefill phase is compute bound.",
            "Green tea is brewed for two minutes.",
        )
    ]
    assert numbers == [(1,), (2,), (2,), (1,)]
    tea, phases = made.citations()
    assert (tea.number, tea.note_id, tea.headings, tea.first_line, tea.last_line) == (1, "tea.md", ("Tea",), 3, 3)
    assert tea.quote == TEA.text
    assert phases.quote == "- The prefill phase is compute bound.\n- The decode phase is memory bound."
    assert (phases.first_line, phases.last_line) == (20, 21)


def test_quotes_are_whole_lines_of_the_passage(minilm: OnnxEmbedder) -> None:
    made = attributor(minilm)
    made.sentence("The size grows linearly with the sequence length.")
    (citation,) = made.citations()
    lines = CACHE.text.split("\n")
    assert citation.quote == "\n".join(lines[citation.first_line - 10 : citation.last_line - 9])


def test_no_passages_support_nothing() -> None:
    made = Attributor("q", [], embedder=HashEmbedder(), term_weights=equal_weights)
    assert made.sentence("Green tea is hot.").supported is False
    assert made.citations() == ()


# -- markers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("It is so [1].", "It is so."),
        ("It is so.[2] ", "It is so. "),
        ("It is so [1][2, 3].", "It is so."),
        ("[1] It is so.", "It is so."),
        ("[1]", ""),
        ("See [1](http://x.y).", "See [1](http://x.y)."),
        ("Use `a[1]` here [2].", "Use `a[1]` here."),
        ("Let $x[1]$ be [2].", "Let $x[1]$ be."),
        ("```\na[0]\n```\n", "```\na[0]\n```\n"),
        ("Half `a[1", "Half `a[1"),
        ("An interval [0, 1.5] and [a].", "An interval [0, 1.5] and [a]."),
    ],
)
def test_markers_that_the_model_wrote_go_and_indices_in_code_stay(written: str, clean: str) -> None:
    assert without_markers(written) == clean


@given(st.text(alphabet="a [],.;`$(1\n", max_size=40).filter(lambda text: "[1" not in text and "[ 1" not in text))
def test_text_without_markers_stays_as_it_is(text: str) -> None:
    assert without_markers(text) == text
