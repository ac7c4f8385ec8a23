"""Do the notes answer the question at all? A calibrated probability from absolute evidence, before any generation.

Looks at the cosine of the best hit and how far it stands out, at how much of the question's weight in terms the best
hits hold, and at what the question asks for. Fused scores are not used: they are relative to one query. The
coefficients are what ``evals/fit_evidence.py`` prints, from folders of 34 to 3,300 chunks: five small ones of other
kinds, the calibration questions on ten notes, and the golden questions that are not held back on all of them;
docs/log.md has the numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from studyrag.records import Evidence, Hit, embedding_text
from studyrag.terms import terms

_WORD = re.compile(r"\w+(?:[-–‑'’]\w+)*\+*")
_DASH = re.compile(r"[-–‑]")
_OWN = re.compile(
    r"\b(?:did|had|was|were|am)\s+(?:i|we)\b|\b(?:my|our)\s+(?:last|latest|previous|next|own|current)\b"
    r"|^\W*(?:(?:on|at|by|in|from|to|for)\s+)?(?:what|which|when|where|who|whose|how\s+(?:much|many|old|long))"
    r"(?:'?s|\s+(?:is|are|was|were|do|does|did|has|have|had|will))?\s+(?:the\s+\w+\s+of\s+)?"
    r"(?:my|our|i|we)\b(?!\s+(?:do|should|need|use|get|choose|pick|set|compute)\b)"
    r"|\babout\s+(?:me|us|my|our)\b",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"\b(?:I|me|my|mine|we|us|our|ours|My|We|Our)\b")
DIARY = 0.04
"""First-person words a word. The best five hits of 669 questions on the shipped notes: median 0.003, 99 % < 0.023."""
TOP, DEPTH = 5, 20
COEFFICIENTS: Mapping[str, float] = {
    "intercept": -3.80,
    "cosine": 9.27,
    "named": -2.82,
    "peak": 13.33,
    "covered": 2.81,
    "unknown": -6.21,
    "own": -4.57,
    "breadth": -2.27,
}
ABSOLUTE = ("cosine", "named", "peak", "own", "breadth")
VERDICTS: Sequence[Mapping[str, float]] = (
    {
        "intercept": -3.44,
        "cosine": 9.33,
        "named": -3.03,
        "peak": 9.07,
        "own": -2.64,
        "breadth": -5.22,
        "found_logit": 0.691,
    },
    {
        "intercept": -2.75,
        "cosine": 7.77,
        "named": -3.06,
        "peak": 8.87,
        "own": -1.55,
        "breadth": -6.06,
        "found_logit": 0.425,
        "gain": 0.079,
    },
    {
        "intercept": -2.73,
        "cosine": 7.77,
        "named": -3.19,
        "peak": 10.29,
        "own": -1.54,
        "breadth": -4.74,
        "gain": 0.092,
    },
)
"""How to read what a generator says of the passages. Shares of terms are left out: beside it they add nothing.
found_logit: any of the numbered statements against none of them when it is asked which answers. gain: how much more
probable (nats) the words of the question are after the passages than alone, the question's likelihood ratio: a language
model's way of telling that passages are about the question (Ponte and Croft 1998 rank documents by it)."""
BROAD = ("peak", "covered", "unknown", "own", "found_logit", "gain")
"""What is evidence only in a broad folder, and counts in the measure of its breadth. In a few notes most words of any
question are unknown, every hit stands out, and a generator points to something in passages that have nothing to say."""
NARROWEST, BROADEST = 100, 3300
"""Chunks of a folder of breadth 0 and 1."""
HOPELESS = 0.2
SURE = 0.8


def strange_names(question: str, unknown: Sequence[str]) -> tuple[str, ...]:
    """Words of the question that are written as names (Kestrel, LoRA+, echo-gated) and hold an ``unknown`` term.

    A capital that only begins a sentence does not make a name.
    """
    strange = set(unknown)
    found = []
    for match in _WORD.finditer(question):
        word = match.group()
        begins = not question[: match.start()].strip() or question[: match.start()].rstrip()[-1] in ".?!"
        named = any(letter.isupper() for letter in word[1 if begins else 0 :]) or any(mark in word for mark in "-–‑+")
        if named and any(strange.intersection(terms(part)) for part in _DASH.split(word)):
            found.append(word)
    return tuple(found)


def asks_of_oneself(question: str) -> bool:
    """Whether it asks for a fact of the asker's own life ("what did I score", "when is my exam"), in English."""
    return bool(_OWN.search(question))


def _speak_in_first_person(hits: Sequence[Hit]) -> bool:
    """Whether the hits read like a diary, which may well know of its writer's life."""
    text = " ".join(hit.chunk.text for hit in hits)
    return len(_FIRST_PERSON.findall(text)) >= DIARY * max(1, len(text.split()))


def breadth(n_chunks: int) -> float:
    """How much a folder of so many chunks covers, in [0, 1]: linear in their logarithm."""
    ratio = math.log(max(n_chunks, NARROWEST) / NARROWEST) / math.log(BROADEST / NARROWEST)
    return min(1.0, ratio)


def features(
    hits: Sequence[Hit], weights: Mapping[str, float], unknown: Sequence[str], question: str = "", *, n_chunks: int
) -> dict[str, float]:
    """All in [-2, 2]. ``weights`` are the question's terms with their idf; no hits -> zeros and all unknown.

    cosine: best hit; peak: how far it stands above the mean of the other hits among the best ``DEPTH`` (one hit alone:
    above 0); covered: share of the weight found in the hit that covers most; unknown: share of the weight that no note
    holds; named: 1 when the ``question`` names something that no note does; own: 1 when it asks for a fact of the
    asker's own life and the best hits are no diary; breadth: of the folder, by its ``n_chunks``.
    """
    broad = breadth(n_chunks)
    if not hits:
        return {
            "cosine": 0.0, "peak": 0.0, "covered": 0.0, "unknown": 1.0, "named": 0.0, "own": 0.0, "breadth": broad
        }  # fmt: skip
    total = sum(weights.values())
    cosines = sorted((hit.cosine for hit in hits[:DEPTH]), reverse=True)
    held = [set(terms(embedding_text(hit.chunk))) for hit in hits[:TOP]]

    def share(words: set[str]) -> float:
        return sum(weight for word, weight in weights.items() if word in words) / total if total else 0.0

    return {
        "cosine": cosines[0],
        "peak": cosines[0] - (sum(cosines[1:]) / len(cosines[1:]) if len(cosines) > 1 else 0.0),
        "covered": max(share(words) for words in held),
        "unknown": share(set(unknown)),
        "named": float(bool(strange_names(question, unknown))),
        "own": float(asks_of_oneself(question) and not _speak_in_first_person(hits[:TOP])),
        "breadth": broad,
    }


def scaled(values: Mapping[str, float]) -> dict[str, float]:
    """The same values, those of ``BROAD`` times the breadth: what the coefficients are multiplied with."""
    return {name: value * values["breadth"] if name in BROAD else value for name, value in values.items()}


def hopeless(evidence: Evidence, *, threshold: float) -> bool:
    """So little evidence that no generator needs to be asked: what it says counts the less the narrower the folder."""
    return evidence.probability < threshold * (1 - (1 - HOPELESS) * evidence.features["breadth"])


def doubtful(evidence: Evidence) -> bool:
    """Whether it is worth a second of the generator's time to weigh the question against the passages."""
    return evidence.probability < SURE and evidence.features["breadth"] > 0


def with_verdict(evidence: Evidence, verdict: Mapping[str, float], *, threshold: float) -> Evidence:
    """The evidence together with the generator's own reading of the passages, before it writes a word.

    Logistic regression on features of ``evidence`` and the values of ``verdict``, which are those of one of VERDICTS.
    """
    weights = next(one for one in VERDICTS if one.keys() == {"intercept", *ABSOLUTE, *verdict})
    values = {**evidence.features, **verdict}
    probability = _logistic(weights, values)
    return Evidence(probability, probability >= threshold, values)


def weigh(values: Mapping[str, float], *, threshold: float) -> Evidence:
    """Logistic regression on ``values``; covered when the probability reaches ``threshold``."""
    probability = _logistic(COEFFICIENTS, values)
    return Evidence(probability, probability >= threshold, dict(values))


def _logistic(weights: Mapping[str, float], values: Mapping[str, float]) -> float:
    told = scaled(values)
    score = weights["intercept"] + sum(weight * told[name] for name, weight in weights.items() if name != "intercept")
    return 1 / (1 + math.exp(-score))
