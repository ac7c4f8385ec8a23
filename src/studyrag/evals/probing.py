"""A linear probe: what a judge's hidden state says of a statement that its Yes or No does not.

A small model often holds what it takes to see that a statement differs from its source, and says Yes all the same
(Azaria & Mitchell 2023, "The Internal State of an LLM Knows When It's Lying"). The probe is a logistic regression on
that state, trained on labelled statements of its own: of no note that a judge is measured on, though of notes, not of
passages, that it is calibrated on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.errors import Misuse, StudyRagError
from studyrag.evals.calibrating import newton
from studyrag.evals.measuring import auroc
from studyrag.protocols import no_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from studyrag.protocols import Progress, Vector

    Floats = NDArray[np.float64]

RIDGES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Strengths of the pull towards zero that are tried, as for ``calibrating.RIDGE``."""
FOLDS = 5
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Probe:
    """Log-odds of yes = intercept + weights · state, for one judge asked in one way.

    ``trained_on``: SHA-256 of the labelled statements and of what training depends on; ``ridge``: the strength that was
    chosen; ``auc``: with it, of all statements, each read by a probe that was trained without its note.
    """

    judge_sha256: str
    asked: str
    trained_on: str
    statements: int
    ridge: float
    auc: float
    intercept: float
    weights: tuple[float, ...]

    @property
    def id(self) -> str:
        return hashlib.sha256(repr((self.intercept, self.weights)).encode()).hexdigest()[:12]

    def read(self, state: Vector) -> float:
        """:raises Misuse: for a state of another length."""
        if len(state) != len(self.weights):
            raise Misuse(
                f"the probe is of {len(self.weights)} numbers, the judge's state of {len(state)}",
                fix="remove it from probes.json, and run studyrag eval judge",
            )
        return self.intercept + float(np.asarray(state, dtype=np.float64) @ np.asarray(self.weights))


def labels_version(labels_sha256: str) -> str:
    """SHA-256 of labelled statements and of what training makes of them."""
    return hashlib.sha256(repr((labels_sha256, RIDGES, FOLDS, _DIGITS)).encode()).hexdigest()


def require_trainable(labels: Sequence[bool], notes: Sequence[str]) -> None:
    """:raises Misuse: unless there are notes enough to leave some out, and both labels whichever are."""
    wanted, folds = np.asarray(labels), _folds(notes)
    if len(set(folds)) < 2 or any(len(set(wanted[folds != fold])) < 2 for fold in set(folds)):
        raise Misuse("too few statements to train a probe on", fix="label statements of both kinds, of several notes")


def train(
    states: Sequence[Vector],
    labels: Sequence[bool],
    notes: Sequence[str],
    *,
    judge_sha256: str,
    asked: str,
    trained_on: str,
    progress: Progress = no_progress,
) -> Probe:
    """The ridge that ranks the statements of notes left out best, then the weights of all statements.

    :param states: (n, d).
    :raises Misuse: as ``require_trainable``.
    """
    require_trainable(labels, notes)
    raw, wanted = np.asarray(states, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    folds = _folds(notes)
    done, total = 0, len(RIDGES) * len(set(folds)) + 1

    def fitted(rows: Any, ridge: float) -> Callable[[Floats], Floats]:
        nonlocal done
        progress("training the probe", done, total)
        done += 1
        intercept, weights = _fit(raw[rows], wanted[rows], ridge)
        return lambda some: intercept + some @ weights

    found = {}
    for ridge in RIDGES:
        read = np.zeros(len(raw))
        for fold in sorted(set(folds)):
            read[folds == fold] = fitted(folds != fold, ridge)(raw[folds == fold])
        found[ridge] = auroc(list(read[wanted == 1]), list(read[wanted == 0])).value or 0.0
    best = max(RIDGES, key=lambda ridge: found[ridge])
    progress("training the probe", done, total)
    intercept, weights = _fit(raw, wanted, best)
    progress("training the probe", total, total)
    return Probe(
        judge_sha256,
        asked,
        trained_on,
        statements=len(raw),
        ridge=best,
        auc=found[best],
        intercept=_rounded(intercept),
        weights=tuple(_rounded(float(one)) for one in weights),
    )


def _folds(notes: Sequence[str]) -> NDArray[np.int64]:
    """A fold for each, whole notes together, notes dealt out in the order of their SHA-256."""
    order = sorted(set(notes), key=lambda note: hashlib.sha256(note.encode()).hexdigest())
    place = {note: at % FOLDS for at, note in enumerate(order)}
    return np.array([place[note] for note in notes])


def _fit(states: Floats, labels: Floats, ridge: float) -> tuple[float, Floats]:
    """(intercept, weights (d,)) of the states as they are, fitted on the standardised ones."""
    centre, spread = states.mean(axis=0), states.std(axis=0)
    spread[spread == 0] = 1.0
    found = newton(np.column_stack([np.ones(len(states)), (states - centre) / spread]), labels, ridge=ridge)
    weights = found[1:] / spread
    return float(found[0] - weights @ centre), weights


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def write_probe(file: Path, made: Probe) -> None:
    """Into a file of several, keyed by judge and what it is asked; one of the same key is replaced.

    :raises StudyRagError: when it cannot be written.
    """
    values = _read(file) if file.exists() else {}
    values[_key(made.judge_sha256, made.asked)] = asdict(made)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{json.dumps(key)}: {json.dumps(values[key])}" for key in sorted(values))
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    except OSError as err:
        raise StudyRagError(f"{file}: cannot be written: {err.strerror}", fix="name another --calibration") from err


def read_probe(file: Path, *, judge_sha256: str, asked: str) -> Probe | None:
    """That of this judge asked so; None when there is none.

    :raises Misuse: when the file is not what ``write_probe`` writes.
    """
    values = _read(file).get(_key(judge_sha256, asked)) if file.exists() else None
    if values is None:
        return None
    try:
        weights = tuple(float(one) for one in values.pop("weights"))
        return Probe(weights=weights, **values)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise Misuse(f"{file}: not a probe: {err!r}", fix="remove it, and run studyrag eval judge") from err


def _key(judge_sha256: str, asked: str) -> str:
    return f"{judge_sha256} {asked}"


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise Misuse(f"{file}: not a file of probes: {err}", fix="remove it, and run studyrag eval judge") from err
    if not isinstance(values, dict):
        raise Misuse(f"{file}: not a file of probes", fix="remove it, and run studyrag eval judge")
    return values
