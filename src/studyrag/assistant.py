"""The facade: settings in, answers out. Wires the stages; nothing below it knows settings.

Opens the index, brings it up to date with the notes (or leaves changed notes out), and runs a question through
retrieval, the evidence check, packing, generation and attribution as a stream of events.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from studyrag.errors import IndexBusy, IndexMismatch, IndexMissing, IndexNotWritable, Misuse
from studyrag.protocols import Embedder, Generator, Progress, Scorer, no_progress
from studyrag.records import Answer, Chunk, Context, Evidence, Hit, Message, Passage, Sentence, Trace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from studyrag.building import Built, Changes
    from studyrag.index import Index
    from studyrag.packing import Span
    from studyrag.quoting import Weighed
    from studyrag.retrieving import Query, Retriever
    from studyrag.settings import Settings
    from studyrag.statements import Statement

MAX_QUESTION_CHARS = 4000
NEAREST = 3
Notice = Callable[[str], None]
PromptOf = Callable[[Sequence[Passage]], list[Message]]


@dataclass(frozen=True, slots=True)
class Reading:
    """The evidence is chosen; what follows was written from it."""

    context: Context


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Attributed:
    """The sentence whose pieces have just ended, with its verdict. In strict mode unsupported ones never come."""

    sentence: Sentence


@dataclass(frozen=True, slots=True)
class Answered:
    """The last event."""

    answer: Answer


Event = Reading | Piece | Attributed | Answered


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
            max_note_bytes=settings.max_note_bytes,
            exclude=settings.exclude,
            full=full,
            progress=self._progress,
        )

    def refresh(self) -> Index:
        """The index, agreeing with the notes: indexed anew where they changed, or with changed notes set aside.

        :raises IndexMissing, IndexDamaged, IndexMismatch, NotesError: see ``errors``.
        """
        from studyrag.building import find_changes

        index = self._open()
        changes: Changes | None = find_changes(index, self._settings.notes, exclude=self._settings.exclude)
        if changes and self._settings.stale == "reindex":
            try:
                self.index_notes()
                index.close()
                self._index = None
                index, changes = self._open(), None
            except (IndexBusy, IndexNotWritable) as err:
                self._notice(f"The notes changed, but the index could not be brought up to date: {err.message}.")
        self._stale = changes.stale() if changes else frozenset()
        if changes:
            self._notice(_staleness(changes))
        index.open_arms()  # while the embedder is still loading in the background
        return index

    def _open(self) -> Index:
        from studyrag.index import Index

        if self._index is None:
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
        index = _timed(trace, "index", self.refresh)
        hits, _ = self._retrieve(index, question, k, retriever, paths, tags, trace)
        return hits

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

    @property
    def _retriever(self) -> Retriever:
        from studyrag.retrieving import Retriever

        settings = self._settings
        return Retriever(
            self._open(), self._embedder, candidates=settings.candidates, dense_weight=settings.dense_weight
        )

    def _allowed(self, index: Index, paths: Sequence[str], tags: Sequence[str]) -> NDArray[np.bool_] | None:
        """Rows that the filters and staleness leave, or None for all."""
        from studyrag.reading import matches_glob

        if not paths and not tags and not self._stale:
            return None
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
        index = _timed(trace, "index", self.refresh)
        depth = max(4 * self._settings.passages, NEAREST)
        hits, query = self._retrieve(index, question, depth, None, paths, tags, trace)
        found = self._with_aspects(question, hits, index, paths, tags, trace)
        evidence = _timed(trace, "evidence", lambda: self._evidence(hits, query))
        trace.add("coverage", 0.0, probability=evidence.probability, **evidence.features)
        generator = None if extract else self._generator
        if self._hopeless(evidence, generator):
            events: Iterator[Event] = iter([Answered(self._abstention(question, hits, trace))])
        elif generator is None:
            events = self._extracted(question, found, index, trace)
        else:
            events = self._generated(question, found, index, generator, evidence, trace)
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

        weights = self._retriever.term_weights(query.terms)
        return weigh(features(hits, weights, query.unknown, query.text), threshold=self._settings.min_coverage)

    def _hopeless(self, evidence: Evidence, generator: Generator | None) -> bool:
        """Whether to abstain at once. A generator that can grade the passages is asked where retrieval is unsure."""
        from studyrag.evidence import hopeless

        if isinstance(generator, Scorer):
            return hopeless(evidence, threshold=self._settings.min_coverage)
        return not evidence.covered

    def _judged(self, evidence: Evidence, kind: str, logit: float, trace: Trace) -> bool:
        """Whether to answer, now that the generator has read the passages."""
        from studyrag.evidence import with_verdict

        found = with_verdict(evidence, kind, logit, threshold=self._settings.min_coverage)
        trace.add("coverage", 0.0, probability=found.probability, **found.features)
        return found.covered

    def _abstention(self, question: str, hits: Sequence[Hit], trace: Trace) -> Answer:
        from studyrag.index import nearest

        seen: dict[tuple[str, tuple[str, ...]], Chunk] = {}
        for hit in hits:
            seen.setdefault((hit.chunk.note_id, hit.chunk.headings), hit.chunk)
        places = tuple(nearest(chunk) for chunk in list(seen.values())[:NEAREST])
        return Answer(question, "", True, (), (), places, "none", trace.timings_ms())

    def _context(self, hits: Sequence[Hit], index: Index, count: Callable[[str], int], budget: int) -> Context:
        from studyrag.packing import Span, pack

        texts: dict[str, str] = {}

        def section_of(chunk: Chunk) -> Span:
            for section in index.sections(chunk.note_id):
                if section.start <= chunk.start and chunk.end <= section.end:
                    place = (section.start, section.end, section.first_line, section.last_line)
                    return Span(chunk.note_id, chunk.headings, *place)
            raise AssertionError(f"chunk {chunk.id} lies in no section")

        def text_of(span: Span) -> str:
            if span.note_id not in texts:
                texts[span.note_id] = index.note_text(span.note_id)
            return texts[span.note_id][span.start : span.end]

        return pack(
            hits,
            section_of=section_of,
            text_of=text_of,
            count_tokens=count,
            budget=budget,
            most=self._settings.passages,
        )

    def _extracted(self, question: str, hits: Sequence[Hit], index: Index, trace: Trace) -> Iterator[Event]:
        from studyrag.statements import statements

        context = self._context(hits, index, lambda text: len(text) // 4, self._settings.context_tokens)
        yield Reading(context)
        yield from self._quoted(question, statements(context.passages), hits, None, (), None, trace)

    def _quoted(
        self,
        question: str,
        statements: Sequence[Statement],
        hits: Sequence[Hit],
        generator: Generator | None,
        prompt: Sequence[Message],
        evidence: Evidence | None,
        trace: Trace,
    ) -> Iterator[Event]:
        """The statements that answer, verbatim; a generator that can score has its say in which, and whether any do."""
        from studyrag.prompting import wants_more
        from studyrag.questions import aspects
        from studyrag.quoting import FEW, FEW_OF_EACH, FEW_OF_WHOLE, MANY, choose, quoted

        started = time.perf_counter()
        scorer = generator if isinstance(generator, Scorer) and statements else None
        whole = self._pointed(scorer, prompt, "", len(statements)) if scorer is not None else None
        trace.add("point", (time.perf_counter() - started) * 1000)
        if whole is not None and evidence is not None and not self._judged(evidence, "found_logit", whole[1], trace):
            yield Answered(self._abstention(question, hits, trace))
            return
        started = time.perf_counter()
        parts = aspects(question)
        asked: list[list[str]] = [[question], *([question, part] for part in parts if len(parts) > 1)]
        pointed = [
            whole,
            *(self._pointed(scorer, prompt, one[1], len(statements)) if scorer else None for one in asked[1:]),
        ]
        weighed = [self._weighed(one, statements, opinion) for one, opinion in zip(asked, pointed, strict=True)]
        single = MANY if wants_more(question) else FEW
        most = (
            [single]
            if len(asked) == 1
            else [FEW_OF_WHOLE, *(FEW_OF_EACH if single == FEW else single // 2 for _ in parts)]
        )
        sentences, citations = quoted(choose(weighed, most=most))
        trace.add("quote", (time.perf_counter() - started) * 1000, statements=len(statements), quoted=len(sentences))
        for words, ones in zip(asked, weighed, strict=True):
            for one in ones:
                facts = {"number": one.statement.number, "probability": one.probability, **one.features}
                trace.add("statement", 0.0, **facts, text=one.statement.text, asked=words[-1])
        if not sentences:
            yield Answered(self._abstention(question, hits, trace))
            return
        for sentence in sentences:
            body = sentence.text.rstrip()
            yield Piece(body)
            yield Attributed(sentence)
            if sentence is not sentences[-1]:
                yield Piece(sentence.text[len(body) :])
        text = "".join(sentence.text for sentence in sentences).strip()
        name = generator.name if generator is not None else "extract"
        yield Answered(Answer(question, text, False, sentences, citations, (), name, trace.timings_ms()))

    def _pointed(self, scorer: Scorer, prompt: Sequence[Message], aspect: str, count: int) -> tuple[list[float], float]:
        """ln P of pointing to each statement, and the logit of pointing to any of them against none."""
        from studyrag.prompting import number_replies, which

        none, *numbers = scorer.log_probabilities(which(prompt, aspect), number_replies(count))
        highest = max(numbers)
        return numbers, highest + math.log(sum(math.exp(number - highest) for number in numbers)) - none

    def _weighed(
        self, questions: Sequence[str], statements: Sequence[Statement], pointed: tuple[list[float], float] | None
    ) -> list[Weighed]:
        from studyrag.quoting import weigh

        return weigh(
            questions,
            statements,
            embedder=self._embedder,
            term_weights=self._retriever.term_weights,
            pointed=None if pointed is None else pointed[0],
        )

    def _generated(
        self,
        question: str,
        hits: Sequence[Hit],
        index: Index,
        generator: Generator,
        evidence: Evidence,
        trace: Trace,
    ) -> Iterator[Event]:
        from studyrag.prompting import messages, numbered
        from studyrag.statements import statements

        quotes = self._settings.style == "quote" or (self._settings.style == "auto" and isinstance(generator, Scorer))

        def prompt_of(passages: Sequence[Passage]) -> list[Message]:
            found = statements(passages) if quotes else ()
            return numbered(question, found) if found else messages(question, passages)

        started = time.perf_counter()
        context = self._fitted(prompt_of, hits, index, generator)
        if not context.passages:
            yield Answered(self._abstention(question, hits, trace))
            return
        trace.add("pack", (time.perf_counter() - started) * 1000, tokens=context.tokens, left_out=context.left_out)
        yield Reading(context)
        prompt = prompt_of(context.passages)
        found = statements(context.passages) if quotes else ()
        if found:
            yield from self._quoted(question, found, hits, generator, prompt, evidence, trace)
        else:
            yield from self._written(question, context, hits, generator, prompt, evidence, trace)

    def _written(
        self,
        question: str,
        context: Context,
        hits: Sequence[Hit],
        generator: Generator,
        prompt: Sequence[Message],
        evidence: Evidence,
        trace: Trace,
    ) -> Iterator[Event]:
        """The generator's own words, each sentence with the lines that support it or marked as unsupported."""
        from studyrag.attributing import Attributor
        from studyrag.prompting import covered

        if isinstance(generator, Scorer):
            scorer = generator
            yes, no = _timed(trace, "grade", lambda: scorer.log_probabilities(covered(prompt), ["Yes", "No"]))
            if not self._judged(evidence, "yes_logit", yes - no, trace):
                yield Answered(self._abstention(question, hits, trace))
                return
        attributor = Attributor(
            question, context.passages, embedder=self._embedder, term_weights=self._retriever.term_weights
        )
        sentences: list[Sentence] = []
        held: list[Piece | Attributed] = []
        grounded = False
        stream = generator.stream(prompt, max_tokens=self._settings.answer_tokens)
        for event in _sentences(stream, attributor.sentence, trace, strict=self._settings.strict):
            held.append(event)
            if isinstance(event, Attributed):
                sentences.append(event.sentence)
                grounded = grounded or event.sentence.supported is True
            if grounded:
                yield from held
                held.clear()
        if not grounded and (not sentences or any(sentence.supported is False for sentence in sentences)):
            trace.add("ungrounded", 0.0, sentences=len(sentences))
            yield Answered(self._abstention(question, hits, trace))
            return
        yield from held
        text = "".join(sentence.text for sentence in sentences).strip()
        answer = Answer(
            question, text, False, tuple(sentences), attributor.citations(), (), generator.name, trace.timings_ms()
        )
        yield Answered(answer)

    def _fitted(self, prompt_of: PromptOf, hits: Sequence[Hit], index: Index, generator: Generator) -> Context:
        """A context whose whole prompt leaves room for the answer, counted by the generator itself."""
        empty = generator.count_tokens([Message("user", "")])
        limit = generator.context_tokens - self._settings.answer_tokens
        budget = min(self._settings.context_tokens, limit - generator.count_tokens(prompt_of(())))
        if budget < 64:
            raise Misuse(
                f"the question leaves no room for notes in the model's {generator.context_tokens} tokens",
                fix="ask a shorter question, or set a smaller `answer_tokens`",
            )

        def count(text: str) -> int:
            return generator.count_tokens([Message("user", text)]) - empty

        context = self._context(hits, index, count, budget)
        while context.passages and generator.count_tokens(prompt_of(context.passages)) > limit:
            budget = budget * 3 // 4  # what the passages' own headings need, which no budget counts
            context = self._context(hits, index, count, budget)
        return context


T = TypeVar("T")


def _timed(trace: Trace, stage: str, work: Callable[[], T]) -> T:
    started = time.perf_counter()
    result = work()
    trace.add(stage, (time.perf_counter() - started) * 1000)
    return result


_WAITING = re.compile(r"(?:\s+(?:[-*+]|\d+[.)])|\s*\[[\d\s,]*)?\s*\Z")
"""What may yet turn out to be the next item's marker, or a citation marker that the model wrote."""


def _sentences(
    stream: Iterator[str], attribute: Callable[[str], Sentence], trace: Trace, *, strict: bool
) -> Iterator[Piece | Attributed]:
    """Pieces as they can be shown, and each sentence's verdict as soon as it has ended."""
    from studyrag.attributing import without_markers
    from studyrag.sentences import SentenceStream

    splitter, shown = SentenceStream(), 0
    started = time.perf_counter()
    first_token = None
    spent = 0.0

    def finish(text: str) -> Iterator[Piece | Attributed]:
        nonlocal spent, shown
        began = time.perf_counter()
        clean = without_markers(text)
        if not clean.strip():
            shown = 0
            return
        sentence = attribute(clean)
        spent += time.perf_counter() - began
        if strict and sentence.supported is False:
            shown = 0
            return
        body = clean.rstrip()
        if len(body) > shown:
            yield Piece(body[shown:])
        shown = 0
        yield Attributed(sentence)
        if len(clean) > len(body):
            yield Piece(clean[len(body) :])

    for piece in stream:
        if first_token is None:
            first_token = time.perf_counter() - started
            trace.add("first_token", first_token * 1000)
        for text in splitter.feed(piece):
            yield from finish(text)
        ready = _WAITING.sub("", without_markers(splitter.head()))
        if not strict and len(ready) > shown:
            yield Piece(ready[shown:])
            shown = len(ready)
    for text in splitter.rest():
        yield from finish(text)
    trace.add("generate", (time.perf_counter() - started - spent - (first_token or 0.0)) * 1000)
    trace.add("attribute", spent * 1000)


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
