"""An embedding model's ONNX twin: made once, when the model is installed, and checked against the original.

The only module that imports torch and sentence-transformers, inside its functions (decision 1). The twin takes token
ids and gives pooled, normalised vectors, so that searching needs onnxruntime and tokenizers alone. Its weights lie
beside the graph in model.onnx.data, because a file of their own is memory-mapped, while inside the graph they are
parsed and copied: opening takes 0.11 s instead of 0.23 s, and the process 99 MB instead of 185.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studyrag.errors import ModelDamaged, ModelMissing
from studyrag.modelfiles import PULL_AGAIN, sha256_of

GRAPH, WEIGHTS, FACTS, INT8 = "model.onnx", "model.onnx.data", "embedder.json", "model.int8.onnx"
AGREEMENT = 0.9999
"""The lowest cosine between twin and original that is let through, for every probe text."""

PROBES: tuple[str, ...] = (
    "x",
    "hello world",
    "Why is attention scaled by the square root of d_k?",
    "The KV cache holds 2 · layers · heads · d_head · tokens numbers; halving the heads halves it.",
    "def softmax(x):\n    e = np.exp(x - x.max(axis=-1, keepdims=True))\n    return e / e.sum(axis=-1, keepdims=True)",
    "$$\\mathrm{Attention}(Q, K, V) = \\mathrm{softmax}\\left(\\frac{QK^\\top}{\\sqrt{d_k}}\\right)V$$",
    "Ünïcode: naïve café, Straße, Ελληνικά, Привет, 注意力机制, 機械学習, مرحبا, 🤖🔥 e\u0301",
    "| model | MRR | recall@10 |\n| --- | --- | --- |\n| BM25 | 0.58 | 0.81 |\n| dense | 0.81 | 0.93 |",
    "[SEP] [CLS] [MASK] <|im_end|> </s> \t\n  spaces   and\u00a0controls\u200b",
    "Retrieval-augmented generation grounds an answer in passages. " * 6,
    "Bias and variance trade off as capacity grows, until interpolation changes the picture. " * 40,
    "supercalifragilisticexpialidocious" * 30,
    "1 2.5 -3e-7 0x1F 1,000,000 ± 0.01 % ≤ ≥ ≠ ∑ ∫ ∂ ∇",
)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What embedder.json says of the twin. ``data_sha256`` is of the weights beside the graph."""

    name: str
    dim: int
    max_tokens: int
    pooling: str
    normalised: bool
    optimised: bool
    weights_sha256: str
    onnx_sha256: str
    data_sha256: str
    lowest_cosine: float
    versions: dict[str, str]


def export_onnx(model_dir: Path, out: Path, *, name: str) -> ExportReport:
    """Write model.onnx, model.onnx.data and embedder.json of the model in ``model_dir`` into ``out``.

    embedder.json comes last: where it is, the twin is complete. Nothing is left behind on failure.

    :raises ModelDamaged: when the model cannot be loaded, or its twin disagrees with it.
    :raises ModelMissing: when a package that only the export needs is not installed.
    """
    _require("torch", "sentence_transformers", "onnx", "onnxruntime")
    with _silenced(), TemporaryDirectory(dir=out, prefix=".export-") as scratch:
        work = Path(scratch)
        model = _load(model_dir)
        pooling = _pooling(model)
        _export(model, pooling, work / "raw.onnx")
        _optimise(work / "raw.onnx", work / GRAPH)
        lowest = _lowest_cosine(model, model_dir / "tokenizer.json", work / GRAPH)
        report = ExportReport(
            name=name,
            dim=int(model.encode(["x"], show_progress_bar=False).shape[1]),
            max_tokens=int(model.max_seq_length),
            pooling=pooling,
            normalised=True,
            optimised=True,
            weights_sha256=sha256_of(model_dir / "model.safetensors"),
            onnx_sha256=sha256_of(work / GRAPH),
            data_sha256=sha256_of(work / WEIGHTS),
            lowest_cosine=round(lowest, 7),
            versions=_versions(),
        )
        (work / FACTS).write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        for file in (WEIGHTS, GRAPH, FACTS):
            (work / file).replace(out / file)
    return report


_FLOAT = 1
"""onnx.TensorProto.FLOAT, for tensors whose type shape inference cannot tell behind a fused operator."""


def quantise_int8(model_dir: Path) -> Path:
    """Write model.int8.onnx beside the twin: weights in 8 bits, activations quantised as they come. Returns its path.

    Weights are scaled by channel (by tensor, the cosine with fp32 falls from 0.989 to 0.935 on the probes) and kept
    to 7 of the 8 bits, because sums overflow on CPUs without VNNI. What it costs in retrieval is for the evals to say.

    :raises ModelMissing: without a twin, or without the package onnx.
    """
    _require("onnx", "onnxruntime")
    if not (model_dir / GRAPH).is_file():
        raise ModelMissing(f"{model_dir.name}: no {GRAPH} to quantise", fix="studyrag models pull NAME")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _silenced(), TemporaryDirectory(dir=model_dir, prefix=".export-") as scratch:
        quantize_dynamic(
            model_dir / GRAPH,
            Path(scratch) / INT8,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": _FLOAT},
        )
        (Path(scratch) / INT8).replace(model_dir / INT8)
    return model_dir / INT8


def cosines(model: Any, tokenizer_json: Path, graph: Path, texts: Sequence[str]) -> list[float]:
    """Cosine of the twin's vector with the original's, for each text; one padded batch is compared as well."""
    import numpy as np

    wanted = np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))
    run = _runner(tokenizer_json, graph, int(model.max_seq_length))
    alone = np.concatenate([run([text]) for text in texts])
    together = run(texts)
    return [float(min(a @ w, t @ w)) for a, t, w in zip(alone, together, wanted, strict=True)]


def _load(model_dir: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(
            str(model_dir),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as err:  # a library for any model raises anything for a broken one
        reason = str(err).strip().splitlines()[0][:200] if str(err).strip() else type(err).__name__
        raise ModelDamaged(f"{model_dir.name}: cannot be loaded ({reason})", fix=PULL_AGAIN) from err


def _pooling(model: Any) -> str:
    """mean or cls; the twin knows a transformer, then one of these, then normalisation."""
    names = [type(kind).__name__ for kind in model]
    mode = getattr(model[1], "pooling_mode", None) if names[1:2] == ["Pooling"] else None
    if mode in ("mean", "cls") and names[2:] in ([], ["Normalize"]):
        return str(mode)
    raise ModelDamaged(
        f"no ONNX twin can be made of {', '.join(names)} (pooling {mode})", fix="use another embedding model"
    )


def _export(model: Any, pooling: str, path: Path) -> None:
    """(B, T) ids, mask and type ids -> (B, D) unit rows, with B and T free."""
    import torch

    class Twin(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.transformer = model[0].model if hasattr(model[0], "model") else model[0].auto_model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            states = self.transformer(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state  # (B, T, D)
            if pooling == "cls":
                pooled = states[:, 0]
            else:
                mask = attention_mask.unsqueeze(-1).to(states.dtype)  # (B, T, 1)
                pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, p=2, dim=1)

    ids = torch.ones(2, 7, dtype=torch.long)
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        Twin().eval(),
        (ids, ids, torch.zeros_like(ids)),
        str(path),
        input_names=inputs,
        output_names=["embedding"],
        dynamic_axes={**{name: {0: "batch", 1: "sequence"} for name in inputs}, "embedding": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def _optimise(raw: Path, path: Path) -> None:
    """Fuse the graph once and for all. EXTENDED is the highest level that fits every CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    onnxruntime.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])


def _lowest_cosine(model: Any, tokenizer_json: Path, graph: Path) -> float:
    lowest, text = min(zip(cosines(model, tokenizer_json, graph, PROBES), PROBES, strict=True))
    if not lowest > AGREEMENT:
        raise ModelDamaged(
            f"the ONNX twin disagrees with the model: cosine {lowest:.5f} for {text[:40]!r}", fix=PULL_AGAIN
        )
    return lowest


def _runner(tokenizer_json: Path, graph: Path, window: int) -> Callable[[Sequence[str]], Any]:
    """Texts to (B, D) as searching does it: no graph optimisation, padding masked, window kept."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.enable_truncation(window)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def run(texts: Sequence[str]) -> Any:
        encodings = tokenizer.encode_batch(list(texts))
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return session.run(["embedding"], feed)[0]

    return run


def _require(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            pip_name = package.replace("_", "-")
            raise ModelMissing(f"the package {pip_name} is not installed", fix=f"pip install {pip_name}")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnxruntime", "sentence-transformers", "torch", "transformers")}


@contextmanager
def _silenced() -> Iterator[None]:
    """No warnings, log lines or progress bars of the libraries, which are about their own affairs."""
    disabled = logging.root.manager.disable
    bars: Any = import_module("transformers.utils.logging") if find_spec("transformers") else None
    had_bars = bars is not None and bars.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        if bars is not None:
            bars.disable_progress_bar()
        try:
            yield
        finally:
            logging.disable(disabled)
            if bars is not None and had_bars:
                bars.enable_progress_bar()
