"""Text to unit vectors on the everyday path: the model's ONNX twin with onnxruntime and tokenizers.

Never imports torch or transformers (decision 1); ``exporting.py`` makes the twin. ``HashEmbedder`` is the
package's deterministic fake: cosine grows with the words two texts share, so tests can say what must win.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.errors import ModelDamaged
from studyrag.protocols import Embedder, Progress, no_progress

if TYPE_CHECKING:
    from studyrag.protocols import Vectors

BATCH_TOKENS = 512
"""Padded tokens in one call of the model: short texts share a batch, and what a batch computes stays in the cache.

Chunks a second of processor time, MiniLM, 177 tokens a chunk: 16.5 at 512, 15.2 at 1024, 14.5 at 2048, 13.2 at 4096.
"""


class OnnxEmbedder:
    """A sentence-embedding model exported to ONNX: token ids in, pooled and normalised vectors out.

    Reads only ``embedder.json`` when made; the model itself is opened at first use, or ahead of it by ``preload``.

    :raises ModelDamaged: when a file is missing or cannot be opened.
    """

    def __init__(self, folder: Path, *, precision: str = "fp32", threads: int | None = None) -> None:
        self._folder, self._precision, self._threads = folder, precision, threads or _cores()
        with _opening(folder):
            facts = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
            self.dim = int(facts["dim"])
            self.max_tokens = int(facts["max_tokens"])
            self.id = f"{facts['name']}@{facts['weights_sha256'][:12]}/{precision}"
            self._optimised = bool(facts.get("optimised", False))
        self._opened: tuple[Any, Any, tuple[str, ...]] | None = None
        self._lock = threading.Lock()

    def preload(self) -> None:
        """Opens the model in a background thread; errors come at first use.

        No daemon: an interpreter that ends under onnxruntime's feet would abort the process.
        """
        threading.Thread(target=self._try_open).start()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        tokenizer, _, _ = self._open()
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))]

    def embed(self, texts: Sequence[str]) -> Vectors:
        tokenizer, _, _ = self._open()
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        ids = [_window(encoding.ids, self.max_tokens) for encoding in tokenizer.encode_batch_fast(list(texts))]
        for rows in _batches([len(one) for one in ids]):
            vectors[rows] = self._run([ids[row] for row in rows])
        return vectors

    def _run(self, ids: Sequence[Sequence[int]]) -> Vectors:
        _, session, inputs = self._open()
        width = max(len(one) for one in ids)
        tokens = np.zeros((len(ids), width), dtype=np.int64)  # (B, T)
        mask = np.zeros_like(tokens)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = one
            mask[row, : len(one)] = 1
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        vectors: Vectors = session.run(None, {name: feed[name] for name in inputs})[0]
        return vectors

    def _try_open(self) -> None:
        with contextlib.suppress(ModelDamaged):
            self._open()

    def _open(self) -> tuple[Any, Any, tuple[str, ...]]:
        """(tokenizer, session, names of its inputs), opened once."""
        with self._lock:
            if self._opened is None:
                with _opening(self._folder):
                    self._opened = self._read()
            return self._opened

    def _read(self) -> tuple[Any, Any, tuple[str, ...]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        if self._optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        file = self._folder / ("model.onnx" if self._precision == "fp32" else f"model.{self._precision}.onnx")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return _tokenizer(self._folder / "tokenizer.json"), session, tuple(one.name for one in session.get_inputs())


@contextlib.contextmanager
def _opening(folder: Path) -> Iterator[None]:
    """Translates whatever a broken model file raises; onnxruntime's and tokenizers' errors have no common base."""
    try:
        yield
    except Exception as err:
        raise ModelDamaged(
            f"{folder.name}: the embedding model cannot be opened ({(str(err).splitlines() or ['?'])[0][:200]})",
            fix="run `studyrag models remove NAME`, then `studyrag models pull NAME`",
        ) from err


def _tokenizer(path: Path) -> Any:
    """The model's tokenizer without the padding and truncation that its file carries (MiniLM's pads to 128)."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise OSError(f"{path.name} is missing")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _window(ids: list[int], limit: int) -> list[int]:
    """The first ``limit`` tokens, the closing special token kept, as sentence-transformers truncates."""
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows grouped by length, so that little is padded; every row once."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= BATCH_TOKENS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


class SentenceTransformersEmbedder:
    """Any model folder that sentence-transformers loads and that has no ONNX twin. Slow to start: it imports torch."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        with _opening(folder):
            self._model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.dim = int(self._model.get_embedding_dimension())
        self.max_tokens = int(self._model.max_seq_length or 512)
        self.id = f"{folder.name}@{_weights(folder)[:12]}/torch"

    def preload(self) -> None:
        """Already loaded."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._model.tokenizer(list(texts))["input_ids"]] if texts else []

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        vectors: Vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype(np.float32)


def _weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as handle:
            while part := handle.read(2**20):
                digest.update(part)
    return digest.hexdigest()


def open_embedder(folder: Path, *, precision: str) -> OnnxEmbedder | SentenceTransformersEmbedder:
    """The twin where the folder has one, else sentence-transformers itself."""
    if (folder / "embedder.json").is_file():
        return OnnxEmbedder(folder, precision=precision)
    return SentenceTransformersEmbedder(folder)


class HashEmbedder:
    """The package's fake embedder: each word adds one pseudo-random unit vector. For tests, not for finding things."""

    def __init__(self, dim: int = 64, max_tokens: int = 64) -> None:
        self.dim = dim
        self.max_tokens = max_tokens
        self.id = f"hash@{dim}/fp32"

    def preload(self) -> None:
        """Nothing to load."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(_WORD.findall(text)) + 2 for text in texts]

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in _WORD.findall(text.casefold())[: self.max_tokens - 2]:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
                vectors[row] += np.random.default_rng(seed).standard_normal(self.dim, dtype=np.float32)
            length = float(np.linalg.norm(vectors[row]))
            vectors[row] = vectors[row] / length if length else np.eye(1, self.dim, dtype=np.float32)[0]
        return vectors


_WORD = re.compile(r"\w+|[^\w\s]")


def embed_whole(embedder: Embedder, texts: Sequence[str], *, progress: Progress = no_progress) -> Vectors:
    """(n, dim) unit rows that stand for the whole of each text, whatever its length.

    The vector of a text beyond the window is the normalised mean of its windows' vectors.
    """
    vectors = np.zeros((len(texts), embedder.dim), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for at in range(0, len(order), 64):
        rows = order[at : at + 64]
        cut = windows([texts[row] for row in rows], embedder)
        parts = iter(embedder.embed([window for of_one in cut for window in of_one]))
        for row, of_one in zip(rows, cut, strict=True):
            vectors[row] = _unit_mean([next(parts) for _ in of_one])
        progress("embedding", min(at + 64, len(order)), len(order))
    return vectors


def windows(texts: Sequence[str], embedder: Embedder) -> list[list[str]]:
    """Each text as what the model can read at once: itself, or runs of it that leave nothing out."""
    limit = embedder.max_tokens
    found = []
    for text, tokens in zip(texts, embedder.count_tokens(texts), strict=True):
        width = len(text) if tokens <= limit else max(1, len(text) * (limit - 8) // (tokens * 5 // 4))
        parts = [text[at : at + width] for at in range(0, len(text), max(1, width))]
        found.append([part for part in parts if part.strip()] or [text])
    return found


def _unit_mean(parts: Sequence[Vectors]) -> Vectors:
    if len(parts) == 1:
        return parts[0]
    mean = np.mean(parts, axis=0)
    length = float(np.linalg.norm(mean))
    unit: Vectors = (mean / length if length else mean).astype(np.float32)
    return unit
