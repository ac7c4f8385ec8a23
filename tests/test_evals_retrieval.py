"""Arms over golden questions: metrics checked by hand, intervals, tests, refusal, baselines, BEIR and reports."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("ir_measures")
pytest.importorskip("matplotlib")

from studyrag.assistant import Assistant
from studyrag.embedding import HashEmbedder
from studyrag.errors import Misuse, StudyRagError
from studyrag.evals import measuring
from studyrag.evals.arms import parse_arms, search
from studyrag.evals.baseline import fallen, read_baseline, write_baseline
from studyrag.evals.beir import evaluate_beir, load_beir
from studyrag.evals.cache import Cache, KeptReader
from studyrag.evals.golden import Golden
from studyrag.evals.judge import FakeJudgeModel
from studyrag.evals.judging import Judge, Spot, found_at, holds, recall, spots
from studyrag.evals.measuring import Mean, auroc, difference, mean, per_question, require_extra
from studyrag.evals.report import write_report
from studyrag.evals.results import Results
from studyrag.evals.retrieval import Place, evaluate, note_ranking
from studyrag.evals.tables import Table, as_html, markdown, tables
from studyrag.records import Message, Trace
from studyrag.retrieving import Retriever
from studyrag.settings import Settings
from tests.makers import chunk, write_notes

NOTES = {
    "drinks/tea.md": "# Tea\n\n## Green\n\nGreen tea is brewed at 80 degrees.\n\n## Black\n\nIt takes boiling water.\n",
    "drinks/coffee.md": "# Coffee\n\n## Press\n\nA French press needs coarse coffee grounds.\n",
    "bikes.md": "# Bikes\n\n## Chains\n\nA bicycle chain is oiled every 200 kilometres.\n",
}
QUESTIONS = (
    Golden(
        "a", "number", "plain", "", "How hot is green tea brewed?",
        ("drinks/tea.md",), ("brewed at 80 degrees",), "80",
    ),
    Golden(
        "b", "procedure", "colloquial", "", "oil chain when",
        ("bikes.md",), ("oiled every 200 kilometres",), "200 km",
    ),
    Golden(
        "c", "comparison", "plain", "", "Coarse coffee grounds or boiling water?",
        ("drinks/coffee.md", "drinks/tea.md"), ("coarse coffee grounds", "takes boiling water"), "both",
    ),
    Golden("u", "unanswerable", "plain", "other-field", "Who ruled Burgundy?", (), (), ""),
)  # fmt: skip
ARMS = "hybrid,bm25,dense,rrf,dense_weight=0.1"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURED = """
onload = () => {
  const seen = one => { const box = one.getBoundingClientRect(); return box.width + box.height > 0 }
  document.title = JSON.stringify([...document.querySelectorAll("figure svg")].map(svg => ({
    width: svg.getBoundingClientRect().width,
    height: svg.getBoundingClientRect().height,
    drawn: [...svg.querySelectorAll("path, use")].filter(seen).length,
    words: [...svg.querySelectorAll("text")].filter(seen).length,
  })))
}
"""


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    return Settings(notes=write_notes(tmp_path / "notes", NOTES), index=tmp_path / "index", embedder="hash")


@pytest.fixture
def assistant(chosen: Settings, hash_embedder: HashEmbedder) -> Iterator[Assistant]:
    made = Assistant(chosen, hash_embedder)
    yield made
    made.close()


@pytest.fixture
def results(assistant: Assistant, chosen: Settings, hash_embedder: HashEmbedder) -> Results:
    return run(assistant, chosen, hash_embedder)


def run(assistant: Assistant, chosen: Settings, embedder: HashEmbedder, names: str = ARMS) -> Results:
    arms = parse_arms(names, candidates=chosen.candidates, dense_weight=chosen.dense_weight)
    about: dict[str, str | int] = {"selection": "all", "golden_sha256": "x"}
    return evaluate(Place(assistant.refresh(), embedder), QUESTIONS, arms, chosen, worst=2, about=about)


def test_metrics_by_hand() -> None:
    qrels = {
        "first": {"x": 1},
        "third": {"x": 1},
        "two": {"x": 1, "y": 1},
        "none": {"x": 1},
        "graded": {"x": 2, "y": 1},
    }
    ranked = {"first": ["x"], "third": ["a", "b", "x"], "two": ["x", "a", "y"], "none": [], "graded": ["y", "x"]}
    found = per_question(measuring.MEASURES, qrels, ranked)
    assert found["first"] == dict.fromkeys(measuring.MEASURES, 1.0)
    assert found["none"] == dict.fromkeys(measuring.MEASURES, 0.0)
    third = found["third"]
    assert (third["Success@1"], third["Success@3"], third["R@5"]) == (0, 1, 1)
    assert third["RR@10"] == pytest.approx(1 / 3)
    assert third["nDCG@10"] == pytest.approx(1 / math.log2(4))
    assert found["two"]["nDCG@10"] == pytest.approx((1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3)))
    graded = (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
    assert found["graded"]["nDCG@10"] == pytest.approx(graded)


def test_what_comes_after_the_tenth_does_not_count() -> None:
    ranking = [f"d{n}" for n in range(10)] + ["x"]
    found = per_question(measuring.MEASURES, {"q": {"x": 1}}, {"q": ranking})["q"]
    assert found == dict.fromkeys(measuring.MEASURES, 0.0)


def test_a_mean_has_an_interval_and_the_mean_of_nothing_is_unknown() -> None:
    one = mean([1.0, 0.0] * 50)
    assert (one.value, one.n) == (0.5, 100)
    assert one.low is not None and one.high is not None
    assert one.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
    assert one.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)
    assert mean([1.0] * 5) == Mean(1.0, 1.0, 1.0, 5)
    assert mean([]) == Mean(None, None, None, 0)
    assert mean([1.0, 0.0] * 50) == one


def test_a_paired_test_flips_signs() -> None:
    assert difference([1, 1, 0, 1], [0, 0, 0, 0]).p == pytest.approx(2 / 2**3)  # exact: all three up, or all down
    same = difference([1, 0], [1, 0])
    assert (same.value, same.p, same.n) == (0.0, 1.0, 2)
    many = difference([1.0] * 30, [0.0] * 30)
    assert many.value == 1.0 and many.p < 0.001
    assert difference([1.0, 0.0] * 20, [0.5] * 40).p > 0.5


def test_auroc_counts_pairs_with_ties_as_half() -> None:
    one = auroc([0.9, 0.5], [0.5, 0.1])
    assert one.value == pytest.approx((2 + 1 + 0.5) / 4)
    assert one.low is not None and one.high is not None and one.low <= 0.875 <= one.high
    assert auroc([0.9], []).value is None


def test_spots_are_lines_without_blank_ones_in_every_place() -> None:
    text = "one\ntwo\n\nthree\none\n"
    assert spots("two\n\nthree", ["n.md"], {"n.md": text}) == (Spot("n.md", frozenset({2, 4})),)
    assert [spot.lines for spot in spots("one", ["n.md", "gone.md"], {"n.md": text})] == [{1}, {5}]


def test_a_chunk_holds_a_quote_by_its_lines() -> None:
    two = Spot("note.md", frozenset({2, 3}))
    assert holds(chunk("a\nb\nc", first_line=1), two)
    assert not holds(chunk("b\n", first_line=3), two)
    assert not holds(chunk("a\nb\nc", first_line=1, note_id="other.md"), two)


def test_a_quote_that_is_cut_is_found_when_both_parts_are() -> None:
    parts = [chunk("x", "c1", first_line=9), chunk("a", "c2", first_line=2), chunk("b", "c3", first_line=3)]
    assert found_at([Spot("note.md", frozenset({2, 3}))], parts) == 3
    assert found_at([Spot("note.md", frozenset({2, 4}))], parts) is None
    assert found_at([Spot("note.md", frozenset({2, 4})), Spot("note.md", frozenset({9}))], parts) == 1
    assert (recall((1, None), 5), recall((1, 6), 5), recall((1, 6), 6)) == (0.5, 0.5, 1.0)


def test_relevant_chunks_are_those_that_hold_a_quote() -> None:
    golden = replace(QUESTIONS[0], notes=("note.md",), evidence=("beta",))
    judge = Judge([chunk("alpha", "c1"), chunk("beta", "c2", first_line=2)], {"note.md": "alpha\nbeta"})
    assert judge.relevant(golden) == {"c2": 1}


def test_notes_rank_where_their_first_chunk_does() -> None:
    ranked = [chunk("a", "1", note_id="x"), chunk("b", "2", note_id="y"), chunk("c", "3", note_id="x")]
    assert note_ranking(ranked) == ["x", "y"]


def test_arms_are_parsed() -> None:
    arms = parse_arms(" bm25, dense_weight=0.3+candidates=7,rrf", candidates=50, dense_weight=0.6)
    assert [(arm.retriever, arm.candidates, arm.dense_weight) for arm in arms] == [
        ("bm25", 50, 0.6), ("hybrid", 7, 0.3), ("rrf", 50, 0.6),
    ]  # fmt: skip
    assert [arm.overrides for arm in arms] == [False, True, False]
    (arm,) = parse_arms("bm25+precision=int8+chunk_tokens=128", candidates=50, dense_weight=0.6)
    assert (arm.retriever, arm.index) == ("bm25", (("chunk_tokens", 128), ("precision", "int8")))


def test_an_arm_may_rank_anew_and_takes_a_reader_for_it(assistant: Assistant, hash_embedder: HashEmbedder) -> None:
    index = assistant.refresh()
    arms = parse_arms("hybrid,rerank=3,bm25+rerank=2", candidates=50, dense_weight=0.6)
    assert [(arm.retriever, arm.rerank) for arm in arms] == [("hybrid", 0), ("hybrid", 3), ("bm25", 2)]
    query = Retriever(index, hash_embedder, candidates=50, dense_weight=0.6).query("green tea", Trace())
    kept = KeptReader(FakeJudgeModel(), Cache(None), sha256="x")
    plain, anew = (search(arm, index, hash_embedder, query, Trace(), kept) for arm in arms[:2])
    assert {hit.chunk.id for hit in anew} == {hit.chunk.id for hit in plain}
    assert [hit.answers is None for hit in anew] == [False, False, False, *[True] * (len(anew) - 3)]
    with pytest.raises(ValueError, match="takes a reader"):
        search(arms[1], index, hash_embedder, query, Trace())


def test_marginal_relevance_puts_the_unlike_before_the_like(assistant: Assistant, hash_embedder: HashEmbedder) -> None:
    index = assistant.refresh()
    arms = parse_arms("hybrid,mmr=1,mmr=0", candidates=50, dense_weight=0.6)
    assert [arm.mmr for arm in arms] == [None, 1.0, 0.0]
    query = Retriever(index, hash_embedder, candidates=50, dense_weight=0.6).query("green tea", Trace())
    plain, relevance, variety = ([*search(arm, index, hash_embedder, query, Trace())] for arm in arms)
    assert [hit.chunk.id for hit in relevance] == [hit.chunk.id for hit in plain]
    assert {hit.chunk.id for hit in variety} == {hit.chunk.id for hit in plain}
    vectors = index.dense.vectors(index.rows_of_chunks([hit.chunk.id for hit in variety]))
    likeness = vectors @ vectors[0]
    assert likeness[1] == likeness[1:].min()
    assert [hit.rank for hit in variety] == list(range(1, len(variety) + 1))
    scores = [hit.score for hit in variety]
    assert scores == sorted(scores, reverse=True)


def test_the_time_of_what_is_kept_is_the_time_it_took(tmp_path: Path) -> None:
    class Slow(FakeJudgeModel):
        def log_probabilities(self, messages: Sequence[Message], replies: Sequence[str], **_: Any) -> list[float]:
            time.sleep(0.02)
            return super().log_probabilities(messages, replies)

    spent = []
    for _ in range(2):
        kept = KeptReader(Slow(), Cache(tmp_path), sha256="x")
        kept.log_probabilities([Message("user", "tea\n\nis tea")], ("Yes", "No"))
        spent.append(kept.spent_ms)
    assert spent[0] == spent[1] >= 20


def test_what_a_scorer_said_is_kept(tmp_path: Path) -> None:
    class Counting(FakeJudgeModel):
        calls = 0

        def log_probabilities(self, messages: Sequence[Message], replies: Sequence[str], **_: Any) -> list[float]:
            self.calls += 1
            return super().log_probabilities(messages, replies)

    model, cache = Counting(), Cache(tmp_path)
    asked = [Message("user", "tea\n\nis tea")]
    said = [KeptReader(model, cache, sha256="x").log_probabilities(asked, ("Yes", "No")) for _ in range(2)]
    assert said[0] == said[1] and model.calls == 1
    KeptReader(model, cache, sha256="y").log_probabilities(asked, ("Yes", "No"))
    KeptReader(model, cache, sha256="x").log_probabilities([Message("user", "tea\n\nis it")], ("Yes", "No"))
    assert model.calls == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "rerank=51",
        "mmr=1.1",
        "mmr=nan",
        "mmr=",
        "rerank=x",
        "bm25,bm25",
        "bm26",
        "dense_weight=2",
        "dense_weight=nan",
        "candidates=x",
        "seed=1",
        "chunk_tokens=1",
        "chunk_tokens=",
        "precision=int4",
    ],
)
def test_other_arms_are_refused(text: str) -> None:
    with pytest.raises(Misuse):
        parse_arms(text, candidates=50, dense_weight=0.6)


def test_rrf_adds_reciprocal_ranks_of_both_arms(assistant: Assistant, hash_embedder: HashEmbedder) -> None:
    index = assistant.refresh()
    (arm,) = parse_arms("rrf", candidates=50, dense_weight=0.6)
    query = Retriever(index, hash_embedder, candidates=50, dense_weight=0.6).query("green tea", Trace())
    hits = search(arm, index, hash_embedder, query, Trace())
    assert hits[0].chunk.headings[-1] == "Green"
    for hit in hits:
        ranks = [rank for rank in (hit.lexical_rank, hit.dense_rank) if rank is not None]
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def test_a_default_arm_ranks_as_the_assistant_does(assistant: Assistant, hash_embedder: HashEmbedder) -> None:
    (arm,) = parse_arms("hybrid", candidates=50, dense_weight=0.6)
    index = assistant.refresh()
    query = Retriever(index, hash_embedder, candidates=50, dense_weight=0.6).query("green tea", Trace())
    assert search(arm, index, hash_embedder, query, Trace())[:3] == assistant.search("green tea", 3)


def test_bm25_finds_every_note_and_the_tables_count_right(results: Results) -> None:
    bm25 = next(arm for arm in results.arms if arm.name == "bm25")
    assert bm25.overall["note Success@1"].value == 1.0
    assert bm25.overall["note nDCG@10"].n == 3
    assert bm25.overall["quote R@10"].value == 1.0
    assert {group: means["note R@5"].n for group, means in bm25.groups["folder"].items()} == {".": 1, "drinks": 2}
    assert {group: means["note R@5"].n for group, means in bm25.groups["style"].items()} == {
        "colloquial": 1,
        "plain": 2,
    }
    assert set(bm25.groups["kind"]) == {"number", "procedure", "comparison"}
    assert results.unsplit == 3
    assert set(results.arms[0].versus_first) == set() != set(bm25.versus_first)
    assert len(bm25.worst) == 2
    for arm in results.arms:
        for kind in ("note", "quote"):
            points = list(arm.curves[kind].values())
            assert points == sorted(points) and points[0] >= 0 and points[-1] <= 1


def test_what_is_read_is_what_fits_the_passages(
    assistant: Assistant, chosen: Settings, hash_embedder: HashEmbedder
) -> None:
    def read(passages: int, key: str) -> float:
        settings = chosen.model_copy(update={"passages": passages})
        return run(assistant, settings, hash_embedder, "bm25").arms[0].per_question[key]["quote read"]

    assert [read(1, key) for key in "abc"] == [1.0, 1.0, 0.5]
    assert read(5, "c") == 1.0


def test_refusals_are_counted_at_the_threshold(
    assistant: Assistant, chosen: Settings, hash_embedder: HashEmbedder
) -> None:
    strict = run(assistant, chosen.model_copy(update={"min_coverage": 1.0}), hash_embedder, "bm25").abstention
    assert strict is not None
    assert (strict.recall.value, strict.refused_answerable.value) == (1.0, 1.0)
    assert (strict.precision.value, strict.precision.n) == (0.25, 4)
    assert strict.recall_by_subkind["other-field"].n == 1
    never = run(assistant, chosen.model_copy(update={"min_coverage": 0.0}), hash_embedder, "bm25").abstention
    assert never is not None
    assert (never.recall.value, never.precision.value, never.refused_answerable.value) == (0.0, None, 0.0)
    assert never.auroc == strict.auroc


def without_times(results: Results) -> object:
    values = results.to_json()
    for arm in values["arms"]:
        assert {"embed_query", "lexical", "dense", "fuse", "total"} <= set(arm.pop("latency_ms"))
    return values


def test_the_same_numbers_twice_and_json_all_through(
    results: Results, assistant: Assistant, chosen: Settings, hash_embedder: HashEmbedder
) -> None:
    again = run(assistant, chosen, hash_embedder)
    assert json.dumps(without_times(results), allow_nan=False) == json.dumps(without_times(again), allow_nan=False)


def test_stale_questions_are_left_out_and_named(
    assistant: Assistant, chosen: Settings, hash_embedder: HashEmbedder
) -> None:
    old = replace(QUESTIONS[1], evidence=("oiled every day",))
    arms = parse_arms("bm25", candidates=50, dense_weight=0.6)
    found = evaluate(Place(assistant.refresh(), hash_embedder), [QUESTIONS[0], old], arms, chosen)
    assert found.stale == ("b: no such text: oiled every day",)
    assert found.arms[0].overall["note R@5"].n == 1
    assert found.abstention is None


def test_progress_is_told(assistant: Assistant, chosen: Settings, hash_embedder: HashEmbedder) -> None:
    told: list[tuple[str, int, int]] = []
    arms = parse_arms("bm25", candidates=50, dense_weight=0.6)
    evaluate(
        Place(assistant.refresh(), hash_embedder), QUESTIONS, arms, chosen, progress=lambda *facts: told.append(facts)
    )
    assert told[0] == ("asking", 0, 4)
    assert ("asking", 4, 4) in told
    assert told[-1] == ("comparing arms", 1, 1)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_NEEDED", ("ir_measures", "no_such_package"))
    with pytest.raises(StudyRagError) as caught:
        require_extra()
    assert "no_such_package" in caught.value.message and "ir_measures" not in caught.value.message
    assert caught.value.fix == "pip install 'studyrag[evals]'"
    assert caught.value.exit_code == 1


def test_a_baseline_fails_below_its_interval_only(tmp_path: Path, results: Results) -> None:
    file = tmp_path / "baselines" / "retrieval.json"
    write_baseline(results, file)
    assert fallen(results, read_baseline(file)) == ()
    held = json.loads(file.read_text())
    held["metrics"]["hybrid: note R@5"].update(value=1.2, low=1.1)
    held["metrics"]["hybrid: note R@10"].update(value=1.2, low=0.0)
    held["metrics"]["elsewhere: note R@10"] = {"value": 1.0, "low": 1.0}
    held["metrics"]["hybrid: gone"] = {"value": 1.0, "low": 1.0}
    file.write_text(json.dumps(held))
    assert [one.metric for one in fallen(results, read_baseline(file))] == ["hybrid: note R@5", "hybrid: gone"]
    file.write_text(json.dumps({**held, "about": {**held["about"], "selection": "open"}}))
    with pytest.raises(Misuse, match="other questions"):
        fallen(results, read_baseline(file))
    file.write_text(json.dumps({**held, "metrics": {"x: y": {"value": 1, "low": 1}}}))
    with pytest.raises(Misuse, match="none of these arms"):
        fallen(results, read_baseline(file))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"metrics": {}, "about": {}}', '{"metrics": {"a": 1}, "about": {}}'])
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(Misuse, match="not a baseline"):
        read_baseline(tmp_path / "b.json")


def beir_folder(folder: Path, qrels: str = "query-id\tcorpus-id\tscore\nq1\td/1\t2\nq1\td 2\t1\nq2\td3\t1\n") -> Path:
    documents = [
        {"_id": "d/1", "title": "Green tea", "text": "brewed at 80 degrees"},
        {"_id": "d 2", "title": "", "text": "---\ngreen leaves of tea\n---\n"},
        {"_id": "d3", "title": "Chains", "text": "oiled every 200 kilometres", "metadata": {}},
    ]
    queries = [
        {"_id": "q1", "text": "green tea brewed"},
        {"_id": "q2", "text": "oiled"},
        {"_id": "q3", "text": "unjudged"},
    ]
    write_notes(
        folder,
        {
            "corpus.jsonl": "".join(json.dumps(row) + "\n" for row in documents),
            "queries.jsonl": "".join(json.dumps(row) + "\n" for row in queries),
            "qrels/test.tsv": qrels,
        },
    )
    return folder


def test_a_beir_data_set_is_indexed_and_judged_by_grade(
    tmp_path: Path, chosen: Settings, hash_embedder: HashEmbedder
) -> None:
    data = load_beir(beir_folder(tmp_path / "beir"))
    assert list(data.queries) == ["q1", "q2"]
    arms = parse_arms("bm25,dense", candidates=50, dense_weight=0.6)
    found = evaluate_beir(data, hash_embedder, arms, chosen)
    bm25 = found.arms[0]
    assert found.about["documents"] == found.about["notes"] == 3
    assert bm25.per_question["q2"]["note RR@10"] == 1.0
    assert bm25.per_question["q1"]["note nDCG@10"] == pytest.approx(1.0)
    assert bm25.overall["note nDCG@10"].n == 2
    assert not any(name.startswith("quote") for name in bm25.overall)
    assert markdown(tables(found, worst=3)).startswith("## What was measured")
    write_report(found, tmp_path / "report", worst=1)


@pytest.mark.parametrize("qrels", ["", "q1\td1\n", "q1\td1\tx\n", "q1\td1\t0\n", "q9\td1\t1\n"])
def test_bad_qrels_are_refused(tmp_path: Path, qrels: str) -> None:
    with pytest.raises(Misuse):
        load_beir(beir_folder(tmp_path, qrels))


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        load_beir(tmp_path)
    (beir_folder(tmp_path) / "corpus.jsonl").write_text('{"_id": 3, "text": "x"}\n')
    with pytest.raises(Misuse, match='no texts "_id" and "text"'):
        load_beir(tmp_path)


def test_cells_are_escaped() -> None:
    table = Table("<b>", "", ("a|b",), (("<script>alert(1)</script>|`*x\ny",),))
    text = markdown([table])
    assert "<script>" not in text and "\\|\\`\\*x y |" in text
    assert "<script>" not in as_html([table]) and "&lt;b&gt;" in as_html([table])


def test_a_report_is_self_contained_escaped_and_the_same_twice(tmp_path: Path, results: Results) -> None:
    nasty = replace(results.arms[0].worst[0], question="<img src=http://x/y onerror=alert(1)>")
    results = replace(results, arms=(replace(results.arms[0], worst=(nasty,)), *results.arms[1:]))
    files = write_report(results, tmp_path / "deep" / "report", worst=5)
    assert [file.name for file in files] == ["report.md", "report.html"]
    page = files[1].read_text()
    assert page.count("<svg") == 4
    assert "<img" not in page and "<script" not in page and "<!DOCTYPE svg" not in page
    assert "src=" not in page.replace("src=http://x/y", "") and "@import" not in page
    for start in range(4):
        svg = page.split("<svg")[start + 1].split("</svg>")[0]
        ElementTree.fromstring(f"<svg{svg}</svg>")
    assert "&lt;img" in files[0].read_text()
    write_report(results, tmp_path / "again", worst=5)
    assert (tmp_path / "again" / "report.html").read_bytes() == files[1].read_bytes()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; as root: apt-get install chromium")
def test_a_browser_without_network_draws_every_plot(tmp_path: Path, results: Results) -> None:
    page = write_report(results, tmp_path / "report", worst=5)[1]
    assert in_browser(page, tmp_path).count("<svg ") == 4
    probe, text = tmp_path / "probe.html", page.read_text()
    policy = re.search(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", text)
    assert policy is not None  # the page lets no script in: its copy has one, which measures what was drawn
    probe.write_text(text.replace(policy.group(), "").replace("</body>", f"<script>{MEASURED}</script></body>"))
    title = re.search(r"<title>(.*)</title>", in_browser(probe, tmp_path))
    assert title is not None
    plots = json.loads(html.unescape(title.group(1)))
    assert len(plots) == 4
    for plot in plots:
        assert plot["width"] > 400 and plot["height"] > 150, plot
        assert plot["drawn"] > 10 and plot["words"] > 5, plot


def in_browser(page: Path, home: Path) -> str:
    """The page as headless Chromium has it after loading."""
    assert BROWSER is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync --proxy-server=127.0.0.1:9"
    )
    command = [BROWSER, *flags.split(), f"--user-data-dir={home / 'profile'}", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path, results: Results) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyRagError, match="cannot be written"):
        write_report(results, tmp_path / "file", worst=1)
