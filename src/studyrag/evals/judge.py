"""A judge: a chat model asked for yes or no, read as log-odds, or for JSON that fits a schema. One call at a time.

Its prompts stand here and nowhere else; whatever changes what it is asked changes ``PROMPTS``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from studyrag.errors import GenerationFailed
from studyrag.protocols import Generator, JsonWriter, Scorer
from studyrag.records import Message

if TYPE_CHECKING:
    from studyrag.evals.calibrating import Opinion

JUDGE_WINDOW = 6144
"""Tokens of prompt and reply: RAGAS's longest prompt, five passages, and what it asks to be written."""
JSON_TOKENS = 1536
SAID = 5.0
"""Log-odds of a yes from a model that says it without probabilities."""


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

    def messages(self, context: str, text: str) -> list[Message]:
        return [
            Message("system", self.system),
            Message("user", self.head.format(context=context, text=text), self.tail.format(context=context, text=text)),
        ]


SUPPORT = (
    Wording(
        "strict",
        "You are a strict fact checker. A statement is supported only if the context alone says all of it: every"
        " number, name, direction, negation, condition and degree. What is true in the world but not said by the"
        " context is not supported. Answer with one word: Yes or No.",
        "Context:\n{context}",
        "\n\nStatement: {text}\nIs the statement supported by the context? Answer Yes or No.",
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
PROMPTS = hashlib.sha256(repr([astuple(one) for one in (*SUPPORT, *RELEVANCE)]).encode()).hexdigest()[:12]
"""Version of the prompts: of their very text."""
_VERDICT = {
    "type": "object",
    "properties": {"verdict": {"enum": ["Yes", "No"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}


class Judge:
    """A model that judges. ``sha256`` is of its weights, or of a server's address and model where those are unknown."""

    def __init__(self, model: Generator, *, sha256: str) -> None:
        self._model, self.sha256 = model, sha256

    @property
    def name(self) -> str:
        return self._model.name

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
        return {wording.name: self._log_odds(wording, context, statement) for wording in SUPPORT}

    def relevance(self, passage: str, question: str) -> Opinion:
        """Log-odds, by wording, that the passage holds the answer or an essential part of it.

        :raises GenerationFailed: as the model does.
        """
        return {wording.name: self._log_odds(wording, passage, question) for wording in RELEVANCE}

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
        head, _, tail = messages[-1].text.partition("\n\n")
        wanted, held = (set(re.findall(r"\w+", text.casefold())) for text in (tail, head))
        share = len(wanted & held) / max(1, len(wanted))
        yes = min(0.99, max(0.01, share))
        return [math.log(yes), math.log(1 - yes)][: len(replies)]

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
