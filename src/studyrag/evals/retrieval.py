"""Arms over golden questions: what each returned, judged by note and by quote, and whether refusal would be right.

Runs the real index, embedder and Retriever. Nothing is generated. Deterministic, the times apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from studyrag.answering import NEAREST, approximate_tokens, packed
from studyrag.evals.arms import Arm, IndexSettings, search
from studyrag.evals.cache import KeptReader
from studyrag.evals.golden import Golden, stale
from studyrag.evals.judging import Judge, recall
from studyrag.evals.measuring import MEASURES, Difference, auroc, difference, mean, per_question
from studyrag.evals.results import Abstention, ArmResult, Covered, Latency, Means, Results, Worst
from studyrag.evidence import features, weigh
from studyrag.protocols import Embedder, Progress, no_progress
from studyrag.records import Chunk, Hit, Passage, Trace
from studyrag.retrieving import Query, Retriever

if TYPE_CHECKING:
    from studyrag.index import Index
    from studyrag.settings import Settings

CURVE = (1, 2, 3, 5, 10, 15, 20)
SHOWN = 5
READ = "quote read"
"""Share of a question's quotes that are in the passages given to a generator, which are sections where those fit."""
Values = dict[str, dict[str, float]]
Reader = Callable[[Sequence[Hit]], tuple[Passage, ...]]


@dataclass(frozen=True, slots=True)
class Place:
    """An index with the embedder that built it."""

    index: Index
    embedder: Embedder


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as every arm saw it: ``hits`` and ``timings_ms`` by arm."""

    golden: Golden
    hits: Mapping[str, tuple[Hit, ...]]
    timings_ms: Mapping[str, Mapping[str, float]]
    probability: float

    def chunks(self, arm: str) -> tuple[Chunk, ...]:
        return tuple(hit.chunk for hit in self.hits[arm])


def evaluate(
    place: Place,
    questions: Sequence[Golden],
    arms: Sequence[Arm],
    settings: Settings,
    *,
    variants: Mapping[IndexSettings, Place] = MappingProxyType({}),
    reader: KeptReader | None = None,
    worst: int = 10,
    progress: Progress = no_progress,
    about: Mapping[str, str | int] | None = None,
) -> Results:
    """All arms over all questions that the notes still hold; the first arm is what the others are tested against.

    ``variants`` are the places of the arms that have an index of their own, over the same notes; ``reader`` is for
    those that rank anew.
    """
    index, places = place.index, {(): place, **variants}
    texts = {note.id: index.note_text(note.id) for note in index.notes()}
    outdated = stale(questions, texts)
    left_out = {one.id for one in outdated}
    sound = [golden for golden in questions if golden.id not in left_out]
    asked = ask_all(places, sound, arms, settings, reader=reader, progress=progress)
    answerable = [one for one in asked if one.golden.answerable]
    judged = {changes: _Judged.of(one.index, texts, answerable, settings) for changes, one in places.items()}
    by_arm = {arm.name: _values(answerable, arm.name, judged[arm.index]) for arm in arms}
    results = []
    for at, arm in enumerate(arms):
        progress("comparing arms", at, len(arms))
        results.append(arm_result(arm.name, asked, by_arm, first=arms[0].name, worst=worst))
    progress("comparing arms", len(arms), len(arms))
    facts = {"questions": len(sound), "answerable": len(answerable), "notes": len(texts), "chunks": index.n_chunks}
    return Results(
        about={**(about or {}), **facts, "embedder": place.embedder.id, **_splitting(index)},
        arms=tuple(results),
        abstention=_abstention(asked, settings.min_coverage),
        stale=tuple(f"{one.id}: {one.what}" for one in outdated),
        unsplit=sum(bool(chunks) for chunks in judged[()].relevant.values()),
    )


def _splitting(index: Index) -> dict[str, str | int]:
    built = index.recipe
    path = "with" if built.heading_path else "without"
    return {"chunk_tokens": built.chunk_tokens, "chunk_overlap": built.chunk_overlap, "heading path": path}


def ask_all(
    places: Mapping[IndexSettings, Place],
    questions: Sequence[Golden],
    arms: Sequence[Arm],
    settings: Settings,
    *,
    reader: KeptReader | None = None,
    progress: Progress = no_progress,
) -> list[Asked]:
    """Every question through every arm; the query is made once for all arms of one place. () is the one in use."""
    finders = {
        changes: Retriever(
            place.index, place.embedder, candidates=settings.candidates, dense_weight=settings.dense_weight
        )
        for changes, place in places.items()
    }

    def through_all(golden: Golden) -> Asked:
        queries = {}
        for changes, finder in finders.items():
            trace = Trace()
            queries[changes] = finder.query(golden.question, trace), trace.events
        hits, timings = {}, {}
        for arm in arms:
            (query, events), place = queries[arm.index], places[arm.index]
            trace = Trace(list(events))
            hits[arm.name] = tuple(search(arm, place.index, place.embedder, query, trace, reader))
            timings[arm.name] = trace.timings_ms()
        return Asked(golden, hits, timings, _probability(finders[()], queries[()][0], settings))

    if questions:
        through_all(questions[0])  # what loads at first use is not a query's time
    found = []
    for at, golden in enumerate(questions):
        progress("asking", at, len(questions))
        found.append(through_all(golden))
    progress("asking", len(questions), len(questions))
    return found


def _probability(finder: Retriever, query: Query, settings: Settings) -> float:
    """What the assistant makes of the same question before any generation."""
    depth = max(4 * settings.passages, NEAREST)
    hits: list[Hit] = finder.search(query, depth, trace=Trace(), retriever=settings.retriever)
    weights, n_chunks = finder.term_weights(query.terms), finder.index.n_chunks
    values = features(hits, weights, query.unknown, query.text, n_chunks=n_chunks)
    return weigh(values, threshold=settings.min_coverage).probability


def note_ranking(chunks: Iterable[Chunk]) -> list[str]:
    """Note ids in the order in which their first chunk comes."""
    return list(dict.fromkeys(chunk.note_id for chunk in chunks))


def _reader(index: Index, settings: Settings) -> Reader:
    """Hits to what ``ask --extract`` reads of them: the passages they grow to, as many as the settings let in."""

    def read(hits: Sequence[Hit]) -> tuple[Passage, ...]:
        deep = hits[: max(4 * settings.passages, NEAREST)]
        budget, most = settings.context_tokens, settings.passages
        return packed(index, deep, approximate_tokens, budget=budget, most=most).passages

    return read


@dataclass(frozen=True, slots=True)
class _Judged:
    """What it takes to judge what was returned from one index. ``relevant``: question id to its chunks."""

    judge: Judge
    relevant: Mapping[str, dict[str, int]]
    reads: Reader

    @classmethod
    def of(cls, index: Index, texts: Mapping[str, str], asked: Sequence[Asked], settings: Settings) -> _Judged:
        judge = Judge((chunk for chunk, _ in index.all_chunks()), texts)
        return cls(judge, {one.golden.id: judge.relevant(one.golden) for one in asked}, _reader(index, settings))


def _values(asked: Sequence[Asked], arm: str, judged: _Judged) -> Values:
    """Question id to every metric, the points of the curves among them."""
    judge, relevant, reads = judged.judge, judged.relevant, judged.reads
    names = (*MEASURES, *(f"R@{k}" for k in CURVE if f"R@{k}" not in MEASURES))
    by_note = per_question(
        names,
        {one.golden.id: dict.fromkeys(one.golden.notes, 1) for one in asked},
        {one.golden.id: note_ranking(one.chunks(arm)) for one in asked},
    )
    by_chunk = per_question(
        [name for name in MEASURES if not name.startswith("R@")],
        relevant,
        {one.golden.id: list(dict.fromkeys(chunk.id for chunk in one.chunks(arm))) for one in asked},
    )
    values: Values = {}
    for one in asked:
        ranks = judge.quote_ranks(one.golden, one.chunks(arm))
        quotes = {**by_chunk[one.golden.id], **{f"R@{k}": recall(ranks, k) for k in CURVE}}
        kinds = {"note": by_note[one.golden.id], "quote": quotes}
        row = {f"{kind} {name}": kinds[kind][name] for kind in kinds for name in names}
        values[one.golden.id] = {**row, READ: judge.share_held(one.golden, reads(one.hits[arm]))}
    return values


def metric_names(kinds: Sequence[str] = ("note", "quote")) -> list[str]:
    names = [f"{kind} {name}" for kind in kinds for name in MEASURES]
    return [*names, READ] if "quote" in kinds else names


def arm_result(
    name: str,
    asked: Sequence[Asked],
    by_arm: Mapping[str, Values],
    *,
    first: str,
    worst: int,
    kinds: Sequence[str] = ("note", "quote"),
) -> ArmResult:
    answerable = [one for one in asked if one.golden.answerable]
    values, names = by_arm[name], metric_names(kinds)
    return ArmResult(
        name=name,
        overall=_means(list(values.values()), names),
        groups=_groups(answerable, values, names),
        versus_first={} if name == first else _versus(values, by_arm[first], names),
        curves={kind: {k: _average(values, f"{kind} R@{k}") for k in CURVE} for kind in kinds},
        worst=_worst(answerable, name, values, worst),
        latency_ms=_latency([one.timings_ms[name] for one in asked]),
        per_question={key: {name: row[name] for name in names} for key, row in values.items()},
    )


def _means(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Means:
    return {name: mean([row[name] for row in rows]) for name in names}


def _average(values: Values, name: str) -> float:
    return sum(row[name] for row in values.values()) / len(values) if values else 0.0


def _groups(asked: Sequence[Asked], values: Values, names: Sequence[str]) -> dict[str, dict[str, Means]]:
    """A question of two folders counts in both."""
    groupings: dict[str, Callable[[Golden], list[str]]] = {
        "kind": lambda golden: [golden.kind],
        "style": lambda golden: [golden.style],
        "folder": lambda golden: sorted({note.rpartition("/")[0] or "." for note in golden.notes}),
    }
    found: dict[str, dict[str, Means]] = {}
    for grouping, groups_of in groupings.items():
        rows: dict[str, list[Mapping[str, float]]] = {}
        for one in asked:
            for group in groups_of(one.golden):
                rows.setdefault(group, []).append(values[one.golden.id])
        found[grouping] = {group: _means(rows[group], names) for group in sorted(rows)}
    return found


def _versus(ours: Values, first: Values, names: Sequence[str]) -> dict[str, Difference]:
    ids = list(ours)
    return {name: difference([ours[key][name] for key in ids], [first[key][name] for key in ids]) for name in names}


def _worst(asked: Sequence[Asked], arm: str, values: Values, k: int) -> tuple[Worst, ...]:
    """The lowest nDCG@10 by note, then the lowest recall of quotes, then by id."""

    def badness(one: Asked) -> tuple[float, float, str]:
        row = values[one.golden.id]
        return row["note nDCG@10"], row.get("quote R@10", 0.0), one.golden.id

    return tuple(
        Worst(
            id=one.golden.id,
            question=one.golden.question,
            wanted=one.golden.notes,
            returned=tuple(f"{c.note_id}:{c.first_line}-{c.last_line}" for c in one.chunks(arm)[:SHOWN]),
            values={n: values[one.golden.id][n] for n in ("note nDCG@10", "quote R@10") if n in values[one.golden.id]},
        )
        for one in sorted(asked, key=badness)[:k]
    )


def _latency(timings: Sequence[Mapping[str, float]]) -> dict[str, Latency]:
    """By stage, in the order of the stages, then the whole query and the whole without the embedding."""
    stages = list(dict.fromkeys(stage for one in timings for stage in one))
    columns = {stage: [one.get(stage, 0.0) for one in timings] for stage in stages}
    columns["total"] = [sum(one.values()) for one in timings]
    columns["total without embedding"] = [sum(one.values()) - one.get("embed_query", 0.0) for one in timings]
    return {
        stage: Latency(*(round(float(value), 3) for value in np.percentile(column, (50, 95))))
        for stage, column in columns.items()
        if column
    }


def _abstention(asked: Sequence[Asked], threshold: float) -> Abstention | None:
    """None where there are not both kinds of questions."""
    answerable = [one for one in asked if one.golden.answerable]
    hopeless = [one for one in asked if not one.golden.answerable]
    if not answerable or not hopeless:
        return None

    def refused(ones: Iterable[Asked]) -> list[float]:
        return [float(one.probability < threshold) for one in ones]

    kinds = sorted({one.golden.subkind or "-" for one in hopeless})
    return Abstention(
        threshold=threshold,
        auroc=auroc([one.probability for one in answerable], [one.probability for one in hopeless]),
        precision=mean([float(not one.golden.answerable) for one in asked if one.probability < threshold]),
        recall=mean(refused(hopeless)),
        refused_answerable=mean(refused(answerable)),
        recall_by_subkind={
            kind: mean(refused(one for one in hopeless if (one.golden.subkind or "-") == kind)) for kind in kinds
        },
        weighed=tuple(Covered(one.golden.id, one.golden.answerable, one.probability) for one in asked),
    )
