"""One question's hits to the events of its answer: passages, then statements quoted or sentences written, or neither.

Wires packing, prompting, quoting, writing and attribution; retrieval and the notes' state are the facade's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studyrag.errors import Misuse
from studyrag.protocols import Embedder, Generator, Scorer
from studyrag.records import (
    Answer,
    Answered,
    Attributed,
    Chunk,
    Context,
    Event,
    Evidence,
    Hit,
    Message,
    Passage,
    Piece,
    Reading,
    Sentence,
    Span,
    Trace,
)

if TYPE_CHECKING:
    from studyrag.index import Index
    from studyrag.quoting import TermWeights, Weighed
    from studyrag.settings import Settings
    from studyrag.statements import Statement

NEAREST = 3
_LEAST_ROOM = 64
PromptOf = Callable[[Sequence[Passage]], list[Message]]
WRITTEN_DOUBT = 0.5
"""What is written is checked against the notes afterwards, so it is begun on half the probability."""
Pointed = tuple[list[float], float]
"""ln P of pointing to each statement, and the logit of pointing to any of them against none."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What it takes to answer one question. ``hits`` come best first."""

    settings: Settings
    index: Index
    embedder: Embedder
    term_weights: TermWeights
    question: str
    hits: Sequence[Hit]
    trace: Trace

    def abstained(self) -> Iterator[Event]:
        """The answer that there is none, with where to look instead."""
        from studyrag.index import nearest

        seen: dict[tuple[str, tuple[str, ...]], Chunk] = {}
        for hit in self.hits:
            seen.setdefault((hit.chunk.note_id, hit.chunk.headings), hit.chunk)
        places = tuple(nearest(chunk) for chunk in list(seen.values())[:NEAREST])
        yield Answered(Answer(self.question, "", True, (), (), places, "none", self.trace.timings_ms()))

    def extracted(self) -> Iterator[Event]:
        """Statements chosen without a generator."""
        from studyrag.statements import statements

        context = self._context(approximate_tokens, self.settings.context_tokens)
        yield Reading(context)
        yield from self._quoted(statements(context.passages), None, ())

    def generated(self, generator: Generator, evidence: Evidence) -> Iterator[Event]:
        """Statements that the generator points to, or its own words, as the settings say."""
        from studyrag.prompting import messages, numbered
        from studyrag.statements import statements

        style = self.settings.style
        quotes = style == "quote" or (style == "auto" and isinstance(generator, Scorer))

        def prompt_of(passages: Sequence[Passage]) -> list[Message]:
            found = statements(passages) if quotes else ()
            return numbered(self.question, found) if found else messages(self.question, passages)

        context = self.trace.timed("pack", lambda: self._fitted(prompt_of, generator))
        if not context.passages:
            yield from self.abstained()
            return
        self.trace.add("pack", 0.0, tokens=context.tokens, left_out=context.left_out)
        yield Reading(context)
        prompt = prompt_of(context.passages)
        found = statements(context.passages) if quotes else ()
        if found:
            yield from self._quoted(found, generator, prompt, evidence)
        else:
            yield from self._written(context, generator, prompt, evidence)

    # Passages

    def _fitted(self, prompt_of: PromptOf, generator: Generator) -> Context:
        """A context whose whole prompt leaves room for the answer, counted by the generator itself."""
        empty = generator.count_tokens([Message("user", "")])
        limit = generator.context_tokens - self.settings.answer_tokens
        budget = min(self.settings.context_tokens, limit - generator.count_tokens(prompt_of(())))
        if budget < _LEAST_ROOM:
            raise Misuse(
                f"the question leaves no room for notes in the model's {generator.context_tokens} tokens",
                fix="ask a shorter question, or set a smaller `answer_tokens`",
            )

        def count(text: str) -> int:
            return generator.count_tokens([Message("user", text)]) - empty

        context = self._context(count, budget)
        while context.passages and generator.count_tokens(prompt_of(context.passages)) > limit:
            budget = budget * 3 // 4  # what the passages' own headings need, which no budget counts
            context = self._context(count, budget)
        return context

    def _context(self, count: Callable[[str], int], budget: int) -> Context:
        return packed(self.index, self.hits, count, budget=budget, most=self.settings.passages)

    # Quoting

    def _quoted(
        self,
        statements: Sequence[Statement],
        generator: Generator | None,
        prompt: Sequence[Message],
        evidence: Evidence | None = None,
    ) -> Iterator[Event]:
        """The statements that answer, verbatim; a generator that can score has its say in which, and whether any do."""
        from studyrag.evidence import doubtful
        from studyrag.prompting import which
        from studyrag.questions import aspects
        from studyrag.quoting import choose, quoted

        scorer = generator if isinstance(generator, Scorer) and statements else None
        whole: Pointed | None = None
        parts = aspects(self.question)
        if scorer is not None:
            able = scorer
            unsure = evidence is not None and doubtful(evidence)
            gain = {"gain": self._gain(scorer, prompt)} if unsure else {}
            asked = which(prompt, shared=unsure or len(parts) > 1)
            whole = self.trace.timed("point", lambda: _pointed(able, asked, len(statements)))
            verdict, threshold = {"found_logit": whole[1], **gain}, self.settings.min_coverage
            if evidence is not None and not self._judged(evidence, verdict, threshold=threshold):
                yield from self.abstained()
                return
        parts = parts if len(parts) > 1 else ()
        weighed, most = self.trace.timed("quote", lambda: self._ways(statements, parts, scorer, prompt, whole))
        chosen = choose(weighed, most=most)
        sentences, citations = quoted(chosen)
        self.trace.add("quote", 0.0, statements=len(statements), numbers=[one.number for one in chosen])
        if not sentences:
            yield from self.abstained()
            return
        for sentence in sentences:
            body = sentence.text.rstrip()
            yield Piece(body)
            yield Attributed(sentence)
            if sentence is not sentences[-1]:
                yield Piece(sentence.text[len(body) :])
        text = "".join(sentence.text for sentence in sentences).strip()
        name = generator.name if generator is not None else "extract"
        yield Answered(Answer(self.question, text, False, sentences, citations, (), name, self.trace.timings_ms()))

    def _ways(
        self,
        statements: Sequence[Statement],
        parts: Sequence[str],
        scorer: Scorer | None,
        prompt: Sequence[Message],
        whole: Pointed | None,
    ) -> tuple[list[list[Weighed]], list[int]]:
        """The statements weighed for the question and for each of its aspects, and how many of each may be quoted."""
        from studyrag.prompting import wants_more, which
        from studyrag.quoting import FEW, FEW_OF_EACH, FEW_OF_WHOLE, MANY, weigh

        weighed: list[list[Weighed]] = []
        for part in ["", *parts]:
            opinion = whole
            if part and scorer is not None:
                opinion = _pointed(scorer, which(prompt, part, shared=True), len(statements))
            ones = weigh(
                [self.question, part] if part else [self.question],
                statements,
                embedder=self.embedder,
                term_weights=self.term_weights,
                pointed=None if opinion is None else opinion[0],
            )
            for one in ones:
                facts = {"number": one.statement.number, "probability": one.probability, **one.features}
                self.trace.add("statement", 0.0, **facts, text=one.statement.text, asked=part or self.question)
            weighed.append(ones)
        many = wants_more(self.question)
        if not parts:
            return weighed, [MANY if many else FEW]
        return weighed, [FEW_OF_WHOLE, *(MANY // 2 if many else FEW_OF_EACH for _ in parts)]

    def _gain(self, scorer: Scorer, prompt: Sequence[Message]) -> float:
        """How much more probable (nats) the passages make the question."""
        from studyrag.prompting import kept, without_notes

        before, after = self.trace.timed(
            "gain", lambda: [scorer.weigh_tail(one) for one in (without_notes(prompt), kept(prompt))]
        )
        return sum(weight for _, weight in after) - sum(weight for _, weight in before)

    def _judged(self, evidence: Evidence, verdict: Mapping[str, float], *, threshold: float) -> bool:
        """Whether to answer, now that the generator has read the passages."""
        from studyrag.evidence import with_verdict

        found = with_verdict(evidence, verdict, threshold=threshold)
        self.trace.add("coverage", 0.0, probability=found.probability, **found.features)
        return found.covered

    # Writing

    def _written(
        self, context: Context, generator: Generator, prompt: Sequence[Message], evidence: Evidence
    ) -> Iterator[Event]:
        """The generator's own words, each sentence with the lines that support it or marked as unsupported."""
        from studyrag.attributing import Attributor
        from studyrag.evidence import doubtful
        from studyrag.prompting import alone, kept
        from studyrag.writing import attributed

        if isinstance(generator, Scorer) and doubtful(evidence):
            threshold = WRITTEN_DOUBT * self.settings.min_coverage
            if not self._judged(evidence, {"gain": self._gain(generator, prompt)}, threshold=threshold):
                yield from self.abstained()
                return
            asked = kept(prompt)
        else:
            asked = alone(prompt)
        attributor = Attributor(self.question, context.passages, embedder=self.embedder, term_weights=self.term_weights)
        sentences: list[Sentence] = []
        held: list[Piece | Attributed] = []
        grounded = False
        stream = generator.stream(asked, max_tokens=self.settings.answer_tokens)
        for event in attributed(stream, attributor.sentence, self.trace, strict=self.settings.strict):
            held.append(event)
            if isinstance(event, Attributed):
                sentences.append(event.sentence)
                grounded = grounded or event.sentence.supported is True
            if grounded:
                yield from held
                held.clear()
        if not grounded and (not sentences or any(sentence.supported is False for sentence in sentences)):
            self.trace.add("ungrounded", 0.0, sentences=len(sentences))
            yield from self.abstained()
            return
        yield from held
        text = "".join(sentence.text for sentence in sentences).strip()
        citations, timings = attributor.citations(), self.trace.timings_ms()
        yield Answered(Answer(self.question, text, False, tuple(sentences), citations, (), generator.name, timings))


def packed(index: Index, hits: Sequence[Hit], count: Callable[[str], int], *, budget: int, most: int) -> Context:
    """The passages that the best hits grow to, within ``budget`` tokens as ``count`` counts them."""
    from studyrag.packing import pack

    texts: dict[str, str] = {}

    def section_of(chunk: Chunk) -> Span:
        for section in index.sections(chunk.note_id):
            if section.start <= chunk.start and chunk.end <= section.end:
                return section
        raise AssertionError(f"chunk {chunk.id} lies in no section")

    def text_of(span: Span) -> str:
        if span.note_id not in texts:
            texts[span.note_id] = index.note_text(span.note_id)
        return texts[span.note_id][span.start : span.end]

    return pack(hits, section_of=section_of, text_of=text_of, count_tokens=count, budget=budget, most=most)


def approximate_tokens(text: str) -> int:
    """Where no generator counts: four characters are a token."""
    return len(text) // 4


def _pointed(scorer: Scorer, asked: Sequence[Message], count: int) -> Pointed:
    """What ``Pointed`` holds of ``count`` statements, after a prompt that asks for one of their numbers."""
    from studyrag.prompting import number_replies

    none, *numbers = scorer.log_probabilities(asked, number_replies(count))
    highest = max(numbers)
    return numbers, highest + math.log(sum(math.exp(number - highest) for number in numbers)) - none
