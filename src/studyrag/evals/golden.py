"""Golden questions: what a person would ask, the notes that answer, and the sentences in them that do, verbatim.

One JSON object a line: id, kind, style, question, notes, evidence, reference, and for some a subkind. Kind
``unanswerable`` has neither notes nor evidence. ``"draft": true`` marks what no person has checked yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from studyrag.errors import Misuse

UNANSWERABLE = "unanswerable"
PLACES = ("evals/golden/questions.jsonl", "golden.jsonl")
"""Where questions are looked for beside studyrag.toml: the first that is there."""
_TEXTS = ("id", "kind", "style", "question", "reference")
_LISTS = ("notes", "evidence")
_OPTIONAL = ("subkind", "draft")


@dataclass(frozen=True, slots=True)
class Golden:
    """One question. ``notes`` are note ids, ``evidence`` verbatim quotes from them; both empty: unanswerable.

    ``subkind`` is empty where there is none.
    """

    id: str
    kind: str
    style: str
    subkind: str
    question: str
    notes: tuple[str, ...]
    evidence: tuple[str, ...]
    reference: str

    @property
    def answerable(self) -> bool:
        return self.kind != UNANSWERABLE


@dataclass(frozen=True, slots=True)
class Stale:
    """A question that the notes have moved away from: a note that is gone, or a quote that none of them holds."""

    id: str
    what: str


def find_golden(home: Path) -> Path:
    """The golden questions of the folder that holds studyrag.toml.

    :raises Misuse: when there are none.
    """
    for place in PLACES:
        if (home / place).exists():
            return home / place
    raise Misuse(
        f"no golden questions in {home} ({', '.join(PLACES)})",
        fix="studyrag eval draft golden.jsonl, check the drafts, or name a file with --golden",
    )


def load(path: Path, *, drafts: bool = False) -> tuple[Golden, ...]:
    """The questions of a JSONL file, or of all ``*.jsonl`` of a folder by name; blank lines are skipped.

    :raises Misuse: with file and line for anything that is not a question, for an id that comes twice, and for drafts
        unless ``drafts``.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found: dict[str, str] = {}
    questions = []
    for file in files:
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            values = _object(line, where)
            if values.get("draft", False) and not drafts:
                raise Misuse(
                    f'{where}: "{values["id"]}" is still a draft',
                    fix='check it and remove `"draft": true`, or pass --drafts',
                )
            if values["id"] in found:
                raise Misuse(
                    f'{where}: id "{values["id"]}" is there already ({found[values["id"]]})', fix="give it another id"
                )
            found[values["id"]] = where
            questions.append(_golden(values, where))
    if not questions:
        raise Misuse(f"{path}: no questions", fix="studyrag eval draft golden.jsonl")
    return tuple(questions)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as err:
        raise Misuse(f"{file}: cannot be read: {err.strerror}", fix="name a file that is there") from err
    except UnicodeDecodeError as err:
        raise Misuse(f"{file}: not UTF-8: {err.reason} at byte {err.start}", fix="save it as UTF-8") from err


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as err:
        raise Misuse(f"{where}: not JSON: {err}", fix="write one JSON object a line") from err
    if not isinstance(values, dict):
        raise Misuse(f"{where}: not a JSON object", fix="write one JSON object a line")
    for key in (*_TEXTS, *_LISTS):
        if key not in values:
            raise Misuse(f'{where}: key "{key}" is missing', fix=f"every question has {', '.join((*_TEXTS, *_LISTS))}")
    for key, value in values.items():
        _check(key, value, where)
    return values


def _check(key: str, value: object, where: str) -> None:
    if key not in (*_TEXTS, *_LISTS, *_OPTIONAL):
        raise Misuse(f'{where}: unknown key "{key}"', fix=f"known: {', '.join((*_TEXTS, *_LISTS, *_OPTIONAL))}")
    if key in _LISTS:
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise Misuse(f'{where}: "{key}" must be a list of texts', fix=f'write "{key}": ["…"]')
    elif key == "draft":
        if not isinstance(value, bool):
            raise Misuse(f'{where}: "draft" must be true or false', fix='remove "draft", or write true')
    elif not isinstance(value, str) or (key not in ("reference", "subkind") and not value.strip()):
        raise Misuse(f'{where}: "{key}" must be a text', fix=f'write "{key}": "…"')


def _golden(values: Mapping[str, Any], where: str) -> Golden:
    made = Golden(
        id=values["id"],
        kind=values["kind"],
        style=values["style"],
        subkind=values.get("subkind", ""),
        question=values["question"],
        notes=tuple(dict.fromkeys(values["notes"])),
        evidence=tuple(dict.fromkeys(values["evidence"])),
        reference=values["reference"],
    )
    if made.answerable != bool(made.notes) or made.answerable != bool(made.evidence):
        raise Misuse(
            f'{where}: "{made.id}" is of kind {made.kind} with {len(made.notes)} notes and {len(made.evidence)} quotes',
            fix=f"an answerable question has notes and evidence, one of kind {UNANSWERABLE} neither",
        )
    return made


def stale(questions: Iterable[Golden], texts: Mapping[str, str]) -> tuple[Stale, ...]:
    """What in ``questions`` is no longer true of the notes, ``texts`` by note id. Quotes are compared verbatim."""
    found = []
    for golden in questions:
        found += [Stale(golden.id, f"no note {note}") for note in golden.notes if note not in texts]
        for quote in golden.evidence:
            if not any(quote in texts.get(note, "") for note in golden.notes):
                found.append(Stale(golden.id, f"no such text: {' '.join(quote.split())[:80]}"))
    return tuple(found)


def held_back(notes: Iterable[str]) -> frozenset[str]:
    """A fifth of the notes whose questions are never used for tuning.

    Decided by the SHA-256 of each path alone, so that a new note moves none of the others; a fifth in expectation.
    """
    return frozenset(note for note in notes if _in_the_fifth(note))


def is_held_back(golden: Golden) -> bool:
    """Whether any of its notes is held back; a question without notes goes by its own text."""
    return bool(held_back(golden.notes)) if golden.notes else _in_the_fifth(golden.question)


def select(questions: Sequence[Golden], which: str) -> tuple[Golden, ...]:
    """``which``: "all", "held-back" or "open", what may be used for tuning."""
    if which == "all":
        return tuple(questions)
    return tuple(golden for golden in questions if is_held_back(golden) == (which == "held-back"))


def digest(questions: Iterable[Golden]) -> str:
    """SHA-256 of the questions, whatever files they came from."""
    return hashlib.sha256(repr(sorted(astuple(golden) for golden in questions)).encode()).hexdigest()


def _in_the_fifth(text: str) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 5 == 0
