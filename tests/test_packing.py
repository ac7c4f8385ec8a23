"""Packing: small grows to big, neighbours merge, duplicates drop, and the budget holds whatever the notes hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from studyrag.embedding import HashEmbedder
from studyrag.packing import pack
from studyrag.records import Chunk, Context, Note, Span
from studyrag.splitting import split_note
from tests.makers import chunks_of, hit, markdown, note


def words(text: str) -> int:
    return len(text.split())


def test_what_overlapping_chunks_share_counts_once() -> None:
    text = "# T\n\n" + "\n\n".join(f"p{number} " * 9 + "end." for number in range(7)) + "\n"
    shelf = Shelf(t=text)
    made = shelf.notes["t.md"]
    chunks = split_note(
        made, max_tokens=64, chunk_tokens=40, count_tokens=HashEmbedder().count_tokens, chunk_overlap=14
    )
    assert [chunk.text.split()[0] for chunk in chunks] == ["p0", "p2", "p4"]
    budget = words(made.text) - 2  # all of it, less the heading: nothing is left for what is repeated
    context = shelf.pack(chunks, budget=budget, most=3)
    assert (context.tokens, context.left_out) == (budget, ())
    assert len(context.passages) == 1 and words(context.passages[0].text) == budget


class Shelf:
    """Notes with their chunks, and packing of some of these."""

    def __init__(self, **notes: str) -> None:
        self.notes: dict[str, Note] = {f"{name}.md": note(text, f"{name}.md") for name, text in notes.items()}
        self.chunks = {name: chunks_of(made.text, name) for name, made in self.notes.items()}

    def section_of(self, chunk: Chunk) -> Span:
        for s in self.notes[chunk.note_id].sections:
            if s.start <= chunk.start and chunk.end <= s.end:
                return Span(chunk.note_id, s.headings, s.start, s.end, s.first_line, s.last_line)
        raise AssertionError(chunk)

    def text_of(self, span: Span) -> str:
        return self.notes[span.note_id].text[span.start : span.end]

    def pack(self, chunks: Sequence[Chunk], *, budget: int = 1000, most: int = 10) -> Context:
        context = pack(
            [hit(chunk, rank) for rank, chunk in enumerate(chunks, start=1)],
            section_of=self.section_of,
            text_of=self.text_of,
            count_tokens=words,
            budget=budget,
            most=most,
        )
        self.check(context)
        return context

    def check(self, context: Context) -> None:
        """What holds of every context: passages are lines of their notes, numbered from 1, none twice."""
        assert [passage.number for passage in context.passages] == list(range(1, len(context.passages) + 1))
        for passage in context.passages:
            text = self.notes[passage.note_id].text
            assert text[passage.start : passage.end] == passage.text
            assert text.count("\n", 0, passage.start) == passage.first_line - 1
            assert text.count("\n", 0, passage.end) == passage.last_line - 1
        spans = sorted((passage.note_id, passage.start, passage.end) for passage in context.passages)
        assert all(a[0] != b[0] or a[2] <= b[1] for a, b in itertools.pairwise(spans))


LONG = "# T\n\n" + "\n\n".join(f"Paragraph {at} " + "goes on " * 25 + "and ends." for at in range(6)) + "\n"


def test_a_hit_grows_to_its_whole_section_heading_included() -> None:
    shelf = Shelf(a="# T\n\n" + "Words go on. " * 40 + "\n\n- one\n- two\n\n## Sub\n\nOther.\n")
    assert len(shelf.chunks["a.md"]) > 2
    context = shelf.pack(shelf.chunks["a.md"][:1])
    assert [passage.text for passage in context.passages] == [shelf.text_of(shelf.section_of(shelf.chunks["a.md"][0]))]
    assert context.passages[0].headings == ("T",)
    assert context.tokens == words(context.passages[0].text)


def test_a_section_beyond_half_the_budget_is_not_grown_to() -> None:
    shelf = Shelf(a=LONG)
    chunk = shelf.chunks["a.md"][2]
    whole = words(shelf.text_of(shelf.section_of(chunk)))
    context = shelf.pack([chunk], budget=whole + 10)
    assert [passage.text for passage in context.passages] == [chunk.text]


def test_hits_of_one_section_are_one_passage() -> None:
    shelf = Shelf(a="# T\n\nOne.\n\n## Sub\n\nTwo.\n", b="# U\n\nThree.\n")
    one, two = shelf.chunks["a.md"]
    context = shelf.pack([one, *shelf.chunks["b.md"], one, two])
    assert [passage.text for passage in context.passages] == ["# T\n\nOne.", "# U\n\nThree.", "## Sub\n\nTwo."]


def test_neighbouring_chunks_merge_at_the_place_of_the_better_whatever_their_order() -> None:
    shelf = Shelf(a=LONG, b="# U\n\nThree.\n")
    first, second, third = shelf.chunks["a.md"][1:4]
    for order in ([third, first, second], [first, second, third], [second, third, first]):
        context = shelf.pack([order[0], *shelf.chunks["b.md"], *order[1:]], budget=200)
        whole = shelf.notes["a.md"].text[first.start : third.end]
        assert [passage.text for passage in context.passages] == [whole, "# U\n\nThree."]


def test_chunks_with_a_line_between_them_stay_apart() -> None:
    rows = "\n".join(f"| row {at} |" + " word" * 30 for at in range(5))
    shelf = Shelf(a=f"# T\n\n| a |\n|---|\n{rows}\n")
    chunks = shelf.chunks["a.md"]
    assert all(chunk.first_line == chunk.last_line for chunk in chunks[1:])
    context = shelf.pack([chunks[1], chunks[3]], budget=100)
    assert [passage.text for passage in context.passages] == [chunks[1].text, chunks[3].text]


def test_equal_texts_in_two_notes_are_given_once() -> None:
    shelf = Shelf(a="# T\n\nSame.\n", b="# T\n\nSame.\n")
    context = shelf.pack([*shelf.chunks["b.md"], *shelf.chunks["a.md"]])
    assert [passage.note_id for passage in context.passages] == ["b.md"]


def test_what_does_not_fit_is_named_and_smaller_hits_after_it_are_still_taken() -> None:
    shelf = Shelf(a="# T\n\n" + "word " * 30 + "\n", b="# U\n\n" + "word " * 40 + "\n", c="# V\n\nSmall.\n")
    hits = [shelf.chunks[name][0] for name in ("a.md", "b.md", "c.md")]
    context = shelf.pack(hits, budget=60)
    assert [passage.note_id for passage in context.passages] == ["a.md", "c.md"]
    assert context.left_out == ("b.md:3-3",)


def test_no_more_passages_than_asked_for() -> None:
    shelf = Shelf(**{name: f"# {name}\n\nText {name}.\n" for name in "abcde"})
    context = shelf.pack([chunk for chunks in shelf.chunks.values() for chunk in chunks], most=3)
    assert [passage.note_id for passage in context.passages] == ["a.md", "b.md", "c.md"]


def test_no_hits_are_an_empty_context() -> None:
    assert Shelf().pack([]) == Context((), 0, ())


def test_a_fence_that_no_budget_holds_is_given_by_its_first_lines() -> None:
    lines = [f"x_{at} = {at}" for at in range(5000)]
    shelf = Shelf(a="# T\n\n```\n" + "\n".join(lines) + "\n```\n", b="# U\n\nSmall.\n")
    context = shelf.pack([*shelf.chunks["a.md"], *shelf.chunks["b.md"]], budget=100)
    assert context.passages[0].text == "\n".join(["```", *lines[:33]])
    assert context.left_out[0] == "a.md:3-5004"


def test_a_line_that_no_budget_holds_gives_way_to_the_next_hit() -> None:
    shelf = Shelf(a="# T\n\n$$" + "x + " * 5000 + "y$$\n", b="# U\n\nSmall.\n")
    context = shelf.pack([*shelf.chunks["a.md"], *shelf.chunks["b.md"]], budget=100)
    assert [passage.text for passage in context.passages] == ["# U\n\nSmall."]
    assert context.left_out == ("a.md:3-3",)


@given(markdown, st.data(), st.integers(1, 80), st.integers(1, 5))
def test_the_budget_and_the_number_of_passages_hold_for_any_hits(
    text: str, data: st.DataObject, budget: int, most: int
) -> None:
    try:
        shelf = Shelf(a="# T\n\nFirst.\n\n" + text, b="# U\n\n" + text)
    except AssertionError:
        return
    chunks = [chunk for made in shelf.chunks.values() for chunk in made]
    context = shelf.pack(data.draw(st.permutations(chunks)), budget=budget, most=most)
    assert context.tokens <= budget
    assert sum(words(passage.text) for passage in context.passages) <= budget
    assert len(context.passages) <= most
