"""RAGAS's own metrics of one sample, with our judge and our embedder in place of its clients.

RAGAS writes its prompts and computes its scores. Where it wants a verdict on a statement or a passage, it gets the
judge's yes or no, calibrated and measured on the labelled items; a small judge that writes its verdicts as JSON
repeats the first one to the end. Everything else is JSON held to a schema tighter than RAGAS's own, and a metric of
which any call failed is unscored, whatever RAGAS would make of the rest. Nothing waits in a queue: RAGAS's coroutines
are run here, one step after the other.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeVar

from studyrag.errors import GenerationFailed, StudyRagError
from studyrag.evals.answer_metrics import Score, checked, unscored
from studyrag.evals.cache import Cache
from studyrag.evals.golden import Golden
from studyrag.evals.judge import JSON_TOKENS, Judge, lines_of
from studyrag.evals.judgements import Chances, probability
from studyrag.evals.labelled import RELEVANCE, SUPPORT
from studyrag.evals.samples import Sample
from studyrag.protocols import Embedder
from studyrag.records import Message

VERDICTS = frozenset({"noncommittal"})
RATINGS = frozenset({"rating"})
MOST_ITEMS, LONGEST_TEXT = 12, 500
_NOW = "\nNow perform the same with the following input\n"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RagasMetric:
    """How one of RAGAS's metrics is made and what it wants of a sample. ``low``: its least value.

    ``task``: the judge's, whose yes and no are its verdicts; "" for a metric whose every reply is JSON.
    """

    cls: str
    arguments: tuple[str, ...]
    embeds: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    low: float = 0.0
    task: str = ""


METRICS: Mapping[str, RagasMetric] = {
    "RAGAS Faithfulness": RagasMetric("Faithfulness", ("user_input", "response", "retrieved_contexts"), task=SUPPORT),
    "RAGAS ContextRelevance": RagasMetric("ContextRelevance", ("user_input", "retrieved_contexts")),
    "RAGAS ContextPrecision": RagasMetric(
        "ContextPrecision", ("user_input", "reference", "retrieved_contexts"), task=RELEVANCE
    ),
    "RAGAS ContextRecall": RagasMetric(
        "ContextRecall", ("user_input", "retrieved_contexts", "reference"), task=SUPPORT
    ),
    "RAGAS AnswerRelevancy": RagasMetric(
        "AnswerRelevancy", ("user_input", "response"), embeds=True, options={"strictness": 1}, low=-1.0
    ),
    "RAGAS FactualCorrectness": RagasMetric("FactualCorrectness", ("response", "reference"), task=SUPPORT),
}
RAGAS = tuple(METRICS)
CORE = ("RAGAS Faithfulness", "RAGAS ContextRelevance", "RAGAS ContextPrecision", "RAGAS ContextRecall")
"""Whether the answer follows from its passages, and whether these answer the question."""


def require_ragas() -> None:
    """:raises StudyRagError: when it is not installed."""
    if find_spec("ragas") is None:
        raise StudyRagError(
            "RAGAS's metrics need packages that are not installed: ragas",
            fix="pip install 'studyrag[evals]', or pass --metrics fast",
        )


class RagasJudge:
    """What RAGAS takes for its LLM. ``failures``: why calls failed since ``start``.

    Replies and opinions are kept in the cache as they come, and so is a reply's failure where it would come again.
    """

    is_async = True  # RAGAS reads it though its base class does not have it

    def __init__(self, judge: Judge, cache: Cache, chance: Chances) -> None:
        self._judge, self._cache, self._chance = judge, cache, chance
        self.failures: list[str] = []
        self._failed: dict[str, GenerationFailed] = {}

    def start(self) -> None:
        self.failures, self._failed = [], {}

    def generate(self, prompt: str, response_model: Any) -> Any:
        """A ``response_model`` whose values were checked.

        :raises GenerationFailed: as the judge does, and for values out of range; at once for a prompt that failed,
            since some metrics try again in vain.
        """
        if prompt in self._failed:
            raise self._failed[prompt]
        try:
            return response_model.model_validate(self._answered(prompt, response_model))
        except GenerationFailed as err:
            self.failures.append(err.message)
            self._failed[prompt] = err
            raise

    def _answered(self, prompt: str, response_model: Any) -> Any:
        """By the name of what RAGAS asks for. ContextRecall asks for a verdict on each sentence of the reference."""
        asked = response_model.__name__
        if asked == "NLIStatementOutput":
            given = _given(prompt)
            return {"statements": [self._judged(given["context"], one, "verdict") for one in given["statements"]]}
        if asked == "ContextPrecisionOutput":
            given = _given(prompt)
            return self._verdict(RELEVANCE, given["context"], given["question"], "verdict")
        if asked == "ContextRecallOutput":
            given = _given(prompt)
            text = given["answer"]
            found = [self._judged(given["context"], one, "attributed") for one in lines_of(text) or [text]]
            return {"classifications": found}
        return self._reply(prompt, tightened(response_model.model_json_schema()))

    def _judged(self, context: str, statement: str, key: str) -> dict[str, Any]:
        return {"statement": statement, **self._verdict(SUPPORT, context, statement, key)}

    def _verdict(self, task: str, context: str, text: str, key: str) -> dict[str, Any]:
        """Yes as 1 or no as 0, named ``key``, with P(yes) for its reason."""
        chance = probability(self._judge, self._cache, self._chance, task, context, text)
        return {"reason": f"P(yes) = {chance:.3f}", key: int(chance >= 0.5)}

    def _reply(self, prompt: str, schema: Mapping[str, Any]) -> Any:
        key = {"judge": self._judge.sha256, "prompt": prompt, "schema": schema, "tokens": JSON_TOKENS}
        kept = self._cache.get("replies", key)
        if kept is None:
            kept = self._asked(prompt, schema)
            if "failed" not in kept or self._judge.repeatable:
                self._cache.keep("replies", key, kept)
        if "failed" in kept:
            raise GenerationFailed(kept["failed"], fix="use another judge")
        return kept["said"]

    def _asked(self, prompt: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """``said``: a value that fits, or ``failed``: why there is none."""
        try:
            value = self._judge.write_json(_messages(prompt), schema)
        except GenerationFailed as err:
            return {"failed": err.message}
        reason = misfit(value, schema)
        return {"failed": f"{self._judge.name}: {reason}"} if reason else {"said": value}

    async def agenerate(self, prompt: str, response_model: Any) -> Any:
        return self.generate(prompt, response_model)


class RagasEmbeddings:
    """What RAGAS takes for its embedding model."""

    cache = None

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def embed_text(self, text: str, **_: Any) -> list[float]:
        return self.embed_texts([text])[0]

    def embed_texts(self, texts: Sequence[str], **_: Any) -> list[list[float]]:
        return [[float(number) for number in row] for row in self._embedder.embed(list(texts))]

    async def aembed_text(self, text: str, **_: Any) -> list[float]:
        return self.embed_text(text)

    async def aembed_texts(self, texts: Sequence[str], **_: Any) -> list[list[float]]:
        return self.embed_texts(texts)


class RagasScorer:
    """Scores samples by the named ones of RAGAS's metrics. Making it imports RAGAS (3 s), told to report to nobody."""

    def __init__(
        self, judge: Judge, embedder: Embedder, cache: Cache, chance: Chances, names: Sequence[str] = RAGAS
    ) -> None:
        """:raises StudyRagError: when RAGAS cannot be imported."""
        self.names = tuple(names)
        self._llm, self._embeddings = RagasJudge(judge, cache, chance), RagasEmbeddings(embedder)
        collections = _imported()
        self._metrics = {
            name: getattr(collections, one.cls)(
                llm=self._llm, **({"embeddings": self._embeddings} if one.embeds else {}), **one.options
            )
            for name, one in METRICS.items()
            if name in self.names
        }

    def score(self, name: str, sample: Sample, golden: Golden) -> Score:
        """Unscored where a call failed, RAGAS objects, or the value is no number in range."""
        given: dict[str, Any] = {
            "user_input": sample.question,
            "response": sample.text,
            "retrieved_contexts": list(sample.contexts),
            "reference": golden.reference,
        }
        metric = METRICS[name]
        missing = [argument for argument in metric.arguments if not given[argument]]
        if missing:
            return unscored(f"there is no {' and no '.join(missing)}")
        self._llm.start()
        try:
            value = finished(self._metrics[name].ascore(**{key: given[key] for key in metric.arguments})).value
        except GenerationFailed as err:
            return unscored(err.message)
        except Exception as err:  # RAGAS raises whatever its libraries do; one sample's trouble is that sample's
            return unscored(f"RAGAS: {type(err).__name__}: {err}")
        if self._llm.failures:
            return unscored(self._llm.failures[0])
        return checked(float(value), low=metric.low)


def _imported() -> Any:
    """RAGAS's metrics, whose base classes then know ours."""
    require_ragas()
    os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            llms = importlib.import_module("ragas.llms.base")
            embeddings = importlib.import_module("ragas.embeddings.base")
            collections = importlib.import_module("ragas.metrics.collections")
        except ImportError as err:
            raise StudyRagError(f"ragas cannot be imported: {err}", fix="pip install 'studyrag[evals]'") from err
    llms.InstructorBaseRagasLLM.register(RagasJudge)
    embeddings.BaseRagasEmbedding.register(RagasEmbeddings)
    return collections


def finished(steps: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that never has to wait: no event loop, so Ctrl-C ends it where it is."""
    try:
        steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    steps.close()
    raise RuntimeError("a coroutine of RAGAS waits for something that is not the judge")


def _messages(prompt: str) -> list[Message]:
    """One user message, the sample's own part as its tail: what precedes it is the same for every sample."""
    head, now, tail = prompt.rpartition(_NOW)
    return [Message("user", head, now + tail)] if now else [Message("user", prompt)]


def _given(prompt: str) -> Any:
    """The sample's own part of a prompt: RAGAS puts it there as JSON."""
    return json.loads(prompt.rpartition("\ninput: ")[2].rpartition("\nOutput:")[0])


def tightened(schema: Mapping[str, Any]) -> dict[str, Any]:
    """RAGAS's schema with verdicts of 0 or 1, ratings of 0 to 2, no empty lists and no endless ones."""
    made = copy.deepcopy(dict(schema))
    _tighten(made, "")
    for definition in made.get("$defs", {}).values():
        _tighten(definition, "")
    return made


def _tighten(part: dict[str, Any], name: str) -> None:
    kind = part.get("type")
    if kind == "integer" and name in VERDICTS | RATINGS:
        part.clear()
        part["enum"] = [0, 1] if name in VERDICTS else [0, 1, 2]
    elif kind == "string":
        part["minLength"], part["maxLength"] = 1, LONGEST_TEXT
    elif kind == "array":
        part["minItems"], part["maxItems"] = 1, MOST_ITEMS
        _tighten(part["items"], "")
    elif kind == "object":
        part["additionalProperties"] = False
        for key, inner in part.get("properties", {}).items():
            _tighten(inner, key)


def misfit(value: Any, schema: Mapping[str, Any]) -> str:
    """Why the value does not fit a tightened schema; "" when it does. Servers may not hold a model to it."""
    return _misfit(value, schema, schema.get("$defs", {}), "reply")


def _misfit(value: Any, part: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> str:
    if "$ref" in part:
        return _misfit(value, definitions[part["$ref"].rpartition("/")[2]], definitions, where)
    if "enum" in part:
        known = any(value is not True and value is not False and value == one for one in part["enum"])
        return "" if known else f"{where} is {value!r}, not one of {part['enum']}"
    kind = part.get("type")
    if kind == "object":
        if not isinstance(value, dict) or set(value) != set(part["properties"]):
            return f"{where} is not an object with {', '.join(part['properties'])}"
        inner = (_misfit(value[key], one, definitions, f"{where}.{key}") for key, one in part["properties"].items())
        return next(filter(None, inner), "")
    if kind == "array":
        if not isinstance(value, list) or not part["minItems"] <= len(value) <= part["maxItems"]:
            return f"{where} is not a list of {part['minItems']} to {part['maxItems']}"
        inner = (_misfit(one, part["items"], definitions, f"{where}[{at}]") for at, one in enumerate(value))
        return next(filter(None, inner), "")
    wanted: Mapping[Any, Callable[[Any], bool]] = {
        "string": lambda one: isinstance(one, str) and bool(one.strip()),
        "integer": lambda one: isinstance(one, int) and not isinstance(one, bool),
    }
    return "" if wanted.get(kind, lambda _one: True)(value) else f"{where} is no {kind}"
