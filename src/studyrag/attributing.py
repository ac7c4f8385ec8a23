"""Each sentence of an answer to the lines of the notes that support it, or to none.

Never trusts markers the model wrote. A sentence is supported when one unit of a passage (or two neighbours) holds
enough of the weight of its terms, means nearly the same by embedding, holds all its numbers, and negates
where the sentence does. The thresholds are a trial's; docs/log.md has how they were found.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studyrag.protocols import Embedder
from studyrag.records import Citation, Passage, Sentence
from studyrag.sentences import Unit, UnitKind, units
from studyrag.terms import terms

TermWeights = Callable[[Sequence[str]], Mapping[str, float]]
"""Weight of each distinct term."""

CANDIDATES = 6
MIN_RECALL, MIN_COSINE = 0.55, 0.60
SURE_RECALL = 0.80
_MARKS = r"\[\d+(?:\s*,\s*\d+)*\](?!\()"
_MARKER = re.compile(rf"(`[^`]*(?:`|\Z)|\$[^$]*(?:\$|\Z))|\A(?:{_MARKS}\s*)+|\s*{_MARKS}")
_ITEM = re.compile(r"\A\s*(?:[-*+]|\d+[.)])\s+")
_THOUSANDS = re.compile(r"(?<=\d)[,\u2009\u202f](?=\d{3}(?!\d))")
_NEGATION = re.compile(r"\b(?:not|no|never|cannot|neither|nor|without|none|\w+n['’]t)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_WORDS = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
}


@dataclass(frozen=True, slots=True)
class _Window:
    """One unit of a passage, or two neighbours, as evidence."""

    passage: Passage
    text: str
    first_line: int
    last_line: int
    terms: frozenset[str]


def without_markers(text: str) -> str:
    """The sentence without citation markers that the model wrote of its own accord; array indices in code stay."""
    return _MARKER.sub(lambda match: match.group(1) or "", text)


class Attributor:
    """Attributes the sentences of one answer, in order, numbering citations as they are first used."""

    def __init__(
        self, question: str, passages: Sequence[Passage], *, embedder: Embedder, term_weights: TermWeights
    ) -> None:
        self._asked = frozenset(_NUMBER.findall(question))
        self._embedder, self._weights = embedder, term_weights
        self._windows = [window for passage in passages for window in _windows(passage)]
        self._cited: list[tuple[_Window, int, int]] = []

    def sentence(self, text: str) -> Sentence:
        """The sentence with its verdict; ``supported`` is None where it makes no claim."""
        claim = re.sub(r"\s+", " ", _ITEM.sub("", text)).strip()
        words = frozenset(terms(claim))
        if not words or claim.endswith(":") or claim.startswith("```"):
            return Sentence(text, None, ())
        window = self._support(claim, words)
        if window is None:
            return Sentence(text, False, ())
        return Sentence(text, True, (self._cite(window),))

    def citations(self) -> tuple[Citation, ...]:
        """Those used so far, by number; call it when the answer is complete, since ranges may still grow."""
        return tuple(
            Citation(number, w.passage.note_id, w.passage.headings, first, last, _lines(w.passage, first, last))
            for number, (w, first, last) in enumerate(self._cited, start=1)
        )

    def _support(self, claim: str, words: frozenset[str]) -> _Window | None:
        weights = self._weights(sorted(words))
        total = sum(weights.values())
        recalls = [sum(weights[word] for word in words & window.terms) / total for window in self._windows]
        order = sorted(range(len(recalls)), key=lambda at: (-recalls[at], len(self._windows[at].text), at))[:CANDIDATES]
        near = [at for at in order if recalls[at] >= MIN_RECALL and self._agrees(claim, self._windows[at])]
        if not near:
            return None
        vectors = self._embedder.embed([claim, *(self._windows[at].text for at in near)])
        cosines = vectors[1:] @ vectors[0]
        scored = [
            (recalls[at] + float(cosine), -place, at)
            for place, (at, cosine) in enumerate(zip(near, cosines, strict=True))
            if cosine >= MIN_COSINE or (recalls[at] >= SURE_RECALL and cosine >= MIN_COSINE - 0.15)
        ]
        return self._windows[max(scored)[2]] if scored else None

    def _agrees(self, claim: str, window: _Window) -> bool:
        """Every number of the claim is in the window or the question; where the claim negates, the window does too."""
        held = frozenset(_NUMBER.findall(_digits(window.text)))
        if not frozenset(_NUMBER.findall(_digits(claim))) <= held | self._asked:
            return False
        return not (_NEGATION.search(claim) and not _NEGATION.search(window.text))

    def _cite(self, window: _Window) -> int:
        """The number of the citation that holds these lines; touching lines of one passage share it."""
        for at, (other, first, last) in enumerate(self._cited):
            same = other.passage == window.passage
            if same and window.first_line <= last + 1 and first <= window.last_line + 1:
                self._cited[at] = (other, min(first, window.first_line), max(last, window.last_line))
                return at + 1
        self._cited.append((window, window.first_line, window.last_line))
        return len(self._cited)


def _digits(text: str) -> str:
    """One spelling for numbers: no thousands separators, no superscripts, small ones as digits."""
    text = unicodedata.normalize("NFKC", _THOUSANDS.sub("", text))
    return re.sub(r"[a-z]+", lambda match: _NUMBER_WORDS.get(match.group(), match.group()), text)


def _windows(passage: Passage) -> list[_Window]:
    """Single units, then neighbouring pairs; a formula or fence counts with the sentence before and after it."""
    found = units(passage.text)
    spans: list[tuple[int, int]] = [(unit.start, unit.end) for unit in found if unit.kind is not UnitKind.CODE]
    spans += [(one.start, two.end) for one, two in itertools.pairwise(found) if _may_join(one, two)]
    spans += [
        (one.start, three.end)
        for one, two, three in zip(found, found[1:], found[2:], strict=False)
        if two.kind is UnitKind.MATH and three.kind is UnitKind.SENTENCE
    ]
    heading = terms(" ".join(passage.headings))
    return [_window(passage, start, end, heading) for start, end in spans]


def _may_join(one: Unit, two: Unit) -> bool:
    return UnitKind.CODE not in (one.kind, two.kind) and (one.kind is not UnitKind.ROW or two.kind is UnitKind.ROW)


def _window(passage: Passage, start: int, end: int, heading: Sequence[str]) -> _Window:
    text = passage.text[start:end]
    first = passage.first_line + passage.text.count("\n", 0, start)
    return _Window(passage, text, first, first + text.count("\n"), frozenset([*terms(text), *heading]))


def _lines(passage: Passage, first: int, last: int) -> str:
    lines = passage.text.split("\n")
    return "\n".join(lines[first - passage.first_line : last - passage.first_line + 1])
