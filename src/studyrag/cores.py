"""How many cores a compute-bound thread pool may use without fighting over them.

llama.cpp's threads wait for each other in busy loops: one thread more than there are free cores makes it several times
slower, not a little (2 threads on two cores: 27 tokens/s alone, often under 5 beside other busy processes).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class CpuReading:
    """Seconds: the clock, what all processes together have used of the processors, and what this one has used."""

    at: float
    busy: float
    own: float


def read_cpu() -> CpuReading:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    busy = sum(times[:8]) - idle if hasattr(times, "iowait") else times.user + times.system
    own = psutil.Process().cpu_times()
    return CpuReading(at=time.monotonic(), busy=busy, own=own.user + own.system)


def free_cores(before: CpuReading, after: CpuReading, *, allowed: int) -> int:
    """``allowed`` less the cores that others kept busy between the two readings, rounded; at least 1."""
    window = after.at - before.at
    if window <= 0:
        return max(1, allowed)
    others = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / window
    return max(1, allowed - round(others))


def free_cores_since(before: CpuReading, *, window_s: float = 0.05) -> int:
    """Free cores of this machine since ``before``; waits until the window is ``window_s`` long (clock ticks: 10 ms)."""
    time.sleep(max(0.0, window_s - (time.monotonic() - before.at)))
    return free_cores(before, read_cpu(), allowed=allowed_cores())


def allowed_cores() -> int:
    """Physical cores, limited by the process's affinity and by a container's quota; at least 1."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, min(cores, _container_quota(Path("/sys/fs/cgroup/cpu.max")) or cores))


def _container_quota(cpu_max: Path) -> int | None:
    """Whole cores of a cgroup-v2 limit such as ``150000 100000`` (1); None for ``max`` or where there is none."""
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None
