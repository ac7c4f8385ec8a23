"""Numbers to hold: written from one evaluation, compared with another. A lower one fails beyond its own interval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studyrag.errors import Misuse, StudyRagError
from studyrag.evals.answers import AnswerResults
from studyrag.evals.measuring import Mean
from studyrag.evals.ragas_metrics import RAGAS
from studyrag.evals.results import Results

_ABOUT = (
    "selection", "questions", "golden_sha256", "embedder", "chunk_tokens", "generator_sha256", "judge_sha256",
    "judge_prompts", "calibration",
)  # fmt: skip
_SAME = ("selection", "golden_sha256", "judge_sha256", "judge_prompts", "calibration")
"""What must not differ; what neither has does not."""


@dataclass(frozen=True, slots=True)
class Fallen:
    """A metric that is below the lower end of the baseline's interval; ``value`` None: it could not be measured."""

    metric: str
    value: float | None
    baseline: float
    low: float


def write_baseline(results: Results | AnswerResults, file: Path) -> None:
    """:raises StudyRagError: when it cannot be written."""
    values = {
        "about": {key: results.about[key] for key in _ABOUT if key in results.about},
        "metrics": {
            name: {"value": one.value, "low": one.low, "high": one.high, "n": one.n}
            for name, one in _metrics(results).items()
            if one.value is not None
        },
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as err:
        raise StudyRagError(f"{file}: cannot be written: {err.strerror}", fix="name another file") from err


def read_baseline(file: Path) -> Mapping[str, Any]:
    """:raises Misuse: when it is not there, or not what ``write_baseline`` writes."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        numbers = [float(one[key]) for one in values["metrics"].values() for key in ("value", "low")]
        if not numbers or not isinstance(values["about"], dict):
            raise ValueError("no metrics")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise Misuse(f"{file}: not a baseline: {err}", fix=f"write one with --write-baseline {file}") from err
    return {"about": values["about"], "metrics": values["metrics"]}


def fallen(results: Results | AnswerResults, baseline: Mapping[str, Any]) -> tuple[Fallen, ...]:
    """What fell, of the baseline's metrics whose arm was measured now, those ``not_asked`` for left out.

    :raises Misuse: when the two were measured on other questions, or share no arm.
    """
    for key in _SAME:
        then, now = baseline["about"].get(key), results.about.get(key)
        if then != now:
            raise Misuse(
                f"the baseline was measured on other questions, or by another judge ({key}: {then}, now {now})",
                fix="measure the same ones, or write a new baseline with --write-baseline",
            )
    measured = _metrics(results)
    arms = {name.partition(": ")[0] for name in measured}
    left_out = not_asked(results, baseline)
    common = {
        name: one
        for name, one in baseline["metrics"].items()
        if name.partition(": ")[0] in arms and name not in left_out
    }
    if not common:
        raise Misuse("the baseline has none of these arms", fix="name its arms with --compare")
    found = []
    for name, one in common.items():
        value = measured[name].value if name in measured else None
        if value is None or value < one["low"]:
            found.append(Fallen(name, value, one["value"], one["low"]))
    return tuple(found)


def not_asked(results: Results | AnswerResults, baseline: Mapping[str, Any]) -> tuple[str, ...]:
    """The baseline's metrics of RAGAS's that ``--metrics`` left out now; no other metric may be missing."""
    if not isinstance(results, AnswerResults):
        return ()
    optional = {f"answers: {name}" for name in RAGAS} - set(_metrics(results))
    return tuple(name for name in baseline["metrics"] if name in optional)


def _metrics(results: Results | AnswerResults) -> dict[str, Mean]:
    """'arm: metric' to its mean; higher is better for each, so the answerable ones are those that are *not* refused."""
    if isinstance(results, AnswerResults):
        return _of_answers(results)
    found = {f"{arm.name}: {name}": value for arm in results.arms for name, value in arm.overall.items()}
    if results.abstention is not None:
        one = results.abstention
        found["abstention: AUROC"] = one.auroc
        found["abstention: precision"] = one.precision
        found["abstention: recall"] = one.recall
        found["abstention: answerable not refused"] = _complement(one.refused_answerable)
    return found


def _of_answers(results: AnswerResults) -> dict[str, Mean]:
    refusals = results.refusals
    return {
        **{f"answers: {name}": one.mean for name, one in results.metrics.items()},
        "answers: abstention precision": refusals.precision,
        "answers: abstention recall": refusals.recall,
        "answers: answerable not refused": _complement(refusals.refused_answerable),
    }


def _complement(one: Mean) -> Mean:
    value, low, high = (None if part is None else 1 - part for part in (one.value, one.high, one.low))
    return Mean(value, low, high, one.n)
