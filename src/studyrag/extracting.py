"""An answer without a generator: the sentences of the passages that speak to the question best, verbatim.

Used for ``--extract`` and where no generator is installed. Every sentence is its own evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from studyrag.protocols import Embedder
from studyrag.records import Citation, Passage, Sentence
from studyrag.sentences import UnitKind, units
from studyrag.terms import terms

MOST_SENTENCES = 3
MOST_COMPARED = 48
_MIN_TERMS = 4


def extract(
    question: str,
    passages: Sequence[Passage],
    *,
    embedder: Embedder,
    term_weights: Callable[[Sequence[str]], Mapping[str, float]],
) -> tuple[tuple[Sentence, ...], tuple[Citation, ...]]:
    """The best sentences in reading order, with a citation each; no sentence in the passages -> ((), ())."""
    found = [
        (passage, unit)
        for passage in passages
        for unit in units(passage.text)
        if unit.kind in (UnitKind.SENTENCE, UnitKind.ROW)
        and len(set(terms(passage.text[unit.start : unit.end]))) >= _MIN_TERMS
    ][:MOST_COMPARED]
    if not found:
        return (), ()
    texts = [passage.text[unit.start : unit.end] for passage, unit in found]
    vectors = embedder.embed([question, *texts])
    weights = term_weights(terms(question))
    total = sum(weights.values()) or 1.0
    shares = [sum(weights.get(word, 0.0) for word in set(terms(text))) / total for text in texts]
    scores = [float(cosine) + 0.5 * share for cosine, share in zip(vectors[1:] @ vectors[0], shares, strict=True)]
    best = sorted(range(len(found)), key=lambda at: (-scores[at], at))[:MOST_SENTENCES]
    keep = sorted(at for at in best if scores[at] >= 0.6 * scores[best[0]])
    sentences, citations = [], []
    for number, at in enumerate(keep, start=1):
        passage, unit = found[at]
        first = passage.first_line + passage.text.count("\n", 0, unit.start)
        last = first + texts[at].count("\n")
        quote = "\n".join(passage.text.split("\n")[first - passage.first_line : last - passage.first_line + 1])
        joined = " ".join(texts[at].split("\n")) if unit.kind is UnitKind.SENTENCE else texts[at]
        sentences.append(Sentence(joined + "\n", True, (number,)))
        citations.append(Citation(number, passage.note_id, passage.headings, first, last, quote))
    return tuple(sentences), tuple(citations)
