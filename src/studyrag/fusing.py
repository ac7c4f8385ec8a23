"""Two rankings to one: a weighted sum of normalised scores, or reciprocal rank fusion where nothing is tuned.

Every candidate has its true cosine and its true BM25 score, also when only one arm proposed it, so nothing is guessed
for a chunk that an arm left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from studyrag.records import Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray

RRF_K = 60


def weighted_sum(
    cosines: NDArray[np.float64], bm25: NDArray[np.float64], *, dense_weight: float
) -> NDArray[np.float64]:
    """(n,) scores in [0, 1] of n candidates: w · norm(cosine) + (1 - w) · norm(BM25), each scaled by its own best.

    The cosine's zero is its lowest among the candidates, BM25's is 0 (no shared term). Source: Bruch et al. 2023,
    An Analysis of Fusion Functions for Hybrid Retrieval (theoretical minimum for the lexical arm).
    """
    if not len(cosines):
        return np.zeros(0)
    low, top = cosines.min(), bm25.max()
    span = cosines.max() - low
    dense = (cosines - low) / span if span > 0 else np.ones(len(cosines))
    lexical = np.maximum(bm25, 0.0) / top if top > 0 else np.zeros(len(cosines))
    fused: NDArray[np.float64] = dense_weight * dense + (1 - dense_weight) * lexical
    return fused


def reciprocal_rank(rankings: Sequence[Mapping[int, int]], *, k: int = RRF_K) -> dict[int, float]:
    """Row to the sum over rankings of 1 / (k + rank). Source: Cormack, Clarke & Büttcher 2009."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for row, rank in ranking.items():
            scores[row] = scores.get(row, 0.0) + 1 / (k + rank)
    return scores


def contenders(scores: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Where those stand that can be among the best ``k`` however ties break: only their chunks need to be looked up."""
    if len(scores) <= k:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])


def ranked(scores: Mapping[int, float], *, ids: Mapping[int, str]) -> list[tuple[int, float]]:
    """(row, score) best first; ties break by chunk id, so that the order does not depend on the build."""
    return sorted(scores.items(), key=lambda item: (-item[1], ids[item[0]]))


def in_turn(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """The first of each ranking, then the second of each, and so on; a chunk once, where it comes first."""
    found: dict[str, Hit] = {}
    for place in itertools.zip_longest(*rankings):
        for hit in place:
            if hit is not None:
                found.setdefault(hit.chunk.id, hit)
    return list(found.values())
