"""The first hits ranked anew by a generator that reads them one by one: does this passage answer the question?

Costs the evaluation of a prompt a chunk, a second or two on two cores, so it happens only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from studyrag.prompting import answers_question
from studyrag.protocols import Scorer
from studyrag.records import Hit, Message, embedding_text

WEIGHT = 0.15
"""Of one unit of log-odds, beside a score of which the best is 1."""
MOST_CHARS = 2000
"""Of a chunk, as much is read: a fence is never cut, so it may be longer than any window."""
_REPLY = 16


class Reader(Scorer, Protocol):
    """A generator that can weigh replies. ``Generator`` says what these two are."""

    @property
    def context_tokens(self) -> int: ...

    def count_tokens(self, messages: Sequence[Message]) -> int: ...


def rerank(question: str, hits: Sequence[Hit], reader: Reader, *, count: int) -> list[Hit]:
    """All ``hits``, the first ``count`` in the order of their score plus ``WEIGHT`` times ``answers``, set on each.

    ``answers`` is ln P(yes) - ln P(no) when the reader is asked whether the chunk answers the question; scores,
    whatever their maker, are first divided by the best. Ties keep their order; ranks are given anew, scores are kept.

    :raises GenerationFailed: as the reader does.
    """
    read = [replace(hit, answers=log_odds(question, hit, reader)) for hit in hits[:count]]
    best = max((hit.score for hit in read), default=0.0)
    scale = 1 / best if best > 0 else 1.0
    read.sort(key=lambda hit: -(scale * hit.score + WEIGHT * (hit.answers or 0.0)))
    return [replace(hit, rank=rank) for rank, hit in enumerate([*read, *hits[count:]], start=1)]


def log_odds(question: str, hit: Hit, reader: Reader) -> float:
    """ln P(yes) - ln P(no) that the hit's chunk answers the question."""
    yes, no = reader.log_probabilities(_asked(question, embedding_text(hit.chunk)[:MOST_CHARS], reader), ("Yes", "No"))
    return yes - no


def _asked(question: str, text: str, reader: Reader) -> list[Message]:
    """The prompt, with as much of the text as leaves room for it in the reader's window."""
    messages = answers_question(question, text)
    while text and reader.count_tokens(messages) + _REPLY > reader.context_tokens:
        text = text[: len(text) // 2]
        messages = answers_question(question, text)
    return messages
