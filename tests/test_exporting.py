"""The ONNX twin of the real MiniLM: it agrees with sentence-transformers, and a broken export leaves nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studyrag import exporting
from studyrag.errors import ModelDamaged, ModelMissing
from studyrag.exporting import FACTS, GRAPH, INT8, PROBES, WEIGHTS, cosines, export_onnx, quantise_int8
from studyrag.modelfiles import sha256_of

MADE = {GRAPH, WEIGHTS, FACTS, INT8}


@pytest.fixture(scope="module")
def original(minilm_folder: Path) -> Any:
    """The model as sentence-transformers loads it: seconds, so once."""
    with exporting._silenced():
        return exporting._load(minilm_folder)


@pytest.fixture
def bare(minilm_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model as it was fetched, without what was made of it; the weights are linked."""
    folder = tmp_path / "bare"
    shutil.copytree(minilm_folder, folder, copy_function=link)
    for name in MADE:
        (folder / name).unlink()
    return folder


def link(origin: str, target: str) -> str:
    try:
        Path(target).hardlink_to(origin)
    except OSError:
        shutil.copyfile(origin, target)
    return target


def test_the_installed_twin_agrees_with_sentence_transformers(original: Any, minilm_folder: Path) -> None:
    found = cosines(original, minilm_folder / "tokenizer.json", minilm_folder / GRAPH, PROBES)

    assert len(found) == len(PROBES) >= 12
    assert min(found) > 0.9999


def test_the_probes_reach_beyond_the_window(original: Any) -> None:
    lengths = [len(original.tokenizer(text)["input_ids"]) for text in PROBES]

    assert min(lengths) <= 3 and max(lengths) > original.max_seq_length == 256


def test_the_facts_are_those_of_the_files(minilm_folder: Path) -> None:
    facts = json.loads((minilm_folder / FACTS).read_text())

    assert (facts["name"], facts["dim"], facts["max_tokens"]) == ("all-MiniLM-L6-v2", 384, 256)
    assert (facts["pooling"], facts["normalised"], facts["optimised"]) == ("mean", True, True)
    assert facts["weights_sha256"] == sha256_of(minilm_folder / "model.safetensors")
    assert facts["onnx_sha256"] == sha256_of(minilm_folder / GRAPH)
    assert facts["data_sha256"] == sha256_of(minilm_folder / WEIGHTS)
    assert facts["lowest_cosine"] > 0.9999


def test_the_weights_lie_beside_the_graph(minilm_folder: Path) -> None:
    assert (minilm_folder / GRAPH).stat().st_size < 1_000_000 < 90_000_000 < (minilm_folder / WEIGHTS).stat().st_size


def test_int8_is_close_and_a_quarter_of_the_size(original: Any, minilm_folder: Path) -> None:
    found = cosines(original, minilm_folder / "tokenizer.json", minilm_folder / INT8, PROBES)

    assert sum(found) / len(found) > 0.98
    assert (minilm_folder / INT8).stat().st_size * 3 < (minilm_folder / WEIGHTS).stat().st_size


def test_an_export_is_repeatable_and_silent(bare: Path, minilm_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = export_onnx(bare, bare, name="all-MiniLM-L6-v2")
    quantise_int8(bare)

    assert capfd.readouterr() == ("", "")
    assert report.dim == 384 and report.lowest_cosine > 0.9999
    assert {path.name for path in bare.iterdir()} == {
        path.name for path in minilm_folder.iterdir() if path.name != ".cache"
    }
    if report.versions == json.loads((minilm_folder / FACTS).read_text())["versions"]:  # others may fuse otherwise
        for name in MADE:
            assert sha256_of(bare / name) == sha256_of(minilm_folder / name), name


def test_a_twin_that_disagrees_is_refused_and_not_kept(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "AGREEMENT", 1.5)

    with pytest.raises(ModelDamaged, match=r"the ONNX twin disagrees with the model: cosine (1\.0|0\.9999)") as error:
        export_onnx(bare, bare, name="m")

    assert error.value.fix == "pull it again, or over another network"
    assert not MADE & {path.name for path in bare.iterdir()} and not list(bare.glob(".export-*"))


def test_a_model_that_cannot_be_loaded_is_named(bare: Path) -> None:
    (bare / "config.json").unlink()
    (bare / "config.json").write_text("{}")

    with pytest.raises(ModelDamaged, match="bare: cannot be loaded"):
        export_onnx(bare, bare, name="m")
    assert not list(bare.glob(".export-*"))


@pytest.mark.parametrize("package", ["onnx", "torch", "sentence_transformers"])
def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == package else object())

    with pytest.raises(ModelMissing) as error:
        export_onnx(tmp_path, tmp_path, name="m")
    assert error.value.fix == f"pip install {package.replace('_', '-')}"


def test_there_is_nothing_to_quantise_without_a_twin(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"no model.onnx to quantise") as error:
        quantise_int8(tmp_path)
    assert error.value.fix == "studyrag models pull NAME"


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, studyrag.exporting; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"torch", "transformers", "sentence_transformers", "onnx", "onnxruntime"} & set(loaded)
