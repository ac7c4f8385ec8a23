"""Metrics of one answer, under names of our own: arithmetic on a sample and on what the judge said of it.

RAGAS's own metrics are in ``ragas_metrics``. Every value is in [0, 1] (a cosine in [-1, 1]), or unscored with a reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from studyrag.evals.golden import Golden
from studyrag.evals.judgements import Judgement, Verdict, by_claim, claim_text, failures
from studyrag.evals.judging import spots
from studyrag.evals.samples import Sample
from studyrag.protocols import Embedder

FAITHFULNESS = "faithfulness (logit)"
GROUNDED = "faithfulness (verbatim or logit)"
VERBATIM = "verbatim sentences"
RELEVANT = "context relevance (logit): share of passages"
ANY_RELEVANT = "context relevance (logit): any passage"
CITATION_PRECISION, CITATION_RECALL = "citation precision", "citation recall"
SIMILARITY, ROUGE_L, ROUGE_L_RECALL = "semantic similarity", "ROUGE-L", "ROUGE-L recall"
EVIDENCE_CITED, CITED_EVIDENCE = "evidence cited", "cited lines in evidence"
ID_RECALL = "ID-based context recall"
SUPPORT_METRICS = (FAITHFULNESS, GROUNDED, CITATION_PRECISION, CITATION_RECALL)
RELEVANCE_METRICS = (RELEVANT, ANY_RELEVANT)
UNJUDGED = (VERBATIM, EVIDENCE_CITED, CITED_EVIDENCE, ID_RECALL, SIMILARITY, ROUGE_L, ROUGE_L_RECALL)
OWN = (*SUPPORT_METRICS, *RELEVANCE_METRICS, *UNJUDGED)
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one sample: a number, or None with the reason why there is none."""

    value: float | None
    reason: str = ""


def unscored(reason: str) -> Score:
    return Score(None, reason)


def checked(value: float, *, low: float = 0.0, high: float = 1.0) -> Score:
    """The value, rounding errors of 1e-6 cut off; unscored when it is no number or out of range."""
    if math.isnan(value) or math.isinf(value):
        return unscored(f"not a number: {value}")
    if not low - 1e-6 <= value <= high + 1e-6:
        return unscored(f"out of range: {value:g} is not in [{low:g}, {high:g}]")
    return Score(min(high, max(low, value)))


def judged_scores(sample: Sample, judgement: Judgement) -> dict[str, Score]:
    """The metrics that rest on the judge's yes and no."""
    cited = by_claim(judgement)
    spans = [verdict for verdicts in cited.values() for verdict in verdicts]
    word_for_word = verbatim(sample)
    grounded = [
        verdict if not same else Verdict(verdict.text, verdict.against, 1.0)
        for verdict, same in zip(judgement.claims, word_for_word, strict=True)
    ]
    supported = [at for at, verdict in enumerate(judgement.claims) if verdict.yes]
    return {
        FAITHFULNESS: _share(judgement.claims, "no sentence claims anything"),
        GROUNDED: _share(grounded, "no sentence claims anything"),
        CITATION_PRECISION: _share(spans, "nothing is cited"),
        CITATION_RECALL: _recall(judgement, supported, sample),
        RELEVANT: _share(judgement.passages, "no passage was read"),
        ANY_RELEVANT: _any(judgement.passages),
    }


def _share(verdicts: Sequence[Verdict], empty: str) -> Score:
    """Share of yes; unscored where one of them failed, rather than a mean of the others."""
    if not verdicts:
        return unscored(empty)
    reason = failures(verdicts)
    return unscored(reason) if reason else Score(sum(bool(verdict.yes) for verdict in verdicts) / len(verdicts))


def _any(verdicts: Sequence[Verdict]) -> Score:
    share = _share(verdicts, "no passage was read")
    return share if share.value is None else Score(float(share.value > 0))


def _recall(judgement: Judgement, supported: Sequence[int], sample: Sample) -> Score:
    """Of the claims that the passages support, the share that cites something."""
    reason = failures(judgement.claims)
    if reason:
        return unscored(reason)
    if not supported:
        return unscored("no sentence is judged supported")
    return Score(sum(bool(sample.claims[at].citations) for at in supported) / len(supported))


def verbatim(sample: Sample) -> tuple[bool, ...]:
    """For each claim, whether it stands in a passage word for word (white space and list marks aside)."""
    texts = [" ".join(passage.text.split()) for passage in sample.passages]
    return tuple(any(claim_text(claim.text) in text for text in texts) for claim in sample.claims)


def plain_scores(sample: Sample, golden: Golden, texts: Mapping[str, str], embedder: Embedder) -> dict[str, Score]:
    """The metrics that need no judge. ``texts``: the notes by id."""
    same = verbatim(sample)
    return {
        VERBATIM: Score(sum(same) / len(same)) if same else unscored("no sentence claims anything"),
        **_lines(sample, golden, texts),
        ID_RECALL: Score(id_recall(golden, [passage.note_id for passage in sample.passages])),
        **_against_reference(sample, golden, embedder),
    }


def id_recall(golden: Golden, note_ids: Sequence[str]) -> float:
    """Share of the question's notes that a passage comes from."""
    return sum(note in note_ids for note in golden.notes) / len(golden.notes)


def _lines(sample: Sample, golden: Golden, texts: Mapping[str, str]) -> dict[str, Score]:
    """Quoted-span alignment: evidence against cited lines, both ways. A quote in several places counts once."""
    if not sample.citations:
        return {name: unscored("nothing is cited") for name in (EVIDENCE_CITED, CITED_EVIDENCE)}
    cited = {
        (citation.note_id, line)
        for citation in sample.citations
        for line in range(citation.first_line, citation.last_line + 1)
        if texts[citation.note_id].split("\n")[line - 1].strip()
    }
    places = [
        [{(spot.note_id, line) for line in spot.lines} for spot in spots(quote, golden.notes, texts)]
        for quote in golden.evidence
    ]
    touched = [any(lines & cited for lines in quote) for quote in places]
    evidence = set().union(*(lines for quote in places for lines in quote))
    return {
        EVIDENCE_CITED: Score(sum(touched) / len(touched)),
        CITED_EVIDENCE: Score(len(cited & evidence) / len(cited)) if cited else unscored("only blank lines are cited"),
    }


def _against_reference(sample: Sample, golden: Golden, embedder: Embedder) -> dict[str, Score]:
    if not golden.reference.strip():
        return {name: unscored("there is no reference") for name in (SIMILARITY, ROUGE_L, ROUGE_L_RECALL)}
    answer, reference = embedder.embed([sample.text, golden.reference])
    f1, recall = rouge_l(sample.text, golden.reference)
    return {
        SIMILARITY: checked(float(answer @ reference), low=-1.0),
        ROUGE_L: Score(f1),
        ROUGE_L_RECALL: Score(recall),
    }


def rouge_l(answer: str, reference: str) -> tuple[float, float]:
    """(F1, recall) of the longest common subsequence of words (Lin 2004): lower case, letters and digits of ASCII.

    No words on either side -> zeros.
    """
    ours, wanted = _WORD.findall(answer.lower()), _WORD.findall(reference.lower())
    if not ours or not wanted:
        return 0.0, 0.0
    common = LCSseq.similarity(ours, wanted)
    return 2 * common / (len(ours) + len(wanted)), common / len(wanted)
