"""Nearest vectors with FAISS: exact inner product over unit vectors, so scores are cosines.

Flat search is exact and, up to some 200,000 chunks, within the bar for a warm query; no approximate index is built
below that. ``vectors`` gives the rows back for fusion and for re-use in the next build.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from studyrag.errors import IndexDamaged
from studyrag.records import Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from studyrag.protocols import Vectors


def save_vectors(path: Path, vectors: Vectors) -> None:
    """Writes a FAISS flat inner-product index."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    faiss.write_index(index, str(path))


class DenseIndex:
    """A flat FAISS index read from disk, memory-mapped where FAISS can.

    :raises IndexDamaged: when FAISS cannot read the file or it has another shape.
    """

    def __init__(self, path: Path, *, n: int, dim: int) -> None:
        import faiss

        try:
            index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as err:
            raise IndexDamaged(f"{path}: FAISS cannot read it", fix="studyrag index --full") from err
        if not isinstance(index, faiss.IndexFlat) or (index.ntotal, index.d) != (n, dim):
            raise IndexDamaged(f"{path}: holds other vectors than the chunks", fix="studyrag index --full")
        self._index, self._faiss = index, cast("Any", faiss)
        held = self._faiss.rev_swig_ptr(index.get_xb(), n * dim) if n else np.zeros(0, dtype=np.float32)
        self._stored: Vectors = held.reshape(n, dim)  # a view of what FAISS holds, which must outlive it

    def search(self, query: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranking:
        """The ``k`` rows with the highest cosine to ``query`` (dim,); ties break by row. k > n gives all rows."""
        k = min(k, self._index.ntotal)
        if k <= 0:
            return _sorted(np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64))
        parameters = None
        if allowed is not None:
            selector = self._faiss.IDSelectorBatch(np.flatnonzero(allowed).astype(np.int64))
            parameters = self._faiss.SearchParameters(sel=selector)
        asked = query.reshape(1, -1)
        scores, rows = self._index.search(asked, min(k + 1, self._index.ntotal), params=parameters)
        found = _sorted(scores[0], rows[0])
        if len(found.rows) > k and found.scores[k - 1] == found.scores[k]:  # FAISS keeps any of the equal ones
            below = float(np.nextafter(np.float32(found.scores[k]), np.float32(-np.inf)))
            _, scores, rows = self._index.range_search(asked, below, params=parameters)
            found = _sorted(scores, rows)
        return Ranking(found.rows[:k], found.scores[:k])

    def vectors(self, rows: Sequence[int] | NDArray[np.int64]) -> Vectors:
        """(len(rows), dim) float32."""
        return self._stored[np.asarray(rows, dtype=np.int64)]


def _sorted(scores: Vectors, rows: NDArray[np.int64]) -> Ranking:
    """Best first, ties by row; FAISS fills up with row -1."""
    order = np.lexsort((rows, -scores))
    order = order[rows[order] >= 0]
    return Ranking(rows[order], scores[order].astype(np.float64))
