"""Numbers: metrics a question (through ir-measures), means with bootstrap intervals, paired tests, AUROC.

Every random choice is seeded: the same numbers twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from studyrag.errors import StudyRagError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MEASURES = ("Success@1", "Success@3", "Success@5", "R@5", "R@10", "RR@10", "nDCG@10")
SEED = 20251121
RESAMPLES = 2000
PERMUTATIONS = 9999
_NEEDED = ("ir_measures", "scipy", "matplotlib")


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over ``n`` questions with its 95 % interval; all None for none."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean paired difference to the first arm over ``n`` questions; ``p`` two-sided, for this comparison alone."""

    value: float
    p: float
    n: int


def require_extra() -> None:
    """:raises StudyRagError: when what the evaluations need is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise StudyRagError(
            f"evaluating needs packages that are not installed: {', '.join(missing)}",
            fix="pip install 'studyrag[evals]'",
        )


def per_question(
    measures: Sequence[str], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Question id to measure to value in [0, 1]. ``run``: document ids best first; what is not in it scores 0."""
    import ir_measures

    parsed = {str(ir_measures.parse_measure(name)): name for name in measures}
    scored = {
        question: {document: float(len(ranking) - place) for place, document in enumerate(ranking)}
        for question, ranking in run.items()
    }
    found = {question: dict.fromkeys(measures, 0.0) for question in qrels}
    judged = {question: dict(documents) for question, documents in qrels.items()}
    for metric in ir_measures.iter_calc([ir_measures.parse_measure(name) for name in measures], judged, scored):
        found[metric.query_id][parsed[str(metric.measure)]] = float(metric.value)
    return found


def mean(values: Sequence[float]) -> Mean:
    """With a percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13) over the questions."""
    if not values:
        return Mean(None, None, None, 0)
    sample = np.asarray(values, dtype=np.float64)
    return _interval(float(sample.mean()), _resampled(sample), len(values))


def _resampled(sample: Floats) -> Floats:
    """(RESAMPLES,) means of as many drawn with replacement."""
    drawn = np.random.default_rng(SEED).integers(0, len(sample), (RESAMPLES, len(sample)))
    means: Floats = sample[drawn].mean(axis=1)
    return means


def _interval(value: float, resampled: Floats, n: int) -> Mean:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Mean(value, min(value, float(low)), max(value, float(high)), n)


def difference(ours: Sequence[float], first: Sequence[float]) -> Difference:
    """Paired randomisation test (Smucker, Allan & Carterette 2007): the sign of each pair's difference is chance.

    Pairs without a difference change nothing and are left out of the permutations.
    """
    from scipy.stats import permutation_test

    pairs = np.asarray(ours, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    apart = pairs[pairs != 0]
    value = float(pairs.mean()) if len(pairs) else 0.0
    if len(apart) < 2:  # one sign alone is as likely either way
        return Difference(value, 1.0, len(pairs))
    tested = permutation_test(
        (apart, np.zeros_like(apart)),
        lambda one, other, axis: np.sum(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=1000,
        rng=np.random.default_rng(SEED),
    )
    return Difference(value, float(tested.pvalue), len(pairs))


def auroc(positive: Sequence[float], negative: Sequence[float]) -> Mean:
    """P(a positive scores above a negative), ties half (Mann & Whitney 1947), each class resampled by itself."""
    if not positive or not negative:
        return Mean(None, None, None, len(positive) + len(negative))
    ours, others = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
    wins = (ours > others) + 0.5 * (ours == others)
    rng = np.random.default_rng(SEED)
    counts = [rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in wins.shape]
    resampled = np.einsum("ri,ri->r", counts[0] @ wins, counts[1])
    return _interval(float(wins.mean()), resampled, len(positive) + len(negative))
