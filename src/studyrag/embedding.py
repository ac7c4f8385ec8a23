"""Text to unit vectors on the everyday path: the model's ONNX twin with onnxruntime and tokenizers.

Never imports torch or transformers (decision 1); ``exporting.py`` makes the twin. ``HashEmbedder`` is the
package's deterministic fake: cosine grows with the words two texts share, so tests can say what must win.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studyrag.errors import ModelDamaged
from studyrag.protocols import Embedder, Progress, no_progress

if TYPE_CHECKING:
    from studyrag.protocols import Vectors

BATCH_TOKENS = 4096
"""Padded tokens in one call of the model: bounds memory, and keeps short texts in large batches."""


class OnnxEmbedder:
    """A sentence-embedding model exported to ONNX: token ids in, pooled and normalised vectors out.

    :raises ModelDamaged: when a file is missing or cannot be opened.
    """

    def __init__(self, folder: Path, *, precision: str = "fp32", threads: int | None = None) -> None:
        import onnxruntime

        try:
            facts = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
            self._tokenizer = _tokenizer(folder / "tokenizer.json")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or _cores()
            options.log_severity_level = 3
            if facts.get("optimised", False):
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            file = "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"
            self._session: Any = onnxruntime.InferenceSession(
                str(folder / file), options, providers=["CPUExecutionProvider"]
            )
            self.dim = int(facts["dim"])
            self.max_tokens = int(facts["max_tokens"])
            self.id = f"{facts['name']}@{facts['weights_sha256'][:12]}/{precision}"
        except (OSError, ValueError, KeyError, RuntimeError) as err:
            raise ModelDamaged(
                f"{folder.name}: the embedding model cannot be opened ({str(err).splitlines()[0][:200]})",
                fix="run `studyrag models remove NAME` and `studyrag models pull NAME`",
            ) from err
        self._inputs = [item.name for item in self._session.get_inputs()]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        ids = [_window(encoding.ids, self.max_tokens) for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        for rows in _batches([len(one) for one in ids]):
            vectors[rows] = self._run([ids[row] for row in rows])
        return vectors

    def _run(self, ids: Sequence[Sequence[int]]) -> Vectors:
        width = max(len(one) for one in ids)
        tokens = np.zeros((len(ids), width), dtype=np.int64)  # (B, T)
        mask = np.zeros_like(tokens)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = one
            mask[row, : len(one)] = 1
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        vectors: Vectors = self._session.run(None, {name: feed[name] for name in self._inputs})[0]
        return vectors


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


class HashEmbedder:
    """The package's fake embedder: each word adds one pseudo-random unit vector. For tests, not for finding things."""

    def __init__(self, dim: int = 64, max_tokens: int = 64) -> None:
        self.dim = dim
        self.max_tokens = max_tokens
        self.id = f"hash@{dim}/fp32"

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

    A text beyond the window is cut into windows at line ends; its vector is the normalised mean of theirs.
    """
    vectors = np.zeros((len(texts), embedder.dim), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for at in range(0, len(order), 64):
        rows = order[at : at + 64]
        counts = embedder.count_tokens([texts[row] for row in rows])
        vectors[rows] = embedder.embed([texts[row] for row in rows])
        for row, count in zip(rows, counts, strict=True):
            if count > embedder.max_tokens:
                vectors[row] = _mean_of_windows(embedder, texts[row], count)
        progress("embedding", min(at + 64, len(order)), len(order))
    return vectors


def _mean_of_windows(embedder: Embedder, text: str, tokens: int) -> Vectors:
    width = max(1, len(text) * (embedder.max_tokens - 8) // (tokens * 5 // 4))
    windows = [text[at : at + width] for at in range(0, len(text), width)]
    mean = embedder.embed([window for window in windows if window.strip()]).mean(axis=0)
    length = float(np.linalg.norm(mean))
    unit: Vectors = (mean / length if length else mean).astype(np.float32)
    return unit
