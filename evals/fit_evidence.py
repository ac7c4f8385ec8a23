"""Fits the coefficients of ``studyrag.evidence`` on evals/golden/calibration.jsonl and prints how well they separate.

Run from the repository: ``.venv/bin/python evals/fit_evidence.py``. Prints, changes nothing: copy the coefficients into
evidence.py and the numbers into docs/log.md. The first questions (first_questions.jsonl) are only reported, not fitted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from studyrag.assistant import Assistant
from studyrag.cli.wiring import open_embedder
from studyrag.evidence import features
from studyrag.records import Trace
from studyrag.settings import load_settings

GOLDEN = Path(__file__).parent / "golden"
NAMES = sys.argv[1].split(",") if len(sys.argv) > 1 else ["cosine", "cosine_mean", "covered", "covered_all", "unknown"]


def main() -> None:
    settings = load_settings(Path.cwd())
    assistant = Assistant(settings, open_embedder(settings))
    index = assistant.refresh()

    def rows(name: str) -> tuple[list[dict[str, object]], np.ndarray, np.ndarray]:
        questions = [json.loads(line) for line in (GOLDEN / name).read_text(encoding="utf-8").splitlines()]
        found = []
        for question in questions:
            hits, query = assistant._retrieve(index, question["question"], 16, None, (), (), Trace())
            weights = assistant._retriever.term_weights(query.terms)
            values = features(hits, weights, query.unknown, query.text)
            question["features"] = values
            question["top"] = [hit.chunk.note_id for hit in hits[:5]]
            found.append([values[one] for one in NAMES])
        return questions, np.asarray(found), np.asarray([bool(question["notes"]) for question in questions])

    questions, x, y = rows("calibration.jsonl")
    for at, name in enumerate(NAMES):
        print(
            f"{name:14} AUC {roc_auc_score(y, x[:, at]):.3f}   answerable {x[y, at].mean():.3f}  not {x[~y, at].mean():.3f}"
        )
    model = LogisticRegression(C=10.0)
    held_out = cross_val_predict(model, x, y, cv=10, method="predict_proba")[:, 1]
    print(f"all, 10-fold   AUC {roc_auc_score(y, held_out):.3f}")
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7):
        print(
            f"  threshold {threshold}: refused {(held_out[y] < threshold).sum()}/{y.sum()} answerable,"
            f" {(held_out[~y] < threshold).sum()}/{(~y).sum()} unanswerable"
        )
    model.fit(x, y)
    print(
        {"intercept": round(float(model.intercept_[0]), 2)}
        | dict(zip(NAMES, model.coef_[0].round(2).tolist(), strict=True))
    )
    print(
        f"first hit in the right note: {np.mean([q['top'][0] in q['notes'] for q in questions if q['notes']]):.3f}; in five:"
        f" {np.mean([bool(set(q['top']) & set(q['notes'])) for q in questions if q['notes']]):.3f}"
    )
    for question, p in zip(questions, held_out, strict=True):
        if bool(question["notes"]) != (p >= 0.5):
            print(
                f"  wrong {p:.2f} {question['id']} {question['question'][:100]} { {k: round(v, 2) for k, v in question['features'].items()} }"
            )
    first, x1, y1 = rows("first_questions.jsonl")
    p1 = model.predict_proba(x1)[:, 1]
    print(
        f"first questions: AUC {roc_auc_score(y1, p1):.3f}; refused {(p1[y1] < 0.5).sum()}/{y1.sum()} answerable, {(p1[~y1] < 0.5).sum()}/{(~y1).sum()} not"
    )
    print(f"first hit in the right note: {np.mean([q['top'][0] in q['notes'] for q in first if q['notes']]):.3f}")


if __name__ == "__main__":
    main()
