"""Drafts of golden questions: from what notes ask themselves, from definitions, and from headings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from studyrag.errors import Misuse
from studyrag.evals.drafting import defined, drafts, to_jsonl
from studyrag.evals.golden import load, stale
from tests.makers import markdown, note

TEXT = """# Tea

### Q: Why is green tea bitter?

Water that is too hot pulls out the tannins. It can be avoided.

## How long does it steep?

- Two minutes are enough for most green teas.

## Leaves

A tannin is a bitter compound of the leaf.

**Oxidation**: the browning of leaves in the air.

## Storage

Keep the leaves dry, dark and away from spices.
"""


@pytest.mark.parametrize(
    ("sentence", "term"),
    [
        ("A tannin is a bitter compound.", "tannin"),
        ("Attention heads are the parallel maps of a layer.", "Attention heads"),
        ("**Oxidation**: the browning of leaves.", "Oxidation"),
        ("**Oxidation:** the browning of leaves.", "Oxidation"),
        ("It is a bitter compound.", None),
        ("This method is the best one.", None),
        ("Tea is hot.", None),
        ("What one gets after a week of careful drying is a leaf.", None),
    ],
)
def test_definitions(sentence: str, term: str | None) -> None:
    assert defined(sentence) == term


def test_questions_come_first_then_definitions_then_headings() -> None:
    found = drafts([note(TEXT, "tea.md")])
    assert [(one.kind, one.question) for one in found] == [
        ("question", "Why is green tea bitter?"),
        ("question", "How long does it steep?"),
        ("definition", "What is meant by tannin?"),
        ("definition", "What is meant by Oxidation?"),
        ("heading", "What matters about Storage in Tea?"),
    ]
    assert found[0].evidence == ("Water that is too hot pulls out the tannins.",)
    assert stale(found, {"tea.md": TEXT}) == ()
    assert len(drafts([note(TEXT)], per_note=2)) == 2


def test_headings_that_many_notes_share_are_no_subject() -> None:
    notes = [note(f"# N{n}\n\n## Overview\n\nSome sentence that is long enough, {n}.\n", f"{n}.md") for n in range(3)]
    assert drafts(notes) == ()


def test_drafts_are_refused_until_they_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text(to_jsonl(drafts([note(TEXT, "tea.md")])), encoding="utf-8")
    with pytest.raises(Misuse, match="still a draft"):
        load(file)
    assert len(load(file, drafts=True)) == 5
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**row, "draft": False}) + "\n" for row in rows))
    assert len(load(file)) == 5


@given(markdown)
def test_every_draft_quotes_its_note_verbatim_and_ids_are_unique(text: str) -> None:
    text = f"# Words\n\n{text}"
    found = drafts([note(text), note(text, "twice.md")])
    assert stale(found, {"note.md": note(text).text, "twice.md": note(text).text}) == ()
    assert len({one.id for one in found}) == len(found)
    assert all(one.question.strip() and len(one.notes) == len(one.evidence) == 1 for one in found)
