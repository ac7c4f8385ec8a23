"""A GGUF chat model, run here by llama.cpp: the reply as a stream, and how probable replies and prompts are.

What two prompts in a row share is evaluated once.
"""

from __future__ import annotations

import codecs
import itertools
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studyrag.chat_prompt import Render, renderer, tokenised
from studyrag.cores import free_cores_since, read_cpu
from studyrag.errors import GenerationFailed, StudyRagError
from studyrag.gguf import GgufHeader, check_gguf
from studyrag.llama_native import BATCH, MOST_OUTPUTS, NativeModel
from studyrag.records import Message
from studyrag.room import require_room

if TYPE_CHECKING:
    from studyrag.protocols import Vector

_RECOUNT_CORES_AFTER_S = 10.0


class LlamaCpp:
    """Generator over one GGUF file. The constructor loads nothing; the first use, or ``preload``, does.

    One reply at a time: a new ``stream`` ends an unfinished one. ``threads`` None uses the physical cores that other
    processes leave free. ``repack`` rewrites the weights for the CPU at load: on the machine this was measured on
    (docs/log.md) it decodes 1.2 times as fast, but reads prompts at 0.65 of the speed and takes 600 MB more.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        context_tokens: int = 4096,
        threads: int | None = None,
        gpu_layers: int = 0,
        seed: int = 0,
        temperature: float = 0.0,
        repeat_penalty: float = 1.0,
        repack: bool = False,
    ) -> None:
        self._path, self._name = path, name
        self._asked_context, self._threads, self._gpu_layers = context_tokens, threads, gpu_layers
        self._seed, self._temperature, self._repeat_penalty = seed, temperature, repeat_penalty
        self._repack = repack
        self._lock = threading.RLock()
        self._native: NativeModel | None = None
        self._render: Render | None = None
        self._header: GgufHeader | None = None
        self._evaluated: list[list[int]] = []
        self._turn = 0
        self._cores_counted_at = 0.0

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        """What was asked for, or the window that the model was trained with, if that is smaller."""
        return min(self._asked_context, self._checked().context_length or self._asked_context)

    def preload(self) -> None:
        """Load in the background. An error is raised by the first use instead, which tries again."""
        threading.Thread(target=self._load_quietly, name="load-generator", daemon=True).start()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Exactly the tokens that will be evaluated; no messages -> 0."""
        return sum(map(len, self._blocks(messages))) if messages else 0

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Pieces of whole characters. A character that ``max_tokens`` cuts in two is left out.

        :raises GenerationFailed: at once, when prompt and answer do not fit; later, when the model breaks off.
        """
        blocks = self._blocks(messages) if messages else []
        require_room(
            self._name,
            prompt_tokens=sum(map(len, blocks)),
            max_tokens=max_tokens,
            context_tokens=self.context_tokens,
        )
        return self._reply(blocks, max_tokens)

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        """ln P(reply begins with it) of each of ``replies``, as far as its first ``most_tokens`` tokens.

        Beginnings that replies share are evaluated once. The evaluated prompt is kept for the next one.

        :raises GenerationFailed: as for ``stream``.
        """
        blocks = self._blocks(messages)
        length = sum(map(len, blocks))
        require_room(self._name, prompt_tokens=length, max_tokens=most_tokens, context_tokens=self.context_tokens)
        native, _ = self._loaded()
        with self._lock:
            self._turn += 1
            turn = self._turn
            self._recount_cores(native)
            self._evaluate(native, blocks)
            tokens = [native.tokenize(reply, special=False)[:most_tokens] for reply in replies]
            first = sorted({reply[0] for reply in tokens if reply})
            found: dict[tuple[int, ...], float] = {}
            found.update(((token,), weight) for token, weight in zip(first, native.weigh_next(first), strict=True))
            self._weigh(native, blocks, (), tokens, found, turn)
            self._rewind(native, blocks, ())
        return [sum(found[tuple(reply[:end])] for end in range(1, len(reply) + 1)) for reply in tokens]

    def weigh_tail(self, messages: Sequence[Message]) -> list[tuple[str, float]]:
        """Each token of the last message's tail with ln P(token | all before it). No tail -> [].

        What was evaluated is kept for prompts that have the tail before an order.

        :raises GenerationFailed: as for ``stream``.
        """
        native, render = self._loaded()
        own = native.tokenize(messages[-1].tail, special=False)
        if not own:
            return []
        with self._lock:
            prompt = tokenised(native, render, messages, self._path).weighing(own)
        blocks, end = prompt.batches(), prompt.content_end
        length = sum(map(len, blocks))
        require_room(self._name, prompt_tokens=length, max_tokens=1, context_tokens=self.context_tokens)
        with self._lock:
            self._turn += 1
            turn = self._turn
            self._recount_cores(native)
            at = self._keep_shared(native, blocks, most=next(_ends_at_least(blocks, end)))
            found: list[float] = []
            for block in blocks[len(self._evaluated) :]:
                self._still_mine(turn)
                behind = range(at - end + 1, at - end + 1 + len(block))  # which token of the tail follows each
                wanted = [own[place : place + 1] if place >= 0 else [] for place in behind]
                if any(wanted):
                    found += [weight for weights in native.weigh(block, at=at, following=wanted) for weight in weights]
                else:
                    native.decode(block)
                self._evaluated.append(block)
                at += len(block)
        texts = [native.piece(token).decode("utf-8", errors="replace") for token in own]
        return list(zip(texts, found, strict=True))

    def hidden_state(self, messages: Sequence[Message]) -> Vector:
        """(d,) float32: what the output layer gets after the prompt's last token, which is evaluated by itself.

        After ``log_probabilities`` of the same prompt, that token is all that is evaluated.

        :raises GenerationFailed: as for ``stream``.
        """
        blocks = self._blocks(messages)
        require_room(self._name, prompt_tokens=sum(map(len, blocks)), max_tokens=1, context_tokens=self.context_tokens)
        native, _ = self._loaded()
        with self._lock:
            self._turn += 1
            self._recount_cores(native)
            self._keep_shared(native, blocks, most=len(blocks))
            for block in blocks[len(self._evaluated) :]:
                native.decode(block)
                self._evaluated.append(block)
            *before, last = [token for block in blocks for token in block]
            self._evaluated = []  # until the last token is there again
            if not native.keep(len(before)):
                for start in range(0, len(before), BATCH):
                    native.decode(before[start : start + BATCH])
            state: Vector = native.hidden_state(last)
            self._evaluated = list(blocks)
            return state

    def write_json(self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int) -> str:
        """The likeliest JSON, token by token, among what ``schema`` allows, whatever the temperature.

        Only what llama.cpp's converter knows is held to (types, enums, bounds of lengths; no minimum or maximum).

        :raises GenerationFailed: as for ``stream``, and when the value is not complete after ``max_tokens``.
        """
        from llama_cpp.llama_grammar import json_schema_to_gbnf

        blocks = self._blocks(messages)
        require_room(
            self._name,
            prompt_tokens=sum(map(len, blocks)),
            max_tokens=max_tokens,
            context_tokens=self.context_tokens,
        )
        native, _ = self._loaded()
        with native.grammar(json_schema_to_gbnf(json.dumps(schema))) as grammar:
            text, ended = _whole(self._pieces(native, blocks, max_tokens, lambda: native.pick(grammar)))
        if not ended:
            raise GenerationFailed(
                f"{self._name}: the reply was cut off after {max_tokens} tokens", fix="allow it more tokens"
            )
        return text

    def _weigh(
        self,
        native: NativeModel,
        blocks: list[list[int]],
        path: tuple[int, ...],
        replies: Sequence[Sequence[int]],
        found: dict[tuple[int, ...], float],
        turn: int,
    ) -> None:
        """ln P of every token of ``replies`` given what is before it, into ``found`` by path.

        All begin with ``path``, whose last token's followers are known. Replies that share their next token are
        weighed together: as far as one alone goes on, in one batch.
        """
        branches: dict[int, list[Sequence[int]]] = {}
        for reply in replies:
            if len(reply) > len(path) + 1:
                branches.setdefault(reply[len(path)], []).append(reply)
        for sharing in branches.values():
            self._still_mine(turn)
            alone = all(reply == sharing[0] for reply in sharing)
            longest = len(sharing[0]) - 1 if alone else len(path) + 1
            run = tuple(sharing[0][len(path) : min(longest, len(path) + MOST_OUTPUTS)])
            ahead = [sorted({reply[len(path) + step] for reply in sharing if len(reply) > len(path) + step})
                     for step in range(1, len(run) + 1)]  # fmt: skip
            self._rewind(native, blocks, path)
            at = sum(map(len, blocks)) + len(path)
            for step, weights in enumerate(native.weigh(run, at=at, following=ahead), start=1):
                for follower, weight in zip(ahead[step - 1], weights, strict=True):
                    found[path + run[:step] + (follower,)] = weight
            self._weigh(native, blocks, path + run, sharing, found, turn)

    def _rewind(self, native: NativeModel, blocks: list[list[int]], path: tuple[int, ...]) -> None:
        """Back to the prompt and ``path``, both evaluated. A model that cannot forget in part does it all again."""
        length = sum(map(len, blocks))
        if native.keep(length + len(path)):
            return
        for block in blocks:
            native.decode(block)
        if path:
            native.decode(path)

    def close(self) -> None:
        with self._lock:
            self._turn += 1
            self._evaluated = []
            if self._native is not None:
                self._native.close()
            self._native = self._render = None

    # Loading

    def _load_quietly(self) -> None:
        try:
            self._loaded()
        except StudyRagError:
            return  # the first use meets it again

    def _checked(self) -> GgufHeader:
        with self._lock:
            if self._header is None:
                self._header = check_gguf(self._path)
            return self._header

    def _loaded(self) -> tuple[NativeModel, Render]:
        """:raises ModelMissing, ModelDamaged, GenerationFailed: when the file cannot be used."""
        with self._lock:
            if self._native is None or self._render is None:
                template = self._checked().chat_template
                if template is None:
                    raise GenerationFailed(
                        f"{self._path}: has no chat template, so it is not known how to talk to it",
                        fix="use an instruct or chat version of the model (its GGUF has tokenizer.chat_template)",
                    )
                before = read_cpu()
                native = NativeModel(
                    self._path,
                    context_tokens=self.context_tokens,
                    threads=self._threads or 1,
                    gpu_layers=self._gpu_layers,
                    repack=self._repack,
                )
                self._render = renderer(template, *native.border_texts())
                self._native = native
                if self._threads is None:
                    native.set_threads(free_cores_since(before))
                    self._cores_counted_at = time.monotonic()
            return self._native, self._render

    def _recount_cores(self, native: NativeModel) -> None:
        """Others come and go: look again (50 ms) when the last look is old."""
        if self._threads is None and time.monotonic() - self._cores_counted_at > _RECOUNT_CORES_AFTER_S:
            native.set_threads(free_cores_since(read_cpu()))
            self._cores_counted_at = time.monotonic()

    # Prompt

    def _blocks(self, messages: Sequence[Message]) -> list[list[int]]:
        """The prompt's tokens in the batches in which they are evaluated."""
        native, render = self._loaded()
        with self._lock:
            return tokenised(native, render, messages, self._path).batches()

    # Reply

    def _reply(self, blocks: list[list[int]], max_tokens: int) -> Iterator[str]:
        native, _ = self._loaded()
        with native.sampler(
            seed=self._seed, temperature=self._temperature, repeat_penalty=self._repeat_penalty
        ) as sampler:
            yield from self._pieces(native, blocks, max_tokens, lambda: native.sample(sampler))

    def _pieces(
        self, native: NativeModel, blocks: list[list[int]], max_tokens: int, choose: Callable[[], int]
    ) -> Generator[str, None, bool]:
        """Pieces of what ``choose`` continues the prompt with; returns whether it ended before ``max_tokens``."""
        with self._lock:
            self._turn += 1
            turn = self._turn
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        token = -1
        for step in range(max_tokens):
            with self._lock:
                self._still_mine(turn)
                if step == 0:
                    self._recount_cores(native)
                    self._evaluate(native, blocks)
                else:
                    native.decode([token])
                token = choose()
                if native.ends(token):
                    return True
                text = decoder.decode(native.piece(token))
            if text:
                yield text
        return False

    def _still_mine(self, turn: int) -> None:
        if turn != self._turn:
            raise GenerationFailed(
                f"{self._name}: the reply was cut off by a newer one, or by close()",
                fix="read a reply to its end before asking for the next",
            )

    def _evaluate(self, native: NativeModel, blocks: list[list[int]]) -> None:
        """Evaluate the prompt, less the leading blocks that the last prompt had too; the last block always."""
        self._keep_shared(native, blocks, most=len(blocks) - 1)
        for block in blocks[len(self._evaluated) :]:
            native.decode(block)
            self._evaluated.append(block)

    def _keep_shared(self, native: NativeModel, blocks: list[list[int]], *, most: int) -> int:
        """Forget all but the leading blocks that were evaluated before, ``most`` at most; how many tokens they hold."""
        same = 0
        while same < min(most, len(self._evaluated)) and blocks[same] == self._evaluated[same]:
            same += 1
        self._evaluated = self._evaluated[:same]
        kept = native.keep(sum(map(len, self._evaluated)))
        if kept == 0:
            self._evaluated = []
        return kept


def _ends_at_least(blocks: Sequence[Sequence[int]], place: int) -> Iterator[int]:
    """Indices of the blocks that hold the token before ``place``, or one behind it."""
    ends = itertools.accumulate(map(len, blocks))
    return (index for index, end in enumerate(ends) if end >= place)


def _whole(stream: Generator[str, None, bool]) -> tuple[str, bool]:
    """All pieces together, and what the generator returned."""
    pieces: list[str] = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return "".join(pieces), bool(end.value)
