"""A measurement against its bar, and the table and JSON of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from measuring import Sample

MET, MISSED, UNKNOWN, NO_BAR = "met", "MISSED", "NOT MEASURED", "-"


@dataclass(frozen=True, slots=True)
class Bar:
    """``value`` may be at most ``limit``, or at least, in ``unit``."""

    limit: float
    unit: str
    at_least: bool = False

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {amount(self.limit, self.unit)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``value`` is what the bar judges, None where it could not be had; ``note`` says why.

    ``samples`` are the medians it comes from, by name, in ``sample_unit``; a row without a bar is for information.
    """

    what: str
    value: float | None
    unit: str
    bar: Bar | None
    samples: Mapping[str, Sample]
    sample_unit: str
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return UNKNOWN
        if self.bar is None:
            return NO_BAR
        return MET if self.bar.holds(self.value) else MISSED


def absolute(what: str, sample: Sample, unit: str, limit: float | None, *, note: str = "") -> Row:
    """A median (in bytes: the highest) against a fixed limit."""
    value = sample.high if unit == "B" else sample.median
    bar = None if limit is None else Bar(limit, unit)
    return Row(what, value, unit, bar, {"": sample}, unit, note)


def ratio(
    what: str,
    ours: Sequence[float],
    reference: tuple[str, Sequence[float]],
    unit: str,
    bar: Bar | None,
    *,
    note: str = "",
) -> Row:
    """The median over the turns of ours over the reference's of the same turn: a slow minute slows both.

    For times faster than the reference it is the other way round.

    :raises NotMeasured: when there is no turn.
    """
    name, theirs = reference
    samples = {"": Sample.of(ours), name: Sample.of(theirs)}
    turns = zip(ours, theirs, strict=True)
    quotients = [them / us if bar and bar.unit == "× faster" else us / them for us, them in turns]
    return Row(what, Sample.of(quotients).median, bar.unit if bar else "×", bar, samples, unit, note)


def missing(what: str, why: str, bar: Bar | None = None) -> Row:
    return Row(what, None, "", bar, {}, "", why)


def amount(value: float, unit: str) -> str:
    """A number as people read it: '0.213 s', '4.21 ms', '167 MB', '1.07 ×'."""
    if unit == "B":
        return f"{value / 1e6:,.0f} MB"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def table(rows: Sequence[Row]) -> str:
    """Aligned columns: what, measured, bar, verdict, and the medians behind it with least, most and n."""
    cells = [("what", "measured", "bar", "verdict", "medians (least to most, n)")]
    for row in rows:
        measured = "-" if row.value is None else amount(row.value, row.unit)
        cells.append((row.what, measured, str(row.bar or "-"), row.verdict, _behind(row)))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[4]]).rstrip() for line in cells]
    rule = "  ".join("─" * width for width in [*widths, 26])
    return "\n".join([lines[0], rule, *lines[1:]])


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for JSON, full precision."""
    return [asdict(row) | {"verdict": row.verdict} for row in rows]


def _behind(row: Row) -> str:
    parts = [f"{name} {_spread(sample, row.sample_unit)}".strip() for name, sample in row.samples.items()]
    text = " against ".join(parts)
    return f"{text}; {row.note}" if text and row.note else text or row.note


def _spread(sample: Sample, unit: str) -> str:
    ends = [amount(end, unit).removesuffix(unit if unit != "B" else "MB").strip() for end in (sample.low, sample.high)]
    return f"{amount(sample.median, unit)} ({ends[0]} to {ends[1]}, {sample.n})"
