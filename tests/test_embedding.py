"""Embedding: one contract for the fake and the real model, and the ONNX twin against sentence-transformers itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from studyrag.embedding import HashEmbedder, OnnxEmbedder, embed_whole, open_embedder, windows
from studyrag.errors import ModelDamaged
from studyrag.protocols import Embedder

TEXTS = (
    "Why is attention scaled by the square root of d_k?",
    "x",
    "",
    "  \n",
    "The KV cache holds the keys and values of every layer, so its size grows with the sequence length.",
    "def softmax(x):\n    e = np.exp(x - x.max())\n    return e / e.sum()",
    r"$$\mathrm{softmax}\left(\frac{QK^\top}{\sqrt{d_k}}\right)V$$",
    "| model | MRR |\n|---|---|\n| BM25 | 0.58 |",
    "Größe, naïve, 中文, हिन्दी, 🙂, √dₖ",
    "water boils " * 20,
    "gradient descent follows the slope, step by step " * 40,
    "[CLS] [SEP] [PAD] <|im_end|> \x1b[31m",
)


@pytest.fixture(params=["fake", "onnx"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    yield HashEmbedder() if request.param == "fake" else request.getfixturevalue("minilm")


def close(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.allclose(one, other, atol=1e-5))


# -- the contract ----------------------------------------------------------------------------------------------------


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    vectors = embedder.embed([])
    assert vectors.shape == (0, embedder.dim)
    assert vectors.dtype == np.float32
    assert embedder.count_tokens([]) == []


def test_rows_are_unit_vectors_for_any_text_even_none(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_rows_are_in_the_order_of_the_texts_whatever_their_lengths(embedder: Embedder) -> None:
    texts = TEXTS[:10]
    together = embedder.embed(texts)
    assert close(embedder.embed(texts[::-1]), together[::-1])
    for row, text in enumerate(texts):
        assert close(embedder.embed([text])[0], together[row]), text


def test_equal_texts_have_equal_rows(embedder: Embedder) -> None:
    vectors = embedder.embed(["a cat", "a dog", "a cat"])
    assert close(vectors[0], vectors[2])
    assert not close(vectors[0], vectors[1])


def test_what_lies_beyond_the_window_does_not_reach_the_vector(embedder: Embedder) -> None:
    window = "word " * embedder.max_tokens
    one, other, inside = embedder.embed([window + "apples", window + "oranges", "apples " + window])
    assert close(one, other)
    assert not close(one, inside)


def test_tokens_are_counted_with_the_special_ones_and_beyond_the_window(embedder: Embedder) -> None:
    assert embedder.count_tokens(["", "water", "water water"]) == [2, 3, 4]
    assert embedder.count_tokens(["water " * (2 * embedder.max_tokens)]) == [2 * embedder.max_tokens + 2]


def test_preloading_twice_and_embedding_meanwhile_is_harmless(embedder: Embedder) -> None:
    embedder.preload()
    embedder.preload()
    assert embedder.embed(["x"]).shape == (1, embedder.dim)


def test_related_texts_are_nearer_than_unrelated_ones(embedder: Embedder) -> None:
    query, near, far = embedder.embed(["how hot is green tea", "green tea is hot", "bicycle chains need oil"])
    assert query @ near > query @ far + 0.2


def test_the_id_names_model_and_precision(embedder: Embedder, minilm_folder: Path) -> None:
    assert HashEmbedder(32).id != HashEmbedder(64).id
    assert embedder.id.endswith("/fp32")
    assert OnnxEmbedder(minilm_folder, precision="int8").id.endswith("/int8")
    assert OnnxEmbedder(minilm_folder).id.startswith("all-MiniLM-L6-v2@53aa51172d14")


# -- the twin --------------------------------------------------------------------------------------------------------

_REFERENCE = """
import sys
from pathlib import Path
import numpy as np
from sentence_transformers import SentenceTransformer
from studyrag.embedding import SentenceTransformersEmbedder
from tests.test_embedding import TEXTS

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
alone = np.stack([model.encode(text, normalize_embeddings=True) for text in TEXTS])
adapter = SentenceTransformersEmbedder(folder)
np.savez(out, alone=alone, adapter=adapter.embed(TEXTS), empty=adapter.embed([]), counts=adapter.count_tokens(TEXTS),
         facts=np.array([adapter.dim, adapter.max_tokens]))
"""


@pytest.fixture(scope="module")
def original(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    """What sentence-transformers says of TEXTS, in a process of its own: torch is not for this one."""
    out = tmp_path_factory.mktemp("reference") / "vectors.npz"
    subprocess.run(
        [sys.executable, "-c", _REFERENCE, str(minilm_folder), str(out)],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    with np.load(out) as arrays:
        return dict(arrays)


def test_the_twin_agrees_with_sentence_transformers(
    minilm: OnnxEmbedder, original: dict[str, NDArray[np.float32]]
) -> None:
    cosines = (minilm.embed(TEXTS) * original["alone"]).sum(axis=1)
    assert cosines.min() > 0.9999, dict(zip(TEXTS, cosines.tolist(), strict=True))


def test_the_adapter_for_models_without_a_twin_keeps_the_same_contract(
    minilm: OnnxEmbedder, original: dict[str, NDArray[np.float32]]
) -> None:
    assert (original["adapter"] * original["alone"]).sum(axis=1).min() > 0.9999
    assert original["empty"].shape == (0, 384)
    assert original["counts"].tolist() == minilm.count_tokens(TEXTS)
    assert original["facts"].tolist() == [minilm.dim, minilm.max_tokens] == [384, 256]


def test_padding_is_off_so_that_a_short_text_costs_its_own_tokens(minilm: OnnxEmbedder, minilm_folder: Path) -> None:
    padding = json.loads((minilm_folder / "tokenizer.json").read_text(encoding="utf-8"))["padding"]
    assert padding["strategy"] == {"Fixed": 128}
    assert minilm.count_tokens(["water"]) == [3]


def test_int8_stays_near_fp32(minilm: OnnxEmbedder, minilm_folder: Path) -> None:
    texts = [text for text in TEXTS if 30 < len(text) < 150]
    cosines = (minilm.embed(texts) * OnnxEmbedder(minilm_folder, precision="int8").embed(texts)).sum(axis=1)
    assert 0.95 < cosines.min() < 0.99999


# -- texts of any length ---------------------------------------------------------------------------------------------


def test_a_text_that_fits_is_embedded_as_it_is(embedder: Embedder) -> None:
    texts = ["green tea", "", "black tea"]
    assert close(embed_whole(embedder, texts), embedder.embed(texts))
    assert embed_whole(embedder, []).shape == (0, embedder.dim)


def test_all_of_a_long_text_reaches_its_vector(embedder: Embedder) -> None:
    filler = "word " * (2 * embedder.max_tokens)
    start, end, tea = embed_whole(embedder, [filler + "green tea " * 60, filler + "bicycle chain " * 60, "green tea"])
    assert not close(start, end)
    assert start @ tea > end @ tea
    np.testing.assert_allclose(np.linalg.norm([start, end], axis=1), 1, atol=1e-5)


def test_windows_leave_nothing_out_and_cut_only_what_is_too_long(embedder: Embedder) -> None:
    long = "green tea is hot. " * embedder.max_tokens
    fits, cut, empty = windows(["green tea", long, ""], embedder)
    assert (fits, empty) == (["green tea"], [""])
    assert "".join(cut) == long
    assert max(embedder.count_tokens(cut)) <= embedder.max_tokens


def test_progress_ends_at_the_number_of_texts() -> None:
    seen: list[tuple[str, int, int]] = []
    embed_whole(HashEmbedder(), ["x"] * 150, progress=lambda *step: seen.append(step))
    assert seen == [("embedding", 64, 150), ("embedding", 128, 150), ("embedding", 150, 150)]


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(minilm_folder: Path, tmp_path: Path) -> Path:
    """The twin's files, without the original weights."""
    folder = tmp_path / "all-MiniLM-L6-v2-copy"
    folder.mkdir()
    for name in ("embedder.json", "tokenizer.json", "model.onnx", "model.onnx.data"):
        shutil.copy(minilm_folder / name, folder / name)
    return folder


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"dim": "many"}'])
def test_a_model_without_its_facts_is_damaged(copy: Path, content: str | None) -> None:
    (copy / "embedder.json").unlink()
    if content is not None:
        (copy / "embedder.json").write_text(content)
    with pytest.raises(ModelDamaged, match="all-MiniLM-L6-v2-copy: the embedding model cannot be opened") as caught:
        OnnxEmbedder(copy)
    assert "studyrag models pull" in caught.value.fix


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>"])
def test_a_broken_file_is_damage_at_first_use_and_not_before(copy: Path, name: str, content: bytes | None) -> None:
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    broken = OnnxEmbedder(copy)
    broken.preload()
    with pytest.raises(ModelDamaged, match="cannot be opened"):
        broken.embed(["x"])


def test_a_folder_with_a_twin_is_opened_by_the_twin(minilm_folder: Path) -> None:
    assert isinstance(open_embedder(minilm_folder, precision="fp32"), OnnxEmbedder)
