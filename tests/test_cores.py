"""How many threads are worth having, from readings that are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from studyrag import cores
from studyrag.cores import CpuReading, allowed_cores, free_cores, free_cores_since, read_cpu


@pytest.mark.parametrize(
    ("busy", "own", "free"),
    [
        (0.0, 0.0, 4),
        (1.0, 1.0, 4),
        (1.0, 0.0, 3),
        (1.4, 0.0, 3),
        (1.6, 0.0, 2),
        (4.0, 0.0, 1),
        (3.0, 1.0, 2),
        (0.5, 1.0, 4),
    ],
)
def test_cores_that_others_use_are_taken_off(busy: float, own: float, free: int) -> None:
    before, after = CpuReading(at=5.0, busy=10.0, own=3.0), CpuReading(at=6.0, busy=10.0 + busy, own=3.0 + own)
    assert free_cores(before, after, allowed=4) == free


def test_no_time_between_readings_tells_nothing() -> None:
    reading = CpuReading(at=1.0, busy=1.0, own=1.0)
    assert free_cores(reading, reading, allowed=3) == 3


def test_of_this_machine() -> None:
    assert 1 <= free_cores_since(read_cpu(), window_s=0.02) <= allowed_cores()


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000", None), ("150000 100000", 1), ("20000 100000", 1), ("400000 100000", 4)]
)
def test_container_quota(tmp_path: Path, text: str, quota: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert cores._container_quota(tmp_path / "cpu.max") == quota
    assert cores._container_quota(tmp_path / "none") is None
