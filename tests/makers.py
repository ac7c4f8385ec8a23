"""Records and markdown for tests: complete records from the one or two fields a test is about, and notes at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from studyrag.embedding import HashEmbedder
from studyrag.reading import parse_note
from studyrag.records import Chunk, Hit, Note, Passage
from studyrag.splitting import split_note

WORDS = (
    "attention cache chain drink eight formula gradient heat kettle lemon matrix noise oven pedal query recall "
    "sugar tyre vector water".split()
)


def note(text: str, note_id: str = "note.md") -> Note:
    made = parse_note(note_id, text)
    assert isinstance(made, Note), made
    return made


def chunks_of(text: str, note_id: str = "note.md", *, chunk_tokens: int = 64) -> list[Chunk]:
    """What the splitter makes of a note, counting a token a word."""
    fake = HashEmbedder(max_tokens=chunk_tokens)
    return split_note(
        note(text, note_id), max_tokens=chunk_tokens, chunk_tokens=chunk_tokens, count_tokens=fake.count_tokens
    )


def chunk(text: str, chunk_id: str = "c1", *, note_id: str = "note.md", start: int = 0, first_line: int = 1) -> Chunk:
    return Chunk(
        id=chunk_id,
        note_id=note_id,
        title="Note",
        headings=("Note",),
        start=start,
        end=start + len(text),
        first_line=first_line,
        last_line=first_line + text.count("\n"),
        context="",
        text=text,
    )


def hit(made: Chunk, rank: int = 1, *, cosine: float = 0.5) -> Hit:
    return Hit(chunk=made, rank=rank, score=1 / rank, lexical_rank=rank, dense_rank=rank, cosine=cosine)


def passage(
    text: str, number: int = 1, *, note_id: str = "note.md", headings: Sequence[str] = ("Note",), first_line: int = 1
) -> Passage:
    last = first_line + text.count("\n")
    return Passage(number, note_id, tuple(headings), 0, len(text), first_line, last, text)


def write_notes(folder: Path, files: dict[str, str]) -> Path:
    """Writes ``files`` (path below the folder to text) and returns the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


_sentence = st.lists(st.sampled_from(WORDS), min_size=2, max_size=9).map(
    lambda words: " ".join(words).capitalize() + "."
)
paragraphs = st.lists(_sentence, min_size=1, max_size=4).map(" ".join)
blocks = st.one_of(
    paragraphs,
    st.lists(_sentence, min_size=1, max_size=4).map(lambda items: "\n".join(f"- {item}" for item in items)),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(
        lambda words: "```python\n" + "\n".join(f"{word} = 1  # a comment" for word in words) + "\n```"
    ),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(lambda words: "$$\n" + " + ".join(words) + "\n$$"),
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), min_size=1, max_size=20).map(
        lambda rows: "| a | b |\n|---|---|\n" + "\n".join(f"| {a} | {b} |" for a, b in rows)
    ),
    st.just("---"),
)
headings = st.tuples(st.integers(1, 4), st.sampled_from(WORDS)).map(
    lambda made: "#" * made[0] + " " + made[1].capitalize()
)
markdown = st.lists(st.one_of(headings, blocks), min_size=1, max_size=8).map(lambda parts: "\n\n".join(parts) + "\n")
"""Notes as people write them: headings, prose, lists, fences, formulas, tables and rules."""
