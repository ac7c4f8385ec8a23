"""An answer without a generator: the lines of the passages that speak to the question best, verbatim.

Used for ``--extract`` and where no generator is installed. Picks a run of up to three neighbouring sentences, because
one alone is rarely an answer, and every sentence is its own evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studyrag.protocols import Embedder
from studyrag.records import Citation, Passage, Sentence
from studyrag.sentences import UnitKind, units
from studyrag.terms import terms

MOST_SENTENCES = 3
MOST_COMPARED = 48
_MIN_TERMS = 4


@dataclass(frozen=True, slots=True)
class _Quote:
    """A sentence or table row that could be quoted, and its place: ``position`` counts the units of its passage."""

    passage: Passage
    position: int
    kind: UnitKind
    text: str
    first_line: int
    last_line: int


def extract(
    question: str,
    passages: Sequence[Passage],
    *,
    embedder: Embedder,
    term_weights: Callable[[Sequence[str]], Mapping[str, float]],
) -> tuple[tuple[Sentence, ...], tuple[Citation, ...]]:
    """The best run of sentences in reading order, with a citation each; no sentence in the passages -> ((), ())."""
    quotes = [quote for passage in passages for quote in _quotes(passage)][:MOST_COMPARED]
    if not quotes:
        return (), ()
    vectors = embedder.embed([question, *(quote.text for quote in quotes)])
    weights = term_weights(terms(question))
    total = sum(weights.values()) or 1.0

    def share(words: set[str]) -> float:
        return sum(weights.get(word, 0.0) for word in words) / total

    held = [set(terms(quote.text)) for quote in quotes]
    alike = [float(cosine) for cosine in vectors[1:] @ vectors[0]]
    scores = [cosine + 0.5 * share(words) for cosine, words in zip(alike, held, strict=True)]

    def worth(run: range) -> float:
        """Best sentence first, then how much of the question the run covers, its heading and rank included."""
        passage = quotes[run.start].passage
        covered = share(set(terms(" ".join(passage.headings))).union(*(held[at] for at in run)))
        in_all = sum(scores[at] for at in run)
        return max(scores[at] for at in run) + 0.15 * in_all + 0.5 * covered + 0.3 / passage.number

    best = max(_runs(quotes), key=lambda run: (worth(run), -run.start, -len(run)))
    return _quoted([quotes[at] for at in best])


def _runs(quotes: Sequence[_Quote]) -> list[range]:
    """Every run of up to ``MOST_SENTENCES`` that follow one another in one passage."""
    runs = []
    for start, first in enumerate(quotes):
        for end in range(start + 1, min(start + MOST_SENTENCES, len(quotes)) + 1):
            last = quotes[end - 1]
            apart = last.passage != first.passage or last.position - first.position != end - 1 - start
            if apart or (end - start > 1 and UnitKind.ROW in (first.kind, last.kind)):
                break
            runs.append(range(start, end))
    return runs


def _quotes(passage: Passage) -> list[_Quote]:
    """What of a passage can answer: no questions, no lead-ins to a formula or list, no bare links."""
    found = []
    for position, unit in enumerate(units(passage.text)):
        text = passage.text[unit.start : unit.end]
        bare = text.rstrip("*_\"'”’) ")
        if (
            unit.kind not in (UnitKind.SENTENCE, UnitKind.ROW)
            or bare.endswith(("?", ":"))
            or text.startswith(("[", "!["))
        ):
            continue
        if len(set(terms(text))) >= _MIN_TERMS:
            first = passage.first_line + passage.text.count("\n", 0, unit.start)
            found.append(_Quote(passage, position, unit.kind, text, first, first + text.count("\n")))
    return found


def _quoted(quotes: Sequence[_Quote]) -> tuple[tuple[Sentence, ...], tuple[Citation, ...]]:
    sentences, citations = [], []
    for number, quote in enumerate(quotes, start=1):
        passage = quote.passage
        lines = passage.text.split("\n")[
            quote.first_line - passage.first_line : quote.last_line - passage.first_line + 1
        ]
        text = " ".join(line.strip() for line in quote.text.split("\n"))
        sentences.append(Sentence(text + "\n", True, (number,)))
        citations.append(
            Citation(number, passage.note_id, passage.headings, quote.first_line, quote.last_line, "\n".join(lines))
        )
    return tuple(sentences), tuple(citations)
