"""Splitting: spans rebuild the note, everything fits the window that may be cut, nothing is lost, ids are stable."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given

from studyrag.embedding import HashEmbedder
from studyrag.reading import parse_note
from studyrag.records import Chunk, Note, embedding_text, heading_line
from studyrag.splitting import split_note
from tests.makers import chunks_of, markdown, note

WORDS_COUNTED = HashEmbedder().count_tokens


def tokens(chunk: Chunk) -> int:
    return WORDS_COUNTED([chunk.text])[0] + WORDS_COUNTED([heading_line(chunk.title, chunk.headings)])[0]


def letters(text: str) -> str:
    return "".join(re.findall(r"\w", text))


@given(markdown)
def test_spans_and_lines_rebuild_the_note_in_order(text: str) -> None:
    made = parse_note("n.md", text)
    if not isinstance(made, Note):
        return
    lines = made.text.split("\n")
    end = 0
    for chunk in split_note(made, max_tokens=64, chunk_tokens=64, count_tokens=WORDS_COUNTED):
        assert made.text[chunk.start : chunk.end] == chunk.text
        assert chunk.start >= end
        end = chunk.end
        assert chunk.text in "\n".join(lines[chunk.first_line - 1 : chunk.last_line])
        assert made.text.count("\n", 0, chunk.start) == chunk.first_line - 1
        assert made.text.count("\n", 0, chunk.end) == chunk.last_line - 1


@given(markdown)
def test_no_text_is_lost_but_headings_which_are_in_every_path(text: str) -> None:
    made = parse_note("n.md", text)
    if not isinstance(made, Note):
        return
    chunks = split_note(made, max_tokens=64, chunk_tokens=64, count_tokens=WORDS_COUNTED)
    said = letters("".join(made.text[b.start : b.end] for s in made.sections for b in s.blocks if b.kind != "heading"))
    assert "".join(letters(chunk.text) for chunk in chunks) == said


@given(markdown)
def test_chunks_fit_the_window_with_their_headings_unless_code_or_a_formula_is_longer(text: str) -> None:
    made = parse_note("n.md", text)
    if not isinstance(made, Note):
        return
    for chunk in split_note(made, max_tokens=80, chunk_tokens=64, count_tokens=WORDS_COUNTED):
        if not chunk.text.startswith(("```", "$$")):
            assert tokens(chunk) <= 64 + 2  # the special tokens of two counts


@given(markdown)
def test_overlapping_chunks_begin_with_what_ended_the_one_before(text: str) -> None:
    made = parse_note("n.md", text)
    if not isinstance(made, Note):
        return
    chunks = split_note(made, max_tokens=64, chunk_tokens=64, count_tokens=WORDS_COUNTED, chunk_overlap=24)
    for before, after in itertools.pairwise(chunks):
        assert made.text[after.start : after.end] == after.text
        assert after.end > before.end
        repeated = made.text[after.start : max(after.start, before.end)]
        assert not repeated or (before.headings == after.headings and before.start < after.start)
        assert WORDS_COUNTED([repeated])[0] <= 24 + 2
    for chunk in chunks:
        if not chunk.text.startswith(("```", "$$")):
            assert tokens(chunk) <= 64 + 2


@given(markdown)
def test_ids_are_unique_within_a_note(text: str) -> None:
    made = parse_note("n.md", text + "\n" + text)
    if isinstance(made, Note):
        chunks = split_note(made, max_tokens=64, chunk_tokens=64, count_tokens=WORDS_COUNTED)
        assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_a_chunk_repeats_whole_paragraphs_within_its_section() -> None:
    text = (
        "# T\n\n" + "\n\n".join(f"{word} " * 9 + "end." for word in ("aa", "bb", "cc", "dd")) + "\n\n## Sub\n\nTwo.\n"
    )
    made = note(text)

    def firsts(overlap: int) -> list[list[str]]:
        chunks = split_note(made, max_tokens=64, chunk_tokens=32, count_tokens=WORDS_COUNTED, chunk_overlap=overlap)
        return [[part.split()[0] for part in chunk.text.split("\n\n")] for chunk in chunks]

    assert firsts(0) == [["aa", "bb", "cc"], ["dd"], ["Two."]]
    assert firsts(14) == [["aa", "bb", "cc"], ["cc", "dd"], ["Two."]]
    assert firsts(1000) == [["aa", "bb", "cc"], ["bb", "cc", "dd"], ["Two."]]


def test_short_blocks_of_a_section_share_a_chunk_and_sections_do_not() -> None:
    chunks = chunks_of("# T\n\nOne.\n\n- a\n- b\n\n$$\nx\n$$\n\n## Sub\n\nTwo.\n")
    assert [chunk.text for chunk in chunks] == ["One.\n\n- a\n- b\n\n$$\nx\n$$", "Two."]
    assert [chunk.headings for chunk in chunks] == [("T",), ("T", "Sub")]
    assert [(chunk.first_line, chunk.last_line) for chunk in chunks] == [(3, 10), (14, 14)]


@pytest.mark.parametrize(("mark", "close"), [("```python", "```"), ("~~~", "~~~"), ("$$", "$$")])
def test_code_and_formulas_are_never_cut(mark: str, close: str) -> None:
    block = "\n".join([mark, *(f"x_{at} = {at}\n" for at in range(60)), close])
    chunks = chunks_of(f"# T\n\nBefore.\n\n{block}\n\nAfter.\n")
    assert [chunk.text for chunk in chunks] == ["Before.", block, "After."]


def test_a_table_is_cut_between_rows_and_its_header_is_repeated_as_context() -> None:
    rows = [f"| key {at} | value {at} |" for at in range(40)]
    header = "| name | number |\n|------|--------|"
    chunks = chunks_of("# T\n\n" + header + "\n" + "\n".join(rows) + "\n")
    assert len(chunks) > 2
    assert "\n".join(chunk.text for chunk in chunks) == header + "\n" + "\n".join(rows)
    assert [chunk.context for chunk in chunks] == ["", *[header] * (len(chunks) - 1)]
    assert all(line.startswith(("| ", "|-")) for chunk in chunks for line in chunk.text.split("\n"))
    assert all(header in embedding_text(chunk) for chunk in chunks)


@pytest.mark.parametrize("n", range(20, 27))
def test_text_after_a_cut_table_does_not_join_its_last_rows(n: int) -> None:
    rows = "\n".join(f"| key {at} | value {at} |" for at in range(n))
    chunks = chunks_of(f"# T\n\n| a | b |\n|---|---|\n{rows}\n\nAfter the table.\n")
    assert chunks[-1].text == "After the table."
    assert chunks[-1].context == ""


def test_long_prose_is_cut_at_sentence_ends() -> None:
    sentences = [f"Sentence number {at} says that water boils at some heat." for at in range(30)]
    chunks = chunks_of("# T\n\n" + " ".join(sentences) + "\n")
    assert len(chunks) > 2
    assert all(chunk.text.endswith(".") and chunk.text.startswith("Sentence") for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks) == " ".join(sentences)


def test_a_word_longer_than_the_window_is_cut_and_whole() -> None:
    def letters_counted(texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    made = note("# T\n\n" + "ab" * 500 + "\n")
    chunks = split_note(made, max_tokens=100, chunk_tokens=100, count_tokens=letters_counted)
    assert "".join(chunk.text for chunk in chunks) == "ab" * 500
    assert all(len(chunk.text) <= 100 for chunk in chunks)


def test_a_heading_longer_than_the_window_still_leaves_room_for_text() -> None:
    chunks = chunks_of("# " + "very " * 200 + "\n\nThe text is here. It goes on.\n")
    assert [chunk.text for chunk in chunks] == ["The text is here. It goes on."]


@pytest.mark.parametrize("text", ["# Only\n\n## Headings\n", "# T\n\n---\n\n***\n"])
def test_headings_and_rules_alone_make_no_chunk(text: str) -> None:
    assert chunks_of(text) == []


def test_an_id_survives_edits_elsewhere_and_changes_with_note_heading_and_text() -> None:
    before = chunks_of("# T\n\nFirst.\n\n## Sub\n\nSecond.\n")
    after = chunks_of("# T\n\nFirst, longer\nnow.\n\n## Sub\n\nSecond.\n")
    assert before[1].id == after[1].id
    assert before[1].first_line != after[1].first_line
    assert before[0].id != after[0].id
    others = [
        chunks_of("# T\n\nFirst.\n\n## Sub\n\nSecond.\n", "other.md"),
        chunks_of("# T\n\nFirst.\n\n## Super\n\nSecond.\n"),
    ]
    assert before[1].id not in {made[1].id for made in others}


def test_the_title_is_in_the_heading_path_once() -> None:
    assert heading_line("KV Cache", ("KV cache", "Memory")) == "KV cache › Memory"
    assert heading_line("Notes", ("KV cache",)) == "Notes › KV cache"
    assert heading_line("Notes", ()) == "Notes"
    assert heading_line("", ("A",)) == "A"
