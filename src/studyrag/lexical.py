"""BM25 over postings: the scores of rank-bm25's BM25Okapi, at a cost that grows with the query's postings only.

The forward index (terms of each chunk) is kept beside the postings, so that a re-index reads only changed notes.
Stores no text. All arrays may be memory-mapped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studyrag.records import Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

K1 = 1.5
B = 0.75
EPSILON = 0.25
"""rank-bm25's defaults for BM25Okapi."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Terms of each row, as compressed rows: row r has terms[indptr[r]:indptr[r+1]] with counts alongside."""

    indptr: Ints  # (n + 1,)
    terms: NDArray[np.int32]  # (nnz,) term numbers
    counts: NDArray[np.int32]  # (nnz,)

    @property
    def n(self) -> int:
        return len(self.indptr) - 1

    def take(self, rows: Sequence[int]) -> Forward:
        """Those rows only, in that order."""
        pick = np.asarray(rows, dtype=np.int64)
        lengths = (self.indptr[1:] - self.indptr[:-1])[pick] if len(pick) else np.zeros(0, dtype=np.int64)
        indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        at = np.repeat(self.indptr[pick] - indptr[:-1], lengths) + np.arange(int(indptr[-1])) if len(pick) else pick
        return Forward(indptr, np.asarray(self.terms)[at], np.asarray(self.counts)[at])


class Vocabulary:
    """Terms numbered in order of first sight."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.terms = list(known)
        self.number = {term: at for at, term in enumerate(self.terms)}

    def add(self, term: str) -> int:
        at = self.number.setdefault(term, len(self.terms))
        if at == len(self.terms):
            self.terms.append(term)
        return at


def forward_index(documents: Iterable[Sequence[str]], vocabulary: Vocabulary) -> Forward:
    """Counts the terms of each document; new terms are added to ``vocabulary``."""
    indptr, numbers, counts = [0], [], []
    for document in documents:
        for term, count in Counter(document).items():
            numbers.append(vocabulary.add(term))
            counts.append(count)
        indptr.append(len(numbers))
    return Forward(
        np.asarray(indptr, dtype=np.int64), np.asarray(numbers, dtype=np.int32), np.asarray(counts, dtype=np.int32)
    )


def join(parts: Sequence[Forward]) -> Forward:
    """Rows of all parts, in order; term numbers must come from one vocabulary."""
    lengths = [np.diff(part.indptr) for part in parts]
    empty = np.zeros(0, dtype=np.int32)
    return Forward(
        np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths))]),
        np.concatenate([empty, *(part.terms for part in parts)]),
        np.concatenate([empty, *(part.counts for part in parts)]),
    )


def compact(forward: Forward, terms: Sequence[str]) -> tuple[Forward, list[str]]:
    """Only the terms that a row holds, numbered alphabetically: equal rows, equal index, whatever came before."""
    kept = sorted(np.unique(forward.terms).tolist(), key=terms.__getitem__)
    number = np.zeros(len(terms), dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return Forward(forward.indptr, number[forward.terms], forward.counts), [terms[term] for term in kept]


@dataclass(frozen=True, slots=True)
class Postings:
    """Rows of each term, ascending: term t is in rows[indptr[t]:indptr[t+1]], impacts alongside."""

    indptr: Ints  # (terms + 1,)
    rows: NDArray[np.int32]  # (nnz,)
    impacts: NDArray[np.float64]  # (nnz,) what the term adds to the row's score
    lengths: NDArray[np.int32]  # (n,) terms of each row, repeats counted
    idf: NDArray[np.float64]  # (terms,)


def invert(forward: Forward, n_terms: int) -> Postings:
    """Postings with BM25Okapi's idf: ln((N - n + 0.5) / (n + 0.5)), negatives raised to EPSILON times the mean idf.

    The impact is idf · f · (K1 + 1) / (f + K1 · (1 - B + B · length / mean length)) for f occurrences in the row.
    Source: Robertson & Zaragoza 2009; the floor is rank-bm25's.
    """
    order = np.argsort(forward.terms, kind="stable")
    row_of = np.repeat(np.arange(forward.n, dtype=np.int32), np.diff(forward.indptr))
    document_frequency = np.bincount(forward.terms, minlength=n_terms).astype(np.int64)
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(document_frequency)])
    totals = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(forward.counts, dtype=np.int64)])
    lengths = (totals[forward.indptr[1:]] - totals[forward.indptr[:-1]]).astype(np.int32)
    rows, counts = row_of[order], forward.counts[order].astype(np.float64)
    idf = _idf(document_frequency, forward.n)
    norm = K1 * (1 - B + B * lengths[rows] / lengths.mean()) if len(rows) else counts
    impacts = np.repeat(idf, document_frequency) * (counts * (K1 + 1) / (counts + norm))
    return Postings(indptr, rows, impacts, lengths, idf)


def _idf(document_frequency: Ints, n: int) -> NDArray[np.float64]:
    """rank-bm25's own idf for these document frequencies; 0.0 for a term that no row holds."""
    from rank_bm25 import BM25Okapi

    class Statistics(BM25Okapi):  # type: ignore[misc]
        """BM25Okapi that is told the document frequencies instead of counting a corpus."""

        def _initialize(self, corpus: object) -> dict[int, int]:
            self.corpus_size = n
            return {int(term): int(document_frequency[term]) for term in np.flatnonzero(document_frequency)}

    idf = np.zeros(len(document_frequency), dtype=np.float64)
    if document_frequency.any():
        for term, value in Statistics([], k1=K1, b=B, epsilon=EPSILON).idf.items():
            idf[term] = value
    return idf


class BM25:
    """Scores rows for a bag of term numbers."""

    def __init__(self, postings: Postings) -> None:
        self._postings = postings
        self._last: tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.int32]] | None = None

    def scores(self, query: Sequence[int]) -> NDArray[np.float64]:
        """(n,) float64, read-only; repeated terms count as often as they stand in the query. No terms -> zeros."""
        return self._scores(query)[0]

    def _scores(self, query: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """(scores, rows that hold a term of the query, repeats possible).

        The last query's are kept: a search is followed by a look at the scores of what other arms proposed.
        """
        asked = tuple(query)
        if self._last is None or self._last[0] != asked:
            postings, n = self._postings, len(self._postings.lengths)
            spans = [slice(0, 0), *(slice(*postings.indptr[term : term + 2].tolist()) for term in asked)]
            rows = np.concatenate([postings.rows[span] for span in spans])
            impacts = np.concatenate([postings.impacts[span] for span in spans])
            scores = np.asarray(np.bincount(rows, impacts, n), dtype=np.float64)
            scores.setflags(write=False)
            self._last = (asked, scores, rows)
        return self._last[1:]

    def search(self, query: Sequence[int], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranking:
        """The ``k`` best rows that hold any term of the query; ties break by row. Empty query -> no row."""
        scores, rows = self._scores(query)
        touched = np.zeros(len(scores), dtype=bool)
        touched[rows] = True
        if allowed is not None:
            touched &= allowed
        return best(scores, np.flatnonzero(touched), k)

    def idf(self, term: int) -> float:
        return float(self._postings.idf[term])

    def document_frequency(self, term: int) -> int:
        return int(self._postings.indptr[term + 1] - self._postings.indptr[term])


def best(scores: NDArray[np.float64], rows: NDArray[np.int64], k: int) -> Ranking:
    """The ``k`` of ``rows``, ascending, with the highest scores, ties by row."""
    values = scores[rows]
    if len(rows) > k:
        kept = values >= np.partition(values, len(rows) - k)[len(rows) - k]
        rows, values = rows[kept], values[kept]
    order = np.argsort(-values, kind="stable")[:k]
    return Ranking(rows[order], values[order])
