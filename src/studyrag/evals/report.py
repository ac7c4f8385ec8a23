"""A report: report.md, and report.html, which holds its plots and styles and opens offline.

One page for all that was measured into the same folder: each evaluation leaves its section there, and the page is made
of all of them.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studyrag.errors import StudyRagError
from studyrag.evals.results import Results
from studyrag.evals.tables import Table, as_html, markdown, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTTED = ("note Success@1", "note nDCG@10", "quote nDCG@10", "quote R@5")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }}
table {{ border-collapse: collapse; margin: .5rem 0 1.5rem; display: block; overflow-x: auto }}
th, td {{ border: 1px solid #ccc; padding: .25rem .5rem; text-align: left; vertical-align: top }}
th {{ background: #f2f2f2 }}
figure {{ margin: 1rem 0 }}
svg {{ max-width: 100%; height: auto }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
SECTIONS = ("retrieval", "answers", "judge")
"""In this order on the page."""


@dataclass(frozen=True, slots=True)
class Section:
    """One evaluation's part of the page. ``figures``: caption to SVG."""

    name: str
    title: str
    figures: Mapping[str, str]
    tables: Sequence[Table]


def write_report(results: Results, folder: Path, *, worst: int, title: str = "Retrieval evaluation") -> list[Path]:
    """Writes both files into ``folder``, made when missing, and returns them.

    :raises StudyRagError: when they cannot be written.
    """
    return write_section(Section("retrieval", title, plots(results), tables(results, worst=worst)), folder)


def write_section(section: Section, folder: Path) -> list[Path]:
    """Writes both files, of this section and of those that other evaluations left in ``folder``, and returns them.

    :raises StudyRagError: when they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _file(folder, section.name).write_text(json.dumps(asdict(section)), encoding="utf-8")
        sections = [one for one in (_read(folder, name) for name in SECTIONS) if one is not None]
        title = sections[0].title if len(sections) == 1 else "Evaluation"
        texts = {
            "report.md": "\n".join(f"# {one.title}\n\n{markdown(one.tables)}" for one in sections),
            "report.html": _PAGE.format(title=html.escape(title), body="\n".join(map(_html, sections))),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as err:
        raise StudyRagError(f"{folder}: cannot be written: {err.strerror}", fix="name another folder") from err
    return [folder / name for name in texts]


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.section.json"


def _read(folder: Path, name: str) -> Section | None:
    """None when it was not measured into this folder, or by another version."""
    try:
        values = json.loads(_file(folder, name).read_text(encoding="utf-8"))
        rows = [
            {**one, "rows": tuple(map(tuple, one["rows"])), "header": tuple(one["header"])} for one in values["tables"]
        ]
        return Section(values["name"], values["title"], values["figures"], [Table(**one) for one in rows])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _html(section: Section) -> str:
    figures = "\n".join(
        f"<figure>{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, drawn in section.figures.items()
    )
    return f"<h1>{html.escape(section.title)}</h1>\n{figures}\n{as_html(section.tables)}"


def plots(results: Results) -> dict[str, str]:
    """Caption to SVG: metrics by arm, recall against k, probabilities of coverage, milliseconds a query."""
    drawers: dict[str, Callable[..., None]] = {
        "Metrics by arm, with 95 % intervals.": _draw_metrics,
        "Recall against k: of notes (lines) and of quotes (dashed).": _draw_curves,
        "Probability that the notes answer, as retrieval alone estimates it.": _draw_weighed,
        "Median milliseconds a query, by stage; the tick is the 95th percentile of the whole.": _draw_latency,
    }
    if results.abstention is None:
        drawers = {caption: draw for caption, draw in drawers.items() if draw is not _draw_weighed}
    return {caption: svg(partial(draw, results=results), caption) for caption, draw in drawers.items()}


def svg(draw: Callable[[Axes], None], salt: str, *, height: float = 3.6) -> str:
    """An <svg> element: no XML head, no metadata, the same bytes twice. ``$`` in a label is no formula."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none", "text.parse_math": False}):
        figure = Figure(figsize=(8, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    return text[text.index("<svg") :].strip()


def _draw_metrics(axes: Axes, results: Results) -> None:
    names = [name for name in PLOTTED if name in results.arms[0].overall]
    width = 0.8 / len(results.arms)
    for at, arm in enumerate(results.arms):
        ones = [arm.overall[name] for name in names]
        values = [one.value or 0.0 for one in ones]
        below = [(one.value or 0.0) - (one.low or 0.0) for one in ones]
        above = [(one.high or 0.0) - (one.value or 0.0) for one in ones]
        places = [n + (at - (len(results.arms) - 1) / 2) * width for n in range(len(names))]
        axes.bar(places, values, width, yerr=[below, above], capsize=2, label=arm.name)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.05)
    axes.legend(fontsize="small", loc="lower right")


def _draw_curves(axes: Axes, results: Results) -> None:
    for at, arm in enumerate(results.arms):
        for kind, style in (("note", "-"), ("quote", "--")):
            if kind in arm.curves:
                curve = arm.curves[kind]
                axes.plot(list(curve), list(curve.values()), style, color=f"C{at}", label=f"{arm.name}, {kind}s")
    axes.set_xlabel("k")
    axes.set_ylabel("recall")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize="small", loc="lower right")


def _draw_weighed(axes: Axes, results: Results) -> None:
    if results.abstention is None:
        return
    for answerable, name in ((True, "answerable"), (False, "unanswerable")):
        values = [one.probability for one in results.abstention.weighed if one.answerable is answerable]
        axes.hist(values, bins=[n / 20 for n in range(21)], density=True, alpha=0.55, label=f"{name} ({len(values)})")
    axes.axvline(results.abstention.threshold, color="black", linestyle=":", label="threshold")
    axes.set_xlabel("probability")
    axes.set_ylabel("density")
    axes.legend(fontsize="small")


def _draw_latency(axes: Axes, results: Results) -> None:
    names = [arm.name for arm in results.arms]
    stages = [s for s in results.arms[0].latency_ms if not s.startswith("total")]
    left = [0.0] * len(names)
    for stage in stages:
        values = [arm.latency_ms[stage].median if stage in arm.latency_ms else 0.0 for arm in results.arms]
        axes.barh(range(len(names)), values, left=left, label=stage)
        left = [a + b for a, b in zip(left, values, strict=True)]
    totals = [arm.latency_ms["total"].p95 if "total" in arm.latency_ms else 0.0 for arm in results.arms]
    axes.plot(totals, range(len(names)), "k|", markersize=14)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(fontsize="small")
