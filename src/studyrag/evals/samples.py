"""Golden questions put to the real Assistant: which of them, and what it answered from what, kept as it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studyrag.errors import GenerationFailed, Misuse
from studyrag.evals.cache import Cache
from studyrag.evals.golden import Golden
from studyrag.protocols import Progress, no_progress
from studyrag.records import Citation, Passage, Sentence, heading_line

if TYPE_CHECKING:
    from studyrag.assistant import Assistant
    from studyrag.settings import Settings

ANSWERABLE_SHARE = 5 / 7
"""Of a sample; the rest are questions to be refused."""
_DECIDES = (
    "exclude", "retriever", "candidates", "dense_weight", "rerank", "passages", "context_tokens", "min_coverage",
    "style", "answer_tokens", "temperature", "seed", "strict",
)  # fmt: skip
"""The settings that decide an answer, given index, generator and embedder."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of one question. ``passages`` are what the answer was written from; ``text`` "": an abstention.

    ``failed``: why there is neither answer nor abstention, else "". ``timings_ms`` by stage.
    """

    id: str
    question: str
    text: str
    abstained: bool
    sentences: tuple[Sentence, ...]
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    timings_ms: Mapping[str, float]
    failed: str = ""

    @property
    def claims(self) -> tuple[Sentence, ...]:
        """The sentences that claim something."""
        return tuple(sentence for sentence in self.sentences if sentence.supported is not None)

    @property
    def contexts(self) -> tuple[str, ...]:
        """Each passage with the path of its headings, as the generator read it."""
        return tuple(f"{heading_line(one.note_id, one.headings)}\n{one.text.strip()}" for one in self.passages)


def pick(questions: Sequence[Golden], count: int, *, seed: int) -> tuple[Golden, ...]:
    """``count`` of the questions, or all where there are no more: five of seven answerable, by kind and style alike.

    Sorted by kind, style and a hash of seed and id, then every so many-th: each group has its share, to within one.
    """
    if count >= len(questions):
        return tuple(questions)
    answerable = [golden for golden in questions if golden.answerable]
    others = [golden for golden in questions if not golden.answerable]
    wanted = max(min(round(count * ANSWERABLE_SHARE), len(answerable)), count - len(others))
    return (*_spread(answerable, wanted, seed), *_spread(others, count - wanted, seed))


def _spread(questions: Sequence[Golden], count: int, seed: int) -> list[Golden]:
    def place(golden: Golden) -> tuple[str, str, str, str]:
        mixed = hashlib.sha256(f"{seed} {golden.id}".encode()).hexdigest()
        return golden.kind, golden.subkind, golden.style, mixed

    ordered = sorted(questions, key=place)
    return [ordered[int((at + 0.5) * len(ordered) / count)] for at in range(count)]


def shard(questions: Sequence[Golden], part: str) -> tuple[Golden, ...]:
    """``part`` "2/3": the second of three parts, every third question from the second on.

    :raises Misuse: when it is not that.
    """
    number, _slash, count = part.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise Misuse(f"--shard {part!r}: not a part", fix="--shard 1/4, 2/4, 3/4 and 4/4 for four processes")
    return tuple(questions[int(number) - 1 :: int(count)])


def answer_key(assistant: Assistant, settings: Settings, *, embedder: str, generator: str) -> dict[str, Any]:
    """All that decides an answer but the question: notes, settings, models, and the program itself."""
    index = assistant.refresh()
    notes = sorted((note.id, note.sha256) for note in index.notes())
    return {
        "notes": hashlib.sha256(repr(notes).encode()).hexdigest(),
        "recipe": asdict(index.recipe),
        "settings": {name: _plain(getattr(settings, name)) for name in _DECIDES},
        "embedder": embedder,
        "generator": generator,
        "program": program_sha256(),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def program_sha256() -> str:
    """Of every module that can have a part in an answer: of all but the evaluations and the command line."""
    home = Path(__file__).parents[1]
    files = sorted(home.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


def ask_all(
    assistant: Assistant,
    questions: Sequence[Golden],
    cache: Cache,
    key: Mapping[str, Any],
    *,
    progress: Progress = no_progress,
) -> dict[str, Sample]:
    """Question id to what came of it, in order; what the cache holds is not asked again."""
    found = {}
    for at, golden in enumerate(questions):
        progress("answering", at, len(questions))
        mine = {**key, "question": golden.question}
        kept = cache.get("answers", mine)
        sample = from_json(golden.id, kept) if kept is not None else ask(assistant, golden)
        if kept is None and not sample.failed:
            cache.keep("answers", mine, to_json(sample))
        found[golden.id] = sample
    progress("answering", len(questions), len(questions))
    return found


def ask(assistant: Assistant, golden: Golden) -> Sample:
    """One question through the Assistant. A generator that fails makes a failed sample, not an error."""
    from studyrag.records import Answered, Reading

    passages: tuple[Passage, ...] = ()
    try:
        for event in assistant.ask(golden.question):
            if isinstance(event, Reading):
                passages = event.context.passages
            elif isinstance(event, Answered):
                one = event.answer
                return Sample(
                    golden.id, golden.question, one.text, one.abstained, one.sentences, one.citations, passages,
                    dict(one.timings_ms),
                )  # fmt: skip
    except GenerationFailed as err:
        return Sample(golden.id, golden.question, "", False, (), (), passages, {}, failed=f"no answer: {err.message}")
    raise AssertionError("an Assistant's last event is Answered")


def to_json(sample: Sample) -> dict[str, Any]:
    """Without the id: equal questions are one entry, whatever they are called."""
    return {name: value for name, value in asdict(sample).items() if name != "id"}


def from_json(golden_id: str, values: Mapping[str, Any]) -> Sample:
    return Sample(
        id=golden_id,
        question=values["question"],
        text=values["text"],
        abstained=values["abstained"],
        sentences=tuple(
            Sentence(one["text"], one["supported"], tuple(one["citations"])) for one in values["sentences"]
        ),
        citations=tuple(Citation(**_headed(one)) for one in values["citations"]),
        passages=tuple(Passage(**_headed(one)) for one in values["passages"]),
        timings_ms=values["timings_ms"],
        failed=values["failed"],
    )


def _headed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "headings": tuple(values["headings"])}
