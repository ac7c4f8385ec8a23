"""``studyrag eval`` through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures")
pytest.importorskip("matplotlib")

from studyrag.index import Index
from tests.conftest import RunCli

ROWS: list[dict[str, Any]] = [
    {
        "id": "a", "kind": "number", "style": "plain", "question": "How hot is green tea brewed?",
        "notes": ["tea.md"], "evidence": ["brewed at 80 degrees"], "reference": "At 80 degrees.",
    },
    {
        "id": "b", "kind": "procedure", "style": "colloquial", "question": "oil bicycle chain when",
        "notes": ["bikes.md"], "evidence": ["oiled every 200 kilometres"], "reference": "Every 200 kilometres.",
    },
    {
        "id": "u", "kind": "unanswerable", "style": "plain", "subkind": "personal",
        "question": "When is my birthday?", "notes": [], "evidence": [], "reference": "",
    },
]  # fmt: skip


@pytest.fixture
def asked(notes: Path) -> Path:
    (notes / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return notes


def test_tables_for_people_and_a_record_for_scripts(cli: RunCli, asked: Path) -> None:
    done = cli("eval", "retrieval", "--compare", "bm25,dense_weight=0.3", cwd=asked)
    assert done.code == 0, done.err
    assert "| bm25 | 1.000 [1.000, 1.000] |" in done.out
    assert "## Refusing" in done.out
    assert "choose parameters with --open" in done.err
    record = cli("eval", "retrieval", "--compare", "bm25", "--json", "--worst", "1", cwd=asked).json
    assert record["about"]["answerable"] == 2
    assert record["arms"][0]["overall"]["note Success@1"]["value"] == 1.0
    assert len(record["arms"][0]["worst"]) == 1


def test_an_arm_with_another_index_leaves_the_one_in_use_alone(cli: RunCli, asked: Path) -> None:
    assert cli("index", cwd=asked).code == 0
    before = (asked / ".studyrag" / "CURRENT").read_text()
    command = ("eval", "retrieval", "--compare", "bm25,bm25+chunk_tokens=64", "--json")
    first, second = (cli(*command, cwd=asked) for _ in range(2))
    assert first.code == second.code == 0, first.err
    assert first.json["arms"][1]["per_question"] == second.json["arms"][1]["per_question"]
    assert (asked / ".studyrag" / "CURRENT").read_text() == before
    own = Index(asked / ".studyrag" / "variants" / "chunk_tokens=64")
    assert own.recipe.chunk_tokens == 64
    assert own.n_chunks == Index(asked / ".studyrag").n_chunks  # the notes are short


def test_arms_of_overlap_and_of_text_without_headings_have_their_index(cli: RunCli, asked: Path) -> None:
    ran = cli("eval", "retrieval", "--compare", "bm25,bm25+chunk_overlap=16+heading_path=no", "--json", cwd=asked)
    assert ran.code == 0, ran.err
    recipe = Index(asked / ".studyrag" / "variants" / "chunk_overlap=16+heading_path=False").recipe
    assert (recipe.chunk_overlap, recipe.heading_path) == (16, False)
    assert (ran.json["about"]["chunk_overlap"], ran.json["about"]["heading path"]) == (0, "with")


def test_an_arm_ranks_anew_with_a_model_that_runs_here(cli: RunCli, asked: Path, tiny_gguf: Path) -> None:
    env = {"STUDYRAG_GENERATOR": str(tiny_gguf)}
    command = ("eval", "retrieval", "--compare", "hybrid,rerank=2", "--json")
    first, second = (cli(*command, cwd=asked, env=env) for _ in range(2))
    assert first.code == second.code == 0, first.err
    arms = [made.json["arms"][1] for made in (first, second)]
    assert arms[0]["per_question"] == arms[1]["per_question"]
    # what is kept is not asked again, and its time is that of then
    assert arms[0]["latency_ms"]["rerank"] == arms[1]["latency_ms"]["rerank"]


@pytest.mark.parametrize(
    ("generator", "code", "message"),
    [("fake", 2, "takes a generator that runs here"), ("qwen2.5-coder-1.5b-instruct", 1, "is not installed")],
)
def test_an_arm_that_no_model_can_rank_anew_is_refused(
    cli: RunCli, asked: Path, tmp_path: Path, generator: str, code: int, message: str
) -> None:
    env = {"STUDYRAG_GENERATOR": generator, "STUDYRAG_CACHE": str(tmp_path / "empty")}
    ran = cli("eval", "retrieval", "--compare", "rerank=2", cwd=asked, env=env)
    assert ran.code == code and message in ran.err and "fix:" in ran.err
    assert not (asked / ".studyrag" / "variants").exists()


def test_baseline_and_report(cli: RunCli, asked: Path) -> None:
    first = cli("eval", "retrieval", "--write-baseline", "b/r.json", "--report", "out", "--compare", "bm25", cwd=asked)
    assert first.code == 0, first.err
    assert (asked / "out" / "report.html").is_file()
    assert cli("eval", "retrieval", "--baseline", "b/r.json", "--compare", "bm25", cwd=asked).code == 0
    held = json.loads((asked / "b" / "r.json").read_text())
    held["metrics"]["bm25: note RR@10"].update(value=2.0, low=1.5)
    (asked / "b" / "r.json").write_text(json.dumps(held))
    fell = cli("eval", "retrieval", "--baseline", "b/r.json", "--compare", "bm25", cwd=asked)
    assert fell.code == 1
    assert "1 metrics fell below the baseline: bm25: note RR@10 1.000 (baseline 2.000, at least 1.500)" in fell.err
    assert "fix:" in fell.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "bm26"), "no arm 'bm26'"),
        (("--held-back", "--open"), "exclude each other"),
        (("--golden", "none.jsonl"), "none.jsonl: cannot be read"),
        (("--baseline", "none.json"), "not a baseline"),
        (("--beir", "."), "cannot be read"),
        (("--beir", ".", "--open"), "brings its own questions"),
    ],
)
def test_misuse_is_named_with_a_fix(cli: RunCli, asked: Path, arguments: tuple[str, ...], message: str) -> None:
    done = cli("eval", "retrieval", *arguments, cwd=asked)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and "fix:" in done.err


def test_the_missing_extra_is_named(cli: RunCli, asked: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'ir_measures' else find(name, package)\n"
    )
    done = cli("eval", "retrieval", cwd=asked, env={"PYTHONPATH": str(hidden)})
    assert done.code == 1
    assert "not installed: ir_measures" in done.err
    assert "fix: pip install 'studyrag[evals]'" in done.err


def test_no_golden_questions_lead_to_drafts_and_drafts_must_be_checked(cli: RunCli, notes: Path) -> None:
    none = cli("eval", "retrieval", cwd=notes)
    assert none.code == 2 and "studyrag eval draft" in none.err
    made = cli("eval", "draft", cwd=notes)
    assert made.code == 0, made.err
    assert cli("eval", "draft", cwd=notes).code == 2
    refused = cli("eval", "retrieval", cwd=notes)
    assert refused.code == 2 and "still a draft" in refused.err and "--drafts" in refused.err
    assert cli("eval", "retrieval", "--drafts", "--compare", "bm25", cwd=notes).code == 0
