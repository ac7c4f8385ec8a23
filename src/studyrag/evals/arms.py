"""Named ways to rank: the program's own retrievers, reciprocal rank fusion, and changed parameters of the default.

``bm25``, ``dense``, ``hybrid``, ``rrf``, or with other settings, ``dense_weight=0.3+candidates=100`` (hybrid) or
``bm25+chunk_tokens=128``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from studyrag.errors import Misuse
from studyrag.evals.cache import KeptReader
from studyrag.fusing import ranked, reciprocal_rank
from studyrag.index import Index
from studyrag.protocols import Embedder
from studyrag.records import Hit, Trace
from studyrag.reranking import rerank
from studyrag.retrieving import RETRIEVERS, Query, Retriever
from studyrag.settings import Settings

RRF = "rrf"
DEPTH = 20
"""Chunks that an arm returns at least, where there are so many."""


OF_SEARCH = ("dense_weight", "candidates", "rerank")
OF_INDEX = ("chunk_tokens", "chunk_overlap", "heading_path", "precision", "embedder")
"""Settings that an arm may change; those of the index want another index."""
IndexSettings = tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """``retriever`` is one of ``RETRIEVERS`` or ``RRF``; ``dense_weight`` counts for hybrid alone.

    ``index`` holds the settings of the index that are not those in force, by name; () for the index in use.
    ``rerank``: how many of its chunks a generator ranks anew. ``mmr``: share of relevance in maximal marginal relevance
    (Carbonell and Goldstein 1998), which puts what is unlike the chunks before it first; None: none.
    """

    name: str
    retriever: str
    candidates: int
    dense_weight: float
    index: IndexSettings = ()
    rerank: int = 0
    mmr: float | None = None

    @property
    def overrides(self) -> bool:
        return "=" in self.name


def parse_arms(text: str, *, candidates: int, dense_weight: float, rerank: int = 0) -> tuple[Arm, ...]:
    """Arms from ``bm25,dense,dense_weight=0.3``; what is not overridden comes from the arguments.

    :raises Misuse: for an unknown name or value, none at all, and a name that comes twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise Misuse(f"--compare {text!r}: each arm once, at least one", fix="--compare hybrid,dense,bm25,rrf")
    plain = Arm("", "hybrid", candidates, dense_weight, rerank=rerank)
    return tuple(_parsed(plain, name) for name in names)


def _parsed(plain: Arm, name: str) -> Arm:
    retriever, changes, mmr = plain.retriever, {}, None
    for part in name.split("+"):
        key, equals, value = part.partition("=")
        if part in (*RETRIEVERS, RRF):
            retriever = part
        elif equals and key == "mmr":
            mmr = _share(name, value)
        elif equals and value and key in (*OF_SEARCH, *OF_INDEX):
            changes[key] = value
        else:
            raise _no_such(name)
    given = {"candidates": plain.candidates, "dense_weight": plain.dense_weight, "rerank": plain.rerank}
    try:
        found = Settings.model_validate(given | changes)
    except ValueError as err:  # pydantic's ValidationError is one
        raise _no_such(name) from err
    return Arm(
        name,
        retriever,
        found.candidates,
        found.dense_weight,
        tuple((key, getattr(found, key)) for key in OF_INDEX if key in changes),
        found.rerank,
        mmr,
    )


def _share(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError as err:
        raise _no_such(name) from err
    if not 0 <= share <= 1:
        raise _no_such(name)
    return share


def _no_such(name: str) -> Misuse:
    return Misuse(
        f"no arm {name!r}",
        fix=f"{', '.join((*RETRIEVERS, RRF))}, and dense_weight=0…1, candidates=1…1000, rerank=1…50, mmr=0…1,"
        " chunk_tokens=64…2048, chunk_overlap=0…128, heading_path=no, precision=int8 or embedder=NAME, joined by +",
    )


def search(
    arm: Arm, index: Index, embedder: Embedder, query: Query, trace: Trace, reader: KeptReader | None = None
) -> list[Hit]:
    """The chunks that the arm ranks, best first: as many as an arm proposes, ``DEPTH`` at least.

    ``reader`` is what ranks anew; its time is what it took when it read.

    :raises ValueError: when there is none for an arm that does.
    """
    hits = _found(arm, index, embedder, query, trace)
    if arm.mmr is not None and hits:
        share = arm.mmr
        hits = trace.timed("mmr", lambda: _diverse(hits, index, share))
    if not arm.rerank:
        return hits
    if reader is None:
        raise ValueError(f"arm {arm.name!r} takes a reader")
    before = reader.spent_ms
    hits = rerank(query.text, hits, reader, count=arm.rerank)
    trace.add("rerank", reader.spent_ms - before)
    return hits


def _found(arm: Arm, index: Index, embedder: Embedder, query: Query, trace: Trace) -> list[Hit]:
    finder = Retriever(index, embedder, candidates=arm.candidates, dense_weight=arm.dense_weight)
    depth = max(DEPTH, arm.candidates)
    if arm.retriever != RRF:
        return finder.search(query, depth, trace=trace, retriever=arm.retriever)
    lexical, dense = (finder.search(query, depth, trace=trace, retriever=name) for name in ("bm25", "dense"))
    started = time.perf_counter()
    fused = _reciprocal(lexical, dense)[:depth]
    trace.add("fuse", (time.perf_counter() - started) * 1000, hits=len(fused))
    return fused


def _diverse(hits: Sequence[Hit], index: Index, share: float) -> list[Hit]:
    """The same hits by maximal marginal relevance: their scores, divided by the best, and cosines of their vectors.

    Scores are then the values by which they were taken.
    """
    scores = np.array([hit.score for hit in hits])
    relevance = scores / scores.max() if scores.max() > 0 else scores
    vectors = index.dense.vectors(index.rows_of_chunks([hit.chunk.id for hit in hits]))
    nearest = np.zeros(len(hits))  # cosine with the most alike of those taken
    left, taken = np.ones(len(hits), dtype=bool), []
    for rank in range(1, len(hits) + 1):
        values = np.where(left, share * relevance - (1 - share) * nearest, -np.inf)
        at = int(values.argmax())
        left[at] = False
        nearest = np.maximum(nearest, vectors @ vectors[at])
        taken.append(replace(hits[at], rank=rank, score=float(values[at])))
    return taken


def _reciprocal(lexical: list[Hit], dense: list[Hit]) -> list[Hit]:
    """Both lists fused by rank; ties break by chunk id."""
    hits = {hit.chunk.id: hit for hit in (*lexical, *dense)}
    ids = sorted(hits)
    number = {chunk_id: at for at, chunk_id in enumerate(ids)}
    ranks = [{number[hit.chunk.id]: hit.rank for hit in one} for one in (lexical, dense)]
    best = ranked(reciprocal_rank(ranks), ids=dict(enumerate(ids)))
    return [
        replace(hits[ids[at]], rank=rank, score=score, lexical_rank=ranks[0].get(at), dense_rank=ranks[1].get(at))
        for rank, (at, score) in enumerate(best, start=1)
    ]
