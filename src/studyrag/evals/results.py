"""The frozen records of one evaluation; ``dataclasses.asdict`` of any of them is JSON.

Metrics are keyed ``note nDCG@10`` (documents are notes, once each, in rank order) and ``quote R@5`` (documents are
chunks; recall is of quotes); ``quote read`` is the share of quotes in the passages. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from studyrag.evals.measuring import Difference, Mean

Means = Mapping[str, Mean]


@dataclass(frozen=True, slots=True)
class Worst:
    """A question that an arm served badly, with the first places that it returned (``note:lines``)."""

    id: str
    question: str
    wanted: tuple[str, ...]
    returned: tuple[str, ...]
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a query."""

    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm over all questions. ``groups``: by kind, style and folder, then by name. ``versus_first``: empty for it.

    ``curves``: recall against k, by note and by quote. ``per_question``: the values behind the means.
    """

    name: str
    overall: Means
    groups: Mapping[str, Mapping[str, Means]]
    versus_first: Mapping[str, Difference]
    curves: Mapping[str, Mapping[int, float]]
    worst: tuple[Worst, ...]
    latency_ms: Mapping[str, Latency]
    per_question: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Covered:
    """What retrieval alone says of one question: the probability that the notes answer it."""

    id: str
    answerable: bool
    probability: float


@dataclass(frozen=True, slots=True)
class Abstention:
    """Refusing below ``threshold``. Precision: refused questions that were unanswerable; recall: of those, refused.

    ``refused_answerable``: share of answerable questions refused; ``recall_by_subkind``: of unanswerable ones.
    """

    threshold: float
    auroc: Mean
    precision: Mean
    recall: Mean
    refused_answerable: Mean
    recall_by_subkind: Means
    weighed: tuple[Covered, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """A whole evaluation. ``about``: what was measured on what. ``stale`` questions are left out, with the reason.

    ``unsplit``: answerable questions of which at least one chunk of the index holds a quote whole.
    """

    about: Mapping[str, str | int]
    arms: tuple[ArmResult, ...]
    abstention: Abstention | None
    stale: tuple[str, ...]
    unsplit: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
