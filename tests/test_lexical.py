"""BM25 over postings: rank-bm25's scores to the ninth decimal, touching only the postings of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from studyrag.lexical import BM25, Forward, Postings, Vocabulary, best, compact, forward_index, invert, join

documents = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=12), min_size=1, max_size=25).filter(any)
queries = st.lists(st.sampled_from("abcdefghijxyz"), max_size=8)


def built(corpus: Sequence[Sequence[str]]) -> tuple[BM25, Vocabulary]:
    vocabulary = Vocabulary()
    forward = forward_index(corpus, vocabulary)
    return BM25(invert(forward, len(vocabulary.terms))), vocabulary


def numbers(vocabulary: Vocabulary, query: Sequence[str]) -> list[int]:
    """As the index looks them up: terms that no document holds have no number."""
    return [vocabulary.number[term] for term in query if term in vocabulary.number]


@given(documents, queries)
def test_scores_are_those_of_rank_bm25(corpus: list[list[str]], query: list[str]) -> None:
    bm25, vocabulary = built(corpus)
    expected = BM25Okapi(corpus).get_scores(query)
    np.testing.assert_allclose(bm25.scores(numbers(vocabulary, query)), expected, rtol=0, atol=1e-9)


def test_scores_are_those_of_rank_bm25_on_a_corpus_with_zipf_frequencies() -> None:
    random = np.random.default_rng(0)
    corpus = [[f"t{t}" for t in random.zipf(1.3, size=random.integers(1, 200)) % 500] for _ in range(400)]
    bm25, vocabulary = built(corpus)
    reference = BM25Okapi(corpus)
    assert min(reference.idf.values()) > 0  # the floor raised some
    for _ in range(20):
        query = [f"t{t}" for t in random.zipf(1.3, size=8) % 500]
        np.testing.assert_allclose(
            bm25.scores(numbers(vocabulary, query)), reference.get_scores(query), rtol=0, atol=1e-9
        )


@given(documents, queries, st.integers(1, 30))
def test_search_is_the_sorted_scores_of_the_rows_that_hold_a_term(
    corpus: list[list[str]], query: list[str], k: int
) -> None:
    bm25, vocabulary = built(corpus)
    wanted = numbers(vocabulary, query)
    scores = bm25.scores(wanted)
    holding = [row for row, document in enumerate(corpus) if set(document) & set(query)]
    expected = sorted(holding, key=lambda row: (-scores[row], row))[:k]
    found = bm25.search(wanted, k)
    assert found.rows.tolist() == expected
    assert found.scores.tolist() == [scores[row] for row in expected]


def test_ties_break_by_row_also_where_the_cut_falls_among_them() -> None:
    bm25, vocabulary = built([["x"], ["y", "y"], ["x"], ["x"], ["y"], ["x"]])
    assert bm25.search(numbers(vocabulary, ["x"]), 3).rows.tolist() == [0, 2, 3]
    many, vocabulary = built([["x"] * (1 + row % 3) + ["y"] * (2 - row % 3) for row in range(600)] + [["z"]] * 700)
    query = numbers(vocabulary, ["x"])
    scores = many.scores(query)
    for k in (10, 150, 250, 450):
        expected = sorted(range(600), key=lambda row: (-scores[row], row))[:k]
        assert many.search(query, k).rows.tolist() == expected


def test_only_allowed_rows_are_found_with_the_scores_of_the_whole_corpus() -> None:
    bm25, vocabulary = built([["x", "x"], ["x"], ["x", "y"], ["y"]])
    query = numbers(vocabulary, ["x"])
    allowed = np.array([False, True, True, True])
    found = bm25.search(query, 10, allowed=allowed)
    assert set(found.rows.tolist()) == {1, 2}
    assert found.scores.tolist() == bm25.scores(query)[found.rows].tolist()


def test_an_empty_query_and_an_empty_corpus_find_nothing() -> None:
    bm25, _ = built([["x"]])
    assert not len(bm25.search([], 5).rows)
    assert bm25.scores([]).tolist() == [0.0]
    empty, _ = built([])
    assert not len(empty.search([], 5).rows)
    assert empty.scores([]).shape == (0,)


def test_only_the_postings_of_the_querys_terms_are_read() -> None:
    """Everything outside them is poisoned: a row number out of range would raise, a huge count would show."""
    corpus = [["x", "y"], ["y", "z"], ["z"], ["x", "z", "z"]]
    vocabulary = Vocabulary()
    postings = invert(forward_index(corpus, vocabulary), 3)
    x = vocabulary.number["x"]
    span = slice(int(postings.indptr[x]), int(postings.indptr[x + 1]))
    rows, impacts = np.full_like(postings.rows, 10**6), np.full_like(postings.impacts, np.nan)
    rows[span], impacts[span] = postings.rows[span], postings.impacts[span]
    poisoned = BM25(replace(postings, rows=rows, impacts=impacts))
    found, expected = poisoned.search([x], 5), BM25(postings).search([x], 5)
    assert found.rows.tolist() == expected.rows.tolist() == [0, 3]
    assert found.scores.tolist() == expected.scores.tolist()


def test_document_frequencies_and_idf_are_those_of_the_corpus() -> None:
    bm25, vocabulary = built([["x", "x"], ["x"], ["y"]])
    assert bm25.document_frequency(vocabulary.number["x"]) == 2
    reference = BM25Okapi([["x", "x"], ["x"], ["y"]])
    for term in "xy":
        assert bm25.idf(vocabulary.number[term]) == pytest.approx(reference.idf[term], abs=1e-12)


@given(documents, st.data())
def test_taking_and_joining_rows_is_the_same_as_indexing_them(corpus: list[list[str]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(corpus)))
    vocabulary = Vocabulary()
    parts = [forward_index(corpus[:cut], vocabulary), forward_index(corpus[cut:], vocabulary)]
    order = data.draw(st.permutations(range(len(corpus))).map(lambda rows: rows[: len(corpus) // 2 + 1]))
    assert same(join(parts), forward_index(corpus, Vocabulary()))
    assert same(join(parts).take(order), forward_index([corpus[row] for row in order], vocabulary))
    assert join(parts).take([]).n == 0


def same(one: Forward, other: Forward) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__slots__)


@given(documents, documents)
def test_compact_numbering_does_not_depend_on_what_was_known_before(
    corpus: list[list[str]], earlier: list[list[str]]
) -> None:
    fresh, experienced = Vocabulary(), Vocabulary()
    forward_index(earlier, experienced)
    first, terms = compact(forward_index(corpus, fresh), fresh.terms)
    second, same_terms = compact(forward_index(corpus, experienced), experienced.terms)
    assert terms == same_terms == sorted({term for document in corpus for term in document})
    assert same(first, second)


def test_postings_list_rows_in_ascending_order() -> None:
    postings: Postings = invert(forward_index([["b"], ["a", "b"], ["b", "a"]], Vocabulary(["a", "b"])), 2)
    assert postings.rows.tolist() == [1, 2, 0, 1, 2]
    assert postings.lengths.tolist() == [1, 2, 2]


def test_best_of_fewer_rows_than_asked_for_is_all_of_them() -> None:
    scores = np.array([0.5, 0.9, 0.5])
    assert best(scores, np.array([0, 1, 2]), 9).rows.tolist() == [1, 0, 2]
    assert not len(best(scores, np.array([], dtype=np.int64), 9).rows)
