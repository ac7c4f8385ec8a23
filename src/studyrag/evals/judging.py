"""Which chunks hold a quote, and at which rank all of it has been returned. Judged by lines of the note's text.

A citation points to lines, so lines are what counts; blank lines, which no chunk need hold, do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from studyrag.evals.golden import Golden
from studyrag.records import Chunk, Passage


@dataclass(frozen=True, slots=True)
class Spot:
    """One place where a quote stands. ``lines`` are 1-based, blank ones left out."""

    note_id: str
    lines: frozenset[int]


def spots(quote: str, notes: Iterable[str], texts: Mapping[str, str]) -> tuple[Spot, ...]:
    """Every place of ``quote`` in the notes, in order."""
    return tuple(Spot(note, lines) for note in notes for lines in _places(quote, texts.get(note, "")))


def _places(quote: str, text: str) -> Iterator[frozenset[int]]:
    at = text.find(quote)
    while at >= 0:
        first = text.count("\n", 0, at) + 1
        yield frozenset(first + n for n, line in enumerate(quote.split("\n")) if line.strip())
        at = text.find(quote, at + 1)


def holds(chunk: Chunk, spot: Spot) -> bool:
    """Whether the chunk's lines are all that the quote needs."""
    return chunk.note_id == spot.note_id and spot.lines <= set(range(chunk.first_line, chunk.last_line + 1))


def found_at(quote_spots: Sequence[Spot], ranked: Sequence[Chunk | Passage]) -> int | None:
    """1-based rank at which the chunks so far hold the whole quote, in one place, together; None for never."""
    missing = [set(spot.lines) for spot in quote_spots]
    for rank, chunk in enumerate(ranked, start=1):
        lines = range(chunk.first_line, chunk.last_line + 1)
        for spot, left in zip(quote_spots, missing, strict=True):
            if chunk.note_id == spot.note_id:
                left.difference_update(lines)
                if not left:
                    return rank
    return None


class Judge:
    """Relevance of an index's chunks to questions. ``chunks`` are all of the index, ``texts`` its notes by id."""

    def __init__(self, chunks: Iterable[Chunk], texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._chunks: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            self._chunks.setdefault(chunk.note_id, []).append(chunk)

    def relevant(self, golden: Golden) -> dict[str, int]:
        """Chunk id to 1 for each chunk whose lines hold one of the question's quotes."""
        return {
            chunk.id: 1
            for quote in golden.evidence
            for spot in spots(quote, golden.notes, self._texts)
            for chunk in self._chunks.get(spot.note_id, ())
            if holds(chunk, spot)
        }

    def quote_ranks(self, golden: Golden, ranked: Sequence[Chunk]) -> tuple[int | None, ...]:
        """For each quote, the rank at which it was found."""
        return tuple(found_at(spots(quote, golden.notes, self._texts), ranked) for quote in golden.evidence)

    def share_held(self, golden: Golden, passages: Sequence[Passage]) -> float:
        """Share of the quotes that the passages hold, together; a question without quotes has none."""
        found = [found_at(spots(quote, golden.notes, self._texts), passages) for quote in golden.evidence]
        return recall(found, len(passages)) if found else 0.0


def recall(ranks: Sequence[int | None], k: int) -> float:
    """Share of quotes found at rank ``k`` or above; ``ranks`` holds one at least."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)
