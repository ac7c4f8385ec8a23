"""Labelled items that judge the judge: statements with their context, questions with a passage, and what is true.

JSON lines in one folder: ``statements*.jsonl`` (id, note, context, statement, supported, error) and
``relevance*.jsonl`` (id, note, question, context, relevant, kind). Each was written for a note, then read again by
someone who saw the item alone. ``training*.jsonl``: more statements, to train a probe on, none of a measured note.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from studyrag.errors import Misuse

SUPPORT, RELEVANCE, TRAINING = "support", "relevance", "training"
TASKS = (SUPPORT, RELEVANCE)
_FILES = {SUPPORT: "statements*.jsonl", RELEVANCE: "relevance*.jsonl", TRAINING: "training*.jsonl"}
_KEYS = {
    SUPPORT: ("statement", "supported", "error"),
    RELEVANCE: ("question", "relevant", "kind"),
    TRAINING: ("statement", "supported", "error"),
}
"""For each task: what is judged against the context, the label, and how an item that is not so was made."""


@dataclass(frozen=True, slots=True)
class Item:
    """``text`` (statement or question) against ``context``; ``label``: supported, or relevant; ``kind``: of error."""

    id: str
    note: str
    context: str
    text: str
    label: bool
    kind: str


def load_items(folder: Path, task: str) -> tuple[Item, ...]:
    """All items of a task, by id.

    :raises Misuse: when there are none, or with file and line for a line that is no item.
    """
    found: dict[str, Item] = {}
    for file in sorted(folder.glob(_FILES[task])):
        for number, line in enumerate(_lines(file), start=1):
            if line.strip():
                item = _item(line, task, f"{file}, line {number}")
                if item.id in found:
                    raise Misuse(f'{file}, line {number}: id "{item.id}" is there already', fix="give it another id")
                found[item.id] = item
    if not found:
        raise Misuse(f"no labelled items in {folder} ({_FILES[task]})", fix="name their folder with --items")
    return tuple(found[name] for name in sorted(found))


def load_training(folder: Path) -> tuple[Item, ...]:
    """The statements to train a probe on; none where the folder has none.

    :raises Misuse: as ``load_items``, and when one is of a note that a judge is measured on.
    """
    if not any(folder.glob(_FILES[TRAINING])):
        return ()
    found, (_, measured) = load_items(folder, TRAINING), halves(load_items(folder, SUPPORT))
    kept = {item.note for item in measured}
    for item in found:
        if item.note in kept:
            raise Misuse(
                f'{folder}: "{item.id}" is to train on, and its note {item.note} to measure on',
                fix="write it for another note",
            )
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise Misuse(f"{file}: cannot be read: {err}", fix="name another folder with --items") from err


def _item(line: str, task: str, where: str) -> Item:
    text, label, kind = _KEYS[task]
    try:
        values: Mapping[str, Any] = json.loads(line)
        made = Item(*(values[key] for key in ("id", "note", "context", text, label, kind)))
    except (ValueError, KeyError, TypeError) as err:
        raise Misuse(f"{where}: not an item: {err!r}", fix=f"write id, note, context, {text}, {label}, {kind}") from err
    texts = (made.id, made.note, made.context, made.text, made.kind)
    if not isinstance(made.label, bool) or not all(isinstance(one, str) for one in texts):
        raise Misuse(f"{where}: not an item", fix=f'"{label}" is true or false, all else is text')
    return made


def halves(items: Sequence[Item]) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(for calibrating, for measuring): every other note of each folder, in the order of their paths' SHA-256.

    Whole notes, so that nothing is measured on a context that was calibrated on; labels have no say, so that
    correcting one moves nothing.
    """
    notes = sorted({item.note for item in items}, key=lambda note: (note.rpartition("/")[0], _hash(note)))
    first = set(notes[::2])
    return (
        tuple(item for item in items if item.note in first),
        tuple(item for item in items if item.note not in first),
    )


def digest(items: Iterable[Item]) -> str:
    """SHA-256 of the items, whatever files they came from."""
    return _hash(repr(sorted(astuple(item) for item in items)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
