"""Answers against llama.cpp's own prefill and decode of the same tokens, in one process, in turns.

Run in the workspace: ``python inside_answer.py ROUNDS MODEL.gguf QUESTIONS.json``. Prints seconds and tokens a second
as JSON. Ours is the whole way from the question to the answer's first token (retrieval, packing and the look whether
the notes answer included), and from there to the end of the answer, attribution included; llama.cpp's is the bare
decode of that prompt in full batches, and of those same answer tokens one by one, each followed by sampling. Same
threads, context and batch; no token of the prompt is kept from the turn before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studyrag.assistant import Assistant
from studyrag.cli.wiring import context_window, open_embedder
from studyrag.cores import allowed_cores
from studyrag.llama import LlamaCpp
from studyrag.llama_native import BATCH, NativeModel
from studyrag.records import Answered, Message, Piece, Reading
from studyrag.settings import load_settings


class Recorder(LlamaCpp):
    """The generator, keeping the token ids of its last prompt and reply, and when the reply's first was there."""

    prompt: list[int]
    reply: list[int]
    first_at: float

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        self.prompt = [token for block in self._blocks(messages) for token in block]
        self.reply = []
        return super().stream(messages, max_tokens=max_tokens)

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        self.prompt = [token for block in self._blocks(messages) for token in block]
        return super().log_probabilities(messages, replies, most_tokens=most_tokens)

    def record(self) -> None:
        """Starts keeping what is sampled."""
        native, _ = self._loaded()
        sample = native.sample

        def keeping(sampler: Any) -> int:
            token = sample(sampler)
            if not self.reply:
                self.first_at = time.perf_counter()
            self.reply.append(token)
            return token

        native.sample = keeping  # type: ignore[method-assign]

    def forget(self) -> None:
        """Drops what is kept of the last prompt, by asking something else."""
        for _ in self.stream([Message("user", "Hello")], max_tokens=1):
            pass


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds from the question to the evidence list, the first token, the first text on screen, and the end."""

    evidence: float
    first_token: float
    shown: float
    end: float


def main(rounds: int, model: Path, questions: list[str]) -> None:
    settings = load_settings(Path.cwd()).model_copy(update={"style": "write"})
    window, threads = context_window(settings), settings.threads or allowed_cores()
    ours = Recorder(model, name=model.stem, context_tokens=window, threads=threads)
    ours.record()
    bare = NativeModel(model, context_tokens=window, threads=threads)
    embedder = open_embedder(settings)
    assistant = Assistant(settings, embedder, ours)
    quoting = Assistant(settings.model_copy(update={"style": "quote"}), embedder, ours)
    taken: dict[str, list[float]] = {
        name: []
        for name in (
            *("evidence", "first_token", "shown", "prefill", "decode", "bare_decode", "prompt_tokens", "tokens"),
            *("quoted", "quoted_prefill"),
        )
    }
    warmed = False
    for question in questions:
        ours.forget()
        timed = _ask(assistant, ours, question)
        if timed is None or len(ours.reply) < 8:
            continue
        prefill, decode = _bare(bare, ours.prompt, ours.reply)
        if not warmed:
            warmed = True  # the first pair reads the model's file and is not counted
            ours.forget()
            timed = _ask(assistant, ours, question)
            assert timed is not None
            prefill, decode = _bare(bare, ours.prompt, ours.reply)
        steps = len(ours.reply) - 1
        taken["evidence"].append(timed.evidence)
        taken["first_token"].append(timed.first_token)
        taken["shown"].append(timed.shown)
        taken["prefill"].append(prefill)
        taken["decode"].append(steps / (timed.end - timed.first_token))
        taken["bare_decode"].append(steps / decode)
        taken["prompt_tokens"].append(len(ours.prompt))
        taken["tokens"].append(steps)
        quoted, quoted_prefill = _quoted(quoting, ours, bare, question)
        taken["quoted"].append(quoted)
        taken["quoted_prefill"].append(quoted_prefill)
        if len(taken["tokens"]) == rounds:
            break
    print(json.dumps(taken | {"threads": threads}))


def _ask(assistant: Assistant, ours: Recorder, question: str) -> Timed | None:
    """None for an abstention."""
    started = time.perf_counter()
    evidence = shown = end = 0.0
    for event in assistant.ask(question):
        now = time.perf_counter() - started
        if isinstance(event, Reading):
            evidence = now
        elif isinstance(event, Piece):
            shown = shown or now
        elif isinstance(event, Answered):
            end = now
    return Timed(evidence, ours.first_at - started, shown, end) if shown else None


def _quoted(assistant: Assistant, ours: Recorder, bare: NativeModel, question: str) -> tuple[float, float]:
    """Seconds from the question to the end of an answer in the notes' words, and of the bare prefill of its prompt."""
    ours.forget()
    started = time.perf_counter()
    for _ in assistant.ask(question):
        pass
    taken = time.perf_counter() - started
    return taken, _bare(bare, ours.prompt, ours.prompt[:1])[0]


def _bare(native: NativeModel, prompt: Sequence[int], reply: Sequence[int]) -> tuple[float, float]:
    """Seconds to the first sampled token, and for the rest of the reply's tokens."""
    native.keep(0)
    with native.sampler(seed=0, temperature=0.0, repeat_penalty=1.0) as sampler:
        started = time.perf_counter()
        for at in range(0, len(prompt), BATCH):
            native.decode(prompt[at : at + BATCH])
        native.sample(sampler)
        prefilled = time.perf_counter()
        for token in reply[:-1]:
            native.decode([token])
            native.sample(sampler)
        return prefilled - started, time.perf_counter() - prefilled


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text(encoding="utf-8")))
