"""Named ways to rank: the program's own retrievers, reciprocal rank fusion, and changed parameters of the default.

``bm25``, ``dense``, ``hybrid``, ``rrf``, or overrides of hybrid such as ``dense_weight=0.3`` and
``dense_weight=0.3+candidates=100``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from studyrag.errors import Misuse
from studyrag.fusing import ranked, reciprocal_rank
from studyrag.index import Index
from studyrag.protocols import Embedder
from studyrag.records import Hit, Trace
from studyrag.retrieving import RETRIEVERS, Query, Retriever

RRF = "rrf"
DEPTH = 20
"""Chunks that an arm returns at least, where there are so many."""


@dataclass(frozen=True, slots=True)
class Arm:
    """``retriever`` is one of ``RETRIEVERS`` or ``RRF``; ``dense_weight`` counts for hybrid alone."""

    name: str
    retriever: str
    candidates: int
    dense_weight: float

    @property
    def overrides(self) -> bool:
        return "=" in self.name


def parse_arms(text: str, *, candidates: int, dense_weight: float) -> tuple[Arm, ...]:
    """Arms from ``bm25,dense,dense_weight=0.3``; what is not overridden comes from the arguments.

    :raises Misuse: for an unknown name or value, none at all, and a name that comes twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise Misuse(f"--compare {text!r}: each arm once, at least one", fix="--compare hybrid,dense,bm25,rrf")
    plain = Arm("", "hybrid", candidates, dense_weight)
    return tuple(
        replace(plain, name=name, retriever=name) if name in (*RETRIEVERS, RRF) else _overridden(plain, name)
        for name in names
    )


def _overridden(plain: Arm, name: str) -> Arm:
    made = replace(plain, name=name)
    for part in name.split("+"):
        key, _equals, value = part.partition("=")
        try:
            if key == "dense_weight" and 0 <= float(value) <= 1:
                made = replace(made, dense_weight=float(value))
                continue
            if key == "candidates" and 1 <= int(value) <= 1000:
                made = replace(made, candidates=int(value))
                continue
        except ValueError:
            pass
        raise Misuse(
            f"no arm {name!r}",
            fix=f"{', '.join((*RETRIEVERS, RRF))}, or dense_weight=0…1 and candidates=1…1000 joined by +",
        )
    return made


def search(arm: Arm, index: Index, embedder: Embedder, query: Query, trace: Trace) -> list[Hit]:
    """The chunks that the arm ranks, best first: as many as an arm proposes, ``DEPTH`` at least."""
    finder = Retriever(index, embedder, candidates=arm.candidates, dense_weight=arm.dense_weight)
    depth = max(DEPTH, arm.candidates)
    if arm.retriever != RRF:
        return finder.search(query, depth, trace=trace, retriever=arm.retriever)
    lexical, dense = (finder.search(query, depth, trace=trace, retriever=name) for name in ("bm25", "dense"))
    started = time.perf_counter()
    fused = _reciprocal(lexical, dense)[:depth]
    trace.add("fuse", (time.perf_counter() - started) * 1000, hits=len(fused))
    return fused


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
