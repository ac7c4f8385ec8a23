"""A full index against the raw ONNX encode of the same chunks, in one process, in turns.

Run in the workspace: ``python inside_index.py ROUNDS MODEL_FOLDER``. Prints chunks a second as JSON. The index is
built whole (read, split, tokenise, embed, write) beside the workspace's own, with the model loaded; the raw side knows
the texts, those beyond the model's window already cut into windows, sorts them by length and uses the best of several
batch sizes, found on every eighth text first.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from machine import cores
from studyrag.assistant import Assistant
from studyrag.cli.wiring import open_embedder
from studyrag.embedding import windows
from studyrag.index import Index
from studyrag.records import embedding_text
from studyrag.settings import load_settings

BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class RawEncoder:
    """onnxruntime and tokenizers, nothing else."""

    tokenizer: Any
    session: Any

    @classmethod
    def open(cls, folder: Path, *, max_tokens: int, threads: int) -> RawEncoder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_padding()
        tokenizer.enable_truncation(max_tokens)
        file = str(folder / "model.onnx")
        return cls(tokenizer, onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]))

    def rate(self, texts: list[str], batch: int) -> float:
        """Texts a second, tokenising included."""
        started = time.perf_counter()
        for at in range(0, len(texts), batch):
            encoded = self.tokenizer.encode_batch(texts[at : at + batch])
            ids = np.array([one.ids for one in encoded], dtype=np.int64)
            mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            self.session.run(None, {one.name: feed[one.name] for one in self.session.get_inputs()})
        return len(texts) / (time.perf_counter() - started)


def main(rounds: int, model: Path) -> None:
    settings = load_settings(Path.cwd())
    embedder: Any = open_embedder(settings)
    index = Index(settings.index)
    chunks = [embedding_text(chunk) for chunk, _ in index.all_chunks()]
    texts = [window for of_one in windows(chunks, embedder) for window in of_one]
    texts.sort(key=lambda text: embedder.count_tokens([text])[0])
    raw = RawEncoder.open(model, max_tokens=embedder.max_tokens, threads=cores())
    raw.rate(texts[::16], 16)
    batch = max(BATCHES, key=lambda size: raw.rate(texts[::8], size))
    beside = Assistant(settings.model_copy(update={"index": Path.cwd() / "beside"}), embedder)
    taken: dict[str, list[float]] = {"index": [], "raw": []}
    for _ in range(rounds):
        started = time.perf_counter()
        built = beside.index_notes(full=True)
        taken["index"].append(built.embedded / (time.perf_counter() - started))
        taken["raw"].append(raw.rate(texts, batch) * len(chunks) / len(texts))
    print(json.dumps(taken | {"chunks": len(chunks), "windows": len(texts), "batch": batch}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
