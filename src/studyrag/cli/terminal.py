"""What the commands share at the terminal: safe text, progress on stderr, sizes and times for people.

stdout is the answer, stderr the chatter. Notes, model output and error messages are untrusted: whatever is shown goes
through ``plain`` first, so that no escape sequence of theirs reaches the terminal.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from studyrag.protocols import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_LINE_EVERY_S = 5.0


def plain(text: str) -> str:
    """``text`` without control, zero-width and bidirectional-override characters; tab and newline stay.

    A removed character is replaced by U+FFFD, so that the tampering stays visible.
    """
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def escaped(text: str) -> str:
    """JSON ``text`` with the same characters as ``\\uXXXX``: the terminal gets none, a parser all."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def say(text: str) -> None:
    """One line of chatter on stderr."""
    print(plain(text), file=sys.stderr, flush=True)


def size(n_bytes: float) -> str:
    """1234567 -> '1.2 MB' (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError("unreachable")


def time_left(spent_s: float, done: int, left: int) -> str:
    """', about 3 min left', at the rate so far; "" where that is not known, or under 20 s."""
    seconds = spent_s / done * left if done > 0 else 0.0
    if seconds < 20:
        return ""
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


@contextmanager
def progress(*, in_bytes: bool = False, quiet: bool = False) -> Iterator[Progress]:
    """A progress callback drawn on stderr: a bar at a terminal, else a line every few seconds; gone when done."""
    if quiet:
        yield lambda _what, _done, _total: None
    elif sys.stderr.isatty():
        with _bar(in_bytes) as callback:
            yield callback
    else:
        yield _lines(in_bytes)


@contextmanager
def _bar(in_bytes: bool) -> Iterator[Progress]:
    """Drawn from the first call for some work until that work is done: an answer never prints beside a live bar."""
    shown: RichProgress | None = None
    task: tuple[str, TaskID] | None = None

    def stop() -> None:
        nonlocal shown, task
        if shown is not None:
            shown.stop()
        shown = task = None

    def callback(what: str, done: int, total: int) -> None:
        nonlocal shown, task
        if shown is None or task is None or task[0] != what:
            stop()
            shown, task = _started(what, in_bytes)
        shown.update(task[1], completed=done, total=total or None)
        if 0 < total <= done:
            stop()

    try:
        yield callback
    finally:
        stop()


def _started(what: str, in_bytes: bool) -> tuple[RichProgress, tuple[str, TaskID]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    counts: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn()]
    shown = RichProgress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
    shown.start()
    return shown, (what, shown.add_task(escape(plain(what)), total=None))


def _lines(in_bytes: bool) -> Progress:
    last: dict[str, Any] = {"what": "", "at": 0.0, "began": 0.0, "from": 0}

    def callback(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        finished = total > 0 and done >= total
        if what == last["what"] and not finished and now - last["at"] < _LINE_EVERY_S:
            return
        if what != last["what"]:
            last.update({"began": now, "from": done})
        last.update(what=what, at=now)
        shown = f"{size(done)} of {size(total)}" if in_bytes else f"{done} of {total}"
        left = time_left(now - last["began"], done - last["from"], total - done)
        say(f"{what}: {shown}{left}" if total else what)

    return callback
