"""The judge and its calibration: log-odds, schemas, halves, arithmetic by hand, RAGAS's calls and their failures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from pydantic import BaseModel

from studyrag.embedding import HashEmbedder
from studyrag.errors import GenerationFailed, Misuse, StudyRagError
from studyrag.evals.cache import Cache
from studyrag.evals.calibrating import (
    COSINE,
    Calibration,
    Fitted,
    Task,
    fit,
    kappa,
    quality,
    read_calibration,
    resampled,
    true_share,
    uncalibrated,
    write_calibration,
)
from studyrag.evals.judge import (
    RELEVANCE,
    SAID,
    SUPPORT,
    Example,
    FakeJudgeModel,
    Judge,
    Nearest,
    Wording,
    nearest_sentences,
)
from studyrag.evals.judged import judge_the_judge
from studyrag.evals.judgements import Chances, chances
from studyrag.evals.labelled import Item, halves, load_items
from studyrag.evals.measuring import Mean
from studyrag.evals.ragas_metrics import MOST_ITEMS, RagasJudge, finished, misfit, tightened
from studyrag.records import Message

OLD_NEWS = Message("user", "Is this news? Yes or no.")


class Scripted(FakeJudgeModel):
    """Says what it is told to: log-probabilities, or JSON texts in turn (an exception is raised)."""

    def __init__(self, *, weights: Sequence[float] = (-0.1, -2.0), texts: Sequence[str | Exception] = ()) -> None:
        self.weights, self.texts = list(weights), list(texts)
        self.asked: list[Sequence[Message]] = []

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        self.asked.append(messages)
        return self.weights

    def write_json(self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int) -> str:
        self.asked.append(messages)
        said = self.texts.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


class Writer:
    """A model without probabilities, as a server is one."""

    name, context_tokens = "server", 100

    def __init__(self, said: str) -> None:
        self.said = said

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 0

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        return iter([self.said])

    def close(self) -> None:
        return


class JsonOnly(Writer):
    def write_json(self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int) -> str:
        assert schema["properties"] == {"verdict": {"enum": ["Yes", "No"]}}
        return self.said


def items(folder: Path, count: int = 6, *, notes: int = 6) -> Path:
    """Labelled items that the fake judge gets right: a statement made of the context's words, or of none of them."""
    folder.mkdir(parents=True, exist_ok=True)
    context = "Green tea is brewed at eighty degrees for two whole minutes, says the old tin on the kitchen shelf."
    rows: dict[str, list[dict[str, object]]] = {"statements": [], "relevance": []}
    for at in range(count):
        for label in (True, False):
            text = context if label else "Cats sleep."
            about = {"note": f"f/n{at % notes}.md", "context": context}
            rows["statements"].append(
                {"id": f"s{at}{label}", **about, "statement": text, "supported": label, "error": "" if label else "x"}
            )
            rows["relevance"].append(
                {"id": f"r{at}{label}", **about, "question": text, "relevant": label, "kind": "a" if label else "x"}
            )
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def item(name: str, note: str, label: bool = True) -> Item:
    return Item(name, note, "context", "text", label, "")


# The judge


def test_an_opinion_is_the_difference_of_log_probabilities_by_wording() -> None:
    model = Scripted(weights=(math.log(0.8), math.log(0.1)))
    judge = Judge(model, HashEmbedder(), sha256="x")
    assert judge.support("the context", "the statement") == {
        wording.name: pytest.approx(math.log(8)) for wording in SUPPORT
    }
    opinion = judge.relevance("a passage", "a passage")
    assert set(opinion) == {*(wording.name for wording in RELEVANCE), COSINE}
    assert opinion[COSINE] == pytest.approx(1.0)
    assert uncalibrated(opinion) == pytest.approx(8 / 9)
    for messages in model.asked:
        assert "the context" in messages[-1].text or "a passage" in messages[-1].text


def test_what_is_judged_may_hold_braces() -> None:
    made = Wording("w", "s", "{context}", "{text}").messages("{text} {0}", "{context} \\frac{1}{2}")
    assert (made[1].content, made[1].tail) == ("{text} {0}", "{context} \\frac{1}{2}")


def test_examples_are_turns_of_the_chat_before_the_question() -> None:
    wording = Wording("w", "s", "{context}", "?{text}", yes="Ja", no="Nein", examples=(Example("a", "b", False),))
    roles = [(message.role, message.text) for message in wording.messages("c", "d")]
    assert roles == [("system", "s"), ("user", "a?b"), ("assistant", "Nein"), ("user", "c?d")]


def test_examples_of_every_wording_have_both_answers() -> None:
    for wording in (*SUPPORT, *RELEVANCE):
        assert len({one.yes for one in wording.examples}) != 1


def test_the_nearest_sentences_are_shown_in_their_order() -> None:
    context = "Cats sleep a lot.\nGreen tea is brewed\nat 80 degrees. Dogs bark. It is bitter when green tea is hot."
    found = nearest_sentences(HashEmbedder(), context, "green tea is hot", 2)
    assert found.text == "Green tea is brewed at 80 degrees. It is bitter when green tea is hot."
    assert not found.whole
    assert found.cosine == nearest_sentences(HashEmbedder(), context, "green tea is hot", 1).cosine
    assert nearest_sentences(HashEmbedder(), "One.\nTwo.", "three", 2).whole
    assert nearest_sentences(HashEmbedder(), "", "three", 2) == Nearest("", -1.0, whole=True)


def test_a_statement_is_judged_by_the_nearest_sentences_of_a_long_context() -> None:
    model = Scripted()
    context = "Cats sleep a lot. Green tea is brewed at 80 degrees. Dogs bark. It is bitter when green tea is hot."
    Judge(model, HashEmbedder(), sha256="x").support(context, "green tea is hot")
    Judge(model, HashEmbedder(), sha256="x").support("One.\nTwo.", "three")
    long, short = (messages[-1].text for messages in model.asked)
    assert "bitter" in long and "Dogs" not in long
    assert "One.\nTwo." in short


def test_another_embedder_is_another_version_of_the_prompts() -> None:
    embedders = (HashEmbedder(), HashEmbedder(dim=32), HashEmbedder())
    versions = [Judge(FakeJudgeModel(), one, sha256="x").prompts for one in embedders]
    assert versions[0] == versions[2] != versions[1]


def test_a_server_says_yes_or_no_in_json() -> None:
    assert Judge(JsonOnly('{"verdict": "Yes"}'), HashEmbedder(), sha256="x").support("s", "s")["examples"] == SAID
    assert Judge(JsonOnly('{"verdict": "No"}'), HashEmbedder(), sha256="x").support("s", "s")["examples"] == -SAID


@pytest.mark.parametrize("said", ['{"verdict": "Maybe"}', "[]", "Yes", '{"verdict": '])
def test_a_server_that_says_neither_fails(said: str) -> None:
    with pytest.raises(GenerationFailed):
        Judge(JsonOnly(said), HashEmbedder(), sha256="x").support("c", "s")


def test_a_model_that_can_do_neither_fails() -> None:
    with pytest.raises(GenerationFailed, match="cannot be held to a JSON schema"):
        Judge(Writer("Yes"), HashEmbedder(), sha256="x").support("c", "s")


def test_only_what_runs_here_fails_again_for_certain() -> None:
    assert Judge(FakeJudgeModel(), HashEmbedder(), sha256="x").repeatable
    assert not Judge(JsonOnly(""), HashEmbedder(), sha256="x").repeatable


# Labelled items


def test_halves_are_of_whole_notes_whatever_the_labels() -> None:
    made = [item(f"{note}{at}", f"folder/{note}.md", bool(at % 2)) for note in "abcdefg" for at in range(3)]
    first, other = halves(made)
    assert {one.note for one in first}.isdisjoint({one.note for one in other})
    assert len(first) + len(other) == len(made)
    assert (len({one.note for one in first}), len({one.note for one in other})) == (4, 3)
    turned = [replace(one, label=not one.label) for one in reversed(made)]
    assert {one.id for one in halves(turned)[0]} == {one.id for one in first}


def test_items_are_read_by_id(tmp_path: Path) -> None:
    found = load_items(items(tmp_path, 2), "support")
    assert [one.id for one in found] == ["s0False", "s0True", "s1False", "s1True"]
    assert [one.label for one in found] == [False, True, False, True]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not an item"),
        ('{"id": "a"}', "line 1: not an item"),
        (
            '{"id": "a", "note": "n", "context": "c", "statement": "s", "supported": 1, "error": ""}',
            '"supported" is true or false',
        ),
        ("", "no labelled items"),
    ],
)
def test_what_is_no_item_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "statements.jsonl").write_text(line)
    with pytest.raises(Misuse) as caught:
        load_items(tmp_path, "support")
    assert message in f"{caught.value.message} {caught.value.fix}"


def test_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    items(tmp_path, 1)
    (tmp_path / "statements_b.jsonl").write_text((tmp_path / "statements.jsonl").read_text())
    with pytest.raises(Misuse, match="is there already"):
        load_items(tmp_path, "support")


# Calibration


def test_a_fit_is_ridge_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(60, 2)) * [1.0, 5.0] + [0.0, 2.0]
    labels = [bool(one) for one in raw[:, 0] + 0.3 * raw[:, 1] + rng.normal(size=60) > 0.5]
    opinions = [{"a": float(row[0]), "b": float(row[1])} for row in raw]
    made = fit(opinions, labels)
    scaled = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    theirs = linear.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(scaled, labels).predict_proba(scaled)[:, 1]
    assert [made.probability(one) for one in opinions] == pytest.approx(list(theirs), abs=1e-5)


def test_symmetrical_opinions_need_no_intercept() -> None:
    made = fit([{"a": 1.0}, {"a": -1.0}, {"a": 2.0}, {"a": -2.0}], [True, False, True, False])
    assert made.intercept == pytest.approx(0.0, abs=1e-9)
    assert made.weights["a"] > 0
    assert made.probability({"a": 0.0}) == pytest.approx(0.5)
    assert (made.probability({"a": -1e9}), made.probability({"a": 1e9})) == (0.0, 1.0)


def test_a_number_that_never_varies_has_no_say() -> None:
    made = fit([{"a": 1.0, "b": 7.0}, {"a": -1.0, "b": 7.0}], [True, False])
    assert made.weights["b"] == 0.0


def test_a_fit_needs_both_labels_and_the_numbers_that_were_fitted() -> None:
    with pytest.raises(Misuse, match="only one label"):
        fit([{"a": 1.0}, {"a": 2.0}], [True, True])
    with pytest.raises(Misuse, match="opinions with b"):
        Fitted(0.0, {"a": 1.0, "b": 1.0}).probability({"a": 1.0})


def test_a_judge_at_its_word_is_the_mean_of_its_log_odds() -> None:
    assert uncalibrated({"a": 2.0, "b": -2.0}) == 0.5
    assert uncalibrated({"a": math.log(3)}) == pytest.approx(0.75)


def test_kappa_by_hand() -> None:
    one, other = np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 0, 0])
    assert kappa(one, other) == pytest.approx((0.75 - 0.5) / 0.5)  # by chance: 0.5 * 0.25 + 0.5 * 0.75
    assert kappa(one, one) == 1.0
    assert kappa(one, np.array([0.0, 1, 1, 0])) == 0.0
    assert kappa(np.ones(3), np.ones(3)) == 0.0
    made = resampled(kappa, [True, False] * 20, [True, False] * 20)
    assert (made.value, made.n) == (1.0, 40)
    assert resampled(kappa, [], []).value is None


def test_quality_by_hand() -> None:
    made = quality([0.9, 0.6, 0.4, 0.5, 0.1], [True, True, True, False, False], ["p", "p", "p", "x", "y"])
    assert made.confusion == {"yes as yes": 2, "yes as no": 1, "no as yes": 1, "no as no": 1}
    assert made.accuracy.value == pytest.approx(3 / 5)
    assert made.sensitivity.value == pytest.approx(2 / 3)
    assert made.specificity.value == pytest.approx(1 / 2)
    assert made.auc.value == pytest.approx((2 + 2 + 1) / 6)
    assert {kind: one.value for kind, one in made.by_kind.items()} == {"p": pytest.approx(2 / 3), "x": 0.0, "y": 1.0}
    assert quality([], [], []).accuracy.value is None


def test_the_share_behind_a_measured_one() -> None:
    assert true_share(0.8, 0.9, 0.8) == pytest.approx((0.8 + 0.8 - 1) / 0.7)
    assert true_share(0.9, 0.9, 0.8) == pytest.approx(1.0)
    assert true_share(0.95, 0.9, 0.8) == 1.0
    assert true_share(0.1, 0.9, 0.8) == 0.0
    assert true_share(0.6, 0.6, 0.5) is None


def task() -> Task:
    return Task(Fitted(0.25, {"a": 1.5}), quality([0.9, 0.2], [True, False], ["p", "x"]))


def test_a_calibration_is_read_back_for_its_judge_and_prompts_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "calibration.json"
    one = Calibration("small", "s1", "p1", "labels", {"support": task(), "relevance": task()})
    assert read_calibration(file, judge_sha256="s1", prompts="p1") is None
    write_calibration(file, one)
    write_calibration(file, replace(one, judge="large", judge_sha256="s2"))
    assert read_calibration(file, judge_sha256="s1", prompts="p1") == one
    assert read_calibration(file, judge_sha256="s2", prompts="p1") == replace(one, judge="large", judge_sha256="s2")
    assert read_calibration(file, judge_sha256="s1", prompts="p2") is None
    assert read_calibration(file, judge_sha256="s3", prompts="p1") is None


@pytest.mark.parametrize("text", ["", "[]", '{"s p": {"tasks": 3}}', '{"s p": {"tasks": {"support": {}}}}'])
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(Misuse, match="not a calibration"):
        read_calibration(tmp_path / "c.json", judge_sha256="s", prompts="p")


def test_the_judge_is_measured_on_the_notes_it_was_not_fitted_on_and_asked_once(tmp_path: Path) -> None:
    model = FakeJudgeModel()
    judge, cache = Judge(model, HashEmbedder(), sha256="fake"), Cache(tmp_path / "cache")
    folder = items(tmp_path / "items")
    found = judge_the_judge(judge, folder, cache)
    for name in ("support", "relevance"):
        one = found.calibration.tasks[name].quality
        assert (one.n, one.auc.value, one.accuracy.value) == (6, 1.0, 1.0)
        assert set(one.by_kind) == {"support": {"yes", "x"}, "relevance": {"a", "x"}}[name]
        assert len(found.judged[name]) == 6
    assert found.about["prompts"] == judge.prompts == found.calibration.prompts

    class Silent(FakeJudgeModel):
        def log_probabilities(self, *_: Any, **__: Any) -> list[float]:
            raise AssertionError("asked again")

    again = judge_the_judge(Judge(Silent(), HashEmbedder(), sha256="fake"), folder, cache)
    assert json.dumps(again.to_json()) == json.dumps(found.to_json())
    with pytest.raises(AssertionError, match="asked again"):
        judge_the_judge(Judge(Silent(), HashEmbedder(), sha256="another"), folder, cache)


def test_items_of_one_note_leave_nothing_to_measure_on(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="one note alone"):
        judge_the_judge(Judge(FakeJudgeModel(), HashEmbedder(), sha256="f"), items(tmp_path, notes=1), Cache(None))


# RAGAS's calls


class Answer(BaseModel):
    statement: str
    reason: str
    verdict: int


class NLIStatementOutput(BaseModel):
    statements: list[Answer]


class ContextPrecisionOutput(BaseModel):
    reason: str
    verdict: int


class Attributed(BaseModel):
    statement: str
    reason: str
    attributed: int


class ContextRecallOutput(BaseModel):
    classifications: list[Attributed]


class Flag(BaseModel):
    question: str
    noncommittal: int


class Flags(BaseModel):
    replies: list[Flag]


class Rating(BaseModel):
    rating: int


class Several(BaseModel):
    statements: list[str]


HAS_TEA = "Green tea is brewed at eighty degrees."


def ragas_prompt(**given: object) -> str:
    example = 'Judge.\ninput: {"an": "example"}\nOutput: x\n'
    values = json.dumps({"context": HAS_TEA, **given}, indent=4)
    return f"{example}\nNow perform the same with the following input\ninput: {values}\nOutput: "


def flagged(*values: object) -> str:
    return json.dumps({"replies": [{"question": "q", "noncommittal": one} for one in values]})


def ragas_judge(model: Any, cache: Cache | None = None) -> RagasJudge:
    return RagasJudge(Judge(model, HashEmbedder(), sha256="x"), cache or Cache(None), chances(None))


def test_schemas_are_tightened_and_ragas_own_is_left_alone() -> None:
    own = Flags.model_json_schema()
    before = json.dumps(own)
    made = tightened(own)
    assert json.dumps(own) == before
    one = made["$defs"]["Flag"]
    assert one["properties"]["noncommittal"] == {"enum": [0, 1]}
    assert one["properties"]["question"]["minLength"] == 1
    assert one["additionalProperties"] is made["additionalProperties"] is False
    assert tightened(Rating.model_json_schema())["properties"]["rating"] == {"enum": [0, 1, 2]}
    several = tightened(Several.model_json_schema())["properties"]["statements"]
    assert (several["minItems"], several["maxItems"]) == (1, MOST_ITEMS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"replies": []}', "not a list of 1 to"),
        (flagged(*[1] * (MOST_ITEMS + 1)), "not a list of 1 to"),
        (flagged(1, 5), "is 5, not one of [0, 1]"),
        (flagged(1, True), "is True, not one of"),
        (flagged(1, 1.0), ""),
        ('{"verdicts": []}', "not an object with replies"),
        ('{"replies": [{"question": " ", "noncommittal": 1}, 3]}', "is no string"),
        (flagged(1, 0), ""),
    ],
)
def test_what_does_not_fit_is_found(text: str, reason: str) -> None:
    found = misfit(json.loads(text), tightened(Flags.model_json_schema()))
    assert (reason in found) if reason else found == ""


def test_verdicts_are_the_judges_yes_and_no_and_nothing_is_written() -> None:
    class Silent(FakeJudgeModel):
        """Yes to what speaks of tea; writes nothing."""

        def log_probabilities(self, messages: Sequence[Message], replies: Sequence[str], **_: Any) -> list[float]:
            yes = 0.9 if HAS_TEA in messages[-1].tail else 0.1
            return [math.log(yes), math.log(1 - yes)]

        def write_json(self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int) -> str:
            raise AssertionError

    ragas = ragas_judge(Silent())
    prompt = ragas_prompt(statements=[HAS_TEA, "Cats sleep.", HAS_TEA])
    made = finished(ragas.agenerate(prompt, NLIStatementOutput))
    assert [one.verdict for one in made.statements] == [1, 0, 1]
    assert [one.statement for one in made.statements] == [HAS_TEA, "Cats sleep.", HAS_TEA]
    assert made.statements[0].reason == "P(yes) = 0.900"
    for question, verdict in ((HAS_TEA, 1), ("Cats sleep?", 0)):
        asked = ragas_prompt(question=question, answer="a")
        assert ragas.generate(asked, ContextPrecisionOutput).verdict == verdict
    assert ragas.failures == []


def test_verdicts_are_calibrated() -> None:
    model = Judge(FakeJudgeModel(), HashEmbedder(), sha256="x")
    ragas = RagasJudge(model, Cache(None), Chances(support=lambda _: 0.4, relevance=lambda _: 0.6))
    (one,) = ragas.generate(ragas_prompt(statements=[HAS_TEA]), NLIStatementOutput).statements
    assert (one.verdict, one.reason) == (0, "P(yes) = 0.400")
    assert ragas.generate(ragas_prompt(question="Cats?", answer="a"), ContextPrecisionOutput).verdict == 1


def test_each_sentence_of_a_reference_is_judged_as_it_stands() -> None:
    model = Scripted(weights=(-0.1, -2.0))
    asked = ragas_prompt(question="q", answer="It is hot, e.g. at noon. Cats\nsleep.")
    made = ragas_judge(model).generate(asked, ContextRecallOutput)
    assert [one.statement for one in made.classifications] == ["It is hot, e.g. at noon.", "Cats sleep."]
    assert [one.attributed for one in made.classifications] == [1, 1]
    assert len(ragas_judge(model).generate(ragas_prompt(answer="#"), ContextRecallOutput).classifications) == 1


def test_a_written_reply_splits_what_varies_off() -> None:
    model = Scripted(texts=['{"rating": 2}'])
    ragas = ragas_judge(model)
    assert finished(ragas.agenerate(ragas_prompt(), Rating)).rating == 2
    (message,) = model.asked[0]
    assert message.text == ragas_prompt()
    assert message.tail.startswith("\nNow perform the same") and "example" not in message.tail
    assert ragas.failures == []


@pytest.mark.parametrize("said", ["{", '{"ratings": 1}', '{"rating": 7}', GenerationFailed("cut off after 9", fix="")])
def test_a_failed_call_is_remembered_and_not_made_again(said: str | Exception) -> None:
    model = Scripted(texts=[said])
    ragas = ragas_judge(model)
    for _ in range(3):  # as ContextRelevance does
        with pytest.raises(GenerationFailed):
            ragas.generate(ragas_prompt(), Rating)
    assert len(ragas.failures) == 1 == len(model.asked)
    ragas.start()
    assert ragas.failures == []


def test_a_verdict_that_could_not_be_had_fails_the_call() -> None:
    class Broken(FakeJudgeModel):
        def log_probabilities(self, messages: Sequence[Message], replies: Sequence[str], **_: Any) -> list[float]:
            raise GenerationFailed("broke off", fix="")

    ragas = ragas_judge(Broken())
    with pytest.raises(GenerationFailed):
        ragas.generate(ragas_prompt(statements=[HAS_TEA]), NLIStatementOutput)
    assert ragas.failures == ["broke off"]


def test_replies_are_kept_and_so_are_failures_that_would_come_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    model = Scripted(texts=['{"rating": 1}', "{"])
    for _ in range(2):
        ragas = ragas_judge(model, cache)
        assert ragas.generate("one", Rating).rating == 1
        with pytest.raises(GenerationFailed, match="not JSON"):
            ragas.generate("other", Rating)
    assert len(model.asked) == 2
    for said in ("{", '{"rating": 2}'):  # a server may have been busy
        server = Writer("")
        server.write_json = lambda *_, said=said, **__: said  # type: ignore[attr-defined]
        ragas = RagasJudge(Judge(server, HashEmbedder(), sha256="server"), cache, chances(None))
        if said == "{":
            with pytest.raises(GenerationFailed):
                ragas.generate("rate it", Rating)
        else:
            assert ragas.generate("rate it", Rating).rating == 2


def test_coroutines_run_at_once_and_none_may_wait() -> None:
    class Waiting:
        def __await__(self) -> Iterator[None]:
            yield

    async def quick() -> int:
        return 3

    async def slow() -> None:
        await Waiting()

    assert finished(quick()) == 3
    with pytest.raises(RuntimeError, match="waits for something"):
        finished(slow())


# The cache


def test_the_cache_finds_by_content_and_survives_damage(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.keep("k", {"a": 1, "b": [2]}, {"x": "é"})
    assert cache.get("k", {"b": [2], "a": 1}) == {"x": "é"}
    assert cache.get("k", {"a": 1}) is None and cache.get("other", {"a": 1, "b": [2]}) is None
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{")
    assert cache.get("k", {"a": 1, "b": [2]}) is None
    assert cache.get_or_make("k", {"a": 1, "b": [2]}, lambda: 7) == 7
    assert cache.get("k", {"a": 1, "b": [2]}) == 7
    assert list(tmp_path.rglob("*.part")) == []


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyRagError) as caught:
        Cache(tmp_path / "file").keep("k", {}, 1)
    assert "--cache" in caught.value.fix
    Cache(None).keep("k", {}, 1)


def test_means_of_nothing_are_unknown() -> None:
    assert quality([0.9], [True], ["p"]).auc == Mean(None, None, None, 1)
