"""Building: an index brought up to date is the index built anew, and only what changed is read and embedded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studyrag.building import Built, Changes, build, find_changes
from studyrag.embedding import HashEmbedder
from studyrag.errors import NotesError
from studyrag.index import Index
from studyrag.protocols import Progress, no_progress
from studyrag.records import Trace, embedding_text
from studyrag.retrieving import Retriever
from tests.makers import WORDS, markdown, write_notes

if TYPE_CHECKING:
    from studyrag.protocols import Vectors

_tick = count(1)


class Counting(HashEmbedder):
    """The package's fake embedder, which remembers what it was given."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__(dim)
        self.embedded: list[str] = []
        self.counted: list[str] = []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        self.counted.extend(texts)
        return super().count_tokens(texts)

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded.extend(texts)
        return super().embed(texts)


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes notes, each at a time of its own: the clock of a file system is coarser than a test."""
    write_notes(folder, files)
    for name in files:
        os.utime(folder / name, ns=(0, next(_tick) * 10**9))
    return folder


def run(
    notes: Path,
    index: Path,
    embedder: HashEmbedder | None = None,
    *,
    full: bool = False,
    exclude: Sequence[str] = (),
    progress: Progress = no_progress,
    chunk_overlap: int = 0,
    heading_path: bool = True,
    max_note_bytes: int = 100_000,
) -> Built:
    return build(
        notes,
        index,
        embedder=embedder or HashEmbedder(),
        chunk_tokens=64,
        max_note_bytes=max_note_bytes,
        chunk_overlap=chunk_overlap,
        heading_path=heading_path,
        exclude=exclude,
        full=full,
        progress=progress,
    )


def everything(folder: Path) -> dict[str, object]:
    """All that an index says, in comparable form."""
    index = Index(folder, check_all=True)
    forward = index.forward()
    facts: dict[str, object] = {
        "notes": index.notes(),
        "skipped": index.skipped(),
        "sections": index.all_sections(),
        "chunks": list(index.all_chunks()),
        "terms": index.terms(),
        "vectors": index.dense.vectors(range(index.n_chunks)).tobytes(),
        "forward": [getattr(forward, name).tobytes() for name in forward.__slots__],
        "queries": [answers(index, question) for question in ("water kettle", "lemn", " ".join(WORDS), "unheard of")],
    }
    index.close()
    return facts


def answers(index: Index, question: str) -> object:
    finder = Retriever(index, HashEmbedder(), candidates=5, dense_weight=0.7)
    query = finder.query(question, Trace())
    hits = [finder.search(query, 4, trace=Trace(), retriever=arm) for arm in ("hybrid", "bm25", "dense")]
    return hits, query.terms, query.unknown, dict(query.corrected), finder.term_weights(query.terms)


_names = st.sampled_from(["a.md", "b.md", "c/d.md", "c/e.md", "f.md"])
_texts = st.one_of(markdown, st.just(""), st.just("---\ntags: [x]\n---\n# Lemon\n\nLemon water.\n"))
_edits = st.one_of(
    st.tuples(st.just("write"), _names, _texts),
    st.tuples(st.just("delete"), _names, st.just("")),
    st.tuples(st.just("rename"), _names, _names),
    st.tuples(st.just("touch"), _names, st.just("")),
)


def apply(folder: Path, edit: tuple[str, str, str]) -> None:
    kind, name, more = edit
    path = folder / name
    if kind == "write":
        write(folder, {name: more})
    elif path.exists() and kind == "delete":
        path.unlink()
    elif path.exists() and kind == "rename":
        (folder / more).parent.mkdir(exist_ok=True)
        path.replace(folder / more)
    elif path.exists():
        write(folder, {name: path.read_text()})


@settings(max_examples=25)
@given(
    start=st.dictionaries(_names, _texts, max_size=4),
    rounds=st.lists(
        st.tuples(
            st.lists(_edits, min_size=1, max_size=4), st.sampled_from([0, 0, 16]), st.sampled_from([True, False])
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_an_index_brought_up_to_date_is_the_index_built_anew(
    start: dict[str, str], rounds: list[tuple[list[tuple[str, str, str]], int, bool]]
) -> None:
    with TemporaryDirectory() as place:
        notes, index = Path(place) / "notes", Path(place) / "index"
        write(notes, {"always.md": "# Tea\n\nKettle and water.\n", **start})
        run(notes, index)
        for at, (edits, overlap, heading_path) in enumerate(rounds):
            for edit in edits:
                apply(notes, edit)
            run(notes, index, chunk_overlap=overlap, heading_path=heading_path)
            run(notes, Path(place) / f"anew-{at}", chunk_overlap=overlap, heading_path=heading_path)
            assert everything(index) == everything(Path(place) / f"anew-{at}")


# -- only what changed -----------------------------------------------------------------------------------------------

THREE = {
    "a.md": "# Tea\n\nGreen tea is hot.\n\n## Black\n\nBlack tea is hotter.\n",
    "b.md": "# Bikes\n\nA chain needs oil.\n",
    "c.md": "# Ovens\n\nAn oven needs heat.\n",
}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with THREE notes."""
    return write(tmp_path / "notes", THREE)


@pytest.fixture
def index(notes: Path, tmp_path: Path) -> Path:
    """An index of them."""
    run(notes, tmp_path / "index")
    return tmp_path / "index"


def current(folder: Path) -> str:
    return (folder / "CURRENT").read_text()


def test_the_first_build_reads_and_embeds_everything(notes: Path, tmp_path: Path) -> None:
    embedder = Counting()
    assert run(notes, tmp_path / "i", embedder) == Built(3, 4, embedded=4, reread=3, skipped=0, written=True)
    chunks = [chunk for chunk, _ in Index(tmp_path / "i").all_chunks()]
    assert sorted(embedder.embedded) == sorted(embedding_text(chunk) for chunk in chunks)


def test_nothing_is_written_when_nothing_changed(notes: Path, index: Path) -> None:
    before = current(index)
    assert run(notes, index) == Built(3, 4, embedded=0, reread=0, skipped=0, written=False)
    assert current(index) == before


def test_only_the_changed_note_is_read_and_only_its_new_chunk_is_embedded(notes: Path, index: Path) -> None:
    write(notes, {"a.md": THREE["a.md"].replace("hotter", "the hottest")})
    embedder = Counting()
    assert run(notes, index, embedder) == Built(3, 4, embedded=1, reread=1, skipped=0, written=True)
    assert embedder.embedded == ["Tea › Black\nBlack tea is the hottest."]


def test_an_edit_that_moves_a_chunk_moves_its_lines_and_keeps_its_vector(notes: Path, index: Path) -> None:
    write(notes, {"a.md": THREE["a.md"].replace("# Tea\n", "# Tea\n\n\n\n")})
    assert run(notes, index).embedded == 0
    assert [chunk.first_line for chunk, _ in Index(index).all_chunks() if chunk.note_id == "a.md"] == [6, 10]


def test_a_touched_file_is_read_but_neither_split_nor_embedded_again(notes: Path, index: Path) -> None:
    write(notes, {"b.md": THREE["b.md"]})
    embedder = Counting()
    assert run(notes, index, embedder) == Built(3, 4, embedded=0, reread=1, skipped=0, written=True)
    assert embedder.counted == embedder.embedded == []
    assert run(notes, index).reread == 0


def test_a_renamed_note_keeps_its_vectors(notes: Path, index: Path) -> None:
    before = Index(index).dense.vectors(range(4))
    (notes / "deep").mkdir()
    (notes / "a.md").rename(notes / "deep" / "z.md")
    assert run(notes, index) == Built(3, 4, embedded=0, reread=1, skipped=0, written=True)
    after = Index(index)
    assert [row.id for row in after.notes()] == ["b.md", "c.md", "deep/z.md"]
    assert np.array_equal(after.dense.vectors([2, 3]), before[[0, 1]])


def test_a_deleted_note_is_gone_with_its_words(notes: Path, index: Path) -> None:
    (notes / "b.md").unlink()
    assert run(notes, index) == Built(2, 3, embedded=0, reread=0, skipped=0, written=True)
    after = Index(index)
    assert after.term_numbers(["chain", "oven"]).keys() == {"oven"}
    assert "chain" not in " ".join(chunk.text for chunk, _ in after.all_chunks())


def test_full_reads_and_embeds_everything_again(notes: Path, index: Path) -> None:
    assert run(notes, index, full=True) == Built(3, 4, embedded=4, reread=3, skipped=0, written=True)


def test_another_embedder_embeds_everything_again(notes: Path, index: Path) -> None:
    assert run(notes, index, HashEmbedder(32)).embedded == 4
    assert Index(index).recipe.dim == 32


def test_without_heading_paths_nothing_but_the_text_is_indexed(notes: Path, index: Path) -> None:
    embedder = Counting()
    assert run(notes, index, embedder, heading_path=False).embedded == 4
    after = Index(index)
    chunks = [chunk for chunk, _ in after.all_chunks()]
    assert sorted(embedder.embedded) == sorted(chunk.text for chunk in chunks)
    assert all(chunk.headings for chunk in chunks)
    assert not after.recipe.heading_path
    assert run(notes, index, heading_path=True).embedded == 4


def test_another_overlap_reads_everything_again_and_embeds_what_is_new(notes: Path, index: Path) -> None:
    assert run(notes, index, chunk_overlap=8) == Built(3, 4, embedded=0, reread=3, skipped=0, written=True)
    assert Index(index).recipe.chunk_overlap == 8
    assert not run(notes, index, chunk_overlap=8).written


def test_a_note_that_was_too_large_is_indexed_when_more_is_allowed(notes: Path, index: Path) -> None:
    write(notes, {"big.md": "# Big\n\n" + "Long words. " * 20_000})
    assert run(notes, index).skipped == 1
    assert run(notes, index, max_note_bytes=1_000_000).skipped == 0
    assert run(notes, index).skipped == 1


def test_a_damaged_index_is_built_anew(notes: Path, index: Path) -> None:
    wanted = everything(index)
    for path in (index / current(index).strip()).glob("*"):
        path.write_bytes(b"\0")
    assert run(notes, index).embedded == 4
    assert everything(index) == wanted


# -- what is skipped -------------------------------------------------------------------------------------------------


def test_skipped_files_are_listed_with_their_reasons_and_not_read_again(notes: Path, tmp_path: Path) -> None:
    (notes / "bad.md").write_bytes(b"\xff")
    (notes / "big.md").write_text("x" * 100_001)
    assert run(notes, tmp_path / "i").skipped == 2
    reasons = {row.skipped.path: row.skipped.reason for row in Index(tmp_path / "i").skipped()}
    assert reasons.keys() == {"bad.md", "big.md"}
    assert "not UTF-8" in reasons["bad.md"] and "larger than" in reasons["big.md"]
    assert run(notes, tmp_path / "i") == Built(3, 4, embedded=0, reread=0, skipped=2, written=False)


def test_a_skipped_file_that_was_mended_is_indexed_and_a_note_that_broke_is_not(notes: Path, index: Path) -> None:
    (notes / "b.md").write_bytes(b"\xff")
    run(notes, index)
    assert [row.id for row in Index(index).notes()] == ["a.md", "c.md"]
    write(notes, {"b.md": "# Mended\n\nText.\n"})
    assert run(notes, index).embedded == 1
    assert [row.title for row in Index(index).notes()] == ["Tea", "Mended", "Ovens"]


def test_a_folder_without_notes_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(NotesError, match="holds no markdown notes") as caught:
        run(tmp_path / "notes", tmp_path / "index")
    assert "point `notes` at your notes" in caught.value.fix
    (tmp_path / "notes" / "bad.md").write_bytes(b"\xff")
    with pytest.raises(NotesError, match=r"none of its 1 markdown files can be used \(first: bad\.md: not UTF-8"):
        run(tmp_path / "notes", tmp_path / "index")


def test_notes_that_all_went_away_leave_the_old_index(notes: Path, index: Path) -> None:
    wanted = everything(index)
    for path in notes.glob("*.md"):
        path.unlink()
    with pytest.raises(NotesError):
        run(notes, index)
    assert everything(index) == wanted


def test_notes_of_headings_alone_make_an_index_in_which_nothing_is_found(tmp_path: Path) -> None:
    write(tmp_path / "notes", {"a.md": "# Only\n\n## Headings\n"})
    assert run(tmp_path / "notes", tmp_path / "index").chunks == 0
    index = Index(tmp_path / "index")
    assert answers(index, "headings")[0] == [[], [], []]  # type: ignore[index]


def test_excluded_notes_leave_the_index(notes: Path, index: Path) -> None:
    assert run(notes, index, exclude=["b*"]) == Built(2, 3, embedded=0, reread=0, skipped=0, written=True)


# -- noticing, progress, stopping ------------------------------------------------------------------------------------


def test_changes_are_noticed_by_size_and_time_without_opening_a_file(notes: Path, index: Path) -> None:
    assert not find_changes(Index(index), notes)
    write(notes, {"a.md": "# Tea\n\nOther.\n", "new.md": "# New\n\nText.\n"})
    (notes / "b.md").unlink()
    (notes / "new.md").chmod(0)
    changes = find_changes(Index(index), notes)
    assert changes == Changes(added=("new.md",), changed=("a.md",), removed=("b.md",))
    assert changes.stale() == {"a.md", "b.md"}


@pytest.mark.skipif(sys.platform == "win32", reason="no time of change of the inode there")
def test_an_edit_that_keeps_size_and_time_of_modification_is_noticed(notes: Path, index: Path) -> None:
    stat = (notes / "b.md").stat()
    time.sleep(0.05)  # the clock of a file system ticks a few times in this
    (notes / "b.md").write_text(THREE["b.md"].replace("oil", "air"))
    os.utime(notes / "b.md", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find_changes(Index(index), notes).changed == ("b.md",)


def test_progress_counts_notes_then_chunks(notes: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    run(notes, tmp_path / "i", progress=lambda *step: steps.append(step))
    assert steps == [("reading", 1, 3), ("reading", 2, 3), ("reading", 3, 3), ("embedding", 4, 4)]


@pytest.mark.parametrize("stage", ["reading", "embedding"])
def test_ctrl_c_leaves_the_old_index_and_frees_the_lock(notes: Path, index: Path, stage: str) -> None:
    wanted = everything(index)
    write(notes, {"a.md": "# Tea\n\nOther.\n"})

    def interrupt(what: str, _done: int, _total: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(notes, index, progress=interrupt)
    assert everything(index) == wanted
    assert run(notes, index).written


def test_the_same_notes_give_the_same_bytes_whatever_the_hash_seed(notes: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from studyrag.building import build\n"
        "from studyrag.embedding import HashEmbedder\n"
        "build(Path(sys.argv[1]), Path(sys.argv[2]), embedder=HashEmbedder(), chunk_tokens=64, max_note_bytes=10**5)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(notes), str(tmp_path / seed)], check=True, env=environment)
    one, two = (tmp_path / seed / current(tmp_path / seed).strip() for seed in ("1", "2"))
    names = sorted(path.name for path in one.iterdir() if path.name != "manifest.json")
    assert len(names) == 10
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
