"""The index on disk: what is saved comes back, damage is noticed, and the old generation outlives a failing build."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studyrag import index as index_module
from studyrag import index_writing
from studyrag.embedding import HashEmbedder
from studyrag.errors import IndexBusy, IndexDamaged, IndexMismatch, IndexMissing, IndexNotWritable
from studyrag.index import Index, nearest
from studyrag.index_format import Contents, NoteRow, Recipe, SkippedRow
from studyrag.index_writing import locked, save
from studyrag.lexical import BM25, Vocabulary, compact, forward_index, invert
from studyrag.records import Nearest, Skipped, Span, embedding_text
from studyrag.terms import terms
from tests.makers import chunks_of, note

RECIPE = Recipe("hash@64/fp32", 64, 64, 1)
TEXTS = {
    "a/tea.md": "# Tea\n\nGreen tea is hot.\n\n## Black tea\n\nBlack tea is hotter.\n",
    "bikes.md": "# Bikes\n\nA chain needs oil. Größe √dₖ 🙂\n",
}


def contents(texts: dict[str, str] = TEXTS) -> Contents:
    chunks = [chunk for note_id, text in sorted(texts.items()) for chunk in chunks_of(text, note_id)]
    rows = {note_id: [at for at, chunk in enumerate(chunks) if chunk.note_id == note_id] for note_id in texts}
    notes = [note(text, note_id) for note_id, text in sorted(texts.items())]
    vocabulary = Vocabulary()
    forward, held = compact(forward_index([terms(embedding_text(c)) for c in chunks], vocabulary), vocabulary.terms)
    return Contents(
        recipe=RECIPE,
        notes=[
            NoteRow(n.id, n.title, ("tag",), f"sha-{n.id}", (1, 2**62, 3), None, n.text, rows[n.id][0], len(rows[n.id]))
            for n in notes
        ],
        skipped=[SkippedRow(Skipped("bad.md", "not UTF-8"), (4, 5, 6))],
        sections=[Span(n.id, s.headings, s.start, s.end, s.first_line, s.last_line) for n in notes for s in n.sections],
        chunks=chunks,
        digests=[hashlib.sha256(chunk.id.encode()).digest()[:16] for chunk in chunks],
        vectors=HashEmbedder().embed([chunk.text for chunk in chunks]),
        terms=held,
        forward=forward,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an index of TEXTS."""
    made = tmp_path / "index"
    with locked(made):
        save(made, contents())
    return made


def generation(folder: Path) -> Path:
    return folder / (folder / "CURRENT").read_text().strip()


def works(folder: Path) -> bool:
    """Whether the index of TEXTS is there, whole."""
    index = Index(folder, check_all=True)
    try:
        return list(index.all_chunks()) == list(zip(contents().chunks, contents().digests, strict=True))
    finally:
        index.close()


# -- round trip ------------------------------------------------------------------------------------------------------


def test_everything_that_was_saved_comes_back(folder: Path) -> None:
    wanted, index = contents(), Index(folder)
    assert index.recipe == wanted.recipe
    assert index.notes() == wanted.notes
    assert index.skipped() == wanted.skipped
    assert index.all_sections() == wanted.sections
    assert index.sections("bikes.md") == [s for s in wanted.sections if s.note_id == "bikes.md"]
    assert index.chunks(range(index.n_chunks)) == wanted.chunks
    assert list(index.all_chunks()) == list(zip(wanted.chunks, wanted.digests, strict=True))
    assert index.terms() == wanted.terms
    assert np.array_equal(index.dense.vectors(range(index.n_chunks)), wanted.vectors)
    for name in wanted.forward.__slots__:
        assert np.array_equal(getattr(index.forward(), name), getattr(wanted.forward, name))
    assert (index.n_notes, index.n_chunks, index.n_terms) == (2, 3, len(wanted.terms))
    assert index.note_text("bikes.md") == TEXTS["bikes.md"]
    assert index.note_tags() == {"a/tea.md": ("tag",), "bikes.md": ("tag",)}
    assert index.stamps() == {"a/tea.md": (1, 2**62, 3), "bikes.md": (1, 2**62, 3), "bad.md": (4, 5, 6)}


def test_terms_like_are_those_of_that_initial_and_length(folder: Path) -> None:
    terms = Index(folder).terms()
    for initial in {term[0] for term in terms} | {"ß"}:
        wanted = sorted(term for term in terms if term[0] == initial and 3 <= len(term) <= 5)
        assert Index(folder).terms_like(initial, shortest=3, longest=5) == wanted


def test_chunks_come_in_the_order_asked_for_also_by_the_thousand(folder: Path) -> None:
    rows, chunks = [2, 0, 1] * 700, contents().chunks
    assert Index(folder).chunks(rows) == [chunks[row] for row in rows]


def test_scores_after_loading_are_those_before_saving(folder: Path) -> None:
    made, index = contents(), Index(folder)
    numbers = index.term_numbers(["tea", "hot", "nowhere"])
    assert set(numbers) == {"tea", "hot"}
    query = [numbers["tea"], numbers["hot"], numbers["tea"]]
    before = BM25(invert(made.forward, len(made.terms)))
    assert index.bm25.search(query, 5).rows.tolist() == before.search(query, 5).rows.tolist()
    assert np.array_equal(index.bm25.scores(query), before.scores(query))


def test_rows_of_notes_are_their_chunks(folder: Path) -> None:
    index = Index(folder)
    assert index.rows_of(["a/tea.md"]).tolist() == [True, True, False]
    assert index.rows_of(["bikes.md", "unknown.md"]).tolist() == [False, False, True]
    assert index.rows_of([]).tolist() == [False, False, False]


def test_nearest_is_the_place_of_a_chunk() -> None:
    chunk = contents().chunks[1]
    assert nearest(chunk) == Nearest("a/tea.md", ("Tea", "Black tea"), 7, 7)


def test_an_index_holds_json_sqlite_npy_and_faiss_and_no_pickle(folder: Path) -> None:
    names = {path.name for path in generation(folder).iterdir()}
    assert {Path(name).suffix for name in names} == {".json", ".sqlite", ".npy", ".faiss"}
    for path in generation(folder).glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype.kind in "if"


# -- damage ----------------------------------------------------------------------------------------------------------

FILES = sorted(
    ["notes.sqlite", "vectors.faiss", "manifest.json"]
    + [f"forward.{name}.npy" for name in ("indptr", "terms", "counts")]
    + [f"postings.{name}.npy" for name in ("indptr", "rows", "impacts", "lengths", "idf")]
)


def test_the_files_that_are_damaged_below_are_all_there_are(folder: Path) -> None:
    assert sorted(path.name for path in generation(folder).iterdir()) == FILES


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("harm", [truncate, empty, flip_a_bit, lengthen, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_so_is_the_command_that_mends_it(
    folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(generation(folder) / name)
    with pytest.raises(IndexDamaged, match=name.removesuffix(".json")) as caught:
        Index(folder)
    assert caught.value.fix == "studyrag index --full"


def test_a_large_file_is_checked_in_full_on_demand_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "CHECKED_BYTES", 10)
    flip_a_bit(generation(folder) / "notes.sqlite")
    Index(folder).close()
    with pytest.raises(IndexDamaged, match=r"notes\.sqlite"):
        Index(folder, check_all=True)


def test_the_size_of_a_large_file_is_checked_on_every_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "CHECKED_BYTES", 10)
    truncate(generation(folder) / "vectors.faiss")
    with pytest.raises(IndexDamaged, match=r"vectors\.faiss"):
        Index(folder)


def test_damage_that_the_open_did_not_see_is_an_error_when_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "CHECKED_BYTES", 0)
    for name in ("notes.sqlite", "vectors.faiss", "postings.rows.npy"):
        path = generation(folder) / name
        path.write_bytes(b"\xff" * path.stat().st_size)
    index = Index(folder)
    for read in (index.notes, lambda: index.bm25, lambda: index.dense):
        with pytest.raises(IndexDamaged) as caught:
            read()
        assert caught.value.fix == "studyrag index --full"


def test_no_index_is_missing_and_not_damaged(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(IndexMissing, match="no index here") as caught:
            Index(folder)
        assert caught.value.fix == "studyrag index"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "g-nowhere\n",
        "../other\n",
        "g-/../../other\n",
        "g-..\\other\n",
        "/etc\n",
        "other\n",
        "g-\0\n",
        "g-" + "x" * 9999,
    ],
)
def test_current_that_names_no_generation_here_is_damage(folder: Path, content: str) -> None:
    shutil.copytree(generation(folder), folder.parent / "other")
    (folder / "CURRENT").write_text(content)
    with pytest.raises(IndexDamaged):
        Index(folder)


def test_current_in_binary_or_a_folder_is_damage(folder: Path) -> None:
    (folder / "CURRENT").write_bytes(b"\xff\xfe")
    with pytest.raises(IndexDamaged, match="CURRENT cannot be read"):
        Index(folder)
    (folder / "CURRENT").unlink()
    (folder / "CURRENT").mkdir()
    with pytest.raises(IndexDamaged, match="CURRENT cannot be read"):
        Index(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_generation_that_is_a_link_out_of_the_index_is_damage(folder: Path) -> None:
    here = generation(folder)
    here.rename(folder.parent / "elsewhere")
    here.symlink_to(folder.parent / "elsewhere")
    with pytest.raises(IndexDamaged, match="does not name an index"):
        Index(folder)
    with locked(folder):
        save(folder, contents(OTHER))
    assert (folder.parent / "elsewhere" / "notes.sqlite").exists()


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """As another version of the program would have written it: with a good seal."""
    path = generation(folder) / "manifest.json"
    facts = json.loads(path.read_text().rsplit("\n", 2)[0])
    change(facts)
    body = json.dumps(facts)
    path.write_text(f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n")


@pytest.mark.parametrize("version", [0, 1, 99, "2", None])
def test_another_versions_format_is_a_mismatch_that_names_both(folder: Path, version: object) -> None:
    rewrite_manifest(folder, lambda facts: facts["recipe"].update(format=version))
    with pytest.raises(IndexMismatch, match=rf"format {version}; this version reads 2") as caught:
        Index(folder)
    assert caught.value.fix == "studyrag index --full"


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("recipe"),
        lambda facts: facts.pop("files"),
        lambda facts: facts["recipe"].update(surprise=1),
        lambda facts: facts["recipe"].pop("dim"),
        lambda facts: facts.update(chunks="many"),
        lambda facts: facts["files"].pop("notes.sqlite"),
    ],
)
def test_a_manifest_of_another_shape_is_an_error_with_its_fix(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    rewrite_manifest(folder, change)
    (generation(folder) / "notes.sqlite").unlink()
    with pytest.raises((IndexDamaged, IndexMismatch)) as caught:
        Index(folder)
    assert caught.value.fix == "studyrag index --full"


# -- replacing -------------------------------------------------------------------------------------------------------

OTHER = {"new.md": "# New\n\nOther text.\n"}


def test_a_new_generation_takes_the_place_of_the_old_and_of_leftovers(folder: Path) -> None:
    (folder / "g-left-by-a-crash").mkdir()
    before = generation(folder)
    with locked(folder):
        save(folder, contents(OTHER))
    assert [row.id for row in Index(folder).notes()] == ["new.md"]
    assert not before.exists()
    assert sorted(path.name for path in folder.iterdir() if path.name != "lock") == ["CURRENT", generation(folder).name]


def test_a_reader_that_has_opened_the_old_generation_goes_on_with_it(folder: Path) -> None:
    reader = Index(folder)
    query = list(reader.term_numbers(["tea"]).values())
    found = reader.bm25.search(query, 3).rows.tolist()
    vectors = reader.dense.vectors([0])
    if sys.platform != "win32":
        with locked(folder):
            save(folder, contents(OTHER))
    assert found and reader.bm25.search(query, 3).rows.tolist() == found
    assert np.array_equal(reader.dense.vectors([0]), vectors)
    assert reader.chunks([0]) == contents().chunks[:1]


class Refusing:
    """A disk that says no from the nth write on."""

    def __init__(self, number: int, writes: int, real: Callable[..., Any]) -> None:
        self.number, self.left, self.real = number, writes, real

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments, **named)


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some disk space"),
        (errno.EFBIG, "free some disk space"),
        (errno.EACCES, "make the folder writable, or set `index` elsewhere"),
        (errno.EROFS, "make the folder writable, or set `index` elsewhere"),
    ],
)
@pytest.mark.parametrize(
    ("module", "name", "writes"),
    [(np, "save", 0), (np, "save", 3), (index_writing, "save_vectors", 0), (os, "replace", 0)],
)
def test_a_disk_that_refuses_leaves_the_old_index_and_no_rubbish(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, writes: int, number: int, fix: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with monkeypatch.context() as patch, pytest.raises(IndexNotWritable, match=os.strerror(number)) as caught:
        patch.setattr(module, name, Refusing(number, writes, getattr(module, name)))
        with locked(folder):
            save(folder, contents(OTHER))
    assert caught.value.fix.startswith(fix)
    assert sorted(path.name for path in folder.iterdir() if path.name != "CURRENT.new") == before
    assert works(folder)


def test_ctrl_c_while_writing_leaves_the_old_index_and_no_rubbish(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index_writing, "save_vectors", interrupted)
        with locked(folder):
            save(folder, contents(OTHER))
    assert len(list(folder.glob("g-*"))) == 1
    assert works(folder)


def test_an_index_folder_that_is_a_file_is_an_error_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file")
    with pytest.raises(IndexNotWritable) as caught, locked(tmp_path / "index"):
        pass
    assert "set `index` elsewhere" in caught.value.fix


def test_two_writers_do_not_write_at_once(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from studyrag.index_writing import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(IndexBusy, match="another studyrag is indexing here") as caught, locked(folder):
            pass
        assert "try again" in caught.value.fix
        other.communicate("")
    with locked(folder):
        save(folder, contents(OTHER))
    assert len(Index(folder).notes()) == 1


def test_a_writer_that_was_killed_leaves_no_lock(folder: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from studyrag.index_writing import locked\n"
        "with locked(Path(sys.argv[1])):\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder)], check=False).returncode == 9
    with locked(folder):
        save(folder, replace(contents(), skipped=[]))
    assert Index(folder).skipped() == []
