"""Notes to chunks that fit the embedder's window together with their heading path.

Within a section, whole blocks are packed while they fit. Prose and lists that are too long are cut by
langchain-text-splitters; tables between rows, repeating their header rows as ``context``; a fence or a formula is never
cut, so one that is longer than the window stays one chunk (``embedding.embed_whole`` reads it in windows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from studyrag.records import Block, BlockKind, Chunk, Note, Section, heading_line

TokenCounter = Callable[[Sequence[str]], list[int]]
"""Tokens of each text, special tokens included."""

_SENTENCE_ENDS = ["\n\n", "\n", r"(?<=[.!?;:])\s+", r"\s+", ""]
_MIN_ROOM = 48


@dataclass(frozen=True, slots=True)
class _Piece:
    """A span that may stand alone in a chunk. Not cut any further."""

    start: int
    end: int
    context: str
    tokens: int
    alone: bool


def split_note(
    note: Note, *, max_tokens: int, count_tokens: TokenCounter, chunk_tokens: int, chunk_overlap: int = 0
) -> list[Chunk]:
    """Chunks in the order of the note. ``chunk_tokens`` <= ``max_tokens`` bounds heading path and text together.

    A chunk begins with what ended the one before it in its section, as far as whole pieces (blocks, or parts of one
    that was cut) have ``chunk_overlap`` tokens at most and leave room for what is new; the rows of a table that was cut
    are not repeated. Headings alone make no chunk: they are in every chunk's path. A section without text is passed
    over.
    """
    spans: list[tuple[Section, int, int, str]] = []
    for section in note.sections:
        head = heading_line(note.title, section.headings)
        room = max(_MIN_ROOM, min(chunk_tokens, max_tokens) - count_tokens([head])[0])
        for start, end, context in _pack(_pieces(note.text, section, room, count_tokens), room, chunk_overlap):
            spans.append((section, start, end, context))
    seen: dict[str, int] = {}
    return [_chunk(note, section, start, end, context, seen) for section, start, end, context in spans]


def _chunk(note: Note, section: Section, start: int, end: int, context: str, seen: dict[str, int]) -> Chunk:
    text = note.text[start:end]
    key = "\x00".join((note.id, *section.headings, context, text))
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    copy = seen[digest] = seen.get(digest, 0) + 1
    first = section.first_line + note.text.count("\n", section.start, start)
    return Chunk(
        id=digest if copy == 1 else f"{digest}-{copy}",
        note_id=note.id,
        title=note.title,
        headings=section.headings,
        start=start,
        end=end,
        first_line=first,
        last_line=first + text.count("\n"),
        context=context,
        text=text,
    )


def _pack(pieces: Sequence[_Piece], room: int, overlap: int) -> Iterator[tuple[int, int, str]]:
    """Neighbouring pieces joined greedily while their tokens fit."""
    held: list[_Piece] = []
    for piece in pieces:
        joinable = held and not piece.alone and not held[0].context and _tokens(held) + piece.tokens <= room
        if held and not joinable:
            yield held[0].start, held[-1].end, held[0].context
            held = [] if piece.alone else _repeated(held, min(overlap, room - piece.tokens))
        held.append(piece)
    if held:
        yield held[0].start, held[-1].end, held[0].context


def _tokens(pieces: Sequence[_Piece]) -> int:
    return sum(max(1, piece.tokens) for piece in pieces)


def _repeated(pieces: Sequence[_Piece], most: int) -> list[_Piece]:
    """The last of the pieces, as many as have ``most`` tokens together."""
    kept: list[_Piece] = []
    for piece in reversed(pieces):
        if piece.alone or _tokens([piece, *kept]) > most:
            break
        kept.insert(0, piece)
    return kept


def _pieces(text: str, section: Section, room: int, count_tokens: TokenCounter) -> list[_Piece]:
    blocks = [block for block in section.blocks if block.kind is not BlockKind.HEADING and _says(text, block)]
    counts = count_tokens([text[block.start : block.end] for block in blocks])
    pieces: list[_Piece] = []
    for block, tokens in zip(blocks, counts, strict=True):
        if tokens <= room or block.kind in (BlockKind.CODE, BlockKind.MATH):
            pieces.append(_Piece(block.start, block.end, "", tokens, alone=False))
        elif block.kind is BlockKind.TABLE:
            pieces.extend(_table_rows(text, block, room, count_tokens))
        else:
            pieces.extend(_cut(text, block, room, count_tokens))
    return pieces


def _says(text: str, block: Block) -> bool:
    """Whether there is anything to find in it: a rule between sections is no chunk."""
    return any(letter.isalnum() for letter in text[block.start : block.end])


def _table_rows(text: str, block: Block, room: int, count_tokens: TokenCounter) -> Iterator[_Piece]:
    """Runs of rows that fit under the header rows; the first run carries the header itself."""
    lines = text[block.start : block.end].split("\n")
    header = "\n".join(lines[:2])
    counts = count_tokens([header, *lines[2:]])
    start = block.start
    end, used, context = start + len(header), counts[0], ""
    for line, tokens in zip(lines[2:], counts[1:], strict=True):
        if used > counts[0] and used + tokens > room:
            yield _Piece(start, end, context, used, alone=True)
            start, used, context = end + 1, counts[0], header
        end, used = end + 1 + len(line), used + tokens
    yield _Piece(start, end, context, used, alone=True)


def _cut(text: str, block: Block, room: int, count_tokens: TokenCounter) -> Iterator[_Piece]:
    """Prose or a list, cut at the gentlest place that fits: paragraph, line, sentence, word, then anywhere."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    source = text[block.start : block.end]
    splitter = RecursiveCharacterTextSplitter(
        separators=_SENTENCE_ENDS,
        is_separator_regex=True,
        keep_separator="end",
        chunk_size=room,
        chunk_overlap=0,
        length_function=lambda part: count_tokens([part])[0],
        strip_whitespace=False,
    )
    at = 0
    parts: list[tuple[int, int]] = []
    for part in splitter.split_text(source):
        found = source.find(part, at)
        start = found + len(part) - len(part.lstrip())
        at = found + len(part)
        end = found + len(part.rstrip())
        if end > start:
            parts.append((block.start + start, block.start + end))
    for (start, end), tokens in zip(parts, count_tokens([text[a:b] for a, b in parts]), strict=True):
        yield _Piece(start, end, "", tokens, alone=False)
