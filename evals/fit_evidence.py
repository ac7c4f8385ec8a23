"""Fits the coefficients of ``studyrag.evidence`` and prints how well they separate: one command does the whole fit.

``.venv/bin/python evals/fit_evidence.py`` asks three pools of questions: those of evals/folders on their small folders,
calibration.jsonl on a temporary folder of the notes it was written for, and what is not held back of questions.jsonl on
all notes. So the coefficients have to hold in a small folder and in a large one, and each small folder is judged by
coefficients that were fitted without it. The pools weigh the same, and so do both classes: how often people ask what
their notes do not hold is unknown, and a question set's own mixture says nothing of it. Nothing is generated and nothing
is changed: copy the coefficients into evidence.py and the numbers into docs/log.md. ``--held-back`` also tries the code's own coefficients on the questions that are held back.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.answering import NEAREST
from studyrag.evals.golden import UNANSWERABLE, Golden, load, select
from studyrag.evidence import COEFFICIENTS, features, scaled, weigh
from studyrag.records import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from studyrag.index import Index
    from studyrag.protocols import Embedder
    from studyrag.settings import Settings

    Floats = NDArray[np.float64]

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = Path(__file__).parent / "folders"
NAMES = tuple(name for name in COEFFICIENTS if name != "intercept")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
FOLDS, SEEDS, STRENGTH = 8, 5, 1.0
SMALL = "small folders"


@dataclass(frozen=True, slots=True)
class Weighed:
    """One question, the pool and the folder that it came from, and its features."""

    pool: str
    folder: str
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
            *_small(Path(folder), embedder, settings),
            *ask("some notes", "", calibration, part, embedder, settings),
            *ask("all notes", "", select(questions, "open"), whole, embedder, settings),
        ]
        part.close()
    report_features(found)
    report_fit(found)
    report("the code's coefficients", found, _in_force(found))
    if "--held-back" in sys.argv:
        kept = list(ask("held back", "", select(questions, "held-back"), whole, embedder, settings))
        report("the code's coefficients", kept, _in_force(kept))


def small_questions(folder: Path) -> tuple[Golden, ...]:
    """Those of one of evals/folders; no notes: unanswerable."""
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    return tuple(
        Golden(
            row["id"], "question" if row["notes"] else UNANSWERABLE, "plain", "" if row["notes"] else folder.name,
            row["question"], tuple(row["notes"]), (), row["reference"],
        )
        for row in rows
    )  # fmt: skip


def _small(home: Path, embedder: Embedder, settings: Settings) -> Iterable[Weighed]:
    for folder in sorted(FOLDERS.iterdir()):
        index = _built(folder / "notes", home / folder.name, embedder, settings)
        yield from ask(SMALL, folder.name, small_questions(folder), index, embedder, settings)
        index.close()


def _index_of(questions: Sequence[Golden], settings: Settings, embedder: Embedder, folder: Path) -> Index:
    """An index of those questions' notes alone, built on a copy of the whole one: no chunk is embedded again."""
    for note in {note for one in questions for note in one.notes}:
        (folder / "notes" / note).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(settings.notes / note, folder / "notes" / note)
    shutil.copytree(settings.index, folder / "index")
    return _built(folder / "notes", folder / "index", embedder, settings)


def _built(notes: Path, folder: Path, embedder: Embedder, settings: Settings) -> Index:
    from studyrag.building import build
    from studyrag.index import Index

    build(
        notes,
        folder,
        embedder=embedder,
        chunk_tokens=settings.chunk_tokens,
        max_note_bytes=settings.max_note_bytes,
    )
    return Index(folder)


def ask(
    pool: str, folder: str, questions: Iterable[Golden], index: Index, embedder: Embedder, settings: Settings
) -> Iterable[Weighed]:
    """As the assistant does before it decides whether to answer."""
    from studyrag.retrieving import Retriever

    finder = Retriever(index, embedder, candidates=settings.candidates, dense_weight=settings.dense_weight)
    for golden in questions:
        query = finder.query(golden.question, Trace())
        hits = finder.search(query, max(4 * settings.passages, NEAREST), trace=Trace(), retriever=settings.retriever)
        weights = finder.term_weights(query.terms)
        values = features(hits, weights, query.unknown, query.text, n_chunks=index.n_chunks)
        yield Weighed(pool, folder, golden, values)


def _table(found: Sequence[Weighed]) -> tuple[Floats, NDArray[np.bool_]]:
    """(n, features as they are weighed) and (n,) answerable."""
    told = [scaled(one.values) for one in found]
    table = np.array([[values[name] for name in NAMES] for values in told])
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
    from sklearn.model_selection import PredefinedSplit, StratifiedKFold

    table, truth = _table(found)
    spread = table.std(axis=0)
    table /= spread
    folders = [one.folder for one in found]
    small = np.array([bool(folder) for folder in folders])
    odds = np.zeros(len(found))
    for seed in range(SEEDS):
        fold = np.array([sorted(set(folders)).index(folder) + FOLDS for folder in folders])
        parts = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(table[~small], truth[~small])
        for number, (_, part) in enumerate(parts):
            fold[np.flatnonzero(~small)[part]] = number
        for rest, part in PredefinedSplit(fold).split():
            odds[part] += _fitted(found, table, truth, rest).decision_function(table[part]) / SEEDS
    report(f"fitted, {FOLDS}-fold, small folders left out in turn", found, 1 / (1 + np.exp(-odds)))
    model = _fitted(found, table, truth, np.arange(len(found)))
    shown = {"intercept": model.intercept_[0], **dict(zip(NAMES, model.coef_[0] / spread, strict=True))}
    print("COEFFICIENTS", {name: round(float(value), 2) for name, value in shown.items()})


def _fitted(found: Sequence[Weighed], table: Floats, truth: NDArray[np.bool_], rows: NDArray[np.int64]) -> Any:
    """Logistic regression on those rows, in which each pool weighs the same, and then each class."""
    from sklearn.linear_model import LogisticRegression

    pools = np.array([found[row].pool for row in rows])
    weights = np.array([1.0 / np.sum(pools == pool) for pool in pools])
    for label in (True, False):
        weights[truth[rows] == label] *= 0.5 * len(rows) / weights[truth[rows] == label].sum()
    return LogisticRegression(C=STRENGTH, max_iter=2000).fit(table[rows], truth[rows], sample_weight=weights)


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
            refused = probabilities[own] < bar
            right = np.mean(~truth[own][refused]) if refused.any() else float("nan")
            print(
                f"    below {bar}: {refused[~truth[own]].mean():.3f} of the unanswerable,"
                f" {refused[truth[own]].mean():.3f} of the answerable; precision {right:.3f}"
            )


if __name__ == "__main__":
    main()
