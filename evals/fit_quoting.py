"""Fits what ``quoting`` weighs statements with, and how ``evidence`` reads a generator's verdict.

``.venv/bin/python evals/fit_quoting.py collect QUESTIONS.jsonl OUT.jsonl`` asks every question that is not held back
with the settings of the folder it runs in (15 s each on two cores; goes on where it stopped). For one of evals/folders,
run it in a copy of its notes after `studyrag init`. With
``STUDYRAG_STYLE=write`` it stops before a word is written and keeps the generator's Yes against No.
``… fit OUT.jsonl …`` prints the coefficients, and with each what it would have done to questions it was not fitted on.
Prints, changes nothing: copy the coefficients into quoting.py and evidence.py and the numbers into docs/log.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

OWN = ("cosine", "share", "heading", "rank")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def collect(source: Path, out: Path) -> None:
    from fit_evidence import FOLDERS, SMALL, small_questions

    from studyrag import evidence
    from studyrag.cli import wiring
    from studyrag.evals.golden import load, select
    from studyrag.records import Piece

    evidence.HOPELESS, evidence.SURE = 0.0, 2.0  # every question is weighed, however sure retrieval is
    done = {json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()} if out.exists() else set()
    small = source.resolve().parent.parent == FOLDERS.resolve()
    asked = small_questions(source.parent) if small else select(load(source), "open")
    questions = [one for one in asked if one.id not in done]
    with (
        wiring.assistant(wiring.settings({"min_coverage": 0.0}), generate=True, quiet=True) as assistant,
        out.open("a", encoding="utf-8") as file,
    ):
        for question in sorted(questions, key=lambda one: one.id[::-1]):  # a part of the run is a fair sample
            for event in assistant.ask(question.question):
                if isinstance(event, Piece):
                    break
            record: dict[str, Any] = {
                "id": question.id,
                "pool": SMALL if small else source.name,
                "answerable": question.answerable,
                "evidence": question.evidence,
                "coverage": {},
                "asked": {},
            }
            for stage, _, facts in assistant.last_trace.events:
                if stage == "statement":
                    record["asked"].setdefault(facts["asked"], []).append(dict(facts))
                elif stage == "quote" and facts:
                    record["quoted"] = facts["numbers"]
                elif stage == "coverage":
                    record["coverage"].update(facts)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            print(question.id, flush=True)


def overlaps(statement: str, evidence: Sequence[str]) -> bool:
    """Whether a statement holds a quote, lies in one, or shares half of the shorter of the two with it."""
    one = " ".join(statement.split())
    for quote in evidence:
        two = " ".join(quote.split())
        longest = SequenceMatcher(None, one, two, autojunk=False).find_longest_match().size
        if longest >= 0.5 * min(len(one), len(two)):
            return True
    return False


def fit(sources: Sequence[Path]) -> None:
    records = [json.loads(line) for source in sources for line in source.read_text(encoding="utf-8").splitlines()]
    answerable = [record for record in records if record["evidence"] and record["asked"]]
    if answerable:
        _report_choice(answerable)
        reachable = [record for record in answerable if any(_hits(record))]
        print(f"{len(answerable)} answerable, {len(reachable)} with evidence among the statements")
        for name, features in {"ALONE": OWN, "SCORED": (*OWN, "pointed")}.items():
            _fit_statements(name, features, reachable)
    for names in (("found_logit",), ("found_logit", "gain"), ("gain",)):
        # in the narrowest folders the generator is not asked for all of them, and none of them counts
        usable = [one for one in records if not one["coverage"]["breadth"] or all(n in one["coverage"] for n in names)]
        if usable:
            _fit_verdict(names, usable)


def _hits(record: dict[str, Any]) -> list[bool]:
    statements = next(iter(record["asked"].values()))
    return [overlaps(one["text"], record["evidence"]) for one in statements]


def _report_choice(records: Sequence[dict[str, Any]]) -> None:
    import numpy as np

    found, whole, counts, right = [], [], [], []
    for record in records:
        texts = {one["number"]: one["text"] for one in next(iter(record["asked"].values()))}
        quoted = [texts[number] for number in record["quoted"]]
        held = [any(overlaps(text, [quote]) for text in quoted) for quote in record["evidence"]]
        found.append(any(held))
        whole.append(all(held))
        counts.append(len(quoted))
        right.append(np.mean([overlaps(text, record["evidence"]) for text in quoted]))
    print(f"quoted, as the code was when they were collected: evidence in {np.mean(found):.3f} of {len(records)} answers,"
          f" all of it in {np.mean(whole):.3f}; {np.mean(counts):.2f} statements, {np.mean(right):.3f} of them evidence")  # fmt: skip


def _fit_statements(name: str, features: Sequence[str], records: Sequence[dict[str, Any]]) -> None:
    """Logistic regression over the statements as they were weighed for the question and for each of its aspects."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    hits = [np.array(_hits(record)) for record in records]
    tables = [
        [np.array([[one[feature] for feature in features] for one in ones]) for ones in record["asked"].values()]
        for record in records
    ]
    x = [np.vstack(ways) for ways in tables]
    y = [np.tile(hit, len(ways)) for hit, ways in zip(hits, tables, strict=True)]
    model = LogisticRegression(C=10, max_iter=2000)
    firsts = np.zeros(3)
    for left_out, hit in enumerate(hits):
        rest = [at for at in range(len(records)) if at != left_out]
        model.fit(np.vstack([x[at] for at in rest]), np.concatenate([y[at] for at in rest]))
        ordered = hit[np.argsort(-model.decision_function(tables[left_out][0]), kind="stable")]
        firsts += [ordered[: place + 1].any() for place in range(3)]
    model.fit(np.vstack(x), np.concatenate(y))
    shown = {"intercept": model.intercept_[0], **dict(zip(features, model.coef_[0], strict=True))}
    print(name, {key: round(float(value), 2) for key, value in shown.items()})
    print("   evidence in the first, two, three (question left out):", (firsts / len(records)).round(3))


def _fit_verdict(names: Sequence[str], records: Sequence[dict[str, Any]]) -> None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from studyrag.evidence import ABSOLUTE, scaled

    names = (*ABSOLUTE, *names)
    table = np.array([[scaled(record["coverage"]).get(name, 0.0) for name in names] for record in records])
    truth = np.array([record["answerable"] for record in records])
    pools = [record["pool"] for record in records]
    weights = np.array([1 / pools.count(pool) for pool in pools])  # each pool weighs the same, then each class
    for label in (True, False):
        weights[truth == label] *= 0.5 * len(records) / weights[truth == label].sum()
    spread = table.std(axis=0)
    table /= spread
    model = LogisticRegression(C=1, max_iter=2000)
    guessed = np.mean(
        [
            cross_val_predict(model, table, truth, cv=StratifiedKFold(10, shuffle=True, random_state=seed),
                              method="predict_proba", params={"sample_weight": weights})[:, 1]
            for seed in range(5)
        ],
        axis=0,
    )  # fmt: skip
    model.fit(table, truth, sample_weight=weights)
    shown = {"intercept": model.intercept_[0], **dict(zip(names, model.coef_[0] / spread, strict=True))}
    print(f"VERDICT on {len(records)} ({truth.sum()} answerable)", {k: round(float(v), 3) for k, v in shown.items()})
    for pool in sorted(set(pools)):
        own = np.array([one == pool for one in pools])
        print(f"   {pool}: AUC (10-fold) {roc_auc_score(truth[own], guessed[own]):.3f}")
        for bar in THRESHOLDS:
            print(f"     at {bar}: refused {np.mean(guessed[own & truth] < bar):.3f} of answerable,"
                  f" {np.mean(guessed[own & ~truth] < bar):.3f} of others")  # fmt: skip


if __name__ == "__main__":
    verb, *paths = sys.argv[1:]
    if verb == "collect":
        collect(Path(paths[0]), Path(paths[1]))
    else:
        fit([Path(path) for path in paths])
