"""The first hits ranked anew by a generator that reads them one by one: does this passage answer the question?

Costs the evaluation of a prompt a chunk, a second or two on two cores, so it happens only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from studyrag.prompting import answers_question
from studyrag.protocols import Scorer
from studyrag.records import Hit, embedding_text

WEIGHT = 0.15
"""Of one unit of log-odds, beside a fused score in [0, 1]."""


def rerank(question: str, hits: Sequence[Hit], scorer: Scorer, *, count: int) -> list[Hit]:
    """All ``hits``, the first ``count`` in the order of their score plus ``WEIGHT`` times ``answers``, set on each.

    ``answers`` is ln P(yes) - ln P(no) when the scorer is asked whether the chunk answers the question. Ties keep
    their order; ranks are given anew, scores are kept.

    :raises GenerationFailed: as the scorer does.
    """
    read = [replace(hit, answers=log_odds(question, hit, scorer)) for hit in hits[:count]]
    read.sort(key=lambda hit: -(hit.score + WEIGHT * (hit.answers or 0.0)))
    return [replace(hit, rank=rank) for rank, hit in enumerate([*read, *hits[count:]], start=1)]


def log_odds(question: str, hit: Hit, scorer: Scorer) -> float:
    """ln P(yes) - ln P(no) that the hit's chunk answers the question."""
    yes, no = scorer.log_probabilities(answers_question(question, embedding_text(hit.chunk)), ("Yes", "No"))
    return yes - no
