"""What the judge says of one sample: of each claim, each citation and each passage.

Opinions are kept, verdicts are not, so that a new calibration or a new probe costs no new call.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studyrag.errors import GenerationFailed
from studyrag.evals.cache import Cache
from studyrag.evals.calibrating import PROBE, Calibration, Opinion, uncalibrated
from studyrag.evals.judge import Judge
from studyrag.evals.labelled import RELEVANCE, SUPPORT
from studyrag.evals.samples import Sample

if TYPE_CHECKING:
    from studyrag.protocols import Vector

Probability = Callable[[Opinion], float]
_ITEM = re.compile(r"\A\s*(?:[-*+]|\d+[.)])\s+")


@dataclass(frozen=True, slots=True)
class Chances:
    """How opinions become probabilities, by task."""

    support: Probability
    relevance: Probability


def chances(calibration: Calibration | None) -> Chances:
    """Calibrated, or the judge taken at its word."""
    if calibration is None:
        return Chances(uncalibrated, uncalibrated)
    return Chances(*(calibration.tasks[task].fitted.probability for task in (SUPPORT, RELEVANCE)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was judged, against what, and P(yes); None where the judge failed, with its ``reason``."""

    text: str
    against: str
    probability: float | None
    reason: str = ""

    @property
    def yes(self) -> bool | None:
        return None if self.probability is None else self.probability >= 0.5


@dataclass(frozen=True, slots=True)
class Judgement:
    """``claims``: each against all passages together; ``passages``: each against the question.

    ``cited``: each claim against each span that it cites, with the claim's place.
    """

    claims: tuple[Verdict, ...]
    cited: tuple[tuple[int, Verdict], ...]
    passages: tuple[Verdict, ...]


def claim_text(text: str) -> str:
    """A sentence of an answer as a statement: one line, without the mark of a list item."""
    return " ".join(_ITEM.sub("", text).split())


def judge_sample(judge: Judge, sample: Sample, cache: Cache, chance: Chances) -> Judgement:
    """Calls the judge for what the cache does not hold, and keeps each opinion at once."""
    claims = [claim_text(sentence.text) for sentence in sample.claims]
    everything = "\n\n".join(sample.contexts)
    quotes = {citation.number: citation.quote for citation in sample.citations}
    cited = [
        (at, claims[at], quotes[number])
        for at, sentence in enumerate(sample.claims)
        for number in sentence.citations
        if number in quotes
    ]

    def verdict(task: str, context: str, text: str) -> Verdict:
        return _verdict(judge, cache, chance, task, context, text)

    return Judgement(
        claims=tuple(verdict(SUPPORT, everything, claim) for claim in claims),
        cited=tuple((at, verdict(SUPPORT, quote, claim)) for at, claim, quote in cited),
        passages=tuple(verdict(RELEVANCE, passage, sample.question) for passage in sample.contexts),
    )


def _verdict(judge: Judge, cache: Cache, chance: Chances, task: str, context: str, text: str) -> Verdict:
    try:
        return Verdict(text, context, probability(judge, cache, chance, task, context, text))
    except GenerationFailed as err:
        return Verdict(text, context, None, err.message)


def probability(judge: Judge, cache: Cache, chance: Chances, task: str, context: str, text: str) -> float:
    """P(yes), by the judge's opinion.

    :raises GenerationFailed: as the judge does.
    """
    return {SUPPORT: chance.support, RELEVANCE: chance.relevance}[task](opinion(judge, cache, task, context, text))


def opinion(judge: Judge, cache: Cache, task: str, context: str, text: str) -> Opinion:
    """The judge's opinion, what its probe reads with it; what was asked before comes from the cache.

    :raises GenerationFailed: as the judge does; that is not kept.
    """
    key = {"judge": judge.sha256, "prompts": judge.asked, "task": task, "context": context, "text": text}
    ask = {SUPPORT: judge.support, RELEVANCE: judge.relevance}[task]
    found: Opinion = cache.get_or_make("opinions", key, lambda: dict(ask(context, text)))
    if task != SUPPORT or judge.probe is None:
        return found
    return {**found, PROBE: judge.probe.read(state(judge, cache, context, text))}


def state(judge: Judge, cache: Cache, context: str, text: str) -> Vector:
    """(d,) float32: the judge's hidden state, which costs no new call for another probe. Kept as base64.

    :raises GenerationFailed: as the judge does; that is not kept.
    """
    key = {"judge": judge.sha256, "asked": judge.asked, "context": context, "text": text}

    def make() -> str:
        return base64.b64encode(judge.state(context, text).astype("<f4").tobytes()).decode("ascii")

    return np.frombuffer(base64.b64decode(cache.get_or_make("states", key, make)), dtype="<f4")


def failures(verdicts: Sequence[Verdict]) -> str:
    """Why the first that failed did; "" where none did."""
    return next((verdict.reason for verdict in verdicts if verdict.probability is None), "")


def by_claim(judgement: Judgement) -> Mapping[int, tuple[Verdict, ...]]:
    """Claim's number to the verdicts on its citations."""
    found: dict[int, tuple[Verdict, ...]] = {}
    for at, verdict in judgement.cited:
        found[at] = (*found.get(at, ()), verdict)
    return found
