"""The records that flow through the stages: small, frozen, complete when made.

A stage that adds knowledge returns a new type; nothing here is filled in later. ``docs/data-model.md`` says who makes
each and who reads it. Lines are 1-based and inclusive; spans are code points, half-open; ranks are 1-based; scores
are comparable only with scores of the same maker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


class BlockKind(StrEnum):
    """What a run of lines is, for the splitter: which may be cut, and where."""

    HEADING = "heading"
    PROSE = "prose"
    LIST = "list"
    CODE = "code"
    MATH = "math"
    TABLE = "table"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Block:
    """Invariant: note.text[start:end] are whole lines first_line..last_line, without the last newline."""

    kind: BlockKind
    start: int
    end: int
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it up to the next heading. The part before any heading has no headings."""

    headings: tuple[str, ...]
    start: int
    end: int
    first_line: int
    last_line: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """One markdown file, decoded. ``id`` is its path below the notes folder, with forward slashes.

    ``text`` is the whole file, front matter included, newlines normalised to ``\\n``, so that its line numbers are the
    file's own.
    """

    id: str
    title: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    sha256: str
    text: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not indexed, and why, in words for its owner."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Invariant: note.text[start:end] == text (code points, half-open); lines are 1-based, inclusive.

    ``id`` depends on the note, the headings and the text alone, so that it survives edits elsewhere in the note.
    ``context`` is what must be read before ``text`` to understand it (the header rows of a table that was cut).
    """

    id: str
    note_id: str
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    first_line: int
    last_line: int
    context: str
    text: str


def heading_line(title: str, headings: Sequence[str]) -> str:
    """'Title › Heading › Sub', the title left out where the first heading repeats it."""
    path = headings if headings and headings[0].casefold() == title.casefold() else (title, *headings)
    return " › ".join(part for part in path if part)


def embedding_text(chunk: Chunk, *, heading_path: bool = True) -> str:
    """What the embedder and the term index read for a chunk: heading path (if wanted), context, text."""
    path = heading_line(chunk.title, chunk.headings) if heading_path else ""
    parts = (path, chunk.context, chunk.text)
    return "\n".join(part for part in parts if part)


class Ranking(NamedTuple):
    """What one arm proposes, best first: (n,) rows of the index that was searched and (n,) scores of the arm's own."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk in the fused ranking. Ranks are None where that arm did not return the chunk.

    ``cosine`` is query against chunk, in [-1, 1], and is always there: absolute evidence, unlike the fused ``score``.
    ``answers``: log-odds that it answers the question, where a generator was asked.
    """

    chunk: Chunk
    rank: int
    score: float
    lexical_rank: int | None
    dense_rank: int | None
    cosine: float
    answers: float | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A run of whole lines of a note, such as a section, with its heading path. Invariant as for Chunk."""

    note_id: str
    headings: tuple[str, ...]
    start: int
    end: int
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A run of whole lines of one note that is given to the generator. Invariant as for Chunk.

    ``number`` is what the prompt and the evidence list call it (1-based).
    """

    number: int
    note_id: str
    headings: tuple[str, ...]
    start: int
    end: int
    first_line: int
    last_line: int
    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """What the generator gets to read, in order, and what did not fit."""

    passages: tuple[Passage, ...]
    tokens: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: ``content``, ``tail`` and ``order`` behind each other. ``role`` is system, user or assistant.

    Prompts that differ in the last tail only share all that was evaluated before it, where the generator keeps that.
    With an ``order``, if only "", the tail is kept as well as the content: for several orders to one tail.
    """

    role: str
    content: str
    tail: str = ""
    order: str | None = None

    @property
    def text(self) -> str:
        return self.content + self.tail + (self.order or "")


@dataclass(frozen=True, slots=True)
class Citation:
    """Lines of a note that were checked to support a sentence. ``quote`` is those lines verbatim."""

    number: int
    note_id: str
    headings: tuple[str, ...]
    first_line: int
    last_line: int
    quote: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the answer. ``text`` keeps the white space that joins it to the next.

    Not every sentence is a claim: ``supported`` is None for a list lead-in or a bare code fence, which nothing can
    support or contradict.
    """

    text: str
    supported: bool | None
    citations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """How strongly the notes speak to a question, on an absolute scale: ``probability`` that they answer it."""

    probability: float
    covered: bool
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Nearest:
    """Where to look instead, when the notes do not cover the question."""

    note_id: str
    headings: tuple[str, ...]
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of the line. ``text`` is empty for an abstention, whose ``nearest`` is then filled."""

    question: str
    text: str
    abstained: bool
    sentences: tuple[Sentence, ...]
    citations: tuple[Citation, ...]
    nearest: tuple[Nearest, ...]
    model: str
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """The evidence is chosen; what follows was written from it."""

    context: Context


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Attributed:
    """The sentence whose pieces have just ended, with its verdict. In strict mode unsupported ones never come."""

    sentence: Sentence


@dataclass(frozen=True, slots=True)
class Answered:
    """The last event of every question."""

    answer: Answer


Event = Reading | Piece | Attributed | Answered


@dataclass(slots=True)
class Trace:
    """What every stage did, in order: (stage, milliseconds, facts). The one mutable record; stages append only."""

    events: list[tuple[str, float, Mapping[str, object]]] = field(default_factory=list)

    def add(self, stage: str, milliseconds: float, **facts: object) -> None:
        self.events.append((stage, milliseconds, facts))

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        """What ``work`` returns; a stage that raises leaves no entry."""
        started = time.perf_counter()
        result = work()
        self.add(stage, (time.perf_counter() - started) * 1000)
        return result

    def timings_ms(self) -> dict[str, float]:
        """Milliseconds by stage; a stage that ran twice has the sum."""
        total: dict[str, float] = {}
        for stage, milliseconds, _ in self.events:
            total[stage] = round(total.get(stage, 0.0) + milliseconds, 3)
        return total
