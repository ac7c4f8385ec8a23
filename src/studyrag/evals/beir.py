"""A BEIR data set (corpus.jsonl, queries.jsonl, qrels/test.tsv) as notes in a temporary index, with graded relevance.

Source of the format: Thakur et al. 2021, BEIR. Each document becomes a note of one paragraph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from studyrag.assistant import Assistant
from studyrag.errors import Misuse
from studyrag.evals.arms import Arm
from studyrag.evals.cache import KeptReader
from studyrag.evals.golden import Golden, digest
from studyrag.evals.measuring import MEASURES, per_question
from studyrag.evals.results import Results
from studyrag.evals.retrieval import CURVE, Place, arm_result, ask_all, note_ranking
from studyrag.protocols import Embedder, Progress, no_progress

if TYPE_CHECKING:
    from studyrag.settings import Settings

_FILES = "a BEIR folder has corpus.jsonl, queries.jsonl and qrels/test.tsv"

_MARKS = tuple("#>|-+*`~=_")


@dataclass(frozen=True, slots=True)
class Beir:
    """``documents``: id to (title, text); ``queries``: judged ones' texts; ``qrels``: query, document, grade."""

    documents: Mapping[str, tuple[str, str]]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


def load_beir(folder: Path) -> Beir:
    """:raises Misuse: for a file that is missing or a line that is not what it should be."""
    qrels: dict[str, dict[str, int]] = {}
    for where, line in _lines(folder / "qrels" / "test.tsv"):
        parts = line.split("\t")
        if parts[0] == "query-id":
            continue
        if len(parts) != 3 or not parts[2].strip().lstrip("-").isdigit():
            raise Misuse(f"{where}: not query-id, corpus-id and score", fix="three columns with tabs between them")
        qrels.setdefault(parts[0], {})[parts[1]] = int(parts[2])
    judged = {query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    rows = {name: {row["_id"]: row for row in _objects(folder / f"{name}.jsonl")} for name in ("corpus", "queries")}
    missing = sorted(judged - rows["queries"].keys())
    if missing or not judged:
        what = f"query {missing[0]} is judged and not there" if missing else "nothing is judged relevant"
        raise Misuse(f"{folder}: {what}", fix=_FILES)
    return Beir(
        documents={key: (row.get("title", ""), row["text"]) for key, row in rows["corpus"].items()},
        queries={key: rows["queries"][key]["text"] for key in sorted(judged)},
        qrels={key: {doc: grade for doc, grade in qrels[key].items() if grade >= 0} for key in sorted(judged)},
    )


def _lines(file: Path) -> list[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise Misuse(f"{file}: cannot be read: {err}", fix=_FILES) from err
    return [(f"{file}, line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _objects(file: Path) -> list[dict[str, str]]:
    found = []
    for where, line in _lines(file):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as err:
            raise Misuse(f"{where}: not JSON: {err}", fix=_FILES) from err
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("_id", "text")):
            raise Misuse(f'{where}: no texts "_id" and "text"', fix=_FILES)
        found.append({key: value for key, value in row.items() if isinstance(value, str)})
    return found


def evaluate_beir(
    data: Beir,
    embedder: Embedder,
    arms: Sequence[Arm],
    settings: Settings,
    *,
    reader: KeptReader | None = None,
    worst: int = 10,
    progress: Progress = no_progress,
) -> Results:
    """All arms over the judged queries, by document. Empty documents are not indexed, and count as not found.

    :raises Misuse: for an arm that wants another index.
    """
    for arm in arms:
        if arm.index:
            raise Misuse(f"arm {arm.name!r} needs an index of its own", fix="leave it out with --beir, or set it")
    with TemporaryDirectory(prefix="studyrag-beir-") as name:
        notes, folder = Path(name, "notes"), Path(name, "index")
        notes.mkdir()
        ids = {f"{number:08}.md": key for number, key in enumerate(data.documents)}
        for note, key in ids.items():
            (notes / note).write_text(_as_note(*data.documents[key]), encoding="utf-8")
        chosen = settings.model_copy(update={"notes": notes, "index": folder, "exclude": ()})
        assistant = Assistant(chosen, embedder, progress=progress)
        try:
            index = assistant.refresh()
            names = {key: note for note, key in ids.items()}
            questions = [_as_golden(key, text, data.qrels[key], names) for key, text in data.queries.items()]
            asked = ask_all({(): Place(index, embedder)}, questions, arms, chosen, reader=reader, progress=progress)
            facts = {"questions": len(questions), "notes": index.n_notes, "chunks": index.n_chunks}
        finally:
            assistant.close()
    measures = (*MEASURES, *(f"R@{k}" for k in CURVE if f"R@{k}" not in MEASURES))
    by_arm = {}
    for arm in arms:
        run = {one.golden.id: [ids[note] for note in note_ranking(one.chunks(arm.name))] for one in asked}
        found = per_question(measures, data.qrels, run)
        by_arm[arm.name] = {key: {f"note {name}": row[name] for name in measures} for key, row in found.items()}
    results = [arm_result(arm.name, asked, by_arm, first=arms[0].name, worst=worst, kinds=("note",)) for arm in arms]
    about: dict[str, str | int] = {
        "selection": "beir", "golden_sha256": digest(questions), "documents": len(data.documents), **facts,
        "embedder": embedder.id,
    }  # fmt: skip
    return Results(about=about, arms=tuple(results), abstention=None, stale=(), unsplit=0)


def _as_note(title: str, text: str) -> str:
    """A heading and one paragraph: in plain text, no rule, heading or front matter is meant."""
    heading = f"# {' '.join(title.split())}\n" if title.strip() else ""
    flat = " ".join(text.split())
    guard = "\\" if flat[:1] in _MARKS else ""
    return f"{heading}\n{guard}{flat}\n"


def _as_golden(key: str, text: str, grades: Mapping[str, int], names: Mapping[str, str]) -> Golden:
    notes = tuple(names.get(doc, doc) for doc, grade in sorted(grades.items()) if grade > 0)
    return Golden(key, "query", "plain", "", text, notes, (), "")
