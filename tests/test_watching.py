"""Watching: whatever changes in the notes folder is noticed at the next look, also by the short one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studyrag import watching
from studyrag.building import build, find_changes
from studyrag.embedding import HashEmbedder
from studyrag.index import Index
from studyrag.reading import Walk
from studyrag.watching import Watch
from tests.makers import write_notes

FILES = {"a.md": "# Tea\n\nLeaves.\n", "deep/b.md": "# Oil\n\nOlives.\n", "deep/er/c.md": "# Sea\n\nSalt.\n"}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = write_notes(tmp_path / "notes", FILES)
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (1, 1))
    return folder


@pytest.fixture
def index(notes: Path, tmp_path: Path) -> Index:
    build(notes, tmp_path / "index", embedder=HashEmbedder(), chunk_tokens=64, max_note_bytes=10_000)
    return Index(tmp_path / "index")


@pytest.fixture
def watch(notes: Path, index: Index) -> Watch:
    """One that has looked, and found nothing."""
    made = Watch(notes)
    assert made.changes(index) is None
    return made


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were walked."""
    walked: list[Path] = []

    class Counted(Walk):
        def __init__(self, folder: Path, *rest: tuple[str, ...]) -> None:
            walked.append(folder)
            super().__init__(folder, *rest)

    monkeypatch.setattr("studyrag.reading.Walk", Counted)
    return walked


def test_the_second_look_walks_no_folder(watch: Watch, index: Index, walks: list[Path]) -> None:
    assert watch.changes(index) is None
    assert walks == []


CHANGES: dict[str, Callable[[Path], object]] = {
    "a note edited": lambda notes: (notes / "deep/b.md").write_text("# Oil\n\nRapeseed.\n"),
    "a note edited, size kept": lambda notes: (notes / "deep/b.md").write_text("# Oil\n\nOlivez.\n"),
    "a note removed": lambda notes: (notes / "a.md").unlink(),
    "a note added": lambda notes: (notes / "deep/er/new.md").write_text("# New\n\nText.\n"),
    "a note renamed": lambda notes: (notes / "a.md").rename(notes / "z.md"),
    "a note replaced": lambda notes: (
        (notes / "a.new").write_text("# Tea\n\nLeaved.\n"),
        (notes / "a.new").replace(notes / "a.md"),
    ),
    "a folder moved": lambda notes: (notes / "deep/er").rename(notes / "er"),
    "a folder with a note added": lambda notes: write_notes(notes / "more", {"d.md": "# More\n\nText.\n"}),
    "a note hidden": lambda notes: (notes / "a.md").rename(notes / ".a.md"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_is_noticed_and_called_what_a_full_look_calls_it(
    notes: Path, index: Index, watch: Watch, what: str
) -> None:
    time.sleep(0.02)  # the clock of a file system ticks in this
    CHANGES[what](notes)
    seen = watch.changes(index)
    assert seen is not None
    assert seen == find_changes(index, notes)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_whose_target_changes_is_noticed(notes: Path, tmp_path: Path) -> None:
    (notes / "link.md").symlink_to(notes / "a.md")
    os.utime(notes, (1, 1))
    build(notes, tmp_path / "linked", embedder=HashEmbedder(), chunk_tokens=64, max_note_bytes=10_000)
    index, watch = Index(tmp_path / "linked"), Watch(notes)
    assert watch.changes(index) is None
    (notes / "a.md").write_text("# Tea\n\nGreen leaves.\n")
    seen = watch.changes(index)
    assert seen is not None
    assert seen.changed == ("a.md", "link.md")


def test_a_folder_that_has_just_changed_is_walked_again(notes: Path, index: Index, walks: list[Path]) -> None:
    os.utime(notes / "deep")
    watch = Watch(notes)
    assert watch.changes(index) is None
    assert watch.changes(index) is None
    assert len(walks) == 2


def test_after_a_while_the_folder_is_walked_again(
    watch: Watch, index: Index, walks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "TRUSTED_SECONDS", -1.0)
    assert watch.changes(index) is None
    assert len(walks) == 1


def test_another_index_is_compared_anew(notes: Path, tmp_path: Path, watch: Watch) -> None:
    (notes / "a.md").write_text("# Tea\n\nGreen leaves.\n")
    build(notes, tmp_path / "index", embedder=HashEmbedder(), chunk_tokens=64, max_note_bytes=10_000)
    assert watch.changes(Index(tmp_path / "index")) is None


def test_what_was_skipped_is_looked_at_every_time(notes: Path, tmp_path: Path, walks: list[Path]) -> None:
    (notes / "link.md").symlink_to(tmp_path / "later.md")
    os.utime(notes, (1, 1))
    build(notes, tmp_path / "index", embedder=HashEmbedder(), chunk_tokens=64, max_note_bytes=10_000)
    walks.clear()
    index, watch = Index(tmp_path / "index"), Watch(notes)
    assert watch.changes(index) is None
    assert watch.changes(index) is None
    assert len(walks) == 2
