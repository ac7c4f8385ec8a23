"""Fits the coefficients of ``studyrag.evidence`` and prints how well they separate: one command does the whole fit.

``.venv/bin/python evals/fit_evidence.py`` asks two pools of questions: calibration.jsonl on a temporary folder of the
notes it was written for, and what is not held back of questions.jsonl on all notes. So the coefficients have to hold in
a small folder and in a large one. Both classes weigh the same (``class_weight="balanced"``): how often people ask what
their notes do not hold is unknown, and a question set's own mixture says nothing of it. Nothing is generated, no vector
is computed but the questions', and nothing is changed: copy the coefficients into evidence.py and the numbers into
docs/log.md. ``--held-back`` also tries the code's own coefficients on the questions that are held back.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.answering import NEAREST
from studyrag.evals.golden import Golden, load, select
from studyrag.evidence import COEFFICIENTS, features, weigh
from studyrag.records import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from studyrag.index import Index
    from studyrag.protocols import Embedder
    from studyrag.settings import Settings

    Floats = NDArray[np.float64]

GOLDEN = Path(__file__).parent / "golden"
NAMES = tuple(name for name in COEFFICIENTS if name != "intercept")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
FOLDS, SEEDS, STRENGTH = 8, 5, 10.0


@dataclass(frozen=True, slots=True)
class Weighed:
    """One question, the pool it came from and its features."""

    pool: str
    golden: Golden
    values: dict[str, float]


def main() -> None:
    from studyrag.cli import wiring
    from studyrag.index import Index

    settings = wiring.settings({})
    embedder = wiring.open_embedder(settings)
    calibration = load(GOLDEN / "calibration.jsonl")
    questions = load(GOLDEN / "questions.jsonl")
    whole = Index(settings.index)
    with TemporaryDirectory() as folder:
        part = _index_of(calibration, settings, embedder, Path(folder))
        found = [
            *ask("some notes", calibration, part, embedder, settings),
            *ask("all notes", select(questions, "open"), whole, embedder, settings),
        ]
        part.close()
    report_features(found)
    report_fit(found)
    report("the code's coefficients", found, _in_force(found))
    if "--held-back" in sys.argv:
        kept = list(ask("held back", select(questions, "held-back"), whole, embedder, settings))
        report("the code's coefficients", kept, _in_force(kept))


def _index_of(questions: Sequence[Golden], settings: Settings, embedder: Embedder, folder: Path) -> Index:
    """An index of those questions' notes alone, built on a copy of the whole one: no chunk is embedded again."""
    from studyrag.building import build
    from studyrag.index import Index

    for note in {note for one in questions for note in one.notes}:
        (folder / "notes" / note).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(settings.notes / note, folder / "notes" / note)
    shutil.copytree(settings.index, folder / "index")
    build(
        folder / "notes",
        folder / "index",
        embedder=embedder,
        chunk_tokens=settings.chunk_tokens,
        max_note_bytes=settings.max_note_bytes,
    )
    return Index(folder / "index")


def ask(
    pool: str, questions: Iterable[Golden], index: Index, embedder: Embedder, settings: Settings
) -> Iterable[Weighed]:
    """As the assistant does before it decides whether to answer."""
    from studyrag.retrieving import Retriever

    finder = Retriever(index, embedder, candidates=settings.candidates, dense_weight=settings.dense_weight)
    for golden in questions:
        query = finder.query(golden.question, Trace())
        hits = finder.search(query, max(4 * settings.passages, NEAREST), trace=Trace(), retriever=settings.retriever)
        values = features(hits, finder.term_weights(query.terms), query.unknown, query.text)
        yield Weighed(pool, golden, values)


def _table(found: Sequence[Weighed]) -> tuple[Floats, NDArray[np.bool_]]:
    """(n, features) and (n,) answerable."""
    table = np.array([[one.values[name] for name in NAMES] for one in found])
    return table, np.array([one.golden.answerable for one in found])


def report_features(found: Sequence[Weighed]) -> None:
    from sklearn.metrics import roc_auc_score

    pools = sorted({one.pool for one in found})
    print(f"AUC of each feature alone: {', '.join(pools)}")
    for at, name in enumerate(NAMES):
        cells = []
        for pool in pools:
            table, truth = _table([one for one in found if one.pool == pool])
            cells.append(f"{roc_auc_score(truth, table[:, at]):.3f}")
        print(f"  {name:10} {' '.join(cells)}")


def report_fit(found: Sequence[Weighed]) -> None:
    """The coefficients from all questions, and what each fold's would have done to the questions left out of it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    table, truth = _table(found)
    model: Any = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000)
    odds = np.mean(
        [
            cross_val_predict(
                model, table, truth, cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
                method="decision_function",
            )
            for seed in range(SEEDS)
        ],
        axis=0,
    )  # fmt: skip
    report(f"fitted, {FOLDS}-fold, {SEEDS} seeds", found, 1 / (1 + np.exp(-odds)))
    model.fit(table, truth)
    shown = {"intercept": model.intercept_[0], **dict(zip(NAMES, model.coef_[0], strict=True))}
    print("COEFFICIENTS", {name: round(float(value), 2) for name, value in shown.items()})


def _in_force(found: Sequence[Weighed]) -> Floats:
    return np.array([weigh(one.values, threshold=0.0).probability for one in found])


def report(title: str, found: Sequence[Weighed], probabilities: Floats) -> None:
    from sklearn.metrics import roc_auc_score

    _, truth = _table(found)
    print(f"{title}: {len(found)} questions, {truth.sum()} answerable")
    for pool in sorted({one.pool for one in found}):
        own = np.array([one.pool == pool for one in found])
        print(f"  {pool}: AUC {roc_auc_score(truth[own], probabilities[own]):.3f}")
        for kind in sorted({one.golden.subkind for one in found if not one.golden.answerable}):
            these = own & (truth | np.array([one.golden.subkind == kind for one in found]))
            if not truth[these].all():
                count = int((~truth[these]).sum())
                print(f"    {kind:14} AUC {roc_auc_score(truth[these], probabilities[these]):.3f} (n {count})")
    for bar in THRESHOLDS:
        refused = probabilities < bar
        right = np.mean(~truth[refused]) if refused.any() else float("nan")
        print(
            f"  below {bar}: {refused[~truth].mean():.3f} of the unanswerable, {refused[truth].mean():.3f} of the"
            f" answerable; precision {right:.3f}"
        )


if __name__ == "__main__":
    main()
