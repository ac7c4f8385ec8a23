"""The facade: settings in, answers out. Wires the stages; nothing below it knows settings.

Opens the index, brings it up to date with the notes (or leaves changed notes out), and runs a question through
retrieval, the evidence check, packing, generation and attribution as a stream of events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from studyrag.answering import NEAREST, Answering
from studyrag.errors import IndexBusy, IndexMismatch, IndexMissing, IndexNotWritable, Misuse
from studyrag.protocols import Embedder, Generator, Progress, Scorer, no_progress
from studyrag.records import Answer, Answered, Event, Evidence, Hit, Trace
from studyrag.watching import Watch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from studyrag.building import Built, Changes
    from studyrag.index import Index
    from studyrag.retrieving import Query, Retriever
    from studyrag.settings import Settings

MAX_QUESTION_CHARS = 4000
Notice = Callable[[str], None]


class Assistant:
    """Answers questions from one notes folder. Not thread-safe; close it when done.

    ``generator`` None means that answers are extracted. ``notice`` gets one-line remarks for people.
    """

    def __init__(
        self,
        settings: Settings,
        embedder: Embedder,
        generator: Generator | None = None,
        *,
        progress: Progress = no_progress,
        notice: Notice = lambda _text: None,
    ) -> None:
        self._settings, self._embedder, self._generator = settings, embedder, generator
        self._progress, self._notice = progress, notice
        self._index: Index | None = None
        self._finder: Retriever | None = None
        self._watch = Watch(settings.notes, settings.exclude)
        self._stale: frozenset[str] = frozenset()
        self.last_trace = Trace()
        self.last_answer: Answer | None = None

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        if self._generator is not None:
            self._generator.close()

    def index_notes(self, *, full: bool = False) -> Built:
        """Brings the index up to date with the notes."""
        from studyrag.building import build

        settings = self._settings
        return build(
            settings.notes,
            settings.index,
            embedder=self._embedder,
            chunk_tokens=settings.chunk_tokens,
            chunk_overlap=settings.chunk_overlap,
            heading_path=settings.heading_path,
            max_note_bytes=settings.max_note_bytes,
            exclude=settings.exclude,
            full=full,
            progress=self._progress,
        )

    def refresh(self) -> Index:
        """The index, agreeing with notes and settings: brought up to date, or with changed notes set aside.

        :raises IndexMissing, IndexDamaged, IndexMismatch, NotesError: see ``errors``.
        """
        index = self._open()
        changes: Changes | None = self._watch.changes(index)
        other = index.recipe.differing(self._settings)
        if (changes or other) and self._settings.stale == "reindex":
            if other:
                self._notice(f"The setting {other} changed: splitting all notes anew.")
            try:
                self.index_notes()
                index.close()
                self._index = None
                index, changes, other = self._open(), None, ""
            except (IndexBusy, IndexNotWritable) as err:
                what = "The notes changed" if changes else f"The setting {other} changed"
                self._notice(f"{what}, but the index could not be brought up to date: {err.message}.")
        self._stale = changes.stale() if changes else frozenset()
        if changes:
            self._notice(_staleness(changes))
        if other and self._settings.stale == "warn":
            self._notice(f"The index was built with another {other}. `studyrag index` makes it what the settings say.")
        index.open_arms()  # while the embedder is still loading in the background
        return index

    def _open(self) -> Index:
        if self._index is None:
            from studyrag.index import Index

            try:
                self._index = Index(self._settings.index)
            except IndexMissing:
                self._notice(f"No index yet: indexing {self._settings.notes}.")
                self.index_notes()
                self._index = Index(self._settings.index)
            self._check_recipe(self._index)
        return self._index

    def _check_recipe(self, index: Index) -> None:
        built, wanted = index.recipe, self._embedder
        if (built.embedder, built.dim) != (wanted.id, wanted.dim):
            self._index = None
            raise IndexMismatch(
                f"{index.folder}: built with {built.embedder} ({built.dim}-d);"
                f" settings ask for {wanted.id} ({wanted.dim}-d)",
                fix="studyrag index --full",
            )

    def search(
        self,
        question: str,
        k: int,
        *,
        retriever: str | None = None,
        paths: Sequence[str] = (),
        tags: Sequence[str] = (),
    ) -> list[Hit]:
        """The ``k`` best chunks for the question.

        :raises Misuse: for an empty or huge question, or filters that no note passes.
        """
        check_question(question)
        trace = self.last_trace = Trace()
        index = trace.timed("index", self.refresh)
        hits, _ = self._retrieve(index, question, max(k, self._settings.rerank), retriever, paths, tags, trace)
        return self._reranked(question, hits, trace)[:k]

    def _retrieve(
        self,
        index: Index,
        question: str,
        k: int,
        retriever: str | None,
        paths: Sequence[str],
        tags: Sequence[str],
        trace: Trace,
    ) -> tuple[list[Hit], Query]:
        allowed = self._allowed(index, paths, tags)
        finder = self._retriever
        query = finder.query(question, trace)
        hits = finder.search(query, k, trace=trace, retriever=retriever or self._settings.retriever, allowed=allowed)
        return hits, query

    def _reranked(self, question: str, hits: list[Hit], trace: Trace) -> list[Hit]:
        """Ranked anew by the generator, where the settings say so and it can weigh texts."""
        count, scorer = self._settings.rerank, self._generator
        if not count or not hits or scorer is None:
            return hits
        if not isinstance(scorer, Scorer):
            self._notice("Chunks are not ranked anew: that takes a generator that runs here.")
            return hits
        from studyrag.reranking import rerank

        found = trace.timed("rerank", lambda: rerank(question, hits, scorer, count=count))
        trace.add("rerank", 0.0, answers=[round(hit.answers, 1) for hit in found if hit.answers is not None])
        return found

    @property
    def _retriever(self) -> Retriever:
        index = self._open()
        if self._finder is None or self._finder.index is not index:
            from studyrag.retrieving import Retriever

            settings = self._settings
            self._finder = Retriever(
                index, self._embedder, candidates=settings.candidates, dense_weight=settings.dense_weight
            )
        return self._finder

    def _allowed(self, index: Index, paths: Sequence[str], tags: Sequence[str]) -> NDArray[np.bool_] | None:
        """Rows that the filters and staleness leave, or None for all."""
        if not paths and not tags and not self._stale:
            return None
        from studyrag.reading import matches_glob

        wanted = {tag.lstrip("#").casefold() for tag in tags}
        chosen = [
            note_id
            for note_id, note_tags in index.note_tags().items()
            if (not paths or any(matches_glob(note_id, path) for path in paths))
            and wanted <= {tag.casefold() for tag in note_tags}
        ]
        if not chosen:
            asked = ", ".join([*(f"--path {path}" for path in paths), *(f"--tag {tag}" for tag in tags)])
            raise Misuse(f"no note passes {asked}", fix="`studyrag status` lists the notes and tags")
        return index.rows_of(note_id for note_id in chosen if note_id not in self._stale)

    def ask(
        self, question: str, *, paths: Sequence[str] = (), tags: Sequence[str] = (), extract: bool = False
    ) -> Iterator[Event]:
        """Events in order: Reading, then Pieces with an Attributed after each sentence, then one Answered.

        An abstention is one Answered: at once where retrieval finds too little, after a Reading where the generator
        points to none of the statements, or where nothing that it wrote is supported by them. Nothing that it writes
        is shown before its first supported sentence.
        """
        check_question(question)
        self.last_answer = None
        trace = self.last_trace = Trace()
        index = trace.timed("index", self.refresh)
        depth = max(4 * self._settings.passages, NEAREST)
        all_hits, query = self._retrieve(index, question, max(depth, self._settings.rerank), None, paths, tags, trace)
        hits = all_hits[:depth]
        evidence = trace.timed("evidence", lambda: self._evidence(hits, query))
        trace.add("coverage", 0.0, probability=evidence.probability, **evidence.features)
        generator = None if extract else self._generator
        hopeless = self._hopeless(evidence, generator)
        best = hits if hopeless or generator is None else self._reranked(question, all_hits, trace)[:depth]
        found = self._with_aspects(question, best, index, paths, tags, trace)
        weights = self._retriever.term_weights
        answering = Answering(self._settings, index, self._embedder, weights, question, found, trace)
        if hopeless:
            events = answering.abstained()
        elif generator is None:
            events = answering.extracted()
        else:
            events = answering.generated(generator, evidence)
        for event in events:
            if isinstance(event, Answered):
                self.last_answer = event.answer
            yield event

    def _with_aspects(
        self,
        question: str,
        hits: Sequence[Hit],
        index: Index,
        paths: Sequence[str],
        tags: Sequence[str],
        trace: Trace,
    ) -> Sequence[Hit]:
        """Hits of the whole question, two at a time, in turn with one of each aspect where it has several."""
        from studyrag.fusing import in_turn
        from studyrag.questions import aspects

        parts = aspects(question)
        if len(parts) == 1:
            return hits
        lists = [self._retrieve(index, part, len(hits), None, paths, tags, trace)[0] for part in parts if len(hits)]
        return in_turn([hits[::2], hits[1::2], *lists])

    def _evidence(self, hits: Sequence[Hit], query: Query) -> Evidence:
        from studyrag.evidence import features, weigh

        finder = self._retriever
        weights, n_chunks = finder.term_weights(query.terms), finder.index.n_chunks
        values = features(hits, weights, query.unknown, query.text, n_chunks=n_chunks)
        return weigh(values, threshold=self._settings.min_coverage)

    def _hopeless(self, evidence: Evidence, generator: Generator | None) -> bool:
        """Whether to abstain at once. A generator that can weigh texts is asked where retrieval is unsure."""
        from studyrag.evidence import hopeless

        if isinstance(generator, Scorer):
            return hopeless(evidence, threshold=self._settings.min_coverage)
        return not evidence.covered


def check_question(question: str) -> None:
    """:raises Misuse: when there is nothing to look for, or far too much."""
    if not question.strip():
        raise Misuse("the question is empty", fix='type one, e.g. studyrag ask "What is a KV cache?"')
    if len(question) > MAX_QUESTION_CHARS:
        raise Misuse(
            f"the question has {len(question):,} characters; at most {MAX_QUESTION_CHARS:,} are read",
            fix="ask something shorter; to search within a text, put it in your notes",
        )


def _staleness(changes: Changes) -> str:
    parts = [
        f"{len(names)} {what}" for what, names in (
            ("new", changes.added), ("changed", changes.changed), ("removed", changes.removed)) if names
    ]  # fmt: skip
    return f"Notes differ from the index ({', '.join(parts)}); those are left out. `studyrag index` brings them in."
