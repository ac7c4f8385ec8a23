"""Passages to statements: the smallest pieces that can be quoted as part of an answer and still be understood.

A sentence keeps the formula that it leads to, a table row the names of its columns; a short fence is one statement.
Questions, headings, long code and references to other notes are none. A sentence that leads to a list (``Three things
drift:``) is quoted only together with what it leads to.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from studyrag.records import Passage
from studyrag.sentences import Unit, UnitKind, units
from studyrag.terms import terms

MOST_STATEMENTS = 48
_MIN_TERMS, _MIN_TERMS_OF_ITEM, _MIN_TERMS_OF_LEAD = 3, 2, 1
_LONGEST_CODE = 600
"""Characters of a fence that is a statement: a command or two, no programme."""
_MOST_FORMULAS = 3
_ROUTINE = "*_\"'”’) "
_GOES_ON = re.compile(r"[a-z]")
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*\Z")
_CELL = re.compile(r"(?<!\\)\|")
_MARKER = re.compile(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]+\Z")
_QUOTE_MARK = re.compile(r"^[ \t]*>+[ \t]?(?:\[![\w-]+\][+-]?[ \t]*)?", re.MULTILINE)
_REFERENCE = re.compile(r"!\[|\[(?!\[|[ xX]\]\s)|(?:\[\[[^\]]*\]\][\s,;·|]*)+\Z")
"""Begins an image or a link to another note, or is nothing but links; no task, and no sentence about a [[page]]."""
_POINTS_BACK = re.compile(
    r"(?:this|that|these|those|it|its|they|their|such|both|neither|otherwise|so|hence|therefore|thus|then|but|yet|here"
    r"|however|instead|the (?:former|latter|same)|in (?:this|that) case|each of (?:them|these)"
    r"|(?:without|with|because of|for) (?:it|them|this|that)(?: reason)?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """``passage.text[start:end]``, put so that it can be read alone. Lines are 1-based, of the note, inclusive.

    ``number`` counts the statements of all passages from 1. ``block`` is the same for the sentences of one paragraph
    and for the items of one list or table, which ``item`` tells apart. ``leads`` marks a sentence that only announces
    the block after it.
    """

    number: int
    passage: Passage
    block: int
    item: bool
    leads: bool
    start: int
    end: int
    first_line: int
    last_line: int
    text: str

    @property
    def points_back(self) -> bool:
        """Whether it opens with a word such as ``This``, which needs the sentence before it."""
        return not self.item and _POINTS_BACK.match(self.text.lstrip(_ROUTINE)) is not None


def statements(passages: Sequence[Passage]) -> tuple[Statement, ...]:
    """The first ``MOST_STATEMENTS`` of all passages, in order. No passages -> ()."""
    found = itertools.chain.from_iterable(_statements(passage) for passage in passages)
    return tuple(
        Statement(number, *parts) for number, parts in enumerate(itertools.islice(found, MOST_STATEMENTS), start=1)
    )


def _statements(passage: Passage) -> Iterator[tuple[Passage, int, bool, bool, int, int, int, int, str]]:
    text = passage.text
    block, before_end, was_item = 0, 0, False
    header: list[str] = []
    for group in _groups(text):
        first, start, end = group[0], group[0].start, group[-1].end
        between = text[before_end:start]
        item = first.kind is UnitKind.ROW or _MARKER.search(between) is not None
        if not (item and was_item) and (item != was_item or "\n\n" in between or not before_end):
            block += 1
        before_end, was_item = end, item
        if first.kind is UnitKind.ROW:
            cells = _cells(text[start:end])
            following = text[end:].lstrip("\n").split("\n", 1)[0]
            if _RULE.match(following.strip()) and following.strip():
                header = cells
                continue
            shown = _row(header, cells)
        else:
            header = []
            shown = _prose(text, group)
        bare = shown.rstrip(_ROUTINE)
        quotable = not bare.endswith("?") and not _REFERENCE.match(shown)
        if first.kind is UnitKind.CODE:
            quotable = len(shown) <= _LONGEST_CODE
        leads = bare.endswith(":")
        least = _MIN_TERMS_OF_LEAD if leads else _MIN_TERMS_OF_ITEM if item else _MIN_TERMS
        if quotable and len(set(terms(shown))) >= least:
            first_line = passage.first_line + text.count("\n", 0, start)
            last_line = first_line + text.count("\n", start, end)
            yield passage, block, item, leads, start, end, first_line, last_line, shown


def _groups(text: str) -> Iterator[list[Unit]]:
    """Units; in one group are a formula, the sentence before it and one after it that goes on (``where …``), and a
    question and the sentence after it.
    """
    waiting: list[Unit] = []
    for unit in units(text):
        formulas = sum(one.kind is UnitKind.MATH for one in waiting)
        if waiting and formulas < _MOST_FORMULAS and waiting[-1].kind in (UnitKind.SENTENCE, UnitKind.MATH):
            after_formula = waiting[-1].kind is UnitKind.MATH
            goes_on = after_formula and unit.kind is UnitKind.SENTENCE and _GOES_ON.match(text, unit.start)
            between = text[waiting[-1].end : unit.start]
            asked = text[waiting[-1].start : waiting[-1].end].rstrip(_ROUTINE).endswith("?") and "\n\n" not in between
            answers = asked and unit.kind is UnitKind.SENTENCE and len(waiting) <= _MOST_FORMULAS
            if (unit.kind is UnitKind.MATH or goes_on or answers) and not between.strip():
                waiting.append(unit)
                continue
        if waiting:
            yield waiting
        waiting = [unit]
    if waiting:
        yield waiting


def _prose(text: str, group: Sequence[Unit]) -> str:
    """Sentences on one line, display formulas on lines of their own, code as it is."""
    if group[0].kind is UnitKind.CODE:
        return text[group[0].start : group[0].end].strip()
    shown = ""
    for before, unit in zip([None, *group], group, strict=False):
        part = text[unit.start : unit.end].strip()
        formula = UnitKind.MATH in (unit.kind, before.kind if before else unit.kind)
        shown += ("" if before is None else "\n" if formula else " ") + (
            part if unit.kind is UnitKind.MATH else " ".join(_QUOTE_MARK.sub("", part).split())
        )
    return shown


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in _CELL.split(row.strip().removeprefix("|").removesuffix("|"))]


def _row(header: Sequence[str], cells: Sequence[str]) -> str:
    """``first cell: column two of it; column three …``, with the columns' names where they are known."""
    named = [
        f"{header[at]}: {cell}" if at < len(header) and header[at] else cell
        for at, cell in enumerate(cells)
        if at and cell
    ]
    return f"{cells[0]} — {'; '.join(named)}" if cells[0] and named else cells[0] or "; ".join(named)
