"""Fusing: two rankings to one, by rules that can be computed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.fusing import Candidate, contenders, in_turn, ranked, reciprocal_rank, weighted_sum
from tests.makers import chunk, hit


def candidate(row: int, lexical: float, cosine: float) -> Candidate:
    return Candidate(row, lexical, cosine, lexical_rank=None, dense_rank=None)


THREE = [candidate(0, 4.0, 0.2), candidate(1, 1.0, 0.6), candidate(2, 0.0, 0.4)]

candidates = st.lists(st.tuples(st.floats(-5, 50), st.floats(-1, 1)), min_size=1, max_size=12).map(
    lambda scores: [candidate(row, lexical, cosine) for row, (lexical, cosine) in enumerate(scores)]
)


def test_each_arm_is_scaled_by_its_own_best_and_weighted() -> None:
    scores = weighted_sum(THREE, dense_weight=0.7)
    assert scores == pytest.approx({0: 0.3 * 1, 1: 0.7 * 1 + 0.3 * 0.25, 2: 0.7 * 0.5})


@pytest.mark.parametrize(("weight", "order"), [(1.0, [1, 2, 0]), (0.0, [0, 1, 2])])
def test_a_weight_of_all_or_nothing_is_one_arms_order(weight: float, order: list[int]) -> None:
    scores = weighted_sum(THREE, dense_weight=weight)
    assert sorted(scores, key=lambda row: -scores[row]) == order


@given(candidates, st.floats(0, 1))
def test_weighted_sums_stay_between_0_and_1_and_leave_nobody_out(made: list[Candidate], weight: float) -> None:
    scores = weighted_sum(made, dense_weight=weight)
    assert scores.keys() == {one.row for one in made}
    assert all(0 <= score <= 1 + 1e-12 for score in scores.values())


@given(candidates, st.floats(0, 1))
def test_better_in_both_arms_is_never_worse_in_the_sum(made: list[Candidate], weight: float) -> None:
    scores = weighted_sum(made, dense_weight=weight)
    for one in made:
        for other in made:
            if one.lexical >= other.lexical and one.cosine >= other.cosine:
                assert scores[one.row] >= scores[other.row] - 1e-12


def test_arms_that_say_nothing_do_not_divide_by_zero() -> None:
    assert weighted_sum([], dense_weight=0.5) == {}
    assert weighted_sum([candidate(0, 0.0, 0.3)], dense_weight=0.5) == {0: 0.5}
    assert weighted_sum([candidate(0, 0.0, 0.3), candidate(1, -2.0, 0.3)], dense_weight=0.5) == {0: 0.5, 1: 0.5}


def test_reciprocal_ranks_are_summed_over_the_rankings_that_hold_a_row() -> None:
    scores = reciprocal_rank([{7: 1, 8: 2}, {8: 1, 9: 3}])
    assert scores == pytest.approx({7: 1 / 61, 8: 1 / 62 + 1 / 61, 9: 1 / 63})
    assert reciprocal_rank([{7: 1}], k=0) == {7: 1.0}
    assert reciprocal_rank([]) == {}


@given(st.dictionaries(st.integers(0, 30), st.sampled_from([0.1, 0.2, 0.3])), st.integers(1, 10))
def test_looking_at_the_contenders_alone_changes_no_ranking(scores: dict[int, float], k: int) -> None:
    ids = {row: f"id-{-row}" for row in scores}
    few = contenders(scores, k)
    assert ranked(few, ids=ids)[:k] == ranked(scores, ids=ids)[:k]
    assert all(score >= sorted(scores.values(), reverse=True)[:k][-1] for score in few.values())


def test_ties_break_by_the_chunks_id_and_not_by_its_row() -> None:
    ids = {0: "zz", 1: "aa", 2: "mm"}
    assert ranked({0: 0.5, 1: 0.5, 2: 0.9}, ids=ids) == [(2, 0.9), (1, 0.5), (0, 0.5)]
    assert ranked({}, ids=ids) == []


def test_rankings_in_turn_give_each_its_best_first_and_a_chunk_once() -> None:
    one, two, three = (hit(chunk(f"text {name}", name)) for name in "abc")
    assert in_turn([[one, two], [two, three]]) == [one, two, three]
    assert in_turn([[one], [], [three, two]]) == [one, three, two]
    assert in_turn([]) == in_turn([[], []]) == []
