"""Plots of answers and of the judge, as SVG by caption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from studyrag.evals.answer_metrics import CITATION_PRECISION, FAITHFULNESS, RELEVANT
from studyrag.evals.answers import AnswerResults
from studyrag.evals.calibrating import Quality
from studyrag.evals.judged import JudgeResults
from studyrag.evals.report import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

BY_KIND = (FAITHFULNESS, RELEVANT, CITATION_PRECISION)


def answer_plots(results: AnswerResults) -> dict[str, str]:
    drawers: dict[str, Callable[[Axes], None]] = {
        "Scores by kind of question, with 95 % intervals.": partial(_by_kind, results=results),
        "Faithfulness against context relevance, an answer a dot (dots are moved a little apart).": partial(
            _against, results=results
        ),
        "Seconds a question, by stage.": partial(_seconds, results=results),
    }
    if results.judge:
        drawers["The judge's verdicts on labelled items it was not calibrated on."] = partial(
            _confusion, found=results.judge
        )
    return {caption: svg(draw, caption) for caption, draw in drawers.items()}


def judge_plots(results: JudgeResults) -> dict[str, str]:
    tasks = {name: task.quality for name, task in results.calibration.tasks.items()}
    drawers: dict[str, Callable[[Axes], None]] = {
        "The judge's verdicts on items it was not calibrated on.": partial(_confusion, found=tasks),
        "Calibrated probability of yes, by label.": partial(_probabilities, results=results),
    }
    return {caption: svg(draw, caption) for caption, draw in drawers.items()}


def _by_kind(axes: Axes, results: AnswerResults) -> None:
    groups = results.groups["kind"]
    for at, name in enumerate(BY_KIND):
        means = [groups[kind][name] for kind in groups]
        values = [one.value or 0.0 for one in means]
        below = [(one.value or 0.0) - (one.low or 0.0) for one in means]
        above = [(one.high or 0.0) - (one.value or 0.0) for one in means]
        places = [place + (at - 1) * 0.27 for place in range(len(groups))]
        axes.bar(places, values, 0.27, yerr=[below, above], capsize=2, label=name)
    axes.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    axes.set_ylim(0, 1.05)
    axes.legend(fontsize="small", loc="lower right")


def _against(axes: Axes, results: AnswerResults) -> None:
    seen: dict[tuple[float, float], int] = {}
    for one in results.scored:
        x, y = (one.scores[name].value if name in one.scores else None for name in (RELEVANT, FAITHFULNESS))
        if x is not None and y is not None:
            again = seen[x, y] = seen.get((x, y), -1) + 1
            axes.plot(x + 0.012 * (again % 5), y - 0.02 * (again // 5), "o", color="C0", alpha=0.6, markersize=5)
    axes.set_xlabel(RELEVANT)
    axes.set_ylabel(FAITHFULNESS)
    axes.set_xlim(-0.05, 1.1)
    axes.set_ylim(-0.05, 1.08)


def _seconds(axes: Axes, results: AnswerResults) -> None:
    stages = list(results.seconds)
    axes.barh(range(len(stages)), list(results.seconds.values()))
    axes.set_yticks(range(len(stages)), stages, fontsize="x-small")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")


def _confusion(axes: Axes, found: Mapping[str, Quality]) -> None:
    columns = [f"{task}: {name}" for task in found for name in ("yes", "no")]
    for at, one in enumerate(found.values()):
        counts = list(one.confusion.values())
        for row in range(2):
            total = max(1, sum(counts[2 * row : 2 * row + 2]))
            for verdict in range(2):
                count = counts[2 * row + verdict]
                shade = 1 - 0.7 * count / total
                axes.add_patch(_square(at * 2 + row, verdict, shade))
                axes.text(at * 2 + row + 0.5, verdict + 0.5, str(count), ha="center", va="center")
    axes.set_xlim(0, len(columns))
    axes.set_ylim(2, 0)
    axes.set_xticks([place + 0.5 for place in range(len(columns))], columns)
    axes.set_yticks([0.5, 1.5], ["judged yes", "judged no"])
    axes.set_xlabel("label")


def _square(x: int, y: int, shade: float) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=(shade, shade, 1.0), edgecolor="white")


def _probabilities(axes: Axes, results: JudgeResults) -> None:
    for at, (task, judged) in enumerate(results.judged.items()):
        for label, style in ((True, "-"), (False, "--")):
            values = [one.probability for one in judged if one.label is label]
            axes.hist(
                values, bins=[n / 20 for n in range(21)], histtype="step", linestyle=style, color=f"C{at}",
                label=f"{task}, labelled {'yes' if label else 'no'} ({len(values)})",
            )  # fmt: skip
    axes.set_xlabel("P(yes)")
    axes.legend(fontsize="small")
