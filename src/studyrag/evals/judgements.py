"""What the judge says of one sample: of each claim, each citation and each passage.

Opinions are kept, verdicts are not, so that a new calibration costs no new call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studyrag.errors import GenerationFailed
from studyrag.evals.cache import Cache
from studyrag.evals.calibrating import Opinion
from studyrag.evals.judge import Judge
from studyrag.evals.samples import Sample

Probability = Callable[[Opinion], float]
_ITEM = re.compile(r"\A\s*(?:[-*+]|\d+[.)])\s+")


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


def judge_sample(
    judge: Judge, sample: Sample, cache: Cache, *, support: Probability, relevance: Probability
) -> Judgement:
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
        ask = judge.support if task == "support" else judge.relevance
        return _verdict(judge, cache, task, context, text, ask, support if task == "support" else relevance)

    return Judgement(
        claims=tuple(verdict("support", everything, claim) for claim in claims),
        cited=tuple((at, verdict("support", quote, claim)) for at, claim, quote in cited),
        passages=tuple(verdict("relevance", passage, sample.question) for passage in sample.contexts),
    )


def _verdict(
    judge: Judge,
    cache: Cache,
    task: str,
    context: str,
    text: str,
    ask: Callable[[str, str], Opinion],
    probability: Probability,
) -> Verdict:
    try:
        return Verdict(text, context, probability(opinion(judge, cache, task, context, text, ask)))
    except GenerationFailed as err:
        return Verdict(text, context, None, err.message)


def opinion(
    judge: Judge, cache: Cache, task: str, context: str, text: str, ask: Callable[[str, str], Opinion]
) -> Opinion:
    """The judge's opinion, from the cache where it is there.

    :raises GenerationFailed: as the judge does; that is not kept.
    """
    key = {"judge": judge.sha256, "prompts": judge.prompts, "task": task, "context": context, "text": text}
    found: Opinion = cache.get_or_make("opinions", key, lambda: dict(ask(context, text)))
    return found


def failures(verdicts: Sequence[Verdict]) -> str:
    """Why the first that failed did; "" where none did."""
    return next((verdict.reason for verdict in verdicts if verdict.probability is None), "")


def by_claim(judgement: Judgement) -> Mapping[int, tuple[Verdict, ...]]:
    """Claim's number to the verdicts on its citations."""
    found: dict[int, tuple[Verdict, ...]] = {}
    for at, verdict in judgement.cited:
        found[at] = (*found.get(at, ()), verdict)
    return found
