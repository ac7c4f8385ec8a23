"""One index on disk, checked and read back; ``index_writing`` writes it, and nothing else knows its files.

A directory holds generations and a file ``CURRENT`` that names the one in force. JSON, SQLite, .npy and FAISS only (no
pickle); sizes are checked on every open, and checksums too up to 64 MiB a file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.dense import DenseIndex
from studyrag.errors import IndexDamaged, IndexMismatch, IndexMissing
from studyrag.index_format import FORMAT, NoteRow, Recipe, SkippedRow, crc32
from studyrag.lexical import BM25, Forward, Postings
from studyrag.records import Chunk, Nearest, Skipped, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHECKED_BYTES = 64 * 2**20
KEPT_CHUNKS = 1024
"""Chunks that are kept in memory once read: some 2 MB."""
LOOKUPS = 16
"""So many lookups of terms, some three questions, take as long as reading all terms of the shipped notes."""
REBUILD = "studyrag index --full"


class Index:
    """The current generation of an index, read-only. Everything large stays on disk until it is asked for.

    :raises IndexMissing: when there is none. :raises IndexDamaged: when a file fails its check.
    :raises IndexMismatch: when another version of the program wrote it.
    """

    def __init__(self, folder: Path, *, check_all: bool = False) -> None:
        self.folder = folder
        self._generation, facts = _current(folder)
        try:
            self.recipe = Recipe(**facts["recipe"])
            self.created = float(facts["created"])
            self.n_notes, self.n_chunks, self.n_terms = int(facts["notes"]), int(facts["chunks"]), int(facts["terms"])
            self.bytes = sum(int(file["bytes"]) for file in facts["files"].values())
            _check_files(self._generation, facts["files"], check_all)
            address = (self._generation / "notes.sqlite").resolve().as_uri() + "?mode=ro&immutable=1"
            self._database = sqlite3.connect(address, uri=True, check_same_thread=False)
        except (KeyError, TypeError, ValueError, AttributeError, sqlite3.Error) as err:
            raise IndexMismatch(f"{self._generation}: not as this version writes it ({err})", fix=REBUILD) from err
        self._postings: Postings | None = None
        self._bm25: BM25 | None = None
        self._dense: DenseIndex | None = None
        self._stamps: dict[str, tuple[int, int, int]] | None = None
        self._numbers: dict[str, int] | None = None
        self._lookups = 0
        self._chunks: dict[int, Chunk] = {}

    def close(self) -> None:
        self._database.close()

    @property
    def bm25(self) -> BM25:
        if self._bm25 is None:
            self._bm25 = BM25(Postings(**self._arrays("postings", Postings)))
        return self._bm25

    @property
    def dense(self) -> DenseIndex:
        if self._dense is None:
            self._dense = DenseIndex(self._generation / "vectors.faiss", n=self.n_chunks, dim=self.recipe.dim)
        return self._dense

    def open_arms(self) -> None:
        """Opens both arms now rather than at the first search (importing FAISS takes 60 ms)."""
        _ = self.bm25, self.dense

    def forward(self) -> Forward:
        return Forward(**self._arrays("forward", Forward))

    def _arrays(self, kind: str, record: type[Any]) -> dict[str, Any]:
        try:
            return {
                # asarray: still mapped, but slices are plain arrays, which are made several times as fast
                name: np.asarray(np.load(self._generation / f"{kind}.{name}.npy", mmap_mode="r", allow_pickle=False))
                for name in record.__slots__
            }
        except (OSError, ValueError) as err:
            raise IndexDamaged(f"{self._generation}: {kind} cannot be read ({err})", fix=REBUILD) from err

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, parameters).fetchall()
        except sqlite3.Error as err:
            raise IndexDamaged(f"{self._generation}: the notes table cannot be read ({err})", fix=REBUILD) from err

    def chunks(self, rows: Sequence[int]) -> list[Chunk]:
        """Chunks of those rows, in that order. Those read last are kept: the questions of a session are alike."""
        wanted = [int(row) for row in rows]
        known = self._chunks
        missing = [row for row in wanted if row not in known]
        if missing and len(known) + len(missing) > KEPT_CHUNKS:
            known = self._chunks = {row: known[row] for row in wanted if row in known}
        for at in range(0, len(missing), 500):
            part = missing[at : at + 500]
            marks = ",".join("?" * len(part))
            for row, *values in self._rows(f"SELECT {_CHUNK_COLUMNS} FROM chunks WHERE row IN ({marks})", part):
                known[row] = _chunk(values)
        return [known[row] for row in wanted]

    def rows_of_chunks(self, ids: Sequence[str]) -> list[int]:
        """The row of each of these chunks, in their order.

        :raises KeyError: for an id that no chunk has.
        """
        rows: dict[str, int] = {}
        for at in range(0, len(ids), 500):
            part = ids[at : at + 500]
            marks = ",".join("?" * len(part))
            rows.update(self._rows(f"SELECT id, row FROM chunks WHERE id IN ({marks})", part))
        return [rows[one] for one in ids]

    def all_chunks(self) -> Iterator[tuple[Chunk, bytes]]:
        """(chunk, digest of what was embedded) in row order."""
        for _, *values, digest in self._rows(f"SELECT {_CHUNK_COLUMNS}, digest FROM chunks ORDER BY row"):
            yield _chunk(values), digest

    def term_numbers(self, terms: Iterable[str]) -> dict[str, int]:
        """Numbers of the terms that the notes hold; others are left out.

        A few queries look them up on disk, which one question wants; a session soon has them all in memory.
        """
        wanted = sorted(set(terms))
        self._lookups += 1
        if self._numbers is None and self._lookups > LOOKUPS:
            self._numbers = dict(self._rows("SELECT term, number FROM terms"))
        if self._numbers is not None:
            return {term: self._numbers[term] for term in wanted if term in self._numbers}
        found: dict[str, int] = {}
        for at in range(0, len(wanted), 500):
            part = wanted[at : at + 500]
            marks = ",".join("?" * len(part))
            found.update(self._rows(f"SELECT term, number FROM terms WHERE term IN ({marks})", part))
        return found

    def terms(self) -> list[str]:
        """All terms, by number."""
        return [term for (term,) in self._rows("SELECT term FROM terms ORDER BY number")]

    def terms_like(self, initial: str, *, shortest: int, longest: int) -> list[str]:
        """Terms of that first character with so many characters, sorted."""
        bounds = (initial, initial + "\U0010ffff", shortest, longest)
        query = "SELECT term FROM terms WHERE term >= ? AND term < ? AND length(term) BETWEEN ? AND ? ORDER BY term"
        return [term for (term,) in self._rows(query, bounds)]

    def notes(self) -> list[NoteRow]:
        rows = self._rows("SELECT * FROM notes ORDER BY id")
        return [
            NoteRow(i, title, tuple(json.loads(tags)), sha, (size, mtime, ctime), problem, text, first, n)
            for i, title, tags, sha, size, mtime, ctime, problem, text, first, n in rows
        ]

    def stamps(self) -> Mapping[str, tuple[int, int, int]]:
        """Stamp of every file that was looked at, indexed or skipped."""
        if self._stamps is None:  # asked for before every query
            rows = self._rows("SELECT id, size, mtime_ns, ctime_ns FROM notes")
            rows += self._rows("SELECT path, size, mtime_ns, ctime_ns FROM skipped")
            self._stamps = {name: (size, mtime, ctime) for name, size, mtime, ctime in rows}
        return self._stamps

    def skipped(self) -> list[SkippedRow]:
        rows = self._rows("SELECT * FROM skipped ORDER BY path")
        return [SkippedRow(Skipped(path, reason), tuple(stamp)) for path, reason, *stamp in rows]

    def sections(self, note_id: str) -> list[Span]:
        rows = self._rows("SELECT * FROM sections WHERE note_id = ? ORDER BY start", (note_id,))
        return [_section(values) for values in rows]

    def all_sections(self) -> list[Span]:
        return [_section(values) for values in self._rows("SELECT * FROM sections ORDER BY note_id, start")]

    def note_text(self, note_id: str) -> str:
        return str(self._rows("SELECT text FROM notes WHERE id = ?", (note_id,))[0][0])

    def rows_of(self, note_ids: Iterable[str]) -> NDArray[np.bool_]:
        """(n_chunks,) True where the chunk belongs to one of those notes."""
        mask = np.zeros(self.n_chunks, dtype=bool)
        spans = dict(self.note_spans())
        for note_id in note_ids:
            first, n = spans.get(note_id, (0, 0))
            mask[first : first + n] = True
        return mask

    def note_spans(self) -> list[tuple[str, tuple[int, int]]]:
        """(note id, (first row, chunks)) sorted by id."""
        return [(i, (first, n)) for i, first, n in self._rows("SELECT id, first_row, n_chunks FROM notes ORDER BY id")]

    def note_tags(self) -> dict[str, tuple[str, ...]]:
        return {i: tuple(json.loads(tags)) for i, tags in self._rows("SELECT id, tags FROM notes")}


_CHUNK_COLUMNS = 'row, id, note_id, title, headings, start, "end", first_line, last_line, context, text'


def _chunk(values: Sequence[Any]) -> Chunk:
    i, note_id, title, headings, start, end, first, last, context, text = values
    return Chunk(i, note_id, title, _headings(headings), start, end, first, last, context, text)


@functools.lru_cache(maxsize=4096)
def _headings(value: str) -> tuple[str, ...]:
    """A column of headings; chunks of one section have the same."""
    return tuple(json.loads(value))


def _section(values: Sequence[Any]) -> Span:
    note_id, start, end, first, last, headings = values
    return Span(note_id, tuple(json.loads(headings)), start, end, first, last)


def nearest(chunk: Chunk) -> Nearest:
    return Nearest(chunk.note_id, chunk.headings, chunk.first_line, chunk.last_line)


_GENERATION = re.compile(r"g-[0-9a-f]{1,20}-\d{1,10}")
"""What ``save`` calls one. A name with a path in it could lead out of the index."""


def _current(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """The generation in force and its manifest. Retries once: a build may have replaced it in between."""
    for attempt in (1, 2):
        try:
            name = (folder / "CURRENT").read_text(encoding="utf-8").strip()
        except FileNotFoundError as err:
            raise IndexMissing(f"{folder}: no index here", fix="studyrag index") from err
        except PermissionError as err:
            raise IndexDamaged(f"{folder}: the index may not be read", fix=f"make {folder} readable for you") from err
        except (OSError, UnicodeDecodeError) as err:
            raise IndexDamaged(f"{folder}/CURRENT cannot be read ({err})", fix=REBUILD) from err
        if not _GENERATION.fullmatch(name) or (folder / name).is_symlink():
            raise IndexDamaged(f"{folder}/CURRENT does not name an index", fix=REBUILD)
        try:
            return folder / name, _manifest(folder / name / "manifest.json")
        except FileNotFoundError as err:
            if attempt == 2:
                raise IndexDamaged(f"{folder / name}: its manifest is missing", fix=REBUILD) from err
    raise AssertionError("unreachable")


def _manifest(path: Path) -> Mapping[str, Any]:
    try:
        body, seal = path.read_text(encoding="utf-8").rstrip("\n").rsplit("\n", 1)
        if hashlib.sha256(body.encode()).hexdigest() != seal:
            raise ValueError("checksum")
        facts: Mapping[str, Any] = json.loads(body)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as err:
        raise IndexDamaged(f"{path}: truncated or changed ({err})", fix=REBUILD) from err
    written = facts.get("recipe", {}).get("format")
    if written != FORMAT:
        raise IndexMismatch(f"{path.parent}: written in format {written}; this version reads {FORMAT}", fix=REBUILD)
    return facts


def _check_files(folder: Path, files: Mapping[str, Mapping[str, int]], check_all: bool) -> None:
    for name, expected in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            damaged = size != expected["bytes"]
            if not damaged and (check_all or size <= CHECKED_BYTES):
                damaged = crc32(path) != expected["crc32"]
        except OSError as err:
            raise IndexDamaged(f"{path}: cannot be read ({err.strerror})", fix=REBUILD) from err
        if damaged:
            raise IndexDamaged(f"{path}: its content is not what was written (truncated or changed)", fix=REBUILD)
