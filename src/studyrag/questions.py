"""A question to its aspects: ``What is X, and when does it fail?`` asks two things, and an answer owes both.

Split where English joins questions, by punctuation and question words; what asks nothing by itself (``In BM25, …``)
stays with what follows it. Questions that are typed without punctuation are one aspect, which is harmless.
"""

from __future__ import annotations

import re

from studyrag.terms import terms

MOST_ASPECTS = 4
_ASKS = (
    r"(?:and\s+|but\s+|or\s+)?(?:(?:about|at|by|down\s+to|for|from|in|of|on|to|under|up\s+to|with|above|below)\s+)?"
    r"(?:(?:what|who|how|when|where)s?|which|whose|why)\b"  # "hows", as people type
)
_ORDERS = r"(?:say|show|derive|prove|explain|describe|compare|list|give|name|state|define|sketch)\b"
_HELPERS = r"(?:is|are|was|were|does|do|did|can|could|should|would|will|may|must|has|have)\b"
_BEGINS = re.compile(rf"(?!(?:when|where)\s+(?!{_HELPERS}))(?:{_ASKS}|{_ORDERS}|{_HELPERS})", re.IGNORECASE)
_JOIN = re.compile(
    rf"(?<=[.?!])\s+(?=[A-Z0-9\"'“(])|[,;:]\s+(?=(?:and\s+|but\s+|or\s+)(?:{_ASKS}|{_ORDERS}))"
    r"|[,;:]\s+(?=(?:(?:what|how|who)s?|which|why)\b)"
    r"|\s+(?=(?:and|but|or)\s+(?:(?:what|how|who|when|where)s?|which|why)\b)",
    re.IGNORECASE,
)
_JOINER = re.compile(r"(?:and|but|or)\s+", re.IGNORECASE)


def aspects(question: str) -> tuple[str, ...]:
    """What a question asks, in order: itself alone where it asks one thing, or more than ``MOST_ASPECTS``."""
    found: list[str] = []
    context = ""
    for part in _JOIN.split(" ".join(question.split())):
        joined = _JOINER.match(part)
        bare = part[joined.end() :] if joined else part
        if found and not terms(bare):
            found[-1] = f"{found[-1]}, {part}"
        elif joined or _BEGINS.match(part):
            found.append(f"{context} {bare}".strip())
            context = ""
        else:
            context = f"{context} {part}".strip()
    return tuple(found) if 1 < len(found) <= MOST_ASPECTS and not context else (question,)
