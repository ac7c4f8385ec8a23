"""Retrieving: both arms, true scores for every candidate, filters, typing slips, and the same answer every time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from studyrag.building import build
from studyrag.embedding import HashEmbedder
from studyrag.index import Index
from studyrag.records import Hit, Trace, embedding_text
from studyrag.retrieving import RETRIEVERS, Retriever, nearest_term
from tests.makers import write_notes

NOTES = {
    "attention.md": "# Attention\n\nAttention weighs the values by the softmax of scaled scores.\n\n"
    "## Multi-head\n\nSeveral heads attend to different subspaces.\n",
    "cache.md": "# Cache\n\nThe KV cache keeps keys and values of past tokens.\n",
    "embedding.md": "# Embedding\n\nEmbeddings map tokens to vectors. Retrieval compares vectors.\n",
    "tea.md": "# Tea\n\nGreen tea wants water of eighty degrees.\n",
}


@pytest.fixture
def retriever_of(tmp_path: Path) -> Callable[..., Retriever]:
    """Builds an index of notes and a retriever on it."""

    def make(notes: dict[str, str] = NOTES, *, candidates: int = 10, dense_weight: float = 0.7) -> Retriever:
        folder = write_notes(tmp_path / "notes", notes)
        embedder = HashEmbedder()
        build(folder, tmp_path / "index", embedder=embedder, chunk_tokens=64, max_note_bytes=10**6, full=True)
        return Retriever(Index(tmp_path / "index"), embedder, candidates=candidates, dense_weight=dense_weight)

    return make


@pytest.fixture
def retriever(retriever_of: Callable[..., Retriever]) -> Retriever:
    """A retriever on NOTES."""
    return retriever_of()


def search(
    retriever: Retriever, question: str, k: int = 5, arm: str = "hybrid", allowed: list[bool] | None = None
) -> list[Hit]:
    query = retriever.query(question, Trace())
    mask = None if allowed is None else np.array(allowed)
    return retriever.search(query, k, trace=Trace(), retriever=arm, allowed=mask)


def places(hits: list[Hit]) -> list[str]:
    return [hit.chunk.note_id for hit in hits]


# -- arms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", RETRIEVERS)
def test_every_arm_finds_the_chunk_with_the_words(retriever: Retriever, arm: str) -> None:
    assert places(search(retriever, "green tea water", 1, arm)) == ["tea.md"]


def test_bm25_finds_only_what_shares_a_term_and_dense_finds_everything(retriever: Retriever) -> None:
    assert sorted(places(search(retriever, "tokens", 5, "bm25"))) == ["cache.md", "embedding.md"]
    assert search(retriever, "zebra", 5, "bm25") == []
    assert len(search(retriever, "zebra", 99, "dense")) == 5
    assert len(search(retriever, "zebra", 99, "hybrid")) == 5


@pytest.mark.parametrize("arm", RETRIEVERS)
def test_ranks_count_from_one_and_scores_fall(retriever: Retriever, arm: str) -> None:
    hits = search(retriever, "attention tokens values", 5, arm)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_hit_says_which_arm_proposed_it(retriever: Retriever) -> None:
    lexical, dense = search(retriever, "tokens", 1, "bm25")[0], search(retriever, "tokens", 1, "dense")[0]
    assert (lexical.lexical_rank, lexical.dense_rank) == (1, None)
    assert (dense.lexical_rank, dense.dense_rank) == (None, 1)
    both = search(retriever, "tokens", 5)
    assert {hit.lexical_rank for hit in both} == {1, 2, None}
    assert sorted(hit.dense_rank or 0 for hit in both) == [1, 2, 3, 4, 5]


def test_every_hit_has_its_true_cosine_also_when_only_bm25_proposed_it(
    retriever_of: Callable[..., Retriever],
) -> None:
    retriever = retriever_of(candidates=1)
    embedder = HashEmbedder()
    for arm in RETRIEVERS:
        for hit in search(retriever, "past tokens of heads", 1, arm):
            question, chunk = embedder.embed(["past tokens of heads", embedding_text(hit.chunk)])
            assert hit.cosine == pytest.approx(float(question @ chunk), abs=1e-6)


def test_the_hybrid_score_is_the_weighted_sum_of_both_arms(retriever_of: Callable[..., Retriever]) -> None:
    retriever = retriever_of(dense_weight=0.25)
    lexical = {hit.chunk.id: hit.score for hit in search(retriever, "attention tokens", 9, "bm25")}
    cosine = {hit.chunk.id: hit.score for hit in search(retriever, "attention tokens", 9, "dense")}
    low, high, top = min(cosine.values()), max(cosine.values()), max(lexical.values())
    for hit in search(retriever, "attention tokens", 9):
        dense = (cosine[hit.chunk.id] - low) / (high - low)
        expected = 0.25 * dense + 0.75 * lexical.get(hit.chunk.id, 0.0) / top
        assert hit.score == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("arm", RETRIEVERS)
def test_more_than_the_candidates_may_be_asked_for(retriever_of: Callable[..., Retriever], arm: str) -> None:
    few = retriever_of(candidates=1)
    assert len(search(few, "tokens values attention", 3, arm)) == 3


# -- filters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", RETRIEVERS)
def test_only_allowed_rows_are_found_with_the_scores_they_have_without_a_filter(retriever: Retriever, arm: str) -> None:
    allowed = [False, True, True, False, True]  # rows are chunks in the order of their notes
    everywhere = {hit.chunk.id: hit.cosine for hit in search(retriever, "tokens attend water", 9, arm)}
    found = search(retriever, "tokens attend water", 9, arm, allowed)
    assert "embedding.md" not in places(found)
    assert all(everywhere[hit.chunk.id] == hit.cosine for hit in found)
    assert len(found) == (3 if arm != "bm25" else len([x for x in found if x.lexical_rank]))
    assert found


@pytest.mark.parametrize("arm", RETRIEVERS)
def test_a_filter_that_nothing_passes_finds_nothing(retriever: Retriever, arm: str) -> None:
    assert search(retriever, "tokens", 5, arm, [False] * 5) == []


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("embeding", "embed"),
        ("attenttion", "attent"),
        ("retreival", "retriev"),
        ("tokenz", "token"),
        ("vectros", "vector"),
    ],
)
def test_a_typing_slip_finds_the_word_that_was_meant(retriever: Retriever, typed: str, meant: str) -> None:
    query = retriever.query(typed, Trace())
    assert meant in query.terms
    assert query.unknown == ()
    assert query.numbers
    assert search(retriever, typed, 1, "bm25")


@pytest.mark.parametrize("typed", ["tes", "teb", "GREEM", "t0kens", "quokka", "xattention", "value9"])
def test_short_words_acronyms_numbers_and_strangers_are_left_as_they_are(retriever: Retriever, typed: str) -> None:
    query = retriever.query(typed, Trace())
    assert query.corrected == {}
    assert query.unknown


def test_known_words_are_never_corrected(retriever: Retriever) -> None:
    query = retriever.query("tokens values water", Trace())
    assert (query.corrected, query.unknown) == ({}, ())
    assert query.terms == ("token", "valu", "water")


def test_terms_are_repeated_as_often_as_they_were_typed(retriever: Retriever) -> None:
    query = retriever.query("tea tea water", Trace())
    assert len(query.numbers) == 3
    assert query.numbers[0] == query.numbers[1] != query.numbers[2]


@pytest.mark.parametrize(
    ("word", "vocabulary", "nearest"),
    [
        ("gradent", ["gradient", "grad"], "gradient"),
        ("recieve", ["receive"], "receive"),  # two letters that changed places are one slip
        ("tensro", ["tensor"], "tensor"),
        ("tensxx", ["tensor"], None),
        ("regularisatoin", ["regularization", "regularisation"], "regularisation"),
        ("normlaizatoin", ["normalization"], "normalization"),
        ("xegular", ["regular"], None),  # people get first letters right
        ("boost", ["roost", "boast", "boot"], "boast"),
        ("boost", [], None),
    ],
)
def test_the_nearest_term_is_one_slip_away_or_two_in_long_words(
    word: str, vocabulary: list[str], nearest: str | None
) -> None:
    assert nearest_term(word, vocabulary) == nearest
    assert nearest_term(word, vocabulary[::-1]) == nearest


def test_rare_and_unknown_words_weigh_more_than_common_ones(retriever: Retriever) -> None:
    weights = retriever.term_weights(["token", "water", "quokka", "token"])
    assert weights.keys() == {"token", "water", "quokka"}
    assert 0.1 <= weights["token"] < weights["water"] <= weights["quokka"]
    assert weights["quokka"] == pytest.approx(math.log(5.5) - math.log(1.5))
    assert retriever.term_weights([]) == {}


# -- determinism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", RETRIEVERS)
def test_the_same_question_finds_the_same_twice(retriever: Retriever, arm: str) -> None:
    assert search(retriever, "attention tokens", 5, arm) == search(retriever, "attention tokens", 5, arm)


@pytest.mark.parametrize("arm", RETRIEVERS)
def test_equal_chunks_come_in_the_order_of_their_ids(retriever_of: Callable[..., Retriever], arm: str) -> None:
    retriever = retriever_of({f"{name}.md": "# Same\n\nThe same words.\n" for name in "abcdefghijklmn"})
    hits = search(retriever, "same unlike words", 14, arm)
    assert [hit.chunk.id for hit in hits] == sorted(hit.chunk.id for hit in hits)
    assert places(hits) != sorted(places(hits))


def test_a_question_without_a_usable_word_is_answered_by_the_dense_arm(retriever: Retriever) -> None:
    query = retriever.query("what is the ...?", Trace())
    assert (query.terms, query.numbers, query.unknown) == ((), (), ())
    assert len(search(retriever, "what is the ...?", 3)) == 3
    assert search(retriever, "what is the ...?", 3, "bm25") == []


def test_every_stage_is_in_the_trace(retriever: Retriever) -> None:
    trace = Trace()
    query = retriever.query("embeding tea", trace)
    retriever.search(query, 3, trace=trace)
    assert [stage for stage, _, _ in trace.events] == ["embed_query", "query_terms", "lexical", "dense", "fuse"]
    facts = {stage: facts for stage, _, facts in trace.events}
    assert facts["query_terms"] == {"terms": ("embed", "tea"), "unknown": (), "corrected": query.corrected}
    assert facts["lexical"]["found"] == 2
    assert facts["fuse"]["hits"] == 3
