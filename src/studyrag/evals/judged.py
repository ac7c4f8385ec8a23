"""The judge is judged: its opinions of all labelled items, fitted on one half of the notes, measured on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studyrag.errors import Misuse
from studyrag.evals.cache import Cache
from studyrag.evals.calibrating import Calibration, Opinion, Quality, Task, fit, quality, uncalibrated
from studyrag.evals.judge import Judge
from studyrag.evals.judgements import opinion, state
from studyrag.evals.labelled import TASKS, Item, digest, halves, load_items, load_training
from studyrag.evals.probing import Probe, labels_version, require_trainable, train
from studyrag.protocols import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Judged:
    """One labelled item of the half that was not calibrated on, with P(yes)."""

    id: str
    kind: str
    label: bool
    probability: float


@dataclass(frozen=True, slots=True)
class JudgeResults:
    """How good a judge is. ``raw``: the same halves' quality when the judge is taken at its word."""

    about: Mapping[str, str | int]
    calibration: Calibration
    raw: Mapping[str, Quality]
    judged: Mapping[str, tuple[Judged, ...]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def trained(
    judge: Judge, folder: Path, cache: Cache, *, known: Probe | None, progress: Progress = no_progress
) -> Probe | None:
    """A probe of what the judge makes of the folder's training statements: ``known`` where it is of these very ones.

    ``known`` too where there are no such statements; None where the judge does not show its state.

    :raises Misuse: when the folder's items cannot be read, or are too few. :raises GenerationFailed: when the judge
        fails.
    """
    items = sorted(load_training(folder), key=lambda item: (item.note, item.context, item.id))
    for task in TASKS:
        load_items(folder, task)  # what is wrong with them is better said before an hour than after it
    if not judge.shows_states:
        return None
    version = labels_version(digest(items))
    if not items or (known is not None and known.trained_on == version):
        return known
    require_trainable([item.label for item in items], [item.note for item in items])
    states = []
    for at, item in enumerate(items):
        progress("reading states", at, len(items))
        states.append(state(judge, cache, item.context, item.text))
    progress("reading states", len(items), len(items))
    return train(
        states,
        [item.label for item in items],
        [item.note for item in items],
        judge_sha256=judge.sha256,
        asked=judge.asked,
        trained_on=version,
        progress=progress,
    )


def judge_the_judge(judge: Judge, folder: Path, cache: Cache, *, progress: Progress = no_progress) -> JudgeResults:
    """Asks for every opinion that the cache does not hold.

    :raises Misuse: when the items cannot be read. :raises GenerationFailed: when the judge fails: no item is left out.
    """
    items = {task: load_items(folder, task) for task in TASKS}
    opinions = {task: _opinions(judge, task, items[task], cache, progress) for task in TASKS}
    tasks, raw, judged = {}, {}, {}
    for task in TASKS:
        tasks[task], raw[task], judged[task] = _measured(items[task], opinions[task])
    everything = [item for task in TASKS for item in items[task]]
    return JudgeResults(
        about={
            "judge": judge.name,
            "judge_sha256": judge.sha256,
            "prompts": judge.prompts,
            "notes": len({item.note for item in everything}),
            **{f"{task} items": len(items[task]) for task in TASKS},
            **{f"{task} items calibrated on": len(halves(items[task])[0]) for task in TASKS},
            "labels_sha256": digest(everything),
            **_probe_facts(judge.probe),
        },
        calibration=Calibration(judge.name, judge.sha256, judge.prompts, digest(everything), tasks),
        raw=raw,
        judged=judged,
    )


def _probe_facts(probe: Probe | None) -> dict[str, str | int]:
    if probe is None:
        return {"probe": "none"}
    return {
        "probe": probe.id,
        "statements the probe was trained on": probe.statements,
        "AUC of the probe on notes left out": f"{probe.auc:.3f}",
    }


def _opinions(judge: Judge, task: str, items: Sequence[Item], cache: Cache, progress: Progress) -> dict[str, Opinion]:
    """Item id to opinion; items of one context after each other, so that it is read once."""
    found: dict[str, Opinion] = {}
    for at, item in enumerate(sorted(items, key=lambda item: (item.note, item.context, item.id))):
        progress(f"judging {task}", at, len(items))
        found[item.id] = opinion(judge, cache, task, item.context, item.text)
    progress(f"judging {task}", len(items), len(items))
    return found


def _measured(items: Sequence[Item], opinions: Mapping[str, Opinion]) -> tuple[Task, Quality, tuple[Judged, ...]]:
    """(calibrated, at its word, the items that it was measured on)."""
    first, other = halves(items)
    if not other:
        raise Misuse("the labelled items are of one note alone", fix="label items of several notes")
    fitted = fit([opinions[item.id] for item in first], [item.label for item in first])
    labels, kinds = [item.label for item in other], [item.kind or "yes" for item in other]
    fine = [fitted.probability(opinions[item.id]) for item in other]
    word = [uncalibrated(opinions[item.id]) for item in other]
    return (
        Task(fitted, quality(fine, labels, kinds)),
        quality(word, labels, kinds),
        tuple(Judged(item.id, item.kind, item.label, p) for item, p in zip(other, fine, strict=True)),
    )
