"""Whether the notes are still what an index holds, asked before every query of a session.

The first question walks the notes folder. After it found nothing to do, a question soon after asks only for the times
of the folders and files that were seen: a folder's time changes when a name in it comes, goes or is replaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studyrag.building import Changes
    from studyrag.index import Index

TRUSTED_SECONDS = 1.0
"""After so long the folder is walked again: not every file system keeps the times of its folders."""

SETTLED_NS = 2_000_000_000
"""A folder that changed so shortly before it was listed may change again without another time: FAT counts in 2 s."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a walk saw when index and notes agreed: each path with its times, and a file's size before them."""

    index: Index
    at: float
    folders: Sequence[tuple[str, tuple[int, int]]]
    files: Sequence[tuple[str, tuple[int, int, int]]]


class Watch:
    """Compares one notes folder with an index, again and again."""

    def __init__(self, folder: Path, exclude: Sequence[str] = ()) -> None:
        self._folder, self._exclude = folder, exclude
        self._seen: _Seen | None = None

    def changes(self, index: Index) -> Changes | None:
        """What differs, as ``building.find_changes`` says it; None when nothing does.

        :raises NotesError: when the folder is missing or cannot be listed.
        """
        if self._seen is not None and _same(self._seen, index):
            return None
        from studyrag.building import differences, stamp
        from studyrag.reading import Walk

        started, at = time.time_ns(), time.monotonic()
        walk = Walk(self._folder, self._exclude)
        changes = differences(index, walk.found, walk.skipped)
        settled = all(mtime < started - SETTLED_NS for mtime, _ in walk.folders.values())
        if changes or walk.skipped or not settled:  # what was skipped has no times to ask for
            self._seen = None
        else:
            files = [(str(file.path), stamp(file)) for file in walk.found]
            self._seen = _Seen(index, at, list(walk.folders.items()), files)
        return changes or None


def _same(seen: _Seen, index: Index) -> bool:
    """Whether every time is as it was. Runs before most queries of a session: one system call a file."""
    if seen.index is not index or time.monotonic() - seen.at > TRUSTED_SECONDS:
        return False
    try:
        for path, times in seen.folders:
            stat = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
            if (stat.st_mtime_ns, stat.st_ctime_ns) != times:
                return False
        for path, stamp in seen.files:
            stat = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
            if (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) != stamp:
                return False
    except OSError:
        return False
    return True
