"""What was answered or judged before, kept by content: equal inputs cost nothing twice, and nothing stale is found.

A file an entry, written whole or not at all, so that several processes may share a folder. Holds any JSON; what the
inputs are is the caller's business.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studyrag.errors import StudyRagError
from studyrag.records import Message
from studyrag.reranking import Reader

Key = Mapping[str, Any]


class Cache:
    """Entries below ``folder``, made when the first is kept; ``None`` keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, kind: str, key: Key) -> Any:
        """What was kept for ``key``; None when there is nothing, or nothing whole."""
        if self._folder is None:
            return None
        try:
            return json.loads(self._file(self._folder, kind, key).read_text(encoding="utf-8"))["value"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, kind: str, key: Key, value: Any) -> None:
        """:raises StudyRagError: when it cannot be written."""
        if self._folder is None:
            return
        file = self._file(self._folder, kind, key)
        text = json.dumps({"key": key, "value": value}, ensure_ascii=False, allow_nan=False)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".part")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(partial).replace(file)
        except OSError as err:
            raise StudyRagError(f"{file}: cannot be written: {err.strerror}", fix="name another --cache") from err

    def get_or_make(self, kind: str, key: Key, make: Callable[[], Any]) -> Any:
        """What was kept for ``key``, or what ``make`` returns, kept at once."""
        found = self.get(kind, key)
        if found is None:
            found = make()
            self.keep(kind, key, found)
        return found

    def _file(self, folder: Path, kind: str, key: Key) -> Path:
        name = digest(key)
        return folder / kind / name[:2] / f"{name}.json"


class KeptReader:
    """A reader whose log-probabilities are kept; ``sha256`` identifies it.

    ``spent_ms`` adds up what they took when they were computed, also where they were kept.
    """

    def __init__(self, reader: Reader, cache: Cache, *, sha256: str) -> None:
        self._reader, self._cache, self._sha256 = reader, cache, sha256
        self.spent_ms = 0.0

    @property
    def context_tokens(self) -> int:
        return self._reader.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._reader.count_tokens(messages)

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        asked = [[message.role, message.content, message.tail, message.order] for message in messages]
        key = {"model": self._sha256, "messages": asked, "replies": list(replies), "most_tokens": most_tokens}

        def make() -> dict[str, Any]:
            started = time.perf_counter()
            found = self._reader.log_probabilities(messages, replies, most_tokens=most_tokens)
            return {"log_probabilities": found, "ms": (time.perf_counter() - started) * 1000}

        kept = self._cache.get_or_make("log-probabilities", key, make)
        self.spent_ms += kept["ms"]
        found: list[float] = kept["log_probabilities"]
        return found

    def weigh_tail(self, messages: Sequence[Message]) -> list[tuple[str, float]]:
        """Asked anew each time."""
        return self._reader.weigh_tail(messages)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()
