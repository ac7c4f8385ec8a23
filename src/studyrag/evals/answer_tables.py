"""Answers and the judge as tables: what is shown in the terminal, in Markdown and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studyrag.evals.answer_metrics import (
    ANY_RELEVANT,
    CITATION_PRECISION,
    CITATION_RECALL,
    EVIDENCE_CITED,
    FAITHFULNESS,
    RELEVANCE_METRICS,
    RELEVANT,
    SUPPORT_METRICS,
)
from studyrag.evals.answers import AnswerResults, Measured, Scored
from studyrag.evals.calibrating import Quality
from studyrag.evals.judged import JudgeResults
from studyrag.evals.judgements import Verdict, by_claim
from studyrag.evals.labelled import RELEVANCE, SUPPORT
from studyrag.evals.measuring import Mean
from studyrag.evals.ragas_metrics import METRICS
from studyrag.evals.tables import Table, shown

GROUPED = (FAITHFULNESS, RELEVANT, ANY_RELEVANT, CITATION_PRECISION, CITATION_RECALL, EVIDENCE_CITED)


def answer_tables(results: AnswerResults, *, worst: int) -> list[Table]:
    """In order: what was measured, the scores, what they allow one to conclude, groups, refusals, times, worst."""
    found = [
        Table("What was measured", "", ("what", "value"), tuple((key, str(one)) for key, one in results.about.items())),
        _scores(results),
        Table("What the judge allows one to conclude", "", ("in words",), tuple((one,) for one in results.conclusions)),
    ]
    if results.judge:
        found.append(_qualities("The judge, on labelled items it was not calibrated on", results.judge))
    for grouping, groups in results.groups.items():
        if len(groups) > 1:
            found.append(_grouped(grouping, groups))
    found += [_refusals(results), _seconds(results)]
    found += [table for one in worst_answers(results.scored, worst) for table in _whole(one)]
    if results.stale:
        rows = tuple((one,) for one in results.stale)
        found.append(Table("Stale questions, left out", "", ("question: what is no longer so",), rows))
    return found


def _scores(results: AnswerResults) -> Table:
    rows = tuple(
        (name, shown(one.mean), f"{one.mean.n} of {one.of}", _reasons(one), _judge_of(name, results))
        for name, one in results.metrics.items()
    )
    note = (
        "Means over the answerable questions that were answered, with 95 % bootstrap intervals; abstentions are below."
        + ("" if results.calibrated else " THE JUDGE IS NOT CALIBRATED: scores that rest on it are not to be trusted.")
    )
    return Table("Scores", note, ("metric", "mean", "scored", "unscored, and why", "how good the judge is"), rows)


def _reasons(one: Measured) -> str:
    return "; ".join(f"{count}: {reason}" for reason, count in one.unscored.items())


def _judge_of(name: str, results: AnswerResults) -> str:
    """The judge's own accuracy and AUC at this task, beside each score that rests on it."""
    task = SUPPORT if name in SUPPORT_METRICS else RELEVANCE if name in RELEVANCE_METRICS else ""
    if name in METRICS:
        task = METRICS[name].task
        if not task:
            return "generated JSON; not tested by the labelled items"
    if not task:
        return "no judge"
    if task not in results.judge:
        return "not calibrated"
    one = results.judge[task]
    return f"right {_short(one.accuracy)}, AUC {_short(one.auc)}, n {one.n}"


def _short(one: Mean) -> str:
    return "–" if one.value is None else f"{one.value:.2f}"


def _qualities(title: str, found: Mapping[str, Quality]) -> Table:
    rows = tuple(
        (
            task,
            str(one.n),
            shown(one.auc),
            shown(one.accuracy),
            shown(one.kappa),
            shown(one.sensitivity),
            shown(one.specificity),
        )
        for task, one in found.items()
    )
    header = ("task", "n", "AUC", "accuracy", "Cohen's κ", "yes found", "no found")
    return Table(title, "With 95 % bootstrap intervals.", header, rows)


def _grouped(grouping: str, groups: Mapping[str, Mapping[str, Mean]]) -> Table:
    rows = tuple(
        (group, *(f"{shown(means[name])} n {means[name].n}" for name in GROUPED)) for group, means in groups.items()
    )
    return Table(f"By {grouping}", "", (grouping, *GROUPED), rows)


def _refusals(results: AnswerResults) -> Table:
    one = results.refusals
    rows = [
        ("precision: refused questions that were unanswerable", one.precision),
        ("recall: unanswerable questions refused", one.recall),
        *((f"recall: {kind}", value) for kind, value in one.recall_by_subkind.items()),
        ("answerable questions refused", one.refused_answerable),
    ]
    body = tuple((name, shown(value), str(value.n)) for name, value in rows)
    return Table("Abstentions", f"By the whole pipeline: {one.abstained}.", ("what", "value", "n"), body)


def _seconds(results: AnswerResults) -> Table:
    rows = tuple((stage, f"{value:.2f}") for stage, value in results.seconds.items())
    note = "The pipeline's stages as they were when it answered; scoring as it was now, cached calls included."
    return Table("Seconds a question", note, ("stage", "seconds"), rows)


def worst_answers(scored: Sequence[Scored], count: int) -> list[Scored]:
    """The answers to answerable questions with the lowest mean of what the judge scored, then by id."""

    def badness(one: Scored) -> tuple[float, str]:
        values = [one.scores[name].value for name in (FAITHFULNESS, CITATION_PRECISION, RELEVANT) if name in one.scores]
        known = [value for value in values if value is not None]
        return (sum(known) / len(known) if known else 1.0, one.golden.id)

    able = [one for one in scored if one.judgement is not None and one.golden.answerable]
    return sorted(able, key=badness)[:count]


def _whole(one: Scored) -> list[Table]:
    """Everything of one answer: the question, what was said, what was judged of it."""
    assert one.judgement is not None
    cited = by_claim(one.judgement)
    facts = [
        ("question", one.golden.question),
        ("reference", one.golden.reference),
        ("answer", one.sample.text),
        *((name, "–" if score.value is None else f"{score.value:.2f}") for name, score in one.scores.items()),
    ]
    claims = [
        (verdict.text, _verdict(verdict), "; ".join(map(_verdict, cited.get(at, ()))) or "nothing cited")
        for at, verdict in enumerate(one.judgement.claims)
    ]
    passages = [(_verdict(verdict), verdict.against) for verdict in one.judgement.passages]
    return [
        Table(f"One of the worst: {one.golden.id}", "", ("what", "value"), tuple(facts)),
        Table(f"{one.golden.id}: sentences", "", ("sentence", "supported", "by what it cites"), tuple(claims)),
        Table(f"{one.golden.id}: passages", "", ("relevant", "passage"), tuple(passages)),
    ]


def _verdict(verdict: Verdict) -> str:
    if verdict.probability is None:
        return f"unscored: {verdict.reason}"
    return f"{'yes' if verdict.yes else 'no'} ({verdict.probability:.2f})"


def judge_tables(results: JudgeResults) -> list[Table]:
    """In order: what was measured, quality, the same uncalibrated, by kind, confusion."""
    tasks = {name: task.quality for name, task in results.calibration.tasks.items()}
    found = [
        Table("What was measured", "", ("what", "value"), tuple((key, str(one)) for key, one in results.about.items())),
        _qualities("On the half that it was not calibrated on", tasks),
        _qualities("The same, the judge taken at its word (no calibration)", results.raw),
    ]
    for name, one in tasks.items():
        rows = tuple((kind, shown(value), str(value.n)) for kind, value in one.by_kind.items())
        found.append(Table(f"{name}: right verdicts by kind of item", "", ("kind", "right", "n"), rows))
    counts = tuple((name, *(str(count) for count in one.confusion.values())) for name, one in tasks.items())
    found.append(Table("Verdicts: label, as judged", "", ("task", *next(iter(tasks.values())).confusion), counts))
    fits = tuple(
        (
            name,
            ", ".join(
                f"{key} {value:.3f}" for key, value in {"intercept": one.fitted.intercept, **one.fitted.weights}.items()
            ),
        )
        for name, one in results.calibration.tasks.items()
    )
    found.append(Table("Calibration", "P(yes) is the logistic of this sum.", ("task", "weights"), fits))
    return found
