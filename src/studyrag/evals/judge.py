"""A judge: a chat model asked for yes or no, read as log-odds, or for JSON that fits a schema. One call at a time.

Its prompts stand here and nowhere else; whatever changes what it is asked changes ``Judge.asked``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.errors import GenerationFailed
from studyrag.evals.calibrating import COSINE
from studyrag.protocols import Embedder, Generator, JsonWriter, Scorer, StateReader
from studyrag.records import Message
from studyrag.sentences import units

if TYPE_CHECKING:
    from studyrag.evals.calibrating import Opinion
    from studyrag.evals.probing import Probe
    from studyrag.protocols import Vector

JUDGE_WINDOW = 6144
"""Tokens of prompt and reply: RAGAS's longest prompt, five passages, and what it asks to be written."""
JSON_TOKENS = 1536
NEAREST = 2
"""Sentences of a context that are shown with a statement: a small model loses itself in more."""
SAID = 5.0
"""Log-odds of a yes from a model that says it without probabilities."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question that the judge is shown with its right answer, before it is asked one."""

    context: str
    text: str
    yes: bool


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to ask. ``head`` and ``tail`` hold ``{context}`` and ``{text}``; another tail to the same head is cheap.

    ``yes`` and ``no`` are replies: log-odds are ln P(yes) - ln P(no).
    """

    name: str
    system: str
    head: str
    tail: str
    yes: str = "Yes"
    no: str = "No"
    examples: tuple[Example, ...] = ()

    def messages(self, context: str, text: str) -> list[Message]:
        made = [Message("system", self.system)]
        for one in self.examples:
            made += [self._asked(one.context, one.text), Message("assistant", self.yes if one.yes else self.no)]
        return [*made, self._asked(context, text)]

    def _asked(self, context: str, text: str) -> Message:
        return Message(
            "user", self.head.format(context=context, text=text), self.tail.format(context=context, text=text)
        )


_TEA = (
    "Green tea is brewed at about 80 °C for two minutes; black tea takes boiling water and four minutes. Too hot water"
    " makes green tea bitter because it draws out more catechins."
)
_BIKES = (
    "A steel road bike weighs 9 to 11 kg and lasts for decades. Carbon frames weigh 7 kg but crack on impact, and most"
    " makers replace them once only."
)
_HARBOUR = (
    "The harbour was dredged in 1931 to a depth of 12 m, which let ships of 20,000 tons dock. Trade doubled within five"
    " years."
)
_DOUGH = (
    "Sourdough rises slowly, because wild yeast is less active than baker's yeast. Salt slows it further and is added"
    " after the first rest."
)
SUPPORT = (
    Wording(
        "examples",
        "You check statements against a source. Say Yes only if the source itself says everything that the statement"
        " says: numbers, names, direction, negation, conditions and degree. Say No if anything in the statement differs"
        " from the source, is stronger than it, is about something else, or is not said there, even if it is true in"
        " the world. Answer with one word: Yes or No.",
        "Source:\n{context}",
        "\n\nStatement: {text}\n\nDoes the source say exactly this? Answer Yes or No.",
        examples=(
            Example(_TEA, "Water that is too hot spoils green tea, since more catechins are extracted.", True),
            Example(_TEA, "Black tea is brewed at about 80 °C, green tea with boiling water.", False),
            Example(_BIKES, "Frames of carbon never survive an impact.", False),
            Example(
                _BIKES,
                "A carbon frame is at least 2 kg lighter than a bicycle of steel, as the text gives the figures.",
                True,
            ),
            Example(_HARBOUR, "In 1931 the harbour was deepened to 21 m.", False),
            Example(_HARBOUR, "Five years after the dredging, twice as much was traded.", True),
            Example(_HARBOUR, "Rotterdam is the largest harbour of Europe.", False),
            Example(_DOUGH, "Salt is added before the first rest, so that the yeast works faster.", False),
            Example(
                _DOUGH,
                "Wild yeast works less vigorously than the yeast that bakers buy, so the dough takes its time.",
                True,
            ),
        ),
    ),
)
RELEVANCE = (
    Wording(
        "answers",
        "You judge whether a passage answers a question. Answer with one word: Yes or No.",
        "Passage:\n{context}",
        "\n\nQuestion: {text}\nDoes the passage contain the answer to the question? Answer Yes or No.",
    ),
)
_VERDICT = {
    "type": "object",
    "properties": {"verdict": {"enum": ["Yes", "No"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}


class Judge:
    """A model that judges. ``sha256`` is of its weights, or of a server's address and model where those are unknown.

    The embedder chooses what of a context it is shown. ``asked`` is the version of what it is asked: of the very text
    of the prompts, and of that embedder. ``prompts`` is that of its opinions: of ``asked`` and of the probe that
    reads its state.
    """

    def __init__(self, model: Generator, embedder: Embedder, *, sha256: str, probe: Probe | None = None) -> None:
        self._model, self._embedder, self.sha256, self.probe = model, embedder, sha256, probe
        asked = [*(astuple(one) for one in (*SUPPORT, *RELEVANCE)), NEAREST, COSINE]
        self.asked = hashlib.sha256(repr((asked, embedder.id)).encode()).hexdigest()[:12]
        self.prompts = f"{self.asked}-{probe.id}" if probe else self.asked

    def with_probe(self, probe: Probe | None) -> Judge:
        """The same judge, its hidden state read by ``probe``."""
        return Judge(self._model, self._embedder, sha256=self.sha256, probe=probe)

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def shows_states(self) -> bool:
        """Whether a probe can read its hidden state: it runs here."""
        return isinstance(self._model, StateReader)

    @property
    def repeatable(self) -> bool:
        """Whether what failed once would fail again: it runs here, on nothing but its weights."""
        return isinstance(self._model, Scorer)

    def close(self) -> None:
        """Frees the model, also where a generator shares it."""
        self._model.close()

    def support(self, context: str, statement: str) -> Opinion:
        """Log-odds, by wording, that the context alone supports the statement.

        :raises GenerationFailed: as the model does.
        """
        shown = self._shown(context, statement)
        return {wording.name: self._log_odds(wording, shown, statement) for wording in SUPPORT}

    def state(self, context: str, statement: str) -> Vector:
        """(d,) float32: what it makes of the statement, for a probe. Costs little after ``support`` of the same.

        :raises GenerationFailed: as the model does, and when it does not show its state.
        """
        if not isinstance(self._model, StateReader):
            raise GenerationFailed(f"{self.name}: does not show its hidden state", fix="use a GGUF file as judge")
        return self._model.hidden_state(SUPPORT[-1].messages(self._shown(context, statement), statement))

    def _shown(self, context: str, statement: str) -> str:
        nearest = nearest_sentences(self._embedder, context, statement, NEAREST)
        return context if nearest.whole else nearest.text

    def relevance(self, passage: str, question: str) -> Opinion:
        """Log-odds, by wording, that the passage holds the answer or an essential part of it; and the best ``COSINE``.

        :raises GenerationFailed: as the model does.
        """
        asked = {wording.name: self._log_odds(wording, passage, question) for wording in RELEVANCE}
        return {**asked, COSINE: nearest_sentences(self._embedder, passage, question, 1).cosine}

    def _log_odds(self, wording: Wording, context: str, text: str) -> float:
        messages = wording.messages(context, text)
        if isinstance(self._model, Scorer):
            yes, no = self._model.log_probabilities(messages, [wording.yes, wording.no])
            return yes - no
        said = self.write_json(messages, _VERDICT)
        if not isinstance(said, dict) or said.get("verdict") not in ("Yes", "No"):
            raise GenerationFailed(f"{self.name}: said neither Yes nor No: {str(said)[:80]}", fix="use another judge")
        return SAID if (said["verdict"] == "Yes") == (wording.yes == "Yes") else -SAID

    def write_json(
        self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int = JSON_TOKENS
    ) -> Any:
        """The value that the model writes, parsed.

        :raises GenerationFailed: as the model does, and when it is no JSON or the model cannot be held to a schema.
        """
        if not isinstance(self._model, JsonWriter):
            raise GenerationFailed(f"{self.name}: cannot be held to a JSON schema", fix="use another judge")
        text = self._model.write_json(messages, schema, max_tokens=max_tokens)
        try:
            return json.loads(text)
        except ValueError as err:
            raise GenerationFailed(f"{self.name}: not JSON: {text[:80]!r}", fix="use another judge") from err


@dataclass(frozen=True, slots=True)
class Nearest:
    """Sentences of a context, in its order. ``cosine`` of the best; ``whole``: the context has no others."""

    text: str
    cosine: float
    whole: bool


def lines_of(text: str) -> list[str]:
    """Its sentences, rows and formulas, each on one line."""
    return [" ".join(text[unit.start : unit.end].split()) for unit in units(text)]


def nearest_sentences(embedder: Embedder, context: str, text: str, count: int) -> Nearest:
    """The ``count`` sentences of the context most like the text by cosine; -1.0 where there is no sentence."""
    sentences = lines_of(context)
    if not sentences:
        return Nearest("", -1.0, whole=True)
    vectors = embedder.embed([text, *sentences])
    cosines = vectors[1:] @ vectors[0]
    best = sorted((-cosines).argsort(kind="stable")[:count])
    return Nearest(" ".join(sentences[at] for at in best), float(cosines.max()), whole=len(sentences) <= count)


class FakeJudgeModel:
    """A judge without a model, for tests and plumbing: yes to what shares more than half of its words with the context.

    JSON is the least that the schema allows. Says nothing about anything.
    """

    name = "fake"
    context_tokens = 10**6

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.text.split()) for message in messages)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        return iter(["Yes"])

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        """ln of the share, and of the rest, for the first and the second reply."""
        yes = min(0.99, max(0.01, self._share(messages)))
        return [math.log(yes), math.log(1 - yes)][: len(replies)]

    def hidden_state(self, messages: Sequence[Message]) -> Vector:
        """(2,): the share, and nothing."""
        return np.array([self._share(messages), 0.0], dtype=np.float32)

    def _share(self, messages: Sequence[Message]) -> float:
        head, _, tail = messages[-1].text.partition("\n\n")
        wanted, held = (set(re.findall(r"\w+", text.casefold())) for text in (tail, head))
        return len(wanted & held) / max(1, len(wanted))

    def weigh_tail(self, messages: Sequence[Message]) -> list[tuple[str, float]]:
        """As if every word had one chance in ten."""
        return [(word, -math.log(10)) for word in messages[-1].tail.split()]

    def write_json(self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int) -> str:
        return json.dumps(_least(schema, schema.get("$defs", {})))

    def close(self) -> None:
        return


def _least(schema: Any, definitions: Any) -> Any:
    """The least value that fits: first enum, "x", as few items as may be."""
    if "$ref" in schema:
        return _least(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "enum" in schema:
        return schema["enum"][-1]
    if schema.get("type") == "object":
        return {name: _least(part, definitions) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_least(schema["items"], definitions)] * schema.get("minItems", 0)
    return 0 if schema.get("type") in ("integer", "number") else "x"
