"""One index on disk: its files written, checked and read back; nothing else knows their format.

A directory holds generations and a file ``CURRENT`` that names the one in force. A build writes a new generation
beside the old and then replaces ``CURRENT`` in one step, so an interrupted build leaves the old index working. JSON,
SQLite, .npy and FAISS only (no pickle); sizes are checked on every open, and checksums too up to 64 MiB a file.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.dense import DenseIndex, save_vectors
from studyrag.errors import IndexBusy, IndexDamaged, IndexMismatch, IndexMissing, IndexNotWritable
from studyrag.lexical import BM25, Forward, Postings, invert
from studyrag.records import Chunk, Nearest, Skipped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from studyrag.protocols import Vectors

FORMAT = 2
CHECKED_BYTES = 64 * 2**20
KEPT_CHUNKS = 1024
"""Chunks that are kept in memory once read: some 2 MB."""
LOOKUPS = 16
"""So many lookups of terms, some three questions, take as long as reading all terms of the shipped notes."""
REBUILD = "studyrag index --full"
_SCHEMA = """
CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT, tags TEXT, sha256 TEXT, size INT, mtime_ns INT, ctime_ns INT,
                    problem TEXT, text TEXT, first_row INT, n_chunks INT) WITHOUT ROWID;
CREATE TABLE skipped (path TEXT PRIMARY KEY, reason TEXT, size INT, mtime_ns INT, ctime_ns INT) WITHOUT ROWID;
CREATE TABLE sections (note_id TEXT, start INT, "end" INT, first_line INT, last_line INT, headings TEXT,
                       PRIMARY KEY (note_id, start)) WITHOUT ROWID;
CREATE TABLE chunks (row INTEGER PRIMARY KEY, id TEXT, note_id TEXT, title TEXT, headings TEXT, start INT, "end" INT,
                     first_line INT, last_line INT, context TEXT, text TEXT, digest BLOB);
CREATE TABLE terms (term TEXT PRIMARY KEY, number INT) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what an index holds, apart from the notes. Equal recipe and notes, equal index."""

    embedder: str
    dim: int
    chunk_tokens: int
    terms_version: int
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class NoteRow:
    """A note as indexed. ``stamp``: (size, mtime_ns, ctime_ns) of its file then; ``problem`` is its front matter's."""

    id: str
    title: str
    tags: tuple[str, ...]
    sha256: str
    stamp: tuple[int, int, int]
    problem: str | None
    text: str
    first_row: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A file that was passed over, with its stamp then (zeros where it had none)."""

    skipped: Skipped
    stamp: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SectionRow:
    """Where a section of a note lies. Invariant as for Chunk."""

    note_id: str
    headings: tuple[str, ...]
    start: int
    end: int
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a generation holds, ready to be written. Rows of chunks, vectors and forward agree."""

    recipe: Recipe
    notes: Sequence[NoteRow]
    skipped: Sequence[SkippedRow]
    sections: Sequence[SectionRow]
    chunks: Sequence[Chunk]
    digests: Sequence[bytes]
    vectors: Vectors
    terms: Sequence[str]
    forward: Forward


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The sole right to write the index in ``folder``, which is made if missing.

    :raises IndexBusy: when another process has it. :raises IndexNotWritable: when nothing can be written there.
    """
    from filelock import FileLock, Timeout

    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder / "lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as err:
            raise IndexBusy(
                f"{folder}: another studyrag is indexing here", fix="wait until it has finished, then try again"
            ) from err
    try:
        yield
    finally:
        lock.release()


def save(folder: Path, contents: Contents) -> None:
    """Writes a new generation, makes it current, and removes the others. The caller holds the lock.

    :raises IndexNotWritable: when the disk is full or refuses; the old generation then stays current.
    """
    generation = folder / f"g-{time.time_ns():x}-{os.getpid()}"
    with _writing(folder):
        try:
            generation.mkdir()
            _write_tables(generation / "notes.sqlite", contents)
            save_vectors(generation / "vectors.faiss", contents.vectors)
            _write_arrays(generation, contents)
            _write_manifest(generation, contents)
            temporary = folder / "CURRENT.new"
            temporary.write_text(generation.name + "\n", encoding="utf-8")
            os.replace(temporary, folder / "CURRENT")
        except BaseException:
            shutil.rmtree(generation, ignore_errors=True)
            raise
    for old in folder.glob("g-*"):
        if old != generation:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Translates every way in which a disk says no."""
    try:
        yield
    except (OSError, sqlite3.Error, RuntimeError) as err:
        refused = getattr(err, "errno", None) in _REFUSED or getattr(err, "sqlite_errorname", "") in _SQLITE_REFUSED
        reason = getattr(err, "strerror", None) or ("it is refused" if refused else "is the disk full?")
        raise IndexNotWritable(
            f"{folder}: the index cannot be written ({reason}); the index that was there is untouched",
            fix="make the folder writable, or set `index` elsewhere"
            if refused
            else "free some disk space, or set `index` to a folder on another disk, and index again",
        ) from err


_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
_SQLITE_REFUSED = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")
"""Who says neither (numpy and faiss give no error number) ran out of space, or into a limit of it."""


def _write_tables(path: Path, contents: Contents) -> None:
    database = sqlite3.connect(path)
    try:
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
        put = database.executemany
        put(
            "INSERT INTO notes VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                (n.id, n.title, json.dumps(n.tags), n.sha256, *n.stamp, n.problem, n.text, n.first_row, n.n_chunks)
                for n in contents.notes
            ),
        )
        put(
            "INSERT INTO skipped VALUES (?,?,?,?,?)",
            ((s.skipped.path, s.skipped.reason, *s.stamp) for s in contents.skipped),
        )
        put(
            "INSERT INTO sections VALUES (?,?,?,?,?,?)",
            ((s.note_id, s.start, s.end, s.first_line, s.last_line, json.dumps(s.headings)) for s in contents.sections),
        )
        put("INSERT INTO chunks VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", _chunk_rows(contents))
        put("INSERT INTO terms VALUES (?,?)", ((term, number) for number, term in enumerate(contents.terms)))
        database.commit()
    finally:
        database.close()


def _chunk_rows(contents: Contents) -> Iterator[tuple[object, ...]]:
    for row, (c, digest) in enumerate(zip(contents.chunks, contents.digests, strict=True)):
        headings = json.dumps(c.headings)
        place = (c.start, c.end, c.first_line, c.last_line)
        yield (row, c.id, c.note_id, c.title, headings, *place, c.context, c.text, digest)


def _write_arrays(folder: Path, contents: Contents) -> None:
    postings = invert(contents.forward, len(contents.terms))
    for kind, record in (("forward", contents.forward), ("postings", postings)):
        for name in record.__slots__:
            np.save(folder / f"{kind}.{name}.npy", getattr(record, name), allow_pickle=False)


def _write_manifest(folder: Path, contents: Contents) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "crc32": _crc32(path)} for path in sorted(folder.iterdir())}
    facts = {
        "recipe": asdict(contents.recipe),
        "created": time.time(),
        "notes": len(contents.notes),
        "chunks": len(contents.chunks),
        "terms": len(contents.terms),
        "files": files,
    }
    body = json.dumps(facts, indent=1, sort_keys=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    (folder / "manifest.json").write_text(body + "\n" + seal + "\n", encoding="utf-8")


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as handle:
        while part := handle.read(2**20):
            value = zlib.crc32(part, value)
    return value


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

    def sections(self, note_id: str) -> list[SectionRow]:
        rows = self._rows("SELECT * FROM sections WHERE note_id = ? ORDER BY start", (note_id,))
        return [_section(values) for values in rows]

    def all_sections(self) -> list[SectionRow]:
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


def _section(values: Sequence[Any]) -> SectionRow:
    note_id, start, end, first, last, headings = values
    return SectionRow(note_id, tuple(json.loads(headings)), start, end, first, last)


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
                damaged = _crc32(path) != expected["crc32"]
        except OSError as err:
            raise IndexDamaged(f"{path}: cannot be read ({err.strerror})", fix=REBUILD) from err
        if damaged:
            raise IndexDamaged(f"{path}: its content is not what was written (truncated or changed)", fix=REBUILD)
