"""Hits to the passages a generator reads: small to big, merged, without duplicates, within a token budget.

Each hit grows to its whole section when that fits its share of the budget; passages of one note that touch become
one. Budget and share are in the generator's own tokens. What did not fit is named in the Context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from studyrag.records import Chunk, Context, Hit, Passage, Span

_MOST_CHARS_PER_TOKEN = 16
"""Bounds what is counted; a text with more, such as a long run of spaces, is only cut a little early."""

Grow = Callable[[Chunk], Span]
"""The section a chunk lies in."""


def pack(
    hits: Sequence[Hit],
    *,
    section_of: Grow,
    text_of: Callable[[Span], str],
    count_tokens: Callable[[str], int],
    budget: int,
    most: int,
) -> Context:
    """At most ``most`` passages within ``budget`` tokens, best first, numbered from 1. No hits -> an empty Context.

    The first hit is there if need be as its chunk alone, or as the first lines of a chunk that no budget holds.
    """
    spans: list[Span] = []
    texts: set[str] = set()
    left_out: list[str] = []
    used = 0
    for hit in hits:
        if len(spans) == most:
            break
        if any(_inside(hit.chunk, span) for span in spans):
            continue
        span, tokens = _grown(hit.chunk, section_of, text_of, count_tokens, max(budget // 2, 1), budget - used)
        text = text_of(span).strip()
        if text in texts:
            continue
        tokens -= _counted_before(span, spans, text_of, count_tokens)
        if used + tokens > budget:
            left_out.append(f"{span.note_id}:{span.first_line}-{span.last_line}")
            shortened = None if spans else _first_lines(span, text_of, count_tokens, budget)
            if shortened is None:
                continue
            span, tokens = shortened
        spans.append(span)
        texts.add(text)
        used += tokens
    merged = _merged(spans, text_of)
    passages = tuple(
        Passage(number, s.note_id, s.headings, s.start, s.end, s.first_line, s.last_line, text_of(s))
        for number, s in enumerate(merged, start=1)
    )
    return Context(passages, used, tuple(left_out))


def _counted_before(
    span: Span, spans: Sequence[Span], text_of: Callable[[Span], str], count_tokens: Callable[[str], int]
) -> int:
    """Tokens of the part that chunks which overlap have in common with what is there already."""
    shared = [
        replace(span, start=max(span.start, other.start), end=min(span.end, other.end))
        for other in spans
        if other.note_id == span.note_id
    ]
    return sum(count_tokens(text_of(one)) for one in shared if one.start < one.end)


def _grown(
    chunk: Chunk,
    section_of: Grow,
    text_of: Callable[[Span], str],
    count_tokens: Callable[[str], int],
    share: int,
    left: int,
) -> tuple[Span, int]:
    section = section_of(chunk)
    tokens = count_tokens(text_of(section))
    if tokens <= min(share, left):
        return section, tokens
    alone = Span(chunk.note_id, chunk.headings, chunk.start, chunk.end, chunk.first_line, chunk.last_line)
    return alone, count_tokens(chunk.text)


def _first_lines(
    span: Span, text_of: Callable[[Span], str], count_tokens: Callable[[str], int], budget: int
) -> tuple[Span, int] | None:
    """As many whole lines of a span as fit (a fence is never split, so it may be megabytes long); None for not one."""
    text = text_of(span)
    lines = text[: _MOST_CHARS_PER_TOKEN * budget].split("\n")
    if len(text) > _MOST_CHARS_PER_TOKEN * budget:
        lines.pop()
    fitting, too_many = 0, len(lines) + 1
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if count_tokens("\n".join(lines[:middle])) <= budget:
            fitting = middle
        else:
            too_many = middle
    kept = "\n".join(lines[:fitting])
    if not kept.strip():
        return None
    return replace(span, end=span.start + len(kept), last_line=span.first_line + fitting - 1), count_tokens(kept)


def _inside(chunk: Chunk, span: Span) -> bool:
    return chunk.note_id == span.note_id and span.start <= chunk.start and chunk.end <= span.end


def _merged(spans: Sequence[Span], text_of: Callable[[Span], str]) -> list[Span]:
    """Spans of one section that overlap, or have only white space between them, become one, at the place of the better.

    Between two that were apart, a third may close the gap: so each is compared with all that were kept before it.
    """
    kept: list[Span] = []
    for span in spans:
        touching = [other for other in kept if _touch(span, other, text_of)]
        joined = [*touching, span]
        whole = replace(
            joined[0],
            start=min(one.start for one in joined),
            end=max(one.end for one in joined),
            first_line=min(one.first_line for one in joined),
            last_line=max(one.last_line for one in joined),
        )
        at = kept.index(touching[0]) if touching else len(kept)
        kept = [other for other in kept if other not in touching]
        kept.insert(at, whole)
    return kept


def _touch(one: Span, other: Span, text_of: Callable[[Span], str]) -> bool:
    if one.note_id != other.note_id or one.headings != other.headings:
        return False
    former, latter = sorted((one, other), key=lambda span: span.start)
    return latter.start <= former.end or not text_of(replace(former, start=former.end, end=latter.start)).strip()
