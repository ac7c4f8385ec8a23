"""Fresh processes with their time and peak memory, and repeats summed up.

Stays small, and so must whoever imports it: on Linux the peak memory of a child starts at what its parent held when it
started the child.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NotMeasured(Exception):
    """Something that a measurement needs is missing or failed; the text says what, and the cure."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Repeats of one measurement, summed up. ``n`` is at least 1."""

    n: int
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """:raises NotMeasured: when there is no value."""
        known = list(values)
        if not known:
            raise NotMeasured("nothing was measured")
        return cls(len(known), statistics.median(known), min(known), max(known))


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished process. ``arrivals`` is its stdout as it came: (seconds since the start, bytes).

    ``peak_bytes`` is None where the system does not tell (Windows).
    """

    seconds: float
    peak_bytes: int | None
    arrivals: tuple[tuple[float, bytes], ...]

    @property
    def output(self) -> str:
        return b"".join(part for _, part in self.arrivals).decode("utf-8", errors="replace")


def run(command: Sequence[str | Path], *, cwd: Path | None = None, time_limit_s: float = 1800) -> Ran:
    """Runs a command to its end, with the program's settings taken from files only.

    :raises NotMeasured: when it does not start, fails, or takes longer than the limit.
    """
    arguments = [str(part) for part in command]
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        try:
            child = subprocess.Popen(arguments, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=errors)
        except OSError as err:
            raise NotMeasured(f"{arguments[0]}: cannot be started ({err.strerror})") from err
        limit = threading.Timer(time_limit_s, child.kill)
        limit.start()
        try:
            arrivals = _read(child, started)
            code, peak = _reap(child)
            seconds = time.perf_counter() - started
        finally:
            limit.cancel()
            if child.returncode is None:
                child.kill()
                child.wait()
        if code != 0:
            errors.seek(0)
            said = errors.read().decode("utf-8", errors="replace").strip().splitlines()[-3:]
            raise NotMeasured(f"`{' '.join(arguments[:4])} …` ended with {code}: {' / '.join(said) or 'no message'}")
    return Ran(seconds, peak, arrivals)


def environment() -> Mapping[str, str]:
    """This process's, without settings of studyrag's and without the network for models."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith("STUDYRAG_") or key == "STUDYRAG_CACHE"
    }
    return {**kept, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def say(text: str) -> None:
    """A line about the progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _read(child: subprocess.Popen[Any], started: float) -> tuple[tuple[float, bytes], ...]:
    assert child.stdout is not None
    arrivals = []
    with child.stdout as stream:
        while part := os.read(stream.fileno(), 65536):
            arrivals.append((time.perf_counter() - started, part))
    return tuple(arrivals)


def _reap(child: subprocess.Popen[Any]) -> tuple[int, int | None]:
    """Exit code and peak memory in bytes."""
    if not hasattr(os, "wait4"):
        return child.wait(), None
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
