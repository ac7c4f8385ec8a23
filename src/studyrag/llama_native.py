"""llama.cpp as eight verbs over token ids: tokenize, piece, keep, decode, sample, pick, weigh, hidden_state.

No chat, no text streams, no policy.

The low-level bindings are used because ``llama_cpp.Llama`` points the whole process's stdout at /dev/null while it
loads, which would swallow what is printed during a load in the background. llama.cpp's log goes nowhere; its last
errors are kept for messages.
"""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studyrag.errors import GenerationFailed, ModelDamaged

BATCH = 256
"""Tokens evaluated at once: within noise of 512 (one run each), 40 MB less; Ctrl-C waits for one batch at most."""
MOST_OUTPUTS = 64
"""Most tokens of one batch after which probabilities are wanted; each costs 0.6 MB with a vocabulary of 150,000."""
_LOG_ERROR = 4


class NativeModel:
    """A loaded model with one context. Not safe for use from two threads at once; ``close`` frees it all."""

    def __init__(
        self, path: Path, *, context_tokens: int, threads: int, gpu_layers: int = 0, repack: bool = False
    ) -> None:
        """:raises ModelDamaged: when llama.cpp cannot load the file.
        :raises GenerationFailed: when there is no memory for the context.
        """
        self._lib, self._log, self._callback = _library()
        self._model: Any = self._load(path, gpu_layers, repack)
        self._vocab: Any = self._lib.llama_model_get_vocab(self._model)
        self._context: Any = self._open(path, context_tokens, threads)
        self._memory: Any = self._lib.llama_get_memory(self._context)
        self._batch: Any = self._lib.llama_batch_init(BATCH, 0, 1)

    def _load(self, path: Path, gpu_layers: int, repack: bool) -> Any:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.load_mode = self._lib.LLAMA_LOAD_MODE_MMAP
        params.use_extra_bufts = repack
        self._log.clear()
        model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise ModelDamaged(
                f"{path}: llama.cpp cannot load it ({'; '.join(self._log) or 'it does not say why'})",
                fix="studyrag models verify; if the file is whole, it needs a newer llama-cpp-python",
            )
        return model

    def _open(self, path: Path, context_tokens: int, threads: int) -> Any:
        params = self._lib.llama_context_default_params()
        params.n_ctx = context_tokens
        params.n_batch = params.n_ubatch = BATCH
        params.n_outputs_max = MOST_OUTPUTS  # saves 110 MB of buffers that rows for a whole batch would take
        params.n_threads = params.n_threads_batch = threads
        # On the CPU flash attention is no faster at these lengths, and its sums depend on the number of threads.
        params.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        context = self._lib.llama_init_from_model(self._model, params)
        if not context:
            self._lib.llama_model_free(self._model)
            raise GenerationFailed(
                f"{path}: no context of {context_tokens} tokens ({'; '.join(self._log) or 'out of memory?'})",
                fix="set a smaller context_tokens, or use a smaller model",
            )
        return context

    def set_threads(self, threads: int) -> None:
        self._lib.llama_set_n_threads(self._context, threads, threads)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids; no text -> none. ``special`` reads control tokens such as ``<|im_end|>``, else they are text."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), buffer, room, False, special)
        if count < 0:
            raise GenerationFailed(f"a text of {len(text)} characters cannot be tokenised", fix="give a shorter text")
        return buffer[:count]

    def control_text(self, token: int) -> str | None:
        """How a control token is written; None for all other tokens."""
        if not self._lib.llama_vocab_is_control(self._vocab, token):
            return None
        return self._text(token)

    def bos_to_add(self) -> int | None:
        """The token that this model's prompts begin with, where its vocabulary asks for one."""
        return self._lib.llama_vocab_bos(self._vocab) if self._lib.llama_vocab_get_add_bos(self._vocab) else None

    def border_texts(self) -> tuple[str, str]:
        """How begin and end of sequence are written, "" where the model has none: variables of chat templates."""
        begin, end = self._lib.llama_vocab_bos(self._vocab), self._lib.llama_vocab_eos(self._vocab)
        return self._text(begin) if begin >= 0 else "", self._text(end) if end >= 0 else ""

    def _text(self, token: int) -> str:
        text: bytes = self._lib.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", errors="replace")

    def ends(self, token: int) -> bool:
        """Whether it ends a reply (end of sequence, of turn, of message)."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def piece(self, token: int) -> bytes:
        """The token's UTF-8 bytes, which may be part of a character; control tokens have none."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def keep(self, count: int) -> int:
        """Forget all but the first ``count`` evaluated tokens; returns how many are left (0: not all can do it)."""
        if count and self._lib.llama_memory_seq_rm(self._memory, 0, count, -1):
            return count
        self._lib.llama_memory_clear(self._memory, False)
        return 0

    def decode(self, tokens: Sequence[int]) -> None:
        """Evaluate after what is there; at most BATCH tokens.

        :raises GenerationFailed: when llama.cpp cannot.
        """
        array = (ctypes.c_int32 * len(tokens))(*tokens)  # the batch only points to it: keep it alive here
        self._check(self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(array, len(tokens))))

    def _check(self, code: int) -> None:
        if code != 0:
            raise GenerationFailed(
                f"llama.cpp broke off (code {code}): {'; '.join(self._log) or 'it does not say why'}",
                fix="ask again; if it happens again, set a smaller context_tokens",
            )

    def sample(self, sampler: Any) -> int:
        """The next token after what was evaluated last."""
        return int(self._lib.llama_sampler_sample(sampler, self._context, -1))

    def pick(self, grammar: Any) -> int:
        """The likeliest next token that the grammar allows, which the grammar then takes as written.

        Few candidates are tried first, since trying all costs more than evaluating a token: the choice is the same.

        :raises GenerationFailed: when it allows none.
        """
        import numpy as np

        pointer = self._lib.llama_get_logits_ith(self._context, -1)
        logits = np.ctypeslib.as_array(pointer, (self._lib.llama_vocab_n_tokens(self._vocab),))
        for count in (1, 64, len(logits)):
            best = np.argsort(-logits, kind="stable")[:count] if count > 1 else np.array([logits.argmax()])
            token = self._allowed(grammar, best, logits[best])
            if token is not None:
                self._lib.llama_sampler_accept(grammar, token)
                return token
        raise GenerationFailed("the grammar allows no token of this model", fix="use another model as judge")

    def _allowed(self, grammar: Any, tokens: Any, logits: Any) -> int | None:
        """The first of ``tokens``, (n,) by falling logit, that the grammar allows."""
        import numpy as np

        rows = np.zeros(len(tokens), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        rows["id"], rows["logit"] = tokens, logits
        data = rows.ctypes.data_as(self._lib.llama_token_data_p)
        self._lib.llama_sampler_apply(grammar, self._lib.llama_token_data_array(data, len(rows), -1, False))
        allowed = np.flatnonzero(np.isfinite(rows["logit"]))
        return int(rows["id"][allowed[0]]) if len(allowed) else None

    def weigh(self, tokens: Sequence[int], *, at: int, following: Sequence[Sequence[int]]) -> list[list[float]]:
        """Evaluate ``tokens`` (at most ``BATCH``) at position ``at`` and weigh what may follow each of them.

        :returns: for each token, ln P of each of its ``following`` as the next one; at most ``MOST_OUTPUTS`` have any.
        """
        self._batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            self._batch.token[index], self._batch.pos[index] = token, at + index
            self._batch.logits[index] = bool(following[index])
            self._batch.n_seq_id[index], self._batch.seq_id[index][0] = 1, 0
        self._check(self._lib.llama_decode(self._context, self._batch))
        return [self._weights(index, wanted) for index, wanted in enumerate(following)]

    def weigh_next(self, wanted: Sequence[int]) -> list[float]:
        """ln P of each of ``wanted`` as the next token after what was evaluated last."""
        return self._weights(-1, wanted)

    def _weights(self, row: int, wanted: Sequence[int]) -> list[float]:
        import numpy as np

        if not wanted:
            return []
        pointer = self._lib.llama_get_logits_ith(self._context, row)
        logits = np.ctypeslib.as_array(pointer, (self._lib.llama_vocab_n_tokens(self._vocab),))
        highest = logits.max()
        total = float(highest) + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
        return [float(logits[token]) - total for token in wanted]

    def hidden_state(self, token: int) -> Any:
        """Evaluate ``token`` after what is there: (d,) float32, a copy of what the output layer gets."""
        import numpy as np

        self._lib.llama_set_embeddings(self._context, True)
        try:
            self.decode([token])
            pointer = self._lib.llama_get_embeddings_ith(self._context, -1)
            if not pointer:
                raise GenerationFailed("llama.cpp does not show this model's hidden state", fix="use another model")
            return np.ctypeslib.as_array(pointer, (self._lib.llama_model_n_embd(self._model),)).copy()
        finally:
            self._lib.llama_set_embeddings(self._context, False)

    @contextmanager
    def sampler(self, *, seed: int, temperature: float, repeat_penalty: float) -> Iterator[Any]:
        """A sampling chain: greedy at temperature 0, else llama.cpp's usual top-k, top-p and min-p."""
        lib = self._lib
        chain: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        try:
            if repeat_penalty != 1.0:
                words = lib.llama_vocab_n_tokens(self._vocab)
                lib.llama_sampler_chain_add(
                    chain, lib.llama_sampler_init_penalties(words, 64, repeat_penalty, 0.0, 0.0)
                )
            if temperature > 0:
                lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(40))
                lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(0.95, 1))
                lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_min_p(0.05, 1))
                lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(temperature))
                lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(seed))
            else:
                lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
            yield chain
        finally:
            lib.llama_sampler_free(chain)

    @contextmanager
    def grammar(self, text: str) -> Iterator[Any]:
        """What a GBNF grammar allows, to ``pick`` from.

        :raises GenerationFailed: when llama.cpp cannot read it.
        """
        made: Any = self._lib.llama_sampler_init_grammar(self._vocab, text.encode(), b"root")
        if not made:
            raise GenerationFailed(
                f"llama.cpp cannot read the grammar: {'; '.join(self._log)}", fix="simplify the JSON schema"
            )
        try:
            yield made
        finally:
            self._lib.llama_sampler_free(made)

    def close(self) -> None:
        if self._context is not None:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
        self._context = self._model = None


@functools.cache
def _library() -> tuple[Any, deque[str], object]:
    """The bindings, silenced, where their last errors land, and the callback, which the cache keeps alive."""
    from llama_cpp import llama_cpp as lib

    errors: deque[str] = deque(maxlen=3)

    def note(level: int, text: bytes, _data: object) -> None:
        if level == _LOG_ERROR:
            errors.append(text.decode("utf-8", errors="replace").strip())

    callback = lib.llama_log_callback(note)
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    lib.llama_backend_init()
    return lib, errors, callback
