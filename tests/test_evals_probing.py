"""The probe of a judge's hidden state: what it learns, what it keeps apart, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from studyrag.embedding import HashEmbedder
from studyrag.errors import GenerationFailed, Misuse
from studyrag.evals.cache import Cache
from studyrag.evals.calibrating import PROBE, uncalibrated
from studyrag.evals.judge import FakeJudgeModel, Judge
from studyrag.evals.judged import judge_the_judge, trained
from studyrag.evals.judgements import opinion
from studyrag.evals.labelled import halves, load_items, load_training
from studyrag.evals.probing import Probe, read_probe, train, write_probe
from studyrag.protocols import StateReader
from tests.conftest import RunCli
from tests.test_cli_eval_answers import FAKE
from tests.test_evals_judging import JsonOnly, items

WHO = {"judge_sha256": "j", "asked": "a", "trained_on": "l"}
FREE = tuple(f"g/{at}.md" for at in range(5))
"""Notes that nothing is measured on."""
PROBED = Probe("j", "a", "l", statements=4, ridge=1.0, auc=0.9, intercept=-1.0, weights=(2.0, 0.5))


def states(signal: float, *, count: int = 240, size: int = 40) -> tuple[list[Any], list[bool], list[str]]:
    """Noise, and along one direction the label; the last column is the same for all."""
    rng = np.random.default_rng(3)
    labels = rng.random(count) < 0.5
    direction = rng.normal(size=size) / np.sqrt(size)
    made = rng.normal(size=(count, size)) + signal * np.outer(labels - 0.5, direction)
    made[:, -1] = 7.0
    return list(made.astype(np.float32)), [bool(one) for one in labels], [f"n{at // 6}.md" for at in range(count)]


def test_it_finds_what_the_states_hold_and_nothing_else() -> None:
    made, labels, notes = states(4.0)
    probe = train(made[:180], labels[:180], notes[:180], **WHO)
    assert probe.auc > 0.9 and probe.statements == 180
    right = [(probe.read(state) > 0) == label for state, label in zip(made[180:], labels[180:], strict=True)]
    assert np.mean(right) > 0.85
    assert 0.35 < train(*states(0.0), **WHO).auc < 0.65


def test_what_it_reads_by_hand() -> None:
    assert PROBED.read(np.array([3.0, 4.0], dtype=np.float32)) == pytest.approx(-1 + 6 + 2)
    with pytest.raises(Misuse, match="of 2 numbers, the judge's state of 3"):
        PROBED.read(np.zeros(3, dtype=np.float32))


def test_too_little_to_train_on() -> None:
    made, labels, _ = states(4.0, count=12)
    with pytest.raises(Misuse, match="too few statements"):
        train(made, labels, ["one.md"] * 12, **WHO)
    with pytest.raises(Misuse, match="too few statements"):
        train(made, [True] * 12, [f"{at}.md" for at in range(12)], **WHO)


def test_it_is_read_back_for_its_judge_and_its_prompts_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "probes.json"
    assert read_probe(file, judge_sha256="j", asked="a") is None
    other = replace(PROBED, judge_sha256="k", weights=(1.0,))
    write_probe(file, PROBED)
    write_probe(file, other)
    assert read_probe(file, judge_sha256="j", asked="a") == PROBED
    assert read_probe(file, judge_sha256="k", asked="a") == other
    assert read_probe(file, judge_sha256="j", asked="b") is None
    assert PROBED.id != other.id


@pytest.mark.parametrize("text", ["", "[]", '{"j a": 3}', '{"j a": {}}', '{"j a": {"weights": ["x"]}}'])
def test_what_is_no_probe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(Misuse, match="not a"):
        read_probe(tmp_path / "p.json", judge_sha256="j", asked="a")


def training(folder: Path, *, notes: tuple[str, ...]) -> Path:
    """Statements that the fake judge's state tells apart."""
    context = "Green tea is brewed at eighty degrees for two whole minutes, says the old tin on the kitchen shelf."
    rows = [
        {"id": f"t{at}{label}", "note": note, "context": context, "statement": context if label else f"Cats {at}."}
        | {"supported": label, "error": "" if label else "x"}
        for at, note in enumerate(notes)
        for label in (True, False)
    ]
    (folder / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_no_statement_to_train_on_is_of_a_note_that_is_measured(tmp_path: Path) -> None:
    folder = items(tmp_path)
    assert load_training(folder) == ()
    assert len(load_training(training(folder, notes=FREE))) == 10
    measured = halves(load_items(folder, "support"))[1][0].note
    with pytest.raises(Misuse, match=f"its note {measured} to measure on"):
        load_training(training(folder, notes=(*FREE, measured)))


def test_what_is_wrong_with_the_items_is_said_before_an_hour_of_reading(tmp_path: Path) -> None:
    class Silent(FakeJudgeModel):
        def hidden_state(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("asked")

    silent = Judge(Silent(), HashEmbedder(), sha256="fake")
    folder = training(items(tmp_path), notes=FREE[:1])
    with pytest.raises(Misuse, match="too few statements"):
        trained(silent, folder, Cache(None), known=None)
    (folder / "relevance.jsonl").unlink()
    with pytest.raises(Misuse, match="relevance"):
        trained(silent, training(folder, notes=FREE), Cache(None), known=None)


def test_the_shipped_statements_are_of_their_notes_and_of_none_that_is_measured() -> None:
    home = Path(__file__).parents[1]
    found, labelled = load_training(home / "evals" / "judge"), load_items(home / "evals" / "judge", "support")
    assert len(found) > 2000 and len({item.note for item in found}) > 40
    assert sum(item.label for item in found) == len(found) / 2
    assert {item.kind for item in found} == {item.kind for item in labelled}
    texts = {note: (home / "corpus" / note).read_text(encoding="utf-8") for note in {item.note for item in found}}
    assert [item.id for item in found if item.context not in texts[item.note]] == []
    assert not {item.context for item in found} & {item.context for item in labelled}


def test_a_probe_is_trained_once_and_becomes_part_of_the_opinion(tmp_path: Path) -> None:
    folder, cache = items(tmp_path / "items"), Cache(tmp_path / "cache")
    judge = Judge(FakeJudgeModel(), HashEmbedder(), sha256="fake")
    assert trained(judge, folder, cache, known=None) is None
    training(folder, notes=FREE)
    probe = trained(judge, folder, cache, known=None)
    assert probe is not None and probe.auc == 1.0 and probe.statements == 10

    class Silent(FakeJudgeModel):
        def hidden_state(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("asked again")

    silent = Judge(Silent(), HashEmbedder(), sha256="fake")
    assert trained(silent, folder, Cache(None), known=probe) is probe
    assert trained(silent, folder, cache, known=None) == probe
    assert trained(silent, items(tmp_path / "no training"), cache, known=probe) is probe
    with pytest.raises(AssertionError, match="asked again"):
        trained(silent, folder, Cache(None), known=replace(probe, trained_on="other labels"))

    probed = judge.with_probe(probe)
    assert probed.prompts == f"{judge.prompts}-{probe.id}" and probed.asked == judge.asked
    yes, no = (opinion(probed, cache, "support", "Tea is hot.", text) for text in ("Tea is hot.", "Ships sail."))
    assert yes[PROBE] > no[PROBE]
    assert uncalibrated(yes) == uncalibrated(judge.support("Tea is hot.", "Tea is hot."))
    other = silent.with_probe(replace(probe, intercept=probe.intercept + 1))
    assert opinion(other, cache, "support", "Tea is hot.", "Ships sail.")[PROBE] == pytest.approx(no[PROBE] + 1)
    assert PROBE not in opinion(probed, cache, "relevance", "Tea is hot.", "Is it?")
    found = judge_the_judge(probed, folder, cache)
    assert set(found.calibration.tasks["support"].fitted.weights) == {"examples", PROBE}
    assert found.calibration.prompts == probed.prompts


def test_a_judge_that_hides_its_state_has_no_probe(tmp_path: Path) -> None:
    folder = training(items(tmp_path), notes=FREE)
    server = Judge(JsonOnly('{"verdict": "Yes"}'), HashEmbedder(), sha256="s")
    assert not isinstance(JsonOnly(""), StateReader)
    assert trained(server, folder, Cache(None), known=None) is None
    with pytest.raises(GenerationFailed, match="does not show its hidden state"):
        server.state("context", "statement")


def test_from_the_command_line_and_then_in_the_scores(cli: RunCli, notes: Path) -> None:
    from tests.test_cli_eval import ROWS

    (notes / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    folder = training(items(notes / "evals" / "judge"), notes=FREE)
    judged = cli("eval", "judge", cwd=notes, env=FAKE)
    assert judged.code == 0, judged.err
    assert "reading states: 10 of 10" in judged.err and (folder / "probes.json").is_file()
    again = cli("eval", "judge", "--json", "--calibration", "mine/calibration.json", cwd=notes, env=FAKE)
    assert again.code == 0 and "reading states" not in again.err
    assert (notes / "mine" / "probes.json").read_bytes() == (folder / "probes.json").read_bytes()
    assert again.json["about"]["statements the probe was trained on"] == 10
    assert again.json["calibration"]["tasks"]["support"]["fitted"]["weights"].keys() == {"examples", "probe"}
    scored = cli("eval", "answers", "--all", "--metrics", "fast", "--json", cwd=notes, env=FAKE)
    assert scored.code == 0, scored.err
    assert scored.json["calibrated"] is True
