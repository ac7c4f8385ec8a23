"""A new generation of an index: written whole beside the old one, then made current in one step.

So an interrupted or refused build leaves the old index working. One process at a time may write.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from studyrag.dense import save_vectors
from studyrag.errors import IndexBusy, IndexNotWritable
from studyrag.index_format import Contents, crc32
from studyrag.lexical import invert

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
    files = {path.name: {"bytes": path.stat().st_size, "crc32": crc32(path)} for path in sorted(folder.iterdir())}
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
