"""The real pipeline on golden questions: its answers kept, scored, and summed up with what is unscored and why.

Answers first, then one metric after the other over all of them, so that the beginning of a metric's prompts is
evaluated once. Everything that costs is kept at once in the cache; the sums are made anew.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from studyrag.evals.answer_metrics import (
    FAITHFULNESS,
    OWN,
    RELEVANT,
    Score,
    judged_scores,
    plain_scores,
)
from studyrag.evals.cache import Cache
from studyrag.evals.calibrating import Calibration, Quality, true_share
from studyrag.evals.golden import Golden
from studyrag.evals.judge import Judge
from studyrag.evals.judgements import Judgement, chances, judge_sample
from studyrag.evals.labelled import RELEVANCE, SUPPORT, TASKS
from studyrag.evals.measuring import Mean, mean
from studyrag.evals.ragas_metrics import RAGAS, RagasScorer
from studyrag.evals.samples import Sample
from studyrag.protocols import Embedder, Progress, no_progress

Scores = Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over ``mean.n`` of the ``of`` answered questions; ``unscored``: reason to how many."""

    mean: Mean
    of: int
    unscored: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Refusals:
    """Abstentions of the whole pipeline. Precision: of those, unanswerable; recall: of unanswerable ones, refused."""

    abstained: int
    precision: Mean
    recall: Mean
    refused_answerable: Mean
    recall_by_subkind: Mapping[str, Mean]


@dataclass(frozen=True, slots=True)
class Scored:
    """One question with all that came of it. ``judgement`` None: an abstention, or no answer."""

    golden: Golden
    sample: Sample
    judgement: Judgement | None
    scores: Scores


@dataclass(frozen=True, slots=True)
class AnswerResults:
    """A whole evaluation. ``metrics``, ``groups`` (by kind and style, then by name) are over answered answerable ones.

    ``judge``: its quality by task, empty when it is not calibrated. ``seconds`` a question, by stage.
    """

    about: Mapping[str, str | int]
    calibrated: bool
    judge: Mapping[str, Quality]
    metrics: Mapping[str, Measured]
    groups: Mapping[str, Mapping[str, Mapping[str, Mean]]]
    refusals: Refusals
    conclusions: tuple[str, ...]
    seconds: Mapping[str, float]
    stale: tuple[str, ...]
    scored: tuple[Scored, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def score_all(
    samples: Mapping[str, Sample],
    questions: Sequence[Golden],
    *,
    judge: Judge,
    calibration: Calibration | None,
    embedder: Embedder,
    texts: Mapping[str, str],
    cache: Cache,
    ragas: RagasScorer | None,
    progress: Progress = no_progress,
) -> tuple[tuple[Scored, ...], dict[str, float]]:
    """Every question scored, in order, and the seconds that each kind of scoring took now (cached calls take none)."""
    answered = [(one, samples[one.id]) for one in questions if samples[one.id].text]
    scores: dict[str, dict[str, Score]] = {one.id: {} for one in questions}
    judgements: dict[str, Judgement] = {}
    seconds: dict[str, float] = {}
    chance = chances(calibration)

    def timed(stage: str, work: Callable[[Golden, Sample], Scores]) -> None:
        started = time.perf_counter()
        for at, (golden, sample) in enumerate(answered):
            progress(stage, at, len(answered))
            scores[golden.id].update(work(golden, sample))
        progress(stage, len(answered), len(answered))
        seconds[stage] = (time.perf_counter() - started) / max(1, len(answered))

    def own(golden: Golden, sample: Sample) -> Scores:
        made = judge_sample(judge, sample, cache, chance)
        judgements[golden.id] = made
        return judged_scores(sample, made)

    timed("judging yes or no", own)
    timed(
        "comparing", lambda golden, sample: plain_scores(sample, golden, texts, embedder) if golden.answerable else {}
    )
    if ragas is not None:
        for name in ragas.names:
            timed(name, partial(_by_ragas, ragas, name))
    found = tuple(Scored(one, samples[one.id], judgements.get(one.id), scores[one.id]) for one in questions)
    return found, seconds


def _by_ragas(ragas: RagasScorer, name: str, golden: Golden, sample: Sample) -> Scores:
    return {name: ragas.score(name, sample, golden)} if golden.answerable else {}


def summed_up(
    scored: Sequence[Scored],
    *,
    names: Sequence[str],
    calibration: Calibration | None,
    about: Mapping[str, str | int],
    seconds: Mapping[str, float],
    stale: Sequence[str] = (),
) -> AnswerResults:
    """Means with intervals, by kind and style; refusals; and in plain words what the judge allows one to conclude."""
    judged = [one for one in scored if one.golden.answerable and not one.sample.abstained]
    quality = {} if calibration is None else {task: calibration.tasks[task].quality for task in TASKS}
    metrics = {name: measured(judged, name) for name in names}
    times = _seconds(scored)
    return AnswerResults(
        about={**about, **_counts(scored)},
        calibrated=calibration is not None,
        judge=quality,
        metrics=metrics,
        groups={
            "kind": _groups(judged, names, lambda one: one.golden.kind),
            "style": _groups(judged, names, lambda one: one.golden.style),
        },
        refusals=refusals(scored),
        conclusions=conclusions(metrics, quality),
        seconds={**times, **{stage: round(value, 3) for stage, value in seconds.items()}},
        stale=tuple(stale),
        scored=tuple(scored),
    )


def metric_names(ragas: Sequence[str] = ()) -> tuple[str, ...]:
    """Those of RAGAS's that were scored, and all of our own."""
    return (*ragas, *OWN)


def measured(scored: Sequence[Scored], name: str) -> Measured:
    """Only what is scored is averaged; everything else is counted by its reason."""
    found = [one.scores.get(name, Score(None, one.sample.failed or "not scored")) for one in scored]
    values = [score.value for score in found if score.value is not None]
    reasons = Counter(score.reason for score in found if score.value is None)
    return Measured(mean(values), len(found), dict(sorted(reasons.items())))


def _groups(
    scored: Sequence[Scored], names: Sequence[str], group_of: Callable[[Scored], str]
) -> dict[str, dict[str, Mean]]:
    groups = sorted({group_of(one) for one in scored})
    return {
        group: {name: measured([one for one in scored if group_of(one) == group], name).mean for name in names}
        for group in groups
    }


def _counts(scored: Sequence[Scored]) -> dict[str, int]:
    answerable = [one for one in scored if one.golden.answerable]
    return {
        "questions": len(scored),
        "answerable": len(answerable),
        "answerable, answered": sum(bool(one.sample.text) for one in answerable),
        "failed": sum(bool(one.sample.failed) for one in scored),
    }


def refusals(scored: Sequence[Scored]) -> Refusals:
    """Of the questions that did not fail."""
    whole = [one for one in scored if not one.sample.failed]
    hopeless = [one for one in whole if not one.golden.answerable]

    def refused(ones: Iterable[Scored]) -> Mean:
        return mean([float(one.sample.abstained) for one in ones])

    kinds = sorted({one.golden.subkind or "-" for one in hopeless})
    return Refusals(
        abstained=sum(one.sample.abstained for one in whole),
        precision=mean([float(not one.golden.answerable) for one in whole if one.sample.abstained]),
        recall=refused(hopeless),
        refused_answerable=refused(one for one in whole if one.golden.answerable),
        recall_by_subkind={
            kind: refused(one for one in hopeless if (one.golden.subkind or "-") == kind) for kind in kinds
        },
    )


def _seconds(scored: Sequence[Scored]) -> dict[str, float]:
    """Seconds a question of the pipeline's own stages, as they were when it was answered."""
    timings = [one.sample.timings_ms for one in scored if one.sample.timings_ms]
    stages = dict.fromkeys(stage for one in timings for stage in one)
    return {stage: round(sum(one.get(stage, 0.0) for one in timings) / len(timings) / 1000, 3) for stage in stages}


def conclusions(metrics: Mapping[str, Measured], quality: Mapping[str, Quality]) -> tuple[str, ...]:
    """One sentence a judged task, and one on RAGAS's own metrics."""
    if not quality:
        return (
            "This judge is not calibrated: its yes and no are taken at their word, nobody knows how often they are"
            " right, and no score that rests on them supports a conclusion. Run `studyrag eval judge`.",
        )
    found = [
        _allowed(task, quality[task], metrics[name])
        for task, name in ((SUPPORT, FAITHFULNESS), (RELEVANCE, RELEVANT))
        if name in metrics
    ]
    if any(name in metrics for name in RAGAS):
        found.append(
            "Of RAGAS's own metrics, Faithfulness, ContextRecall, ContextPrecision and FactualCorrectness take these"
            " yes and no for verdicts; the statements of Faithfulness and FactualCorrectness, and the other two metrics"
            " altogether, the judge writes as JSON, which the labelled items do not test."
        )
    return tuple(found)


def _allowed(task: str, one: Quality, metric: Measured) -> str:
    what = "statements" if task == SUPPORT else "passages"
    right, yes, no = one.accuracy.value, one.sensitivity.value, one.specificity.value
    if right is None or yes is None or no is None:
        return f"The judge was measured on no labelled {what}: nothing can be concluded."
    start = (
        f"On {one.n} labelled {what} that it was not calibrated on, the judge is right {right:.0%} of the time (it says"
        f" yes to {yes:.0%} of what deserves it and to {1 - no:.0%} of what does not)"
    )
    if metric.mean.value is None or metric.mean.low is None or metric.mean.high is None:
        return f"{start}."
    ends = [true_share(value, yes, no) for value in (metric.mean.low, metric.mean.high)]
    if None in ends:
        return f"{start}: that is too near to chance for {metric.mean.value:.2f} to say anything."
    low, high = (end or 0.0 for end in ends)
    return (
        f"{start}; if it errs here as it does there, a measured {metric.mean.value:.2f} stands for a true share between"
        f" {low:.2f} and {high:.2f}."
    )
