"""Results as tables, and tables as Markdown or HTML. Every cell is escaped: questions and note names are anything."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studyrag.evals.measuring import Mean
from studyrag.evals.results import ArmResult, Means, Results

GROUP_METRICS = (
    "note Success@1", "note Success@5", "note RR@10", "note nDCG@10", "quote R@5", "quote R@10", "quote read",
)  # fmt: skip
_QUOTES = "Documents are chunks; recall is of quotes; read: share of quotes in the passages that a generator is given."
_MARKS = re.compile(r"[|`*$]|(?<!\w)_|_(?!\w)")
"""What markdown reads as more than itself; an underscore inside a word is none."""


@dataclass(frozen=True, slots=True)
class Table:
    """``note`` is a sentence under the title; all rows are as long as the header."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(results: Results, *, worst: int) -> list[Table]:
    """Everything for people, in order: what was measured, the arms, groups of the first arm, refusals, times, worst."""
    first = results.arms[0]
    about = [(key, str(value)) for key, value in results.about.items()]
    if first.groups and "quote nDCG@10" in first.overall:
        about.append(("questions with a chunk that holds a quote whole", str(results.unsplit)))
    found = [Table("What was measured", "", ("what", "value"), tuple(about))]
    for kind, documents in (("note", "Documents are notes."), ("quote", _QUOTES)):
        if f"{kind} nDCG@10" in first.overall:
            found += _arms(results, kind, documents)
    for grouping, groups in first.groups.items():
        if len(groups) > 1:
            found.append(_grouped(f"{first.name} by {grouping}", grouping, groups))
    found += _abstention(results)
    found.append(_latency(results))
    if worst:
        found.append(_worst(first, worst))
    if results.stale:
        rows = tuple((one,) for one in results.stale)
        found.append(Table("Stale questions, left out", "", ("question: what is no longer so",), rows))
    return found


def _arms(results: Results, kind: str, documents: str) -> list[Table]:
    first = results.arms[0]
    names = [name for name in first.overall if name.startswith(f"{kind} ")]
    short = tuple(name.removeprefix(f"{kind} ") for name in names)
    rows = tuple((arm.name, *(shown(arm.overall[name]) for name in names)) for arm in results.arms)
    n = first.overall[names[0]].n
    note = f"{documents} Means with 95 % bootstrap intervals over {n} questions."
    found = [Table(f"By {kind}", note, ("arm", *short), rows)]
    tested = [arm for arm in results.arms if arm.versus_first]
    if tested:
        compared = tuple((arm.name, *(_difference(arm, name) for name in names)) for arm in tested)
        note = "Mean paired difference (p of a two-sided randomisation test, not corrected for how many there are)."
        found.append(Table(f"By {kind}, against {first.name}", note, ("arm", *short), compared))
    return found


def _difference(arm: ArmResult, name: str) -> str:
    one = arm.versus_first[name]
    return f"{one.value:+.3f} (p {one.p:.4f})"


def _grouped(title: str, grouping: str, groups: Mapping[str, Means]) -> Table:
    names = [name for name in GROUP_METRICS if name in next(iter(groups.values()))]
    rows = tuple(
        (group, str(means[names[0]].n), *(shown(means[name]) for name in names)) for group, means in groups.items()
    )
    return Table(title, "", (grouping, "n", *names), rows)


def _abstention(results: Results) -> list[Table]:
    one = results.abstention
    if one is None:
        return []
    rows = [
        ("AUROC of the coverage probability", one.auroc),
        ("precision of refusing", one.precision),
        ("recall: unanswerable questions refused", one.recall),
        *((f"recall: {kind}", value) for kind, value in one.recall_by_subkind.items()),
        ("answerable questions refused", one.refused_answerable),
    ]
    note = f"From retrieval alone, before any generator: refused below {one.threshold:g}."
    body = tuple((name, shown(value), str(value.n)) for name, value in rows)
    return [Table("Refusing", note, ("what", "value", "n"), body)]


def _latency(results: Results) -> Table:
    stages = list(dict.fromkeys(stage for arm in results.arms for stage in arm.latency_ms))
    rows = []
    for stage in stages:
        cells = [arm.latency_ms.get(stage) for arm in results.arms]
        rows.append((stage, *("–" if cell is None else f"{cell.median:.2f} / {cell.p95:.2f}" for cell in cells)))
    header = ("stage", *(arm.name for arm in results.arms))
    return Table("Milliseconds a query", "Median / 95th percentile; the machine may be busy.", header, tuple(rows))


def _worst(arm: ArmResult, k: int) -> Table:
    rows = tuple(
        (
            one.id,
            one.question,
            ", ".join(one.wanted),
            ", ".join(one.returned) or "nothing",
            *(f"{one.values[name]:.2f}" if name in one.values else "–" for name in ("note nDCG@10", "quote R@10")),
        )
        for one in arm.worst[:k]
    )
    header = ("id", "question", "wanted", "returned", "note nDCG@10", "quote R@10")
    return Table(f"The worst questions of {arm.name}", "", header, rows)


def shown(one: Mean) -> str:
    """'0.812 [0.780, 0.843]', or a dash for the mean of nothing."""
    if one.value is None or one.low is None or one.high is None:
        return "–"
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def markdown(made: Sequence[Table]) -> str:
    return "\n".join(_markdown(table) for table in made)


def _markdown(table: Table) -> str:
    lines = [f"## {_cell(table.title)}", ""]
    if table.note:
        lines += [_cell(table.note), ""]
    rows = [table.header, ("---",) * len(table.header), *table.rows]
    lines += ["| " + " | ".join(cell if cell == "---" else _cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """One line that markdown shows as it is."""
    flat = html.escape(" ".join(text.split()), quote=False).replace("\\", "\\\\")
    return _MARKS.sub(r"\\\g<0>", flat)


def as_html(made: Sequence[Table]) -> str:
    return "\n".join(_html(table) for table in made)


def _html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    note = f"<p>{html.escape(table.note)}</p>\n" if table.note else ""
    return (
        f"<h2>{html.escape(table.title)}</h2>\n{note}<table>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )
