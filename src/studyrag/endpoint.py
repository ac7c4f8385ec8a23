"""Any server that speaks OpenAI's chat completions, streamed: Ollama, llama-server, vLLM, LM Studio, OpenAI itself.

There is no tokenizer here: tokens are overestimated, so that what fits by this count fits the server's. The key goes
to the configured host only (redirects are not followed) and appears in no message.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from studyrag.errors import GenerationFailed, Misuse
from studyrag.room import require_room

if TYPE_CHECKING:
    import httpx

    from studyrag.records import Message

_MESSAGE_OVERHEAD = 8
_SHOWN = 300
_LETTERS = re.compile(r"[A-Za-z]+")
_GAPS = re.compile(r"(?! [A-Za-z])\s+")


class OpenAICompatible:
    """Generator over ``<base_url>/chat/completions``. ``api_key`` None reads STUDYRAG_API_KEY, then OPENAI_API_KEY."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        temperature: float = 0.0,
        seed: int = 0,
        context_tokens: int = 8192,
    ) -> None:
        """:raises Misuse: when the address or the model's name cannot be one."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or not model:
            raise Misuse(
                f"{model or 'no model'} at {parts.hostname or base_url!r}: not an endpoint",
                fix="write openai:http://localhost:11434/v1#MODEL, and put a key in STUDYRAG_API_KEY",
            )
        self._url, self._host, self._model = base_url.rstrip("/"), parts.hostname, model
        self._key = api_key or os.environ.get("STUDYRAG_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
        self._timeout_s, self._temperature, self._seed = timeout_s, temperature, seed
        self._context_tokens = context_tokens
        self._client: httpx.Client | None = None

    @property
    def name(self) -> str:
        return self._model

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """An upper estimate (see ``estimate_tokens``) and 8 more a message for its template; no messages -> 0."""
        return sum(estimate_tokens(message.text) + _MESSAGE_OVERHEAD for message in messages)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Pieces as the server sends them.

        :raises GenerationFailed: at once, when prompt and answer may not fit; later, for whatever the server does.
        """
        require_room(
            self._model,
            prompt_tokens=self.count_tokens(messages),
            max_tokens=max_tokens,
            context_tokens=self._context_tokens,
        )
        return self._reply(self._payload(messages, max_tokens))

    def write_json(self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int) -> str:
        """By a strict ``json_schema`` response format. A server may ignore it: the caller must check the value.

        :raises GenerationFailed: as for ``stream``, and when the reply is cut off at ``max_tokens``.
        """
        require_room(
            self._model,
            prompt_tokens=self.count_tokens(messages),
            max_tokens=max_tokens,
            context_tokens=self._context_tokens,
        )
        wanted = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
        payload = {**self._payload(messages, max_tokens), "temperature": 0.0, "response_format": wanted}
        return "".join(self._reply(payload, whole=True))

    def _payload(self, messages: Sequence[Message], max_tokens: int) -> dict[str, object]:
        return {
            "model": self._model,
            "messages": [{"role": message.role, "content": _encodable(message.text)} for message in messages],
            "max_tokens": max_tokens,
            "temperature": self._temperature,
            "seed": self._seed,
            "stream": True,
        }

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _reply(self, payload: Mapping[str, object], *, whole: bool = False) -> Iterator[str]:
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url = f"{self._url}/chat/completions"
        try:
            with self._connected().stream("POST", url, json=payload, headers=headers) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._refused(response.status_code, _error_message(response.text))
                yield from self._pieces(response.iter_lines(), whole=whole)
        except httpx.TimeoutException as err:
            raise self._failed(
                f"no answer within {self._timeout_s:g} s", "check the server's load, or allow a longer timeout"
            ) from err
        except httpx.ConnectError as err:
            raise self._failed(f"no connection ({err})", "start the server, or mend the address") from err
        except httpx.HTTPError as err:
            raise self._failed(f"the connection broke ({err})", "ask again; look at the server's log") from err

    def _connected(self) -> httpx.Client:
        """A client that follows no redirects, and ignores proxies for this machine's own servers."""
        import httpx

        if self._client is None:
            local = self._host in ("localhost", "127.0.0.1", "::1")
            self._client = httpx.Client(
                timeout=httpx.Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
                trust_env=not local,
            )
        return self._client

    def _pieces(self, lines: Iterator[str], *, whole: bool) -> Iterator[str]:
        """Server-sent events to text. Complete is a reply that says [DONE] or gives a reason for its end.

        ``whole``: one that ends for want of tokens has failed.
        """
        finished = False
        for line in lines:
            field, _, data = line.partition(":")
            if field != "data":
                if field.lstrip().startswith(("{", "<")):
                    raise self._malformed(line)
                continue  # comments, event names, empty lines
            if data.strip() == "[DONE]":
                return
            text, reason = self._event(data)
            if reason == "content_filter":
                raise self._failed(
                    "the server's content filter stopped the reply", "ask differently, or use another model"
                )
            if whole and reason == "length":
                raise self._failed("the reply was cut off for want of tokens", "allow it more tokens")
            finished = finished or reason is not None
            if text:
                yield text
        if not finished:
            raise self._failed("the reply was cut off", "ask again; look at the server's log")

    def _event(self, data: str) -> tuple[str, str | None]:
        """Text ("" for none) and finish reason of one event."""
        try:
            event: Any = json.loads(data)
            if event.get("error"):
                raise self._failed(_error_message(data), "look at the server's log")
            choice = event["choices"][0] if event["choices"] else {}  # the usage event has no choice
            text, reason = (choice.get("delta") or {}).get("content") or "", choice.get("finish_reason")
            return str(text), None if reason is None else str(reason)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError) as err:
            raise self._malformed(data) from err

    def _refused(self, status: int, said: str) -> GenerationFailed:
        fixes = {
            401: "set STUDYRAG_API_KEY to a valid key of this server",
            403: "set STUDYRAG_API_KEY to a key that may use this model",
            404: f"check the address (it mostly ends in /v1) and that the server has {self._model} (ollama pull, say)",
            429: "wait, or check the account's quota",
        }
        if status >= 500:
            fix = "look at the server's log; it may still be loading, or out of memory"
        elif 300 <= status < 400:
            fix = "write the address that the server redirects to"
        else:
            fix = fixes.get(status, "check the model's name and its context window against context_tokens")
        return self._failed(f"HTTP {status}: {said or 'it does not say why'}", fix)

    def _malformed(self, data: str) -> GenerationFailed:
        return self._failed(
            f"not a chat-completions stream: {data.strip()[:80]!r}", "check the address: it mostly ends in /v1"
        )

    def _failed(self, what: str, fix: str) -> GenerationFailed:
        if self._key:
            what = what.replace(self._key, "***")
        return GenerationFailed(f"{self._model} at {self._url}: {what}", fix=fix)


def estimate_tokens(text: str) -> int:
    """More than any common tokenizer makes of notes. No text -> 0.

    A token for 2.5 letters, for 4 characters of white space (a single space before a letter is free), and for each
    digit, sign and UTF-8 byte of a character outside ASCII. Random letters can exceed it (a bound for every text would
    be its bytes, four times too many for prose).
    """
    words = sum(math.ceil(len(word) / 2.5) for word in _LETTERS.findall(text))
    gaps = sum(math.ceil(len(gap) / 4) for gap in _GAPS.findall(text))
    signs = "".join(_LETTERS.sub("", text).split())
    return words + gaps + len(signs.encode("utf-8", errors="replace"))


def _encodable(text: str) -> str:
    """The text with ``?`` for lone surrogates, which JSON cannot carry as UTF-8."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _error_message(body: str) -> str:
    """What an error body says, on one line and short: OpenAI's ``error.message``, Ollama's ``error``, or the body."""
    try:
        parsed: Any = json.loads(body)
        error = parsed.get("error", parsed.get("message", parsed.get("detail", body)))
        said = error.get("message", body) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        said = body
    return " ".join(str(said).split())[:_SHOWN]
