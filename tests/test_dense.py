"""FAISS: the same rows and cosines as a numpy argsort, ties by row, damage noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from studyrag.dense import DenseIndex, save_vectors
from studyrag.errors import IndexDamaged

Matrix = NDArray[np.float32]


def unit(rows: int, dim: int, seed: int = 0) -> Matrix:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def saved(folder: Path, vectors: Matrix) -> DenseIndex:
    save_vectors(folder / "v.faiss", vectors)
    return DenseIndex(folder / "v.faiss", n=vectors.shape[0], dim=vectors.shape[1])


def expected_rows(vectors: Matrix, query: Matrix, k: int, allowed: NDArray[np.bool_] | None = None) -> list[int]:
    cosines = vectors @ query
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    return [int(row) for row in rows[np.argsort(-cosines[rows], kind="stable")]][:k]


@pytest.mark.parametrize("k", [1, 7, 150, 999, 5000])
@pytest.mark.parametrize("n", [1, 40, 1000])
def test_search_is_a_numpy_argsort_of_the_cosines(tmp_path: Path, n: int, k: int) -> None:
    vectors, query = unit(n, 48), unit(1, 48, seed=1)[0]
    found = saved(tmp_path, vectors).search(query, k)
    assert found.rows.tolist() == expected_rows(vectors, query, k)
    np.testing.assert_allclose(found.scores, (vectors @ query)[found.rows], atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 300])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_only_allowed_rows_are_found(tmp_path: Path, share: float, k: int) -> None:
    vectors, query = unit(500, 16), unit(1, 16, seed=1)[0]
    allowed = np.random.default_rng(2).random(500) < share
    found = saved(tmp_path, vectors).search(query, k, allowed=allowed)
    assert found.rows.tolist() == expected_rows(vectors, query, k, allowed)


@pytest.mark.parametrize("k", [1, 3, 60, 130, 200])
@pytest.mark.parametrize("n", [5, 200, 3000])
def test_ties_break_by_row_also_where_the_cut_falls_among_them(tmp_path: Path, n: int, k: int) -> None:
    distinct = unit(4, 8)
    vectors = distinct[np.arange(n) % 4]
    found = saved(tmp_path, vectors).search(distinct[2], k)
    order = np.argsort(-(distinct @ distinct[2])[np.arange(n) % 4], kind="stable")
    assert found.rows.tolist() == order[:k].tolist()


def test_ties_among_allowed_rows_break_by_row(tmp_path: Path) -> None:
    vectors = np.repeat(unit(1, 8), 300, axis=0)
    allowed = np.arange(300) % 2 == 1
    found = saved(tmp_path, vectors).search(vectors[0], 4, allowed=allowed)
    assert found.rows.tolist() == [1, 3, 5, 7]


def test_no_rows_and_nothing_asked_for_find_nothing(tmp_path: Path) -> None:
    query = unit(1, 8)[0]
    assert not len(saved(tmp_path, unit(0, 8)).search(query, 5).rows)
    assert not len(saved(tmp_path, unit(3, 8)).search(query, 0).rows)


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> DenseIndex:
    return saved(tmp_path_factory.mktemp("dense"), unit(20, 8))


@given(rows=st.lists(st.integers(0, 19), max_size=40))
def test_vectors_come_back_bit_for_bit_in_the_order_asked_for(twenty: DenseIndex, rows: list[int]) -> None:
    assert np.array_equal(twenty.vectors(rows), unit(20, 8)[rows])


def test_equal_vectors_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_vectors(tmp_path / name, unit(50, 8))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a faiss file", b"IxFI" + b"\xff" * 200])
def test_a_file_that_is_no_index_is_damage_with_the_command_that_mends_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.faiss").write_bytes(content)
    with pytest.raises(IndexDamaged, match=r"v\.faiss") as caught:
        DenseIndex(tmp_path / "v.faiss", n=3, dim=8)
    assert caught.value.fix == "studyrag index --full"


@pytest.mark.parametrize(("n", "dim"), [(4, 8), (2, 8), (3, 9)])
def test_vectors_of_other_chunks_are_damage(tmp_path: Path, n: int, dim: int) -> None:
    save_vectors(tmp_path / "v.faiss", unit(3, 8))
    with pytest.raises(IndexDamaged, match="other vectors than the chunks"):
        DenseIndex(tmp_path / "v.faiss", n=n, dim=dim)


def test_a_truncated_file_is_damage(tmp_path: Path) -> None:
    save_vectors(tmp_path / "v.faiss", unit(300, 8))
    content = (tmp_path / "v.faiss").read_bytes()
    (tmp_path / "v.faiss").write_bytes(content[: len(content) // 2])
    with pytest.raises(IndexDamaged):
        DenseIndex(tmp_path / "v.faiss", n=300, dim=8)
