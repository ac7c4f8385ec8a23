"""What an index holds: its recipe and rows, as they are written and read back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studyrag.records import Chunk, Skipped, Span

if TYPE_CHECKING:
    from studyrag.lexical import Forward
    from studyrag.protocols import Vectors

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what an index holds, apart from the notes. Equal recipe and notes, equal index."""

    embedder: str
    dim: int
    chunk_tokens: int
    terms_version: int
    format: int = FORMAT
    chunk_overlap: int = 0
    heading_path: bool = True
    max_note_bytes: int = 4_000_000

    def differing(self, settings: object) -> str:
        """The first of the settings of reading and splitting that is not as here; "" where all agree."""
        names = ("chunk_tokens", "chunk_overlap", "heading_path", "max_note_bytes")
        return next((name for name in names if getattr(self, name) != getattr(settings, name)), "")

    def embeds_as(self, other: Recipe) -> bool:
        """Whether equal texts have equal vectors and terms in both, however notes are split into them."""
        names = ("embedder", "dim", "terms_version", "format")
        return all(getattr(self, name) == getattr(other, name) for name in names)


@dataclass(frozen=True, slots=True)
class NoteRow:
    """A note as indexed. ``stamp``: (size, mtime_ns, ctime_ns) of its file then; ``problem`` is its front matter's."""

    id: str
    title: str
    tags: tuple[str, ...]
    sha256: str
    stamp: tuple[int, int, int]
    problem: str | None
    text: str
    first_row: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A file that was passed over, with its stamp then (zeros where it had none)."""

    skipped: Skipped
    stamp: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a generation holds, ready to be written. Rows of chunks, vectors and forward agree."""

    recipe: Recipe
    notes: Sequence[NoteRow]
    skipped: Sequence[SkippedRow]
    sections: Sequence[Span]
    chunks: Sequence[Chunk]
    digests: Sequence[bytes]
    vectors: Vectors
    terms: Sequence[str]
    forward: Forward


def crc32(path: Path) -> int:
    """Of a whole file, read in parts."""
    value = 0
    with path.open("rb") as handle:
        while part := handle.read(2**20):
            value = zlib.crc32(part, value)
    return value
