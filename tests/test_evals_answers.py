"""Answers scored: which questions, what is kept when, metrics by hand, reasons for the unscored, sums and reports."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("ir_measures")
pytest.importorskip("matplotlib")

from studyrag.assistant import Assistant, Event
from studyrag.embedding import HashEmbedder
from studyrag.errors import GenerationFailed, Misuse
from studyrag.evals import answer_metrics as metrics
from studyrag.evals.answer_metrics import Score, checked, judged_scores, plain_scores, rouge_l, verbatim
from studyrag.evals.answer_plots import answer_plots, judge_plots
from studyrag.evals.answer_tables import answer_tables, judge_tables, worst_answers
from studyrag.evals.answers import AnswerResults, Scored, measured, metric_names, refusals, score_all, summed_up
from studyrag.evals.baseline import fallen, not_asked, read_baseline, write_baseline
from studyrag.evals.cache import Cache
from studyrag.evals.calibrating import Calibration, Fitted, Task, quality
from studyrag.evals.golden import Golden
from studyrag.evals.judge import FakeJudgeModel, Judge
from studyrag.evals.judged import judge_the_judge
from studyrag.evals.judgements import Chances, Judgement, Verdict, chances, claim_text, judge_sample
from studyrag.evals.ragas_metrics import RAGAS, RagasScorer
from studyrag.evals.report import Section, write_section
from studyrag.evals.samples import (
    Sample,
    answer_key,
    ask_all,
    from_json,
    pick,
    program_sha256,
    shard,
    to_json,
)
from studyrag.evals.tables import Table
from studyrag.generating import EchoGenerator
from studyrag.records import Citation, Message, Sentence
from studyrag.settings import Settings
from tests.makers import passage, write_notes
from tests.test_evals_judging import items

NOTES = {
    "tea.md": "# Tea\n\n## Green\n\nGreen tea is brewed at 80 degrees.\nIt is bitter.\n\n## Black\n\nBoiling water.\n",
    "bikes.md": "# Bikes\n\n## Chains\n\nA bicycle chain is oiled every 200 kilometres.\n",
}
QUESTIONS = (
    Golden("a", "number", "plain", "", "How hot is green tea?", ("tea.md",), ("brewed at 80 degrees",), "80 degrees."),
    Golden("b", "procedure", "terse", "", "oil bicycle chain", ("bikes.md",), ("every 200",), "Every 200 kilometres."),
    Golden("u", "unanswerable", "plain", "other-field", "Who ruled Burgundy?", (), (), ""),
)


def sample(**changed: Any) -> Sample:
    """Two claims and a lead-in: one stands in the passage and cites it, one does neither."""
    made = Sample(
        id="a",
        question="How hot is green tea?",
        text="Like so:\n- Green tea is brewed at 80 degrees.\nIt is sweet.",
        abstained=False,
        sentences=(
            Sentence("Like so:\n", None, ()),
            Sentence("- Green tea is brewed at 80 degrees.\n", True, (1,)),
            Sentence("It is sweet.", False, ()),
        ),
        citations=(Citation(1, "tea.md", ("Tea", "Green"), 5, 6, "Green tea is brewed at 80 degrees.\nIt is bitter."),),
        passages=(
            passage("Green tea is brewed at\n80 degrees.\nIt is bitter.", note_id="tea.md", headings=("Tea", "Green")),
        ),
        timings_ms={"retrieve": 12.0},
    )
    return replace(made, **changed)


def judgement(
    claims: Sequence[float | None], cited: Sequence[float | None], passages: Sequence[float | None]
) -> Judgement:
    """From probabilities; None is a call that failed."""

    def verdict(value: float | None) -> Verdict:
        return Verdict("t", "a", value, "" if value is not None else "cut off")

    return Judgement(
        tuple(map(verdict, claims)), tuple((0, verdict(one)) for one in cited), tuple(map(verdict, passages))
    )


# Which questions


def many(count: int) -> list[Golden]:
    kinds = ("number", "why", "comparison")
    return [
        Golden(f"q{at}", kinds[at % 3], "plain", "", f"Question {at}?", ("n.md",), ("e",), "r") for at in range(count)
    ] + [Golden(f"u{at}", "unanswerable", "plain", "other", f"Unknown {at}?", (), (), "") for at in range(count)]


def test_a_sample_has_every_kind_in_its_share_and_is_the_same_twice() -> None:
    made = pick(many(60), 35, seed=0)
    assert len(made) == len({one.id for one in made}) == 35
    assert sum(one.answerable for one in made) == 25
    by_kind = [sum(one.kind == kind for one in made) for kind in ("number", "why", "comparison")]
    assert max(by_kind) - min(by_kind) <= 1
    assert pick(list(reversed(many(60))), 35, seed=0) == made
    assert pick(many(60), 35, seed=1) != made
    assert sum(one.answerable for one in pick(many(60), 5, seed=0)) == 4


def test_a_sample_takes_all_there_are_and_more_of_one_sort_where_the_other_is_short() -> None:
    assert len(pick(many(3), 35, seed=0)) == 6
    few = [one for one in many(30) if one.answerable][:4] + [one for one in many(30) if not one.answerable]
    assert sum(one.answerable for one in pick(few, 20, seed=0)) == 4
    none = [one for one in many(30) if one.answerable]
    assert len(pick(none, 10, seed=0)) == 10


def test_shards_share_the_work() -> None:
    made = many(5)
    parts = [shard(made, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(one.id for part in parts for one in part) == sorted(one.id for one in made)
    assert shard(made, "1/1") == tuple(made)


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="not a part"):
        shard(many(2), text)


# Answers, kept


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    notes = write_notes(tmp_path / "notes", NOTES)
    return Settings(notes=notes, index=tmp_path / "index", embedder="hash", min_coverage=0.0)


@pytest.fixture
def assistant(chosen: Settings, hash_embedder: HashEmbedder) -> Iterator[Assistant]:
    made = Assistant(chosen, hash_embedder, EchoGenerator())
    yield made
    made.close()


def test_samples_are_the_assistants_answers_and_survive_the_cache(assistant: Assistant, tmp_path: Path) -> None:
    found = ask_all(assistant, QUESTIONS, Cache(tmp_path / "c"), {})
    assert list(found) == ["a", "b", "u"]
    one = found["a"]
    assert one.text.startswith("Green tea is brewed at 80 degrees.")
    assert one.passages and one.sentences and one.citations and one.timings_ms
    assert from_json("a", json.loads(json.dumps(to_json(one)))) == one
    assert ask_all(assistant, QUESTIONS, Cache(tmp_path / "c"), {}) == found


class Interrupted(Assistant):
    """Stopped by Ctrl-C at the second question; counts what it is asked."""

    asked: list[str]

    def ask(self, question: str, **_: Any) -> Iterator[Event]:  # type: ignore[override]
        self.asked.append(question)
        if len(self.asked) == 2:
            raise KeyboardInterrupt
        return super().ask(question)


def test_after_an_interruption_only_the_rest_is_asked(
    chosen: Settings, hash_embedder: HashEmbedder, tmp_path: Path
) -> None:
    made = Interrupted(chosen, hash_embedder, EchoGenerator())
    made.asked = []
    cache = Cache(tmp_path / "c")
    with pytest.raises(KeyboardInterrupt):
        ask_all(made, QUESTIONS, cache, {})
    assert len(ask_all(made, QUESTIONS, cache, {})) == 3
    assert made.asked == [QUESTIONS[0].question, QUESTIONS[1].question, QUESTIONS[1].question, QUESTIONS[2].question]
    made.close()


def test_a_judge_that_is_interrupted_loses_one_call(tmp_path: Path) -> None:
    class Stopped(FakeJudgeModel):
        calls = 0

        def log_probabilities(self, messages: Sequence[Message], replies: Sequence[str], **_: Any) -> list[float]:
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().log_probabilities(messages, replies)

    model, cache = Stopped(), Cache(tmp_path)
    judge = Judge(model, HashEmbedder(), sha256="x")
    with pytest.raises(KeyboardInterrupt):
        judge_sample(judge, sample(), cache, chances(None))
    judge_sample(judge, sample(), cache, chances(None))
    first = model.calls
    judge_sample(judge, sample(), cache, chances(None))
    assert model.calls == first  # a third time costs nothing


def test_what_decides_an_answer_is_in_its_key(assistant: Assistant, chosen: Settings, tmp_path: Path) -> None:
    def key(settings: Settings, generator: str = "g") -> Mapping[str, Any]:
        return answer_key(assistant, settings, embedder="e", generator=generator)

    plain = key(chosen)
    assert key(chosen) == plain
    assert key(chosen.model_copy(update={"strict": True})) != plain
    assert key(chosen, "another") != plain
    assert key(chosen.model_copy(update={"threads": 3})) == plain
    assert plain["program"] == program_sha256()
    (chosen.notes / "tea.md").write_text(NOTES["tea.md"] + "\nMore.\n")
    assert key(chosen) != plain


def test_a_generator_that_fails_is_a_failed_sample_and_is_tried_again(
    chosen: Settings, hash_embedder: HashEmbedder, tmp_path: Path
) -> None:
    class Broken(EchoGenerator):
        def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
            raise GenerationFailed("broke off", fix="")

    made = Assistant(chosen, hash_embedder, Broken())
    cache = Cache(tmp_path / "c")
    found = ask_all(made, QUESTIONS[:1], cache, {})["a"]
    made.close()
    assert (found.failed, found.text, found.abstained) == ("no answer: broke off", "", False)
    working = Assistant(chosen, hash_embedder, EchoGenerator())
    assert ask_all(working, QUESTIONS[:1], cache, {})["a"].failed == ""
    working.close()


# Metrics by hand


def test_claims_are_judged_against_all_passages_and_against_what_they_cite(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    class Noting(FakeJudgeModel):
        def log_probabilities(self, messages: Sequence[Message], replies: Sequence[str], **_: Any) -> list[float]:
            asked.append((messages[-1].content, messages[-1].tail))
            return [math.log(0.5), math.log(0.25)]

    made = judge_sample(
        Judge(Noting(), HashEmbedder(), sha256="x"),
        sample(),
        Cache(None),
        Chances(support=lambda one: 0.9, relevance=lambda one: 0.2),
    )
    assert [verdict.text for verdict in made.claims] == ["Green tea is brewed at 80 degrees.", "It is sweet."]
    assert [at for at, _ in made.cited] == [0]
    assert made.cited[0][1].against.endswith("It is bitter.")
    assert all("tea.md › Tea › Green" in verdict.against for verdict in made.claims)
    assert [verdict.yes for verdict in (*made.claims, *made.passages)] == [True, True, False]


def test_judged_scores_by_hand() -> None:
    found = judged_scores(sample(), judgement([0.4, 0.6], [0.9], [0.5, 0.1]))
    assert found[metrics.FAITHFULNESS] == Score(0.5)
    assert found[metrics.GROUNDED] == Score(1.0)  # the first stands in the passage word for word
    assert found[metrics.CITATION_PRECISION] == Score(1.0)
    assert found[metrics.CITATION_RECALL] == Score(0.0)  # the second is the one that counts as supported
    assert found[metrics.RELEVANT] == Score(0.5)
    assert found[metrics.ANY_RELEVANT] == Score(1.0)
    other = judged_scores(sample(), judgement([0.6, 0.1], [0.2], [0.1]))
    assert (other[metrics.CITATION_RECALL], other[metrics.CITATION_PRECISION]) == (Score(1.0), Score(0.0))
    assert other[metrics.ANY_RELEVANT] == Score(0.0)


def test_a_verdict_that_could_not_be_had_leaves_the_score_out() -> None:
    found = judged_scores(sample(), judgement([0.9, None], [None], [None]))
    assert {name: one.reason for name, one in found.items() if one.value is None} == dict.fromkeys(
        (*metrics.SUPPORT_METRICS, *metrics.RELEVANCE_METRICS), "cut off"
    )


def test_nothing_to_judge_is_unscored_not_zero() -> None:
    empty = sample(sentences=(Sentence("Like so:", None, ()),), citations=(), passages=())
    found = {**judged_scores(empty, Judgement((), (), ())), **plain_scores(empty, QUESTIONS[0], NOTES, HashEmbedder())}
    assert {name for name, one in found.items() if one.value is None} == {
        *metrics.SUPPORT_METRICS, *metrics.RELEVANCE_METRICS, metrics.VERBATIM, metrics.EVIDENCE_CITED,
        metrics.CITED_EVIDENCE,
    }  # fmt: skip
    assert all(one.reason for one in found.values() if one.value is None)


def test_word_for_word_leaves_white_space_and_list_marks_aside() -> None:
    assert verbatim(sample()) == (True, False)
    assert claim_text("\n 2) Two  words\nmore ") == "Two words more"


def test_lines_cited_against_evidence_by_hand() -> None:
    golden = replace(QUESTIONS[0], evidence=("brewed at 80 degrees", "Boiling water"))
    found = plain_scores(sample(), golden, NOTES, HashEmbedder())
    assert found[metrics.EVIDENCE_CITED] == Score(0.5)  # line 5 is cited, line 10 is not
    assert found[metrics.CITED_EVIDENCE] == Score(0.5)  # of lines 5 and 6, line 5 is evidence
    assert found[metrics.ID_RECALL] == Score(1.0)
    assert plain_scores(sample(), replace(golden, notes=("tea.md", "bikes.md")), NOTES, HashEmbedder())[
        metrics.ID_RECALL
    ] == Score(0.5)


def test_rouge_l_by_hand() -> None:
    f1, recall = rouge_l("The cat sat on a mat.", "the cat is on the mat")
    assert recall == pytest.approx(4 / 6)  # the, cat, on, mat
    assert f1 == pytest.approx(2 * 4 / 12)
    assert rouge_l("", "a") == (0.0, 0.0)
    assert rouge_l("same words", "same words") == (1.0, 1.0)


def test_similarity_is_of_the_answer_to_the_reference() -> None:
    same = plain_scores(sample(text="80 degrees."), QUESTIONS[0], NOTES, HashEmbedder())
    assert same[metrics.SIMILARITY].value == pytest.approx(1.0)
    without = plain_scores(sample(), replace(QUESTIONS[0], reference=" "), NOTES, HashEmbedder())
    assert without[metrics.SIMILARITY] == Score(None, "there is no reference")


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, 5.0])
def test_what_is_no_score_is_unscored_with_its_reason(value: float) -> None:
    found = checked(value)
    assert found.value is None and ("not a number" in found.reason or "out of range" in found.reason)
    assert checked(1 + 1e-9) == Score(1.0)
    assert checked(-0.2, low=-1.0) == Score(-0.2)


# Sums


def scored(
    name: str, *, value: float | None = None, reason: str = "", golden: Golden | None = None, **changed: Any
) -> Scored:
    made = golden or replace(QUESTIONS[0], id=name)
    found = {metrics.FAITHFULNESS: Score(value, reason)}
    return Scored(made, sample(id=name, **changed), judgement([0.9, 0.1], [0.9], [0.5]), found)


def test_a_mean_counts_what_it_left_out_and_why() -> None:
    ones = [
        scored("a", value=1.0), scored("b", value=0.5), scored("c", reason="cut off"), scored("d", reason="cut off"),
        scored("e", reason="not a number: nan"),
    ]  # fmt: skip
    found = measured(ones, metrics.FAITHFULNESS)
    assert (found.mean.value, found.mean.n, found.of) == (0.75, 2, 5)
    assert found.unscored == {"cut off": 2, "not a number: nan": 1}
    assert measured(ones, "unknown").unscored == {"not scored": 5}
    assert measured([], metrics.FAITHFULNESS).mean.value is None


def abstained(name: str, golden: Golden) -> Scored:
    return Scored(golden, sample(id=name, text="", abstained=True), None, {})


def test_refusals_are_counted_apart() -> None:
    ones = [scored("a", value=1.0), abstained("b", QUESTIONS[1]), abstained("u", QUESTIONS[2])]
    ones.append(scored("v", golden=replace(QUESTIONS[2], id="v")))
    ones.append(scored("f", golden=QUESTIONS[0], text="", failed="no answer: broke off"))
    found = refusals(ones)
    assert (found.abstained, found.precision.value, found.recall.value) == (2, 0.5, 0.5)
    assert (found.refused_answerable.value, found.refused_answerable.n) == (0.5, 2)
    assert found.recall_by_subkind["other-field"].n == 2


def calibration(fitted: Fitted | None = None, *, right: int = 9) -> Calibration:
    """Of a judge that is right about ``right`` of ten items of each label."""
    probabilities = [0.9] * right + [0.1] * (10 - right) + [0.1] * right + [0.9] * (10 - right)
    made = Task(fitted or Fitted(0.0, {"a": 1.0}), quality(probabilities, [True] * 10 + [False] * 10, ["x"] * 20))
    return Calibration("j", "s", "p", "l", {"support": made, "relevance": made})


def summed(ones: Sequence[Scored], known: Calibration | None = None) -> AnswerResults:
    return summed_up(
        ones, names=metric_names(), calibration=known, about={"selection": "all", "golden_sha256": "g"},
        seconds={"judging": 1.5},
    )  # fmt: skip


def test_conclusions_say_what_the_judges_errors_allow() -> None:
    ones = [scored(str(at), value=float(at % 2)) for at in range(20)]
    found = summed(ones, calibration())
    assert found.calibrated and found.judge["support"].n == 20
    assert "is right 90% of the time" in found.conclusions[0]
    assert "a measured 0.50 stands for a true share between" in found.conclusions[0]
    near_chance = summed(ones, calibration(right=5))
    assert "too near to chance" in near_chance.conclusions[0]
    none = summed(ones)
    assert not none.calibrated and "not calibrated" in none.conclusions[0]
    table = answer_tables(none, worst=0)[1]
    assert "NOT CALIBRATED" in table.note
    assert {row[0]: row[4] for row in table.rows}[metrics.FAITHFULNESS] == "not calibrated"
    shown = {row[0]: row[4] for row in answer_tables(found, worst=0)[1].rows}
    assert shown[metrics.FAITHFULNESS] == "right 0.90, AUC 0.90, n 20"
    with_ragas = summed_up(ones, names=metric_names(RAGAS), calibration=calibration(), about={}, seconds={})
    shown = {row[0]: row[4] for row in answer_tables(with_ragas, worst=0)[1].rows}
    assert shown["RAGAS Faithfulness"] == shown["RAGAS ContextPrecision"] == "right 0.90, AUC 0.90, n 20"
    assert shown["RAGAS ContextRelevance"].startswith("generated JSON")
    assert "take these yes and no" in with_ragas.conclusions[-1]
    assert shown[metrics.ROUGE_L] == "no judge"


def test_groups_and_seconds(assistant: Assistant) -> None:
    found = summed([scored("a", value=1.0), scored("b", value=0.0, golden=QUESTIONS[1])])
    assert found.groups["kind"]["number"][metrics.FAITHFULNESS].value == 1.0
    assert found.groups["style"]["terse"][metrics.FAITHFULNESS].value == 0.0
    assert found.seconds == {"retrieve": 0.012, "judging": 1.5}
    assert (found.about["questions"], found.about["answerable, answered"]) == (2, 2)


def test_the_worst_come_first() -> None:
    ones = [scored("good", value=1.0), scored("bad", value=0.0), scored("bad too", value=0.0)]
    assert [one.sample.id for one in worst_answers(ones, 2)] == ["bad", "bad too"]


def test_everything_together_twice_over_the_cache(
    assistant: Assistant, hash_embedder: HashEmbedder, tmp_path: Path
) -> None:
    class Scripted(RagasScorer):
        """Without RAGAS: half, and a reason for the second question."""

        calls = 0

        def __init__(self) -> None:
            self.names = RAGAS

        def score(self, name: str, sample: Sample, golden: Golden) -> Score:
            self.calls += 1
            return Score(0.5) if golden.id == "a" else Score(None, "cut off")

    cache, ragas = Cache(tmp_path / "c"), Scripted()
    samples = ask_all(assistant, QUESTIONS, cache, {})
    told: list[tuple[str, int, int]] = []

    judge = Judge(FakeJudgeModel(), hash_embedder, sha256="f")

    def run() -> AnswerResults:
        found, seconds = score_all(
            samples, QUESTIONS, judge=judge, calibration=None, embedder=hash_embedder,
            texts=NOTES, cache=cache, ragas=ragas, progress=lambda *facts: told.append(facts),
        )  # fmt: skip
        return summed_up(
            found, names=metric_names(RAGAS), calibration=None, about={}, seconds=dict.fromkeys(seconds, 0.0)
        )

    first = run()
    assert first.metrics["RAGAS Faithfulness"].mean.value == 0.5
    assert first.metrics["RAGAS Faithfulness"].unscored == {"cut off": 1}
    assert (ragas.calls, ("RAGAS Faithfulness", 0, 3) in told) == (12, True)
    assert json.dumps(run().to_json(), allow_nan=False) == json.dumps(first.to_json(), allow_nan=False)


# Gate and report


def test_the_baseline_of_answers_holds_questions_and_judge(tmp_path: Path) -> None:
    results = summed([scored(str(at), value=float(at % 2)) for at in range(20)])
    file = tmp_path / "answers.json"
    write_baseline(results, file)
    assert fallen(results, read_baseline(file)) == ()
    held = json.loads(file.read_text())
    held["metrics"][f"answers: {metrics.FAITHFULNESS}"].update(value=1.0, low=0.9)
    file.write_text(json.dumps(held))
    assert [one.metric for one in fallen(results, read_baseline(file))] == [f"answers: {metrics.FAITHFULNESS}"]
    for what in ("judge_sha256", "judge_prompts"):
        other = replace(results, about={**results.about, what: "another"})
        with pytest.raises(Misuse, match="by another judge"):
            fallen(other, read_baseline(file))


def test_a_baseline_with_more_metrics_holds_those_that_were_asked_for(tmp_path: Path) -> None:
    results = summed([scored(str(at), value=float(at % 2)) for at in range(20)])
    file = tmp_path / "answers.json"
    write_baseline(results, file)
    held = json.loads(file.read_text())
    held["metrics"]["answers: RAGAS Faithfulness"] = {"value": 0.9, "low": 0.8}
    file.write_text(json.dumps(held))
    assert fallen(results, read_baseline(file)) == ()
    assert not_asked(results, read_baseline(file)) == ("answers: RAGAS Faithfulness",)
    less = replace(
        results, metrics={name: one for name, one in results.metrics.items() if name != metrics.FAITHFULNESS}
    )
    assert [one.metric for one in fallen(less, read_baseline(file))] == [f"answers: {metrics.FAITHFULNESS}"]
    asked = replace(results, metrics={**results.metrics, "RAGAS Faithfulness": measured([], "RAGAS Faithfulness")})
    assert [one.value for one in fallen(asked, read_baseline(file))] == [None]
    assert not_asked(asked, read_baseline(file)) == ()


NASTY = "<img src=http://x/y onerror=alert(1)>"


def test_the_report_escapes_everything_and_is_the_same_twice(tmp_path: Path) -> None:
    golden = replace(QUESTIONS[0], question=NASTY, reference=NASTY, kind=NASTY, id=NASTY)
    one = scored("a", value=0.0, golden=golden, text=NASTY, question=NASTY)
    nasty = Verdict(NASTY, NASTY, None, NASTY)
    one = replace(one, judgement=Judgement((nasty,), ((0, nasty),), (nasty,)))
    results = summed([one, scored("b", value=1.0, golden=QUESTIONS[1])], calibration())
    results = replace(results, about={**results.about, NASTY: NASTY}, stale=(NASTY,))
    section = Section("answers", "Answers", answer_plots(results), answer_tables(results, worst=5))
    page = write_section(section, tmp_path / "one")[1].read_text()
    assert "<img" not in page and "&lt;img" in page and "<script" not in page
    assert page.count("<svg") == 4
    for part in page.split("<svg")[1:]:
        ElementTree.fromstring(f"<svg{part.split('</svg>')[0]}</svg>")
    assert "<img" not in (tmp_path / "one" / "report.md").read_text()
    again = Section("answers", "Answers", answer_plots(results), answer_tables(results, worst=5))
    assert write_section(again, tmp_path / "two")[1].read_text() == page


def test_one_page_holds_what_was_measured_into_its_folder(tmp_path: Path) -> None:
    found = judge_the_judge(Judge(FakeJudgeModel(), HashEmbedder(), sha256="f"), items(tmp_path / "items"), Cache(None))
    judge = Section("judge", "The judge", judge_plots(found), judge_tables(found))
    table = Table("T", "", ("a",), (("b",),))
    write_section(judge, tmp_path / "r")
    write_section(Section("retrieval", "Retrieval", {}, [table]), tmp_path / "r")
    (tmp_path / "r" / "answers.section.json").write_text("{}")  # of another version: left out
    files = write_section(judge, tmp_path / "r")
    page = files[1].read_text()
    assert page.index("<h1>Retrieval</h1>") < page.index("<h1>The judge</h1>")
    assert "<title>Evaluation</title>" in page and "Cohen&#x27;s κ" in page
    assert "| b |" in files[0].read_text()
