"""The one rule that all generators share: prompt and answer fit the context window, or nothing starts.

Counting is each generator's own; this module does not know about tokens.
"""

from __future__ import annotations

from studyrag.errors import GenerationFailed


def require_room(name: str, *, prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
    """Nothing when ``prompt_tokens`` + ``max_tokens`` fit; a prompt of no tokens is a call without messages.

    :raises GenerationFailed: when they do not fit, when there is no prompt, or when no token may be answered.
    """
    if prompt_tokens < 1:
        raise GenerationFailed(f"{name}: there is no prompt to answer", fix="give at least one message")
    if max_tokens < 1:
        raise GenerationFailed(f"{name}: max_tokens is {max_tokens}", fix="allow the answer at least 1 token")
    if prompt_tokens + max_tokens > context_tokens:
        raise GenerationFailed(
            f"{name}: a prompt of {prompt_tokens} tokens and an answer of up to {max_tokens} do not fit its context "
            f"window of {context_tokens}",
            fix="give it fewer or shorter passages, a smaller max_tokens, or a larger context_tokens",
        )
