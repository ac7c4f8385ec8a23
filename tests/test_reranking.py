"""Ranking anew: what the scorer is asked, what order comes of it, and what is left as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from studyrag.records import Hit, Message
from studyrag.reranking import WEIGHT, rerank
from tests.makers import chunk, hit


class Opinions:
    """Log-odds by a word of the passage; remembers what it was asked."""

    def __init__(self, **log_odds: float) -> None:
        self.log_odds = log_odds
        self.asked: list[str] = []
        self.context_tokens = 10_000

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.text) for message in messages)

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        assert list(replies) == ["Yes", "No"]
        self.asked.append(messages[-1].text)
        passage = messages[-1].text.partition("\n\nQuestion: ")[0]
        return [next(value for word, value in self.log_odds.items() if word in passage), 0.0]

    def weigh_tail(self, messages: Sequence[Message]) -> list[tuple[str, float]]:
        raise AssertionError("not asked for")


def hits(*texts: str) -> list[Hit]:
    return [hit(chunk(text), rank) for rank, text in enumerate(texts, start=1)]


def test_a_passage_that_answers_passes_those_that_do_not() -> None:
    before = hits("alpha", "beta", "gamma", "delta")
    scorer = Opinions(alpha=-3.0, beta=-3.0, gamma=9.0, delta=0.0)
    after = rerank("why?", before, scorer, count=4)
    assert [one.chunk.text for one in after] == ["gamma", "alpha", "delta", "beta"]
    assert [one.rank for one in after] == [1, 2, 3, 4]
    assert [one.answers for one in after] == [9.0, -3.0, 0.0, -3.0]
    totals = [one.score + WEIGHT * (one.answers or 0.0) for one in after]
    assert totals == sorted(totals, reverse=True)


def test_only_so_many_are_read_and_the_others_follow_as_they_were() -> None:
    before = hits("alpha", "beta", "gamma", "delta")
    scorer = Opinions(alpha=-9.0, beta=9.0)
    after = rerank("why?", before, scorer, count=2)
    assert [one.chunk.text for one in after] == ["beta", "alpha", "gamma", "delta"]
    assert [one.answers for one in after] == [9.0, -9.0, None, None]
    assert len(scorer.asked) == 2
    assert after[2:] == before[2:]


def test_equal_opinions_change_nothing_but_are_told() -> None:
    before = hits("alpha", "beta", "gamma")
    after = rerank("why?", before, Opinions(a=1.0), count=3)
    assert [(one.chunk, one.rank, one.score) for one in after] == [(one.chunk, one.rank, one.score) for one in before]


@pytest.mark.parametrize("scale", [1.0, 14.0, 0.03])
def test_scores_of_any_scale_weigh_the_same(scale: float) -> None:
    before = [replace(one, score=scale * one.score) for one in hits("alpha", "beta", "gamma")]
    after = rerank("why?", before, Opinions(alpha=-2.0, beta=2.0, gamma=0.0), count=3)
    assert [one.chunk.text for one in after] == ["beta", "alpha", "gamma"]
    assert [one.score for one in after] == [before[1].score, before[0].score, before[2].score]


def test_hits_without_a_positive_score_are_ranked_by_what_they_answer() -> None:
    before = [replace(one, score=0.0) for one in hits("alpha", "beta")]
    assert [one.chunk.text for one in rerank("why?", before, Opinions(alpha=-1.0, beta=1.0), count=2)] == [
        "beta",
        "alpha",
    ]


def test_of_a_chunk_that_no_window_holds_the_beginning_is_read() -> None:
    scorer = Opinions(alpha=1.0)
    (after,) = rerank("why?", hits("alpha " + "x" * 100_000), scorer, count=1)
    assert after.answers == 1.0 and len(after.chunk.text) > 100_000
    assert len(scorer.asked[0]) < 2500
    scorer.context_tokens = 700
    rerank("why?", hits("alpha " + "x" * 100_000), scorer, count=1)
    assert 300 < len(scorer.asked[1]) < 700


@pytest.mark.parametrize("count", [1, 50])
def test_no_hits_are_no_trouble(count: int) -> None:
    assert rerank("why?", [], Opinions(), count=count) == []


def test_the_question_is_asked_of_the_passage_with_its_headings() -> None:
    scorer = Opinions(alpha=0.0)
    rerank("{why} \\frac{1}{2}?", hits("alpha {x}"), scorer, count=1)
    (asked,) = scorer.asked
    assert "alpha {x}" in asked and "Question: {why} \\frac{1}{2}?\n" in asked
    assert asked.index("alpha") < asked.index("Question:")
