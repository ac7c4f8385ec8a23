"""An answer in the notes' own words: the statements of the passages that answer the question, verbatim.

Every statement gets the probability that it answers: logistic regression on how near it is to the question by meaning
and by terms and, where a generator can weigh replies, on which statement the generator would point to. A small model
reads better than it writes: what it points to is right more often than what it would have written, and is never made
up. ``evals/fit_quoting.py`` fits the coefficients; docs/log.md has the trial.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studyrag.protocols import Embedder
from studyrag.records import Citation, Sentence
from studyrag.statements import Statement
from studyrag.terms import terms

TermWeights = Callable[[Sequence[str]], Mapping[str, float]]
"""Weight of each distinct term."""

ALONE: Mapping[str, float] = {"intercept": -6.34, "cosine": 2.69, "share": 4.12, "heading": -0.62, "rank": 3.37}
SCORED: Mapping[str, float] = {
    "intercept": -4.17, "cosine": 2.23, "share": 3.57, "heading": -0.42, "rank": 2.01, "pointed": 0.46,
}  # fmt: skip
OF_ASPECT: Mapping[str, float] = {**SCORED, "rank": 1.0, "pointed": 1.06}
"""For one aspect of a question the generator's word counts for more: passages are ranked for the others too."""
FEW, FEW_OF_WHOLE, FEW_OF_EACH, MANY = 6, 2, 4, 10
"""Most statements of an answer; of one that has several aspects, for the whole and for each; and of a long answer."""
_COUNTS = re.compile(r"\W*(?:first|second|third|fourth|fifth|sixth|seventh|last)(?:ly)?\b", re.IGNORECASE)
PRICE_OF_ONE, PRICE_OF_A_RUN = 0.05, 0.10
"""What a statement, and a new run of statements, must bring in probability, as a share of the best one's."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A statement and the probability that it is part of the answer, with what that was computed from."""

    statement: Statement
    probability: float
    features: Mapping[str, float]


def weigh(
    questions: Sequence[str],
    statements: Sequence[Statement],
    *,
    embedder: Embedder,
    term_weights: TermWeights,
    pointed: Sequence[float] | None = None,
) -> list[Weighed]:
    """Every statement with its probability, in the order given. No statements -> [].

    :param questions: the question, or the whole question and the aspect of it that is meant, which count alike.
    :param pointed: for each statement, ln P of a generator giving its number when asked which one answers.
    """
    if not statements:
        return []
    columns = _own_features(questions, statements, embedder, term_weights)
    coefficients = ALONE
    if pointed is not None:
        coefficients = SCORED if len(questions) == 1 else OF_ASPECT
        columns["pointed"] = _behind_best(pointed)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [
        Weighed(statement, _logistic(row, coefficients), row) for statement, row in zip(statements, rows, strict=True)
    ]


def _own_features(
    questions: Sequence[str], statements: Sequence[Statement], embedder: Embedder, term_weights: TermWeights
) -> dict[str, list[float]]:
    """What can be said without a generator. Cosines are given as they are: they are absolute evidence."""
    vectors = embedder.embed([*questions, *(statement.text for statement in statements)])
    asked, offered = vectors[: len(questions)], vectors[len(questions) :]
    weights = [term_weights(terms(question)) for question in questions]

    def share(text: str) -> float:
        held = set(terms(text))
        shares = [
            sum(weight for word, weight in one.items() if word in held) / (sum(one.values()) or 1.0) for one in weights
        ]
        return sum(shares) / len(shares)

    return {
        "cosine": [float(cosine) for cosine in (offered @ asked.T).mean(axis=1)],
        "share": [share(statement.text) for statement in statements],
        "heading": [share(" ".join(statement.passage.headings)) for statement in statements],
        "rank": [1.0 / statement.passage.number for statement in statements],
    }


def _behind_best(values: Sequence[float]) -> list[float]:
    """Less the highest, at least -10: how far behind the favourite, whatever the favourite's own probability."""
    highest = max(values)
    return [max(value - highest, -10.0) for value in values]


def _logistic(row: Mapping[str, float], coefficients: Mapping[str, float]) -> float:
    score = coefficients["intercept"] + sum(coefficients[name] * value for name, value in row.items())
    return 1 / (1 + math.exp(-score))


def choose(weighed: Sequence[Sequence[Weighed]], *, most: Sequence[int]) -> list[Statement]:
    """The statements to quote, in reading order, passages with the better ones first. Nothing weighed -> [].

    For each way of asking (a sequence of the same statements each) at most its number in ``most``: those with the
    highest sum of probabilities after a price for each, and one for each run, so that neighbours are preferred to
    fragments; the most probable one always. Added to them is what they need to be understood: the sentence before one
    that opens with ``This``, the sentence that announces a list, and the rest of ``First … Second …``.
    """
    picked: set[int] = set()
    best: dict[int, float] = {}
    by_number = {one.statement.number: one.statement for aspect in weighed for one in aspect}
    for aspect, count in zip(weighed, most, strict=True):
        able = [one for one in aspect if not one.statement.leads]
        if not able:
            continue
        favourite = max(able, key=lambda one: (one.probability, -one.statement.number))
        picked |= _worth_most(able, favourite.probability, count) or {favourite.statement.number}
        for one in able:
            place = one.statement.passage.number
            best[place] = max(best.get(place, 0.0), one.probability)
    for number in sorted(picked):
        picked |= _counted(by_number, number)
    for number in sorted(picked):
        picked |= _needed(by_number, number)
    chosen = [by_number[number] for number in picked]
    return sorted(chosen, key=lambda one: (-best[one.passage.number], one.number))


def _worth_most(able: Sequence[Weighed], best: float, most: int) -> set[int]:
    """Dynamic programme over (statements taken, whether the last one was): the numbers of the best selection."""
    states: dict[tuple[int, bool], tuple[float, tuple[int, ...]]] = {(0, False): (0.0, ())}
    for at, one in enumerate(able):
        gain = one.probability / max(best, 1e-9) - PRICE_OF_ONE
        goes_on = at > 0 and _touch(able[at - 1].statement, one.statement)
        following: dict[tuple[int, bool], tuple[float, tuple[int, ...]]] = {}
        for (count, taken), (worth, numbers) in states.items():
            options = [((count, False), worth, numbers)]
            if count < most:
                price = 0.0 if taken and goes_on else PRICE_OF_A_RUN
                options.append(((count + 1, True), worth + gain - price, (*numbers, one.statement.number)))
            for state, value, kept in options:
                if state not in following or value > following[state][0]:
                    following[state] = (value, kept)
        states = following
    return set(max(states.values(), key=lambda found: found[0])[1])


def _needed(by_number: Mapping[int, Statement], number: int) -> set[int]:
    """The numbers of the statements before ``number`` without which it cannot be understood."""
    needed: set[int] = set()
    current = by_number[number]
    while (before := by_number.get(current.number - 1)) and before.passage == current.passage:
        follows = before.block == current.block
        if current.points_back and follows:
            needed.add(before.number)
        elif current.item and follows:
            pass  # an earlier item, passed over on the way to what announces the list
        elif before.leads and before.block == current.block - 1:
            return needed | {before.number}
        else:
            return needed
        current = before
    return needed


def _counted(by_number: Mapping[int, Statement], number: int) -> set[int]:
    """The sentences around ``number`` that count on with it, ``First``, ``Second`` … ``Last``: half of them mislead."""
    if not _COUNTS.match(by_number[number].text):
        return set()
    found: set[int] = set()
    for step in (-1, 1):
        current = by_number[number]
        while (other := by_number.get(current.number + step)) and _counts_on(current, other):
            found.add(other.number)
            current = other
    return found


def _counts_on(one: Statement, other: Statement) -> bool:
    together = one.passage == other.passage and one.block == other.block
    return together and not other.item and _COUNTS.match(other.text) is not None


def quoted(statements: Sequence[Statement]) -> tuple[tuple[Sentence, ...], tuple[Citation, ...]]:
    """Sentences of an answer and their citations: one for statements that touch, numbered as they are first used."""
    spans: list[list[Statement]] = []
    for statement in statements:
        if spans and _touch(spans[-1][-1], statement):
            spans[-1].append(statement)
        else:
            spans.append([statement])
    sentences: list[Sentence] = []
    citations: list[Citation] = []
    for number, span in enumerate(spans, start=1):
        first, last = span[0], span[-1]
        sentences += [
            Sentence(_shown(one) + _gap(one, following), True, (number,))
            for one, following in zip(span, [*span[1:], None], strict=True)
        ]
        lines = first.passage.text.split("\n")
        offset = first.passage.first_line
        quote = "\n".join(lines[first.first_line - offset : last.last_line - offset + 1])
        citations.append(
            Citation(number, first.passage.note_id, first.passage.headings, first.first_line, last.last_line, quote)
        )
    return tuple(sentences), tuple(citations)


def _touch(one: Statement, two: Statement) -> bool:
    return one.passage == two.passage and two.number == one.number + 1 and two.first_line <= one.last_line + 2


def _shown(statement: Statement) -> str:
    return f"- {statement.text}" if statement.item else statement.text


def _gap(one: Statement, following: Statement | None) -> str:
    """White space after a sentence: a blank line between what does not belong together."""
    if following is None or one.block != following.block:
        return "\n\n" if not (following and following.item) else "\n"
    return "\n" if one.item or "\n" in one.text or "\n" in following.text else " "
