"""Proposed golden questions for the user's own notes, without a model; each a draft until a person has checked it.

Looks for what notes ask themselves (headings with ``Q:`` or a question mark), for definitions, and for headings.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from studyrag.evals.golden import Golden
from studyrag.records import Note, Section
from studyrag.sentences import UnitKind, units

PER_NOTE = 5
LONGEST_TERM_WORDS = 6
SHORTEST_EVIDENCE, LONGEST_EVIDENCE = 25, 400
COMMON_HEADING = 3
"""A heading of so many notes is their form, not their subject."""
_Q = re.compile(r"^q(?:uestion)?\s*\d*\s*[:.]\s*", re.IGNORECASE)
_IS = re.compile(r"^(?:An? |The )?(?P<term>[A-Z`*]?[^.,;:|()\n]{1,60}?) (?:is|are) (?:an?|the) ")
_BOLD = re.compile(r"^\*\*(?P<term>[^*\n]{2,60}?)(?::\*\*|\*\*\s*:)\s+\S")
_NO_TERM = frozenset("it its they this that these those there here which what he she we you each one both".split())


def drafts(notes: Sequence[Note], *, per_note: int = PER_NOTE) -> tuple[Golden, ...]:
    """At most ``per_note`` a note: its own questions first, then definitions, then headings; a sentence serves once."""
    common = Counter(heading for note in notes for heading in {s.headings[-1] for s in note.sections if s.headings})
    found: list[Golden] = []
    for note in notes:
        seen: set[str] = set()
        for kind, question, evidence in _proposals(note, common):
            if not question or len(seen) >= 2 * per_note or evidence in seen or question.casefold() in seen:
                continue
            seen.update((evidence, question.casefold()))
            number = f"draft-{len(found) + 1:04}"
            reference = " ".join(evidence.split())
            found.append(Golden(number, kind, "plain", "", question, (note.id,), (evidence,), reference))
    return tuple(found)


def to_jsonl(proposed: Iterable[Golden]) -> str:
    """One object a line, marked as drafts."""
    return "".join(
        json.dumps({**_without_empty(asdict(golden)), "draft": True}, ensure_ascii=False) + "\n" for golden in proposed
    )


def _without_empty(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != "subkind" or value}


def _proposals(note: Note, common: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """(kind, question, evidence), the best kinds first."""
    sections = [(section, _sentences(note, section)) for section in note.sections]
    for section, sentences in sections:
        heading = section.headings[-1] if section.headings else ""
        if sentences and (_Q.match(heading) or heading.endswith("?")):
            yield "question", _Q.sub("", heading).strip(), sentences[0]
    for _section, sentences in sections:
        for sentence in sentences:
            term = defined(sentence)
            if term:
                yield "definition", f"What is meant by {term}?", sentence
    for section, sentences in sections:
        heading = section.headings[-1] if section.headings else ""
        asks = _Q.match(heading) or heading.endswith("?")
        if heading and sentences and not asks and common[heading] < COMMON_HEADING:
            about = "" if heading.casefold() == note.title.casefold() else f" in {note.title}"
            yield "heading", f"What matters about {heading}{about}?", sentences[0]


def defined(sentence: str) -> str | None:
    """What a sentence defines: 'X is a …' or '**X**: …'; None for no definition, pronouns and long subjects."""
    match = _BOLD.match(sentence) or _IS.match(sentence)
    if match is None:
        return None
    term = " ".join(match["term"].replace("*", "").replace("`", "").split())
    words = term.split()
    if not words or len(words) > LONGEST_TERM_WORDS or words[0].casefold() in _NO_TERM:
        return None
    return term


def _sentences(note: Note, section: Section) -> list[str]:
    """The section's sentences of a length to quote, verbatim."""
    text = note.text[section.start : section.end]
    found = [text[unit.start : unit.end] for unit in units(text) if unit.kind is UnitKind.SENTENCE]
    return [one for one in found if SHORTEST_EVIDENCE <= len(one) <= LONGEST_EVIDENCE]
