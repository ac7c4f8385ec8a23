"""A question to ranked Hits: terms and vector of the query, both arms, fusion, and how well the hits cover it.

Knows the index; does not pack, generate or decide about abstention. Deterministic.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studyrag.fusing import contenders, ranked, weighted_sum
from studyrag.index import Index
from studyrag.protocols import Embedder
from studyrag.records import Hit, Ranking, Trace
from studyrag.terms import terms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from studyrag.protocols import Vectors

RETRIEVERS = ("hybrid", "bm25", "dense")


@dataclass(frozen=True, slots=True)
class Query:
    """A question as both arms see it. ``numbers`` are the index's term numbers, repeats kept.

    ``unknown`` are terms that no note holds; ``corrected`` maps a misspelt term to the known one that stands for it.
    """

    text: str
    terms: tuple[str, ...]
    numbers: tuple[int, ...]
    unknown: tuple[str, ...]
    corrected: Mapping[str, str]
    vector: Vectors


class Retriever:
    """Searches one open index with the embedder that built it."""

    def __init__(self, index: Index, embedder: Embedder, *, candidates: int, dense_weight: float) -> None:
        self.index, self._embedder = index, embedder
        self._candidates, self._dense_weight = candidates, dense_weight

    def query(self, text: str, trace: Trace) -> Query:
        started = time.perf_counter()
        vector = self._embedder.embed([text])[0]
        trace.add("embed_query", _since(started))
        started = time.perf_counter()
        words = terms(text)
        known = self.index.term_numbers(words)
        corrected = self._corrections(text, [word for word in words if word not in known])
        known.update(self.index.term_numbers(corrected.values()))
        spelt = tuple(corrected.get(word, word) for word in words)
        query = Query(
            text=text,
            terms=spelt,
            numbers=tuple(known[word] for word in spelt if word in known),
            unknown=tuple(sorted({word for word in spelt if word not in known})),
            corrected=corrected,
            vector=vector,
        )
        trace.add("query_terms", _since(started), terms=spelt, unknown=query.unknown, corrected=dict(corrected))
        return query

    def search(
        self,
        query: Query,
        k: int,
        *,
        trace: Trace,
        retriever: str = "hybrid",
        allowed: NDArray[np.bool_] | None = None,
    ) -> list[Hit]:
        """The ``k`` best chunks of ``allowed`` rows, best first; no match -> []."""
        depth = max(k, self._candidates)
        started = time.perf_counter()
        nothing = Ranking(np.zeros(0, dtype=np.int64), np.zeros(0))
        lexical = self.index.bm25.search(query.numbers, depth, allowed=allowed) if retriever != "dense" else nothing
        trace.add("lexical", _since(started), found=len(lexical.rows))
        started = time.perf_counter()
        dense = self.index.dense.search(query.vector, depth, allowed=allowed) if retriever != "bm25" else nothing
        trace.add("dense", _since(started), found=len(dense.rows))
        started = time.perf_counter()
        hits = self._fuse(query, lexical, dense, k, retriever)
        trace.add("fuse", _since(started), hits=len(hits))
        return hits

    def _fuse(self, query: Query, lexical: Ranking, dense: Ranking, k: int, retriever: str) -> list[Hit]:
        rows, cosines = self._candidates_of(query, lexical, dense)
        if retriever == "hybrid":
            bm25 = self.index.bm25.scores(query.numbers)[rows]
            scores = weighted_sum(cosines, bm25, dense_weight=self._dense_weight)
        else:
            scores = lexical.scores if retriever == "bm25" else dense.scores
        kept = contenders(scores, k)
        found = rows[kept].tolist()
        chunks = dict(zip(found, self.index.chunks(found), strict=True))
        cosine_of = dict(zip(found, cosines[kept].tolist(), strict=True))
        lexical_ranks, dense_ranks = _ranks(lexical), _ranks(dense)
        best = ranked(
            dict(zip(found, scores[kept].tolist(), strict=True)), ids={row: chunk.id for row, chunk in chunks.items()}
        )
        return [
            Hit(
                chunk=chunks[row],
                rank=rank,
                score=score,
                lexical_rank=lexical_ranks.get(row),
                dense_rank=dense_ranks.get(row),
                cosine=cosine_of[row],
            )
            for rank, (row, score) in enumerate(best[:k], start=1)
        ]

    def _candidates_of(
        self, query: Query, lexical: Ranking, dense: Ranking
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The rows that either arm proposes, the dense arm's first, and the cosine of each.

        What only BM25 proposed is computed here, row by row: in a matrix product a row's last bit depends on the rows
        beside it, and ties would not be ties.
        """
        proposed = np.zeros(self.index.n_chunks, dtype=bool)
        proposed[dense.rows] = True
        rows = lexical.rows[~proposed[lexical.rows]]
        if not len(rows):
            return dense.rows, dense.scores
        cosines = np.einsum("ij,j->i", self.index.dense.vectors(rows), query.vector)
        return np.concatenate([dense.rows, rows]), np.concatenate([dense.scores, cosines])

    def _corrections(self, text: str, unknown: Sequence[str]) -> dict[str, str]:
        """Misspelt words and the nearest known term; acronyms, numbers and short words are left as they are."""
        acronyms = {word.lower() for word in text.replace("-", " ").split() if word.isupper()}
        wrong = [word for word in unknown if len(word) >= 5 and word.isalpha() and word not in acronyms]
        if not wrong:
            return {}
        corrected = {word: nearest_term(word, self._spelt_alike(word)) for word in wrong}
        return {word: term for word, term in corrected.items() if term is not None}

    def _spelt_alike(self, word: str) -> list[str]:
        """The known words that a slip may have turned into this one."""
        lengths = {"shortest": max(4, len(word) - 2), "longest": len(word) + 2}
        return [term for term in self.index.terms_like(word[0], **lengths) if term.isalpha()]

    def term_weights(self, words: Sequence[str]) -> dict[str, float]:
        """Weight of each distinct term: its idf, and for a term that no note holds that of a term in one chunk."""
        known = self.index.term_numbers(words)
        rarest = float(np.log(self.index.n_chunks + 0.5) - np.log(1.5)) if self.index.n_chunks else 0.0
        return {
            word: max(0.1, self.index.bm25.idf(known[word]) if word in known else rarest) for word in sorted(set(words))
        }


def nearest_term(word: str, vocabulary: Sequence[str]) -> str | None:
    """The known term one typing slip away (two, for eight letters or more), same first letter; ties by term."""
    from rapidfuzz.distance import OSA

    allowed = 1 if len(word) < 8 else 2
    near = sorted(
        (OSA.distance(word, term, score_cutoff=allowed), term)
        for term in vocabulary
        if term[0] == word[0] and abs(len(term) - len(word)) <= allowed
    )
    return near[0][1] if near and near[0][0] <= allowed else None


def _ranks(ranking: Ranking) -> dict[int, int]:
    """Row to its 1-based rank."""
    return {row: rank for rank, row in enumerate(ranking.rows.tolist(), start=1)}


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
