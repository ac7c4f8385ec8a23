"""``studyrag eval answers`` and ``studyrag eval judge`` through the command line, with the fake generator and judge."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("ir_measures")
pytest.importorskip("matplotlib")

from tests.conftest import RunCli
from tests.test_cli_eval import ROWS
from tests.test_evals_judging import items

FAKE = {"STUDYRAG_JUDGE": "fake"}
FAST = ("--all", "--metrics", "fast")


@pytest.fixture
def asked(notes: Path) -> Path:
    (notes / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    items(notes / "evals" / "judge")
    return notes


def test_judged_then_answered_then_read_from_the_cache(cli: RunCli, asked: Path) -> None:
    judged = cli("eval", "judge", "--report", "../out", cwd=asked, env=FAKE)
    assert judged.code == 0, judged.err
    assert "| support | 6 | 1.000 [1.000, 1.000] |" in judged.out
    assert (asked / "evals" / "judge" / "calibration.json").is_file()
    first = cli("eval", "answers", *FAST, "--report", "../out", cwd=asked, env=FAKE)
    assert first.code == 0, first.err
    assert "| citation precision |" in first.out and "2 of 2" in first.out
    assert "What the judge allows one to conclude" in first.out and "NOT CALIBRATED" not in first.out
    assert "answering: 3 of 3" in first.err
    page = (asked.parent / "out" / "report.html").read_text()
    assert "<h1>Answers</h1>" in page and "<h1>The judge</h1>" in page
    kept = sorted((asked / ".studyrag-evals").rglob("*.json"))
    record = cli("eval", "answers", *FAST, "--json", cwd=asked, env=FAKE)
    assert sorted((asked / ".studyrag-evals").rglob("*.json")) == kept
    assert record.json["about"]["judge"] == "fake" and record.json["calibrated"] is True
    assert record.json["refusals"]["recall"]["n"] == 1
    assert len(record.json["scored"]) == 3


def test_without_a_calibration_nothing_is_called_calibrated(cli: RunCli, asked: Path) -> None:
    done = cli("eval", "answers", *FAST, "--worst", "0", cwd=asked, env=FAKE)
    assert done.code == 0, done.err
    assert "its scores are not calibrated (studyrag eval judge)" in done.err
    assert "THE JUDGE IS NOT CALIBRATED" in done.out and "is right" not in done.out


def test_shards_fill_one_cache(cli: RunCli, asked: Path) -> None:
    for part in ("1/2", "2/2"):
        done = cli("eval", "answers", *FAST, "--shard", part, "--json", cwd=asked, env=FAKE)
        assert done.code == 0 or "no answerable" in done.err, done.err
    kept = sorted((asked / ".studyrag-evals" / "answers").rglob("*.json"))
    assert len(kept) == 3
    assert cli("eval", "answers", *FAST, cwd=asked, env=FAKE).code == 0
    assert sorted((asked / ".studyrag-evals" / "answers").rglob("*.json")) == kept


def test_a_gate_for_answers(cli: RunCli, asked: Path) -> None:
    assert cli("eval", "answers", *FAST, "--write-baseline", "b.json", cwd=asked, env=FAKE).code == 0
    assert cli("eval", "answers", *FAST, "--baseline", "b.json", cwd=asked, env=FAKE).code == 0
    held = json.loads((asked / "b.json").read_text())
    held["metrics"]["answers: verbatim sentences"].update(value=2.0, low=1.5)
    (asked / "b.json").write_text(json.dumps(held))
    fell = cli("eval", "answers", *FAST, "--baseline", "b.json", cwd=asked, env=FAKE)
    assert fell.code == 1 and "answers: verbatim sentences" in fell.err and "fix:" in fell.err
    other = cli("eval", "answers", "--sample", "2", "--metrics", "fast", "--baseline", "b.json", cwd=asked, env=FAKE)
    assert other.code == 2 and "measured on other questions" in other.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("answers", "--all", "--sample", "3"), "exclude each other"),
        (("answers", "--held-back", "--open"), "exclude each other"),
        (("answers", "--metrics", "fast", "--shard", "3/2"), "not a part"),
        (("answers", "--metrics", "fast", "--golden", "none.jsonl"), "cannot be read"),
        (("answers", "--metrics", "fast", "--judge", "http://x"), "no generator is called"),
        (("answers", "--metrics", "fast", "--judge", "none.gguf"), "none.gguf"),
        (("judge", "--judge", "unheard-of"), "unheard-of"),
        (("judge", "--items", "nowhere"), "no labelled items in nowhere"),
    ],
)
def test_misuse_is_named_with_a_fix(cli: RunCli, asked: Path, arguments: tuple[str, ...], message: str) -> None:
    if arguments[:2] in (("answers", "--all"), ("answers", "--held-back")):
        arguments = (*arguments, "--metrics", "fast")
    done = cli("eval", *arguments, cwd=asked, env=FAKE)
    assert done.code in (1, 2) and done.out == ""
    assert message in done.err and "fix:" in done.err


def test_without_ragas_the_extra_is_named(cli: RunCli, asked: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'ragas' else find(name, package)\n"
    )
    done = cli("eval", "answers", cwd=asked, env={**FAKE, "PYTHONPATH": str(hidden)})
    assert done.code == 1
    assert "not installed: ragas" in done.err and "--metrics fast" in done.err


@pytest.mark.skipif(find_spec("ragas") is None, reason="ragas is not installed: pip install 'studyrag[evals]'")
def test_ragas_own_metrics_with_the_fake_judge(cli: RunCli, asked: Path) -> None:
    done = cli("eval", "answers", "--all", "--json", cwd=asked, env=FAKE)
    assert done.code == 0, done.err
    found = done.json["metrics"]
    for name in ("Faithfulness", "ContextRelevance", "ContextPrecision", "ContextRecall", "FactualCorrectness"):
        assert (found[f"RAGAS {name}"]["mean"]["n"], found[f"RAGAS {name}"]["unscored"]) == (2, {}), name
    assert found["RAGAS ContextRelevance"]["mean"]["value"] == pytest.approx(1.0)
    for name in ("Faithfulness", "FactualCorrectness"):
        # of the fake judge's only statement, "x", it writes that it is supported; its yes or no knows better
        assert found[f"RAGAS {name}"]["mean"]["value"] == 0, name
    assert found["RAGAS AnswerRelevancy"]["mean"]["n"] == 2
    core = cli("eval", "answers", "--all", "--metrics", "core", "--json", cwd=asked, env=FAKE).json["metrics"]
    ragas = {name for name in core if name.startswith("RAGAS")}
    assert ragas == {"RAGAS Faithfulness", "RAGAS ContextRelevance", "RAGAS ContextPrecision", "RAGAS ContextRecall"}
    assert all(core[name] == found[name] for name in ragas)


def test_a_real_tiny_judge_does_the_plumbing(cli: RunCli, asked: Path, tiny_gguf: Path) -> None:
    """Its verdicts mean nothing; that all can be had, from a path and by a name of the catalogue, is the point."""
    done = cli("eval", "answers", *FAST, "--judge", str(tiny_gguf), "--json", cwd=asked, env={"STUDYRAG_THREADS": "1"})
    assert done.code == 0, done.err
    by_path = done.json
    named = cli("eval", "answers", *FAST, "--judge", "smollm2-135m-instruct", "--json", cwd=asked)
    assert named.json["about"]["judge_sha256"] == by_path["about"]["judge_sha256"]
    assert named.json["metrics"] == by_path["metrics"]
    assert by_path["metrics"]["faithfulness (logit)"]["unscored"] == {}
