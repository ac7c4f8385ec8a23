"""Golden questions: what a file must be, which quotes are stale, and which questions are held back."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from studyrag.errors import Misuse
from studyrag.evals.golden import Golden, find_golden, held_back, is_held_back, load, select, stale
from tests.conftest import REPOSITORY, load_script

GOOD: dict[str, Any] = {
    "id": "q1",
    "kind": "number",
    "style": "plain",
    "question": "How hot?",
    "notes": ["tea.md"],
    "evidence": ["Green tea is brewed at 80 degrees"],
    "reference": "80 degrees.",
}
HOPELESS: dict[str, Any] = {**GOOD, "id": "u1", "kind": "unanswerable", "notes": [], "evidence": [], "reference": ""}


def golden(**values: Any) -> Golden:
    row = {**GOOD, "subkind": "", **values}
    return Golden(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_gives_its_questions_in_order_and_blank_lines_none(tmp_path: Path) -> None:
    file = write(tmp_path / "g.jsonl", GOOD, {**HOPELESS, "subkind": "personal"})
    file.write_text("\n" + file.read_text() + "\n")
    first, second = load(file)
    assert first == golden()
    assert first.answerable and not second.answerable
    assert second.subkind == "personal"


def test_a_folder_is_its_files_joined_by_name(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", {**GOOD, "id": "b"})
    write(tmp_path / "a.jsonl", {**GOOD, "id": "a"})
    assert [one.id for one in load(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({key: value for key, value in GOOD.items() if key != "style"}, 'line 2: key "style" is missing'),
        ({**GOOD, "nots": []}, 'line 2: unknown key "nots"'),
        ({**GOOD, "notes": "tea.md"}, 'line 2: "notes" must be a list of texts'),
        ({**GOOD, "evidence": [3]}, 'line 2: "evidence" must be a list of texts'),
        ({**GOOD, "question": " "}, 'line 2: "question" must be a text'),
        ({**GOOD, "draft": "no"}, 'line 2: "draft" must be true or false'),
        ({**GOOD, "id": "q2", "evidence": []}, "1 notes and 0 quotes"),
        ({**GOOD, "id": "q2", "kind": "unanswerable"}, "1 notes and 1 quotes"),
        (GOOD, 'line 2: id "q1" is there already'),
        ({**GOOD, "id": "q2", "draft": True}, 'line 2: "q2" is still a draft'),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong_and_a_fix(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(Misuse) as caught:
        load(write(tmp_path / "g.jsonl", GOOD, row))
    assert message in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("line", ["{", "[1]", "3", '{"id": 1'])
def test_what_is_no_json_object_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "g.jsonl"
    file.write_text(line)
    with pytest.raises(Misuse, match="line 1: not "):
        load(file)


def test_no_file_no_utf8_and_no_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(Misuse, match="no questions"):
        load(tmp_path)
    (tmp_path / "g.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(Misuse, match="not UTF-8"):
        load(tmp_path)


def test_drafts_are_read_when_asked_for(tmp_path: Path) -> None:
    assert len(load(write(tmp_path / "g.jsonl", {**GOOD, "draft": True}), drafts=True)) == 1


def test_the_first_place_that_is_there_is_taken(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no golden questions"):
        find_golden(tmp_path)
    write(tmp_path / "golden.jsonl", GOOD)
    assert find_golden(tmp_path).name == "golden.jsonl"
    (tmp_path / "evals/golden").mkdir(parents=True)
    write(tmp_path / "evals/golden/questions.jsonl", GOOD)
    assert find_golden(tmp_path).name == "questions.jsonl"


def test_quotes_are_compared_verbatim_and_missing_notes_reported() -> None:
    texts = {"tea.md": "Green tea is brewed at\n80 degrees."}
    fresh = golden(id="a", evidence=["brewed at\n80 degrees"])
    old = golden(id="b", evidence=["brewed at 80 degrees", "Green tea"])
    gone = golden(id="c", notes=["tea.md", "milk.md"], evidence=["Green tea"])
    assert [(one.id, one.what) for one in stale([fresh, old, gone], texts)] == [
        ("b", "no such text: brewed at 80 degrees"),
        ("c", "no note milk.md"),
    ]


def test_a_fifth_of_the_notes_is_held_back_by_their_own_paths_alone() -> None:
    notes = [f"folder/{n}.md" for n in range(2000)]
    held = held_back(notes)
    assert 330 < len(held) < 470
    assert held_back(notes[:100]) == held & set(notes[:100])
    one = sorted(held)[0]
    assert int(hashlib.sha256(one.encode()).hexdigest()[:16], 16) % 5 == 0


def test_a_question_of_two_notes_is_held_back_when_either_is() -> None:
    notes = [f"{n}.md" for n in range(100)]
    held = sorted(held_back(notes))
    free = sorted(set(notes) - set(held))
    assert is_held_back(golden(notes=[free[0], held[0]]))
    assert not is_held_back(golden(notes=free[:2]))


def test_selections_are_two_parts_of_all() -> None:
    questions = [golden(id=str(n), notes=[f"{n}.md"]) for n in range(50)]
    held, free = select(questions, "held-back"), select(questions, "open")
    assert held and free
    assert sorted([*held, *free], key=lambda one: int(one.id)) == list(select(questions, "all"))


CORPUS = REPOSITORY / "corpus"
TEXTS = {
    file.relative_to(CORPUS).as_posix(): file.read_text(encoding="utf-8")
    for file in CORPUS.glob("*/*.md")
    if file.name != "README.md"
}
SHIPPED = load(REPOSITORY / "evals" / "golden" / "questions.jsonl")


@pytest.mark.parametrize("file", ["questions.jsonl", "calibration.jsonl", "first_questions.jsonl"])
def test_every_quote_of_the_golden_questions_stands_in_its_note(file: str) -> None:
    assert stale(load(REPOSITORY / "evals" / "golden" / file), TEXTS) == ()


def test_the_golden_set_is_large_and_mixed() -> None:
    answerable = [one for one in SHIPPED if one.answerable]
    assert len(SHIPPED) >= 400
    asked = Counter(note for one in answerable for note in one.notes)
    assert {note for note in TEXTS if asked[note] < 5} == set()
    assert sum(len(one.notes) > 1 for one in answerable) >= 40
    assert len(SHIPPED) - len(answerable) >= 80
    assert sum(one.style == "colloquial" for one in SHIPPED) * 3 >= len(SHIPPED)
    assert len({one.question.casefold() for one in SHIPPED}) == len(SHIPPED)
    assert 0.1 < sum(map(is_held_back, answerable)) / len(answerable) < 0.35


@pytest.mark.parametrize("folder", sorted((REPOSITORY / "evals" / "folders").iterdir()), ids=lambda folder: folder.name)
def test_small_folders_hold_the_notes_that_their_questions_name(folder: Path) -> None:
    questions = load_script("evals/fit_evidence.py").small_questions(folder)
    assert len({one.id for one in questions}) == len(questions) >= 20
    assert 5 <= sum(not one.answerable for one in questions) < len(questions) / 2
    for one in questions:
        assert one.question and one.answerable == bool(one.notes) and (one.reference or not one.answerable)
        assert all((folder / "notes" / note).is_file() for note in one.notes)
