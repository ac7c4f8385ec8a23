"""Fits what ``quoting`` weighs statements with, and ``evidence`` a generator's verdict, on evals/golden/calibration.jsonl.

``.venv/bin/python evals/fit_quoting.py collect OUT.jsonl`` asks every question (13 s each on two cores; goes on where
it stopped), ``… fit OUT.jsonl`` prints the coefficients with leave-one-question-out results: how often the
first statement, or one of the first three, overlaps a quote of the golden evidence.
"""

from __future__ import annotations

import json
import sys
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

CALIBRATION = Path(__file__).parent / "golden" / "calibration.jsonl"


def collect(out: Path, source: Path) -> None:
    from studyrag.cli import wiring

    questions = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    done = {json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()} if out.exists() else set()
    # answerable and unanswerable in turn, so that a part of the run is a fair sample
    if source == CALIBRATION:
        questions.sort(key=lambda one: (int(one["id"][1:]) % 4, int(one["id"][1:]), one["id"]))
    with (
        wiring.assistant(wiring.settings({}), generate=True, quiet=True) as assistant,
        out.open("a", encoding="utf-8") as file,
    ):
        for question in questions:
            if question["id"] in done:
                continue
            for _ in assistant.ask(question["question"]):
                pass
            record: dict[str, Any] = {**question, "statements": [], "coverage": {}}
            for stage, _, facts in assistant.last_trace.events:
                if stage == "statement":
                    record["statements"].append(dict(facts))
                elif stage == "coverage":
                    record["coverage"].setdefault("retrieval", facts["probability"])
                    record["coverage"].update(facts)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            print(question["id"], dict(assistant.last_trace.timings_ms()).get("quote"), flush=True)


def overlaps(statement: str, evidence: list[str]) -> bool:
    """Whether a statement holds a quote, lies in one, or shares half of the shorter of the two with it."""
    one = " ".join(statement.split())
    for quote in evidence:
        two = " ".join(quote.split())
        longest = SequenceMatcher(None, one, two, autojunk=False).find_longest_match().size
        if longest >= 0.5 * min(len(one), len(two)):
            return True
    return False


def fit(source: Path) -> None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    records = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    asked = [record for record in records if record["evidence"] and record["statements"]]
    for record in asked:
        record["hit"] = np.array([overlaps(one["text"], record["evidence"]) for one in record["statements"]])
    reachable = [record for record in asked if record["hit"].any()]
    print(f"{len(asked)} answerable, {len(reachable)} with evidence among the statements")
    own = ["cosine", "share", "heading", "rank"]
    for name, features in {"ALONE": own, "SCORED": [*own, "pointed"], "pointed": ["pointed"]}.items():
        tables = [np.array([[one[f] for f in features] for one in record["statements"]]) for record in reachable]
        model = LogisticRegression(C=10, max_iter=2000)
        firsts = [0, 0, 0]
        for left_out, record in enumerate(reachable):
            rest = [at for at in range(len(reachable)) if at != left_out]
            model.fit(np.vstack([tables[at] for at in rest]), np.concatenate([reachable[at]["hit"] for at in rest]))
            order = np.argsort(-model.decision_function(tables[left_out]), kind="stable")
            hits = record["hit"][order]
            for place in range(3):
                firsts[place] += bool(hits[: place + 1].any())
        model.fit(np.vstack(tables), np.concatenate([record["hit"] for record in reachable]))
        shown = {"intercept": model.intercept_[0], **dict(zip(features, model.coef_[0], strict=True))}
        print(name, {key: round(float(value), 2) for key, value in shown.items()})
        print("   first, two, three:", [round(first / len(reachable), 3) for first in firsts])
    _fit_verdict([record for record in records if "found_logit" in record["coverage"]])


def _fit_verdict(records: list[dict[str, Any]]) -> None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    chance = np.clip([record["coverage"]["retrieval"] for record in records], 1e-6, 1 - 1e-6)
    table = np.column_stack([np.log(chance / (1 - chance)), [record["coverage"]["found_logit"] for record in records]])
    truth = np.array([bool(record["evidence"]) for record in records])
    model = LogisticRegression(C=10)
    guessed = cross_val_predict(model, table, truth, cv=10, method="predict_proba")[:, 1]
    model.fit(table, truth)
    print(f"VERDICT on {len(records)} ({truth.sum()} answerable):", model.intercept_.round(2), model.coef_.round(2))
    print(f"   AUC retrieval {roc_auc_score(truth, table[:, 0]):.3f}, found {roc_auc_score(truth, table[:, 1]):.3f},"
          f" both (10-fold) {roc_auc_score(truth, guessed):.3f}")  # fmt: skip
    for bar in (0.3, 0.4, 0.5, 0.6):
        print(f"   at {bar}: refused {np.mean(guessed[truth] < bar):.3f} of answerable,"
              f" {np.mean(guessed[~truth] < bar):.3f} of others")  # fmt: skip


if __name__ == "__main__":
    verb, path = sys.argv[1], Path(sys.argv[2])
    if verb == "collect":
        collect(path, Path(sys.argv[3]) if len(sys.argv) > 3 else CALIBRATION)
    else:
        fit(path)
