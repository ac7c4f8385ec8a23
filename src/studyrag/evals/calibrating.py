"""From a judge's opinions to probabilities, fitted on one half of the labels; how good they are, measured on the other.

An opinion is one or more named numbers, log-odds of yes among them. Everything is deterministic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.errors import Misuse, StudyRagError
from studyrag.evals.measuring import RESAMPLES, SEED, Mean, auroc, mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Opinion = Mapping[str, float]
COSINE, PROBE = "cosine", "probe"
"""Numbers of an opinion that the judge did not say: they count only where a calibration has weighed them."""
RIDGE = 1.0
"""Strength of the pull towards zero of each standardised weight: half its square, times this."""
_STEPS = 50


@dataclass(frozen=True, slots=True)
class Fitted:
    """Logistic regression: P(yes) = 1 / (1 + exp(-(intercept + sum of weight * number))). One number: Platt (1999)."""

    intercept: float
    weights: Mapping[str, float]

    def probability(self, opinion: Opinion) -> float:
        """:raises Misuse: when the opinion lacks a number that was fitted."""
        missing = [name for name in self.weights if name not in opinion]
        if missing:
            raise Misuse(
                f"the calibration is of opinions with {', '.join(missing)}", fix="run studyrag eval judge again"
            )
        return logistic(self.intercept + sum(weight * opinion[name] for name, weight in self.weights.items()))


def uncalibrated(opinion: Opinion) -> float:
    """P(yes) as the judge itself gives it: the mean of its log-odds, taken at their word."""
    said = [value for name, value in opinion.items() if name not in (COSINE, PROBE)]
    return logistic(sum(said) / len(said))


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def fit(opinions: Sequence[Opinion], labels: Sequence[bool]) -> Fitted:
    """Most likely weights with a ridge on the standardised numbers, by Newton's method; the intercept is free.

    :raises Misuse: unless there are both labels.
    """
    if len(set(labels)) < 2:
        raise Misuse("the calibration half has only one label", fix="label items of both kinds")
    names = sorted(opinions[0])
    raw = np.array([[opinion[name] for name in names] for opinion in opinions], dtype=np.float64)
    centre, spread = raw.mean(axis=0), raw.std(axis=0)
    spread[spread == 0] = 1.0
    design = np.column_stack([np.ones(len(raw)), (raw - centre) / spread])
    weights = newton(design, np.asarray(labels, dtype=np.float64), ridge=RIDGE)
    slopes = weights[1:] / spread
    return Fitted(
        float(weights[0] - slopes @ centre), {name: float(one) for name, one in zip(names, slopes, strict=True)}
    )


def newton(design: Floats, labels: Floats, *, ridge: float) -> Floats:
    """(d,) likeliest weights of ``design`` (n, d) for ``labels`` (n,) of 0 and 1; the first column's is not pulled."""
    pull = np.diag([1e-9] + [ridge] * (design.shape[1] - 1))
    weights: Floats = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (labels - chance) - pull @ weights
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + pull
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if float(np.abs(step).max()) < 1e-10:
            break
    return weights


@dataclass(frozen=True, slots=True)
class Quality:
    """A judge's verdicts (P ≥ 0.5) on labelled items that it was not calibrated on, with 95 % intervals.

    ``confusion``: counts keyed ``yes as yes``, ``yes as no``, ``no as yes``, ``no as no`` (label, then verdict).
    ``by_kind``: share of right verdicts by kind of item. ``sensitivity``: right among those labelled yes,
    ``specificity``: among those labelled no.
    """

    n: int
    auc: Mean
    accuracy: Mean
    kappa: Mean
    sensitivity: Mean
    specificity: Mean
    confusion: Mapping[str, int]
    by_kind: Mapping[str, Mean]


def quality(probabilities: Sequence[float], labels: Sequence[bool], kinds: Sequence[str]) -> Quality:
    """No items -> all means of nothing."""
    verdicts = [one >= 0.5 for one in probabilities]
    right = [float(verdict == label) for verdict, label in zip(verdicts, labels, strict=True)]
    paired = list(zip(labels, verdicts, strict=True))
    return Quality(
        n=len(right),
        auc=auroc(
            [p for p, label in zip(probabilities, labels, strict=True) if label],
            [p for p, label in zip(probabilities, labels, strict=True) if not label],
        ),
        accuracy=mean(right),
        kappa=resampled(kappa, labels, verdicts),
        sensitivity=mean([one for one, label in zip(right, labels, strict=True) if label]),
        specificity=mean([one for one, label in zip(right, labels, strict=True) if not label]),
        confusion={
            f"{'yes' if label else 'no'} as {'yes' if verdict else 'no'}": paired.count((label, verdict))
            for label in (True, False)
            for verdict in (True, False)
        },
        by_kind={
            kind: mean([one for one, other in zip(right, kinds, strict=True) if other == kind])
            for kind in sorted(set(kinds))
        },
    )


def kappa(one: Floats, other: Floats) -> float:
    """Cohen (1960): agreement beyond what both raters' shares of yes would give by chance; 0.0 where that is all."""
    agreed = float((one == other).mean())
    chance = float(one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean()))
    return (agreed - chance) / (1 - chance) if chance < 1 else 0.0


def resampled(statistic: Callable[[Floats, Floats], float], one: Sequence[bool], other: Sequence[bool]) -> Mean:
    """The statistic of two paired samples with a percentile bootstrap interval over the pairs."""
    if not one:
        return Mean(None, None, None, 0)
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    drawn = np.random.default_rng(SEED).integers(0, len(a), (RESAMPLES, len(a)))
    low, high = np.quantile([statistic(a[rows], b[rows]) for rows in drawn], (0.025, 0.975))
    value = statistic(a, b)
    return Mean(value, min(value, float(low)), max(value, float(high)), len(a))


def true_share(measured: float, sensitivity: float, specificity: float) -> float | None:
    """The share of yes that, judged so, shows as ``measured`` (Rogan & Gladen 1978), within [0, 1].

    None when the judge is hardly better than chance: then no measured share says anything.
    """
    informedness = sensitivity + specificity - 1
    if informedness < 0.2:
        return None
    return min(1.0, max(0.0, (measured + specificity - 1) / informedness))


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a judge: how its opinions become probabilities, and how good those are."""

    fitted: Fitted
    quality: Quality


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one judge with one version of the prompts; ``tasks`` by name; ``labels_sha256``: of the items used."""

    judge: str
    judge_sha256: str
    prompts: str
    labels_sha256: str
    tasks: Mapping[str, Task]


def write_calibration(file: Path, made: Calibration) -> None:
    """Into a file of several, keyed by judge and prompts; one of the same key is replaced.

    :raises StudyRagError: when it cannot be written.
    """
    values = _read(file) if file.exists() else {}
    values[_key(made.judge_sha256, made.prompts)] = asdict(made)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        file.write_text(text, encoding="utf-8")
    except OSError as err:
        raise StudyRagError(f"{file}: cannot be written: {err.strerror}", fix="name another --calibration") from err


def read_calibration(file: Path, *, judge_sha256: str, prompts: str) -> Calibration | None:
    """That of this judge with these prompts; None when there is none.

    :raises Misuse: when the file is not what ``write_calibration`` writes.
    """
    if not file.exists():
        return None
    values = _read(file).get(_key(judge_sha256, prompts))
    if values is None:
        return None
    try:
        tasks = {name: _task(task) for name, task in values["tasks"].items()}
        return replace(Calibration(**values), tasks=tasks)
    except (KeyError, TypeError, AttributeError) as err:
        raise Misuse(f"{file}: not a calibration: {err!r}", fix="write it anew with studyrag eval judge") from err


def _key(judge_sha256: str, prompts: str) -> str:
    return f"{judge_sha256} {prompts}"


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise Misuse(f"{file}: not a calibration: {err}", fix="remove it, and run studyrag eval judge") from err
    if not isinstance(values, dict):
        raise Misuse(f"{file}: not a calibration", fix="remove it, and run studyrag eval judge")
    return values


def _task(values: Mapping[str, Any]) -> Task:
    found = values["quality"]
    means = {name: Mean(**found[name]) for name in ("auc", "accuracy", "kappa", "sensitivity", "specificity")}
    by_kind = {kind: Mean(**one) for kind, one in found["by_kind"].items()}
    return Task(
        Fitted(**values["fitted"]),
        Quality(n=found["n"], confusion=found["confusion"], by_kind=by_kind, **means),
    )
