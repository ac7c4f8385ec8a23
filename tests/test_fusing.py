"""Fusing: two rankings to one, by rules that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from studyrag.fusing import contenders, in_turn, ranked, reciprocal_rank, weighted_sum
from tests.makers import chunk, hit

COSINES, BM25 = np.array([0.2, 0.6, 0.4]), np.array([4.0, 1.0, 0.0])

candidates = st.lists(st.tuples(st.floats(-1, 1), st.floats(-5, 50)), min_size=1, max_size=12).map(np.array)


def test_each_arm_is_scaled_by_its_own_best_and_weighted() -> None:
    scores = weighted_sum(COSINES, BM25, dense_weight=0.7)
    assert scores.tolist() == pytest.approx([0.3 * 1, 0.7 * 1 + 0.3 * 0.25, 0.7 * 0.5])


@pytest.mark.parametrize(("weight", "order"), [(1.0, [1, 2, 0]), (0.0, [0, 1, 2])])
def test_a_weight_of_all_or_nothing_is_one_arms_order(weight: float, order: list[int]) -> None:
    assert np.argsort(-weighted_sum(COSINES, BM25, dense_weight=weight)).tolist() == order


@given(candidates, st.floats(0, 1))
def test_weighted_sums_stay_between_0_and_1_and_leave_nobody_out(made: NDArray[np.float64], weight: float) -> None:
    scores = weighted_sum(made[:, 0], made[:, 1], dense_weight=weight)
    assert scores.shape == (len(made),)
    assert all(0 <= score <= 1 + 1e-12 for score in scores)


@given(candidates, st.floats(0, 1))
def test_better_in_both_arms_is_never_worse_in_the_sum(made: NDArray[np.float64], weight: float) -> None:
    scores = weighted_sum(made[:, 0], made[:, 1], dense_weight=weight)
    for one, score in zip(made, scores, strict=True):
        for other, below in zip(made, scores, strict=True):
            if (one >= other).all():
                assert score >= below - 1e-12


def test_arms_that_say_nothing_do_not_divide_by_zero() -> None:
    def fused(*pairs: tuple[float, float]) -> list[float]:
        made = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        scores: list[float] = weighted_sum(made[:, 0], made[:, 1], dense_weight=0.5).tolist()
        return scores

    assert fused() == []
    assert fused((0.3, 0.0)) == [0.5]
    assert fused((0.3, 0.0), (0.3, -2.0)) == [0.5, 0.5]


def test_reciprocal_ranks_are_summed_over_the_rankings_that_hold_a_row() -> None:
    scores = reciprocal_rank([{7: 1, 8: 2}, {8: 1, 9: 3}])
    assert scores == pytest.approx({7: 1 / 61, 8: 1 / 62 + 1 / 61, 9: 1 / 63})
    assert reciprocal_rank([{7: 1}], k=0) == {7: 1.0}
    assert reciprocal_rank([]) == {}


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3]), max_size=30), st.integers(1, 10))
def test_looking_at_the_contenders_alone_changes_no_ranking(made: list[float], k: int) -> None:
    ids = {row: f"id-{-row}" for row in range(len(made))}
    few = {row: made[row] for row in contenders(np.array(made), k).tolist()}
    assert ranked(few, ids=ids)[:k] == ranked(dict(enumerate(made)), ids=ids)[:k]
    assert all(score >= sorted(made, reverse=True)[:k][-1] for score in few.values())


def test_ties_break_by_the_chunks_id_and_not_by_its_row() -> None:
    ids = {0: "zz", 1: "aa", 2: "mm"}
    assert ranked({0: 0.5, 1: 0.5, 2: 0.9}, ids=ids) == [(2, 0.9), (1, 0.5), (0, 0.5)]
    assert ranked({}, ids=ids) == []


def test_rankings_in_turn_give_each_its_best_first_and_a_chunk_once() -> None:
    one, two, three = (hit(chunk(f"text {name}", name)) for name in "abc")
    assert in_turn([[one, two], [two, three]]) == [one, two, three]
    assert in_turn([[one], [], [three, two]]) == [one, three, two]
    assert in_turn([]) == in_turn([[], []]) == []
