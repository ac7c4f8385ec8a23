"""Markdown to the smallest units that can be quoted: sentences, list items, table rows, whole fences and formulas.

Used for the notes (what supports a claim) and for answers while they stream in. Never cuts inside inline maths or
code. English abbreviations do not end a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class UnitKind(StrEnum):
    SENTENCE = "sentence"
    ROW = "row"
    CODE = "code"
    MATH = "math"


@dataclass(frozen=True, slots=True)
class Unit:
    """text[start:end] of the text it came from, white space around it left out."""

    kind: UnitKind
    start: int
    end: int


_FENCE = re.compile(r"^[ \t]*(```+(?!.*`)|~~~+)")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s")
_TABLE_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
_INLINE = re.compile(
    r"\$\$.*?\$\$|\$(?=[^\s$])[^$\n]*?(?<=\S)\$(?!\d)|(?P<ticks>`+)(?!`)[^\n]*?(?<!`)(?P=ticks)(?!`)"
    r"|\\\((?:(?!\\\().)*?\\\)|\\\[(?:(?!\\\[).)*?\\\]|\]\([^)\]]*\)",  # none spans its own start: stays linear
    re.DOTALL,
)
_END = re.compile(r"(?:[.!?](?:\[\d+\])*|(?<=[.!?])[\"'”’)\]*_]+)(?=\s+[\"'“‘(\[*_`$\\]*[A-Z0-9$`\\(\[*\"“À-ÞΑ-Ω])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|vs|etc|cf|al|approx|resp|fig|eq|eqs|sec|ch|no|vol|pp|dr|mr|mrs|ms|st|prof|inc|ltd|jr|sr)"
    r"|\b[A-Z]|^\s*\d+)\.$",
    re.IGNORECASE,
)


def units(text: str) -> list[Unit]:
    """Every unit, in order. Headings, table rules and blank lines belong to none."""
    found: list[Unit] = []
    for kind, start, end in _blocks(text):
        if kind is UnitKind.SENTENCE:
            found.extend(Unit(kind, start + a, start + b) for a, b in sentence_spans(text[start:end]))
        else:
            found.append(Unit(kind, start, end))
    return found


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Half-open spans of the sentences of one paragraph, without the white space between them."""
    hidden = _hidden(text)
    ends = [
        match.end()
        for match in _END.finditer(hidden)
        if not _ABBREVIATION.search(hidden[max(0, match.end() - 12) : match.end()])
    ]
    spans = []
    start = 0
    for end in [*ends, len(text)]:
        piece = text[start:end]
        if piece.strip():
            spans.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
        start = end
    return spans


def _hidden(text: str) -> str:
    """The same text, as long, with inline maths, code and link targets as capitals, which may begin a sentence."""
    return _INLINE.sub(lambda match: "X" * len(match.group()), text)


def _may_be_inside(text: str, at: int) -> bool:
    """Whether inline maths or code that has no end so far began before ``at``, so that ``at`` may be inside it."""
    start = text.rfind("\n\n", 0, at) + 1
    hidden = _hidden(text[start:])
    before, after = hidden[: at - start], hidden[at - start :]
    if "\n\n" in after:
        return False
    if "\n" not in after and any(mark in before[before.rfind("\n") + 1 :] for mark in "`$"):
        return True
    return any(mark in before for mark in ("$$", "\\(", "\\[", "]("))


def _blocks(text: str) -> Iterator[tuple[UnitKind, int, int]]:
    """(kind, start, end): fences and display maths whole, rows one by one, paragraphs and list items as prose."""
    at = 0
    lines = text.split("\n")
    number = 0
    paragraph: tuple[int, int] | None = None
    while number < len(lines):
        line = lines[number]
        end = at + len(line)
        taken = _verbatim(lines, number)
        special = (
            taken
            or not line.strip()
            or _HEADING.match(line)
            or line.lstrip().startswith("|")
            or _TABLE_RULE.fullmatch(line.strip())
        )
        if paragraph and (special or _ITEM.match(line)):
            yield UnitKind.SENTENCE, *paragraph
            paragraph = None
        if taken:
            kind, n_lines = taken
            end = at + sum(len(part) + 1 for part in lines[number : number + n_lines]) - 1
            yield kind, at, end
            number += n_lines
            at = end + 1
            continue
        if not special:
            marker = _ITEM.match(line)
            paragraph = (paragraph[0], end) if paragraph else (at + (marker.end() if marker else 0), end)
        elif line.lstrip().startswith("|") and not _TABLE_RULE.fullmatch(line.strip()):
            yield UnitKind.ROW, at, end
        number, at = number + 1, end + 1
    if paragraph:
        yield UnitKind.SENTENCE, *paragraph


def _verbatim(lines: list[str], number: int) -> tuple[UnitKind, int] | None:
    """Kind and number of lines of the fence or display maths that starts here; an open one runs to the end."""
    fence = _FENCE.match(lines[number])
    opening = lines[number].strip()
    if fence:
        mark, kind = fence.group(1), UnitKind.CODE
        closes = (n for n in range(number + 1, len(lines)) if lines[n].strip().startswith(mark))
    elif opening.startswith("$$") and opening.count("$$") == 1:
        kind = UnitKind.MATH
        closes = (n for n in range(number + 1, len(lines)) if lines[n].rstrip().endswith("$$"))
    elif opening.startswith("\\[") and "\\]" not in opening[:-2]:
        kind = UnitKind.MATH
        closes = (n for n in range(number, len(lines)) if lines[n].rstrip().endswith("\\]"))
    elif opening.startswith("$$") and opening.endswith("$$"):
        return UnitKind.MATH, 1
    else:
        return None
    return kind, next(closes, len(lines) - 1) - number + 1


class SentenceStream:
    """Pieces of a streamed answer in, finished sentences out; their concatenation is the whole answer."""

    def __init__(self) -> None:
        self._buffer = ""

    def feed(self, piece: str) -> list[str]:
        """Sentences that ``piece`` finished, each with the white space that follows it."""
        self._buffer += piece
        return self._finished(ended=False)

    def rest(self) -> list[str]:
        """What is left when the stream has ended."""
        done = self._finished(ended=True)
        left, self._buffer = self._buffer, ""
        return [*done, left] if left.strip() else done

    def head(self) -> str:
        """What has come so far of the sentence that is to be finished next."""
        found = units(self._buffer)
        return self._buffer[: self._lead(found[1].start)] if len(found) > 1 else self._buffer

    def _finished(self, *, ended: bool) -> list[str]:
        done = []
        start = 0
        for following in units(self._buffer)[1:]:
            lead = self._lead(following.start)
            if not ended and _may_be_inside(self._buffer, lead):
                break
            done.append(self._buffer[start:lead])
            start = lead
        self._buffer = self._buffer[start:]
        return done

    def _lead(self, start: int) -> int:
        """Where the next sentence begins, with the list marker before it."""
        line = self._buffer.rfind("\n", 0, start) + 1
        return line if _ITEM.fullmatch(self._buffer[line:start]) else start
