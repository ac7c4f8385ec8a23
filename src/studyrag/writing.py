"""A generator's stream to the events that show it: pieces as they can be shown, a verdict after each sentence."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from studyrag.attributing import without_markers
from studyrag.records import Attributed, Piece, Sentence, Trace
from studyrag.sentences import SentenceStream

_WAITING = re.compile(r"(?:\s+(?:[-*+]|\d+[.)])|\s*\[[\d\s,]*)?\s*\Z")
"""What may yet turn out to be the next item's marker, or a citation marker that the model wrote."""


def attributed(
    stream: Iterator[str], attribute: Callable[[str], Sentence], trace: Trace, *, strict: bool
) -> Iterator[Piece | Attributed]:
    """Pieces as they can be shown, and each sentence's verdict as soon as it has ended."""
    splitter, shown = SentenceStream(), 0
    started = time.perf_counter()
    first_token = None
    spent = 0.0

    def finish(text: str) -> Iterator[Piece | Attributed]:
        nonlocal spent, shown
        began = time.perf_counter()
        clean = without_markers(text)
        if not clean.strip():
            shown = 0
            return
        sentence = attribute(clean)
        spent += time.perf_counter() - began
        if strict and sentence.supported is False:
            shown = 0
            return
        body = clean.rstrip()
        if len(body) > shown:
            yield Piece(body[shown:])
        shown = 0
        yield Attributed(sentence)
        if len(clean) > len(body):
            yield Piece(clean[len(body) :])

    for piece in stream:
        if first_token is None:
            first_token = time.perf_counter() - started
            trace.add("first_token", first_token * 1000)
        for text in splitter.feed(piece):
            yield from finish(text)
        ready = _WAITING.sub("", without_markers(splitter.head()))
        if not strict and len(ready) > shown:
            yield Piece(ready[shown:])
            shown = len(ready)
    for text in splitter.rest():
        yield from finish(text)
    trace.add("generate", (time.perf_counter() - started - spent - (first_token or 0.0)) * 1000)
    trace.add("attribute", spent * 1000)
