"""Notes folder to index, reading and embedding only what changed since the index that is there.

A note whose file has the same stamp is not opened; one with the same content hash is not split again; a chunk whose
embedded text was embedded before keeps its vector, also in a note that was renamed. Writes nothing when nothing
changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studyrag.embedding import embed_whole
from studyrag.errors import IndexDamaged, IndexMismatch, IndexMissing, NotesError
from studyrag.index import Index
from studyrag.index_format import Contents, NoteRow, Recipe, SkippedRow
from studyrag.index_writing import locked, save
from studyrag.lexical import Forward, Vocabulary, compact, forward_index, join
from studyrag.protocols import Embedder, Progress, no_progress
from studyrag.reading import NoteFile, find_notes, front_matter_problem, read_note
from studyrag.records import Chunk, Note, Skipped, Span, embedding_text
from studyrag.splitting import split_note
from studyrag.terms import VERSION as TERMS_VERSION
from studyrag.terms import terms

if TYPE_CHECKING:
    from studyrag.protocols import Vectors

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Changes:
    """Files that differ from the index, by note id."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def stale(self) -> frozenset[str]:
        """Notes whose indexed text may no longer be in the notes."""
        return frozenset(self.changed) | frozenset(self.removed)


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did. ``embedded`` counts chunks that went through the model."""

    notes: int
    chunks: int
    embedded: int
    reread: int
    skipped: int
    written: bool


@dataclass(frozen=True, slots=True)
class _Old:
    """What an earlier index knows, keyed for re-use."""

    notes: Mapping[str, NoteRow]
    sections: Mapping[str, list[Span]]
    chunks: Sequence[tuple[Chunk, bytes]]
    vectors: Vectors
    row_of: Mapping[bytes, int]
    forward: Forward
    vocabulary: Vocabulary


def stamp(file: NoteFile) -> Stamp:
    """(size, mtime_ns, ctime_ns); the last is the inode's change time where the system has one."""
    return (file.size, file.mtime_ns, file.ctime_ns)


def find_changes(index: Index, folder: Path, *, exclude: Sequence[str] = ()) -> Changes:
    """What differs between the index and the folder, by size and times only: no file is opened."""
    return differences(index, *find_notes(folder, exclude=exclude))


def differences(index: Index, files: Sequence[NoteFile], skipped: Sequence[Skipped]) -> Changes:
    """What differs between the index and the files that were found."""
    now = {file.id: stamp(file) for file in files} | {skip.path: (0, 0, 0) for skip in skipped}
    then = index.stamps()
    if now == then:
        return Changes((), (), ())
    return Changes(
        added=tuple(sorted(name for name in now if name not in then)),
        changed=tuple(sorted(name for name in now if name in then and now[name] != then[name])),
        removed=tuple(sorted(name for name in then if name not in now)),
    )


def build(
    notes: Path,
    folder: Path,
    *,
    embedder: Embedder,
    chunk_tokens: int,
    max_note_bytes: int,
    chunk_overlap: int = 0,
    heading_path: bool = True,
    exclude: Sequence[str] = (),
    full: bool = False,
    progress: Progress = no_progress,
) -> Built:
    """Brings the index in ``folder`` up to date with ``notes``; ``full`` reads and embeds everything again.

    :raises NotesError: when there is no note to index.
    :raises IndexBusy, IndexNotWritable: see ``index_writing.locked``.
    """
    recipe = Recipe(
        embedder.id,
        embedder.dim,
        chunk_tokens,
        TERMS_VERSION,
        chunk_overlap=chunk_overlap,
        heading_path=heading_path,
        max_note_bytes=max_note_bytes,
    )
    with locked(folder):
        files, passed_over = find_notes(notes, exclude=exclude)
        old = None if full else _open_old(folder, recipe)
        if old is not None and old.recipe == recipe and not find_changes(old, notes, exclude=exclude):
            unchanged = Built(old.n_notes, old.n_chunks, 0, 0, len(old.skipped()), written=False)
            old.close()
            return unchanged
        draft = _Draft(embedder, recipe, _old(old, recipe))
        for done, file in enumerate(files, start=1):
            draft.add(file)
            progress("reading", done, len(files))
        draft.skipped.extend(SkippedRow(skip, (0, 0, 0)) for skip in passed_over)
        if not draft.notes:
            raise NotesError(_nothing(notes, draft.skipped), fix="put .md files there, or point `notes` at your notes")
        contents, embedded = draft.contents(progress)
        if old is not None:
            old.close()
        save(folder, contents)
    return Built(len(contents.notes), len(contents.chunks), embedded, draft.reread, len(contents.skipped), written=True)


def _nothing(notes: Path, skipped: Sequence[SkippedRow]) -> str:
    if not skipped:
        return f"{notes}: holds no markdown notes"
    first = skipped[0].skipped
    return f"{notes}: none of its {len(skipped)} markdown files can be used (first: {first.path}: {first.reason})"


def _open_old(folder: Path, recipe: Recipe) -> Index | None:
    """The index to build on, or None when it is missing, damaged or embeds otherwise: then all is built anew."""
    try:
        index = Index(folder)
    except (IndexMissing, IndexDamaged, IndexMismatch):
        return None
    if index.recipe.embeds_as(recipe):
        return index
    index.close()
    return None


def _old(index: Index | None, recipe: Recipe) -> _Old:
    """No notes where the index splits them otherwise: what was embedded is still known by its text."""
    if index is None:
        empty = forward_index([], Vocabulary())
        return _Old({}, {}, [], np.zeros((0, recipe.dim), dtype=np.float32), {}, empty, Vocabulary())
    sections: dict[str, list[Span]] = {}
    for section in index.all_sections():
        sections.setdefault(section.note_id, []).append(section)
    chunks = list(index.all_chunks())
    return _Old(
        notes={note.id: note for note in index.notes()} if index.recipe == recipe else {},
        sections=sections,
        chunks=chunks,
        vectors=index.dense.vectors(range(index.n_chunks)),
        row_of={digest: row for row, (_, digest) in enumerate(chunks)},
        forward=index.forward(),
        vocabulary=Vocabulary(index.terms()),
    )


class _Draft:
    """A generation in the making: notes are added in order, re-using what ``old`` knows of them."""

    def __init__(self, embedder: Embedder, recipe: Recipe, old: _Old) -> None:
        self._embedder, self._recipe, self._old = embedder, recipe, old
        self.notes: list[NoteRow] = []
        self.skipped: list[SkippedRow] = []
        self.sections: list[Span] = []
        self.chunks: list[Chunk] = []
        self.old_rows: list[int | None] = []
        self.reread = 0

    def add(self, file: NoteFile) -> None:
        known = self._old.notes.get(file.id)
        if known is not None and known.stamp == stamp(file):
            self._keep(known)
            return
        self.reread += 1
        note = read_note(file, max_bytes=self._recipe.max_note_bytes)
        if isinstance(note, Skipped):
            self.skipped.append(SkippedRow(note, stamp(file)))
        elif known is not None and known.sha256 == note.sha256:
            self._keep(replace(known, stamp=stamp(file)))
        else:
            self._split(note, stamp(file))

    def _keep(self, note: NoteRow) -> None:
        rows = range(note.first_row, note.first_row + note.n_chunks)
        self.notes.append(replace(note, first_row=len(self.chunks)))
        self.sections.extend(self._old.sections.get(note.id, []))
        self.chunks.extend(self._old.chunks[row][0] for row in rows)
        self.old_rows.extend(rows)

    def _split(self, note: Note, when: Stamp) -> None:
        chunks = split_note(
            note,
            max_tokens=self._embedder.max_tokens,
            chunk_tokens=self._recipe.chunk_tokens,
            chunk_overlap=self._recipe.chunk_overlap,
            count_tokens=self._embedder.count_tokens,
        )
        row = NoteRow(
            note.id, note.title, note.tags, note.sha256, when, front_matter_problem(note.text), note.text,
            len(self.chunks), len(chunks),
        )  # fmt: skip
        self.notes.append(row)
        self.sections.extend(
            Span(note.id, s.headings, s.start, s.end, s.first_line, s.last_line) for s in note.sections
        )
        self.chunks.extend(chunks)
        self.old_rows.extend([None] * len(chunks))

    def contents(self, progress: Progress) -> tuple[Contents, int]:
        """The finished generation, and how many chunks had to be embedded."""
        digests = [
            self._old.chunks[row][1] if row is not None else self._digest(chunk)
            for chunk, row in zip(self.chunks, self.old_rows, strict=True)
        ]
        vectors, embedded = self._vectors(digests, progress)
        vocabulary = self._old.vocabulary
        forward, held = compact(self._forward(vocabulary), vocabulary.terms)
        contents = Contents(
            self._recipe, self.notes, self.skipped, self.sections, self.chunks, digests, vectors, held, forward
        )
        return contents, embedded

    def _vectors(self, digests: Sequence[bytes], progress: Progress) -> tuple[Vectors, int]:
        vectors = np.zeros((len(digests), self._embedder.dim), dtype=np.float32)
        known = [(row, self._old.row_of[digest]) for row, digest in enumerate(digests) if digest in self._old.row_of]
        if known:
            rows, old_rows = zip(*known, strict=True)
            vectors[list(rows)] = self._old.vectors[list(old_rows)]
        new = [row for row, digest in enumerate(digests) if digest not in self._old.row_of]
        vectors[new] = embed_whole(self._embedder, [self._text(self.chunks[r]) for r in new], progress=progress)
        return vectors, len(new)

    def _forward(self, vocabulary: Vocabulary) -> Forward:
        """Kept rows from the old forward index, new ones counted, put back into row order."""
        kept = [row for row in self.old_rows if row is not None]
        new = [at for at, row in enumerate(self.old_rows) if row is None]
        fresh = forward_index((terms(self._text(self.chunks[at])) for at in new), vocabulary)
        both = join([self._old.forward.take(kept), fresh])
        place = {
            at: number for number, at in enumerate([a for a, r in enumerate(self.old_rows) if r is not None] + new)
        }
        return both.take([place[at] for at in range(len(self.chunks))])

    def _text(self, chunk: Chunk) -> str:
        """What is indexed of a chunk."""
        return embedding_text(chunk, heading_path=self._recipe.heading_path)

    def _digest(self, chunk: Chunk) -> bytes:
        return hashlib.sha256(self._text(chunk).encode()).digest()[:16]
