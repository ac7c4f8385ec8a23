"""The notes in corpus/ keep their promises: the syllabus, six parts, links that lead somewhere, code that runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, load_script

shipped = load_script("evals/shipped_notes.py")
FILES: list[Path] = shipped.note_files()
IDS = [file.relative_to(shipped.CORPUS).as_posix() for file in FILES]
FOLDERS = sorted({name.split("/")[0] for name in IDS})
SYLLABUS = {
    entry["path"]: {key: value for key, value in entry.items() if key != "must_cover"}
    for file in sorted((REPOSITORY / "evals" / "syllabus").glob("*.yaml"))
    for entry in yaml.safe_load(file.read_text(encoding="utf-8"))
}
FEWEST_WORDS, MOST_WORDS, FEWEST_QUESTIONS, MOST_NOT_RUN = 1_800, 4_000, 6, 25

# Runs the fences of one folder's notes, each note in a namespace of its own, and prints {note: error or null}.
_RUN_FENCES = """
import contextlib, io, json, sys, traceback
for line in sys.stdin:
    name, fences = json.loads(line)
    space, error = {"__name__": "note"}, None
    for number, code in enumerate(fences, start=1):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, f"{name}, fence {number}", "exec"), space)
        except Exception:
            error = traceback.format_exc()
            break
    print(json.dumps([name, error]), flush=True)
"""


@cache
def outcomes(folder: str) -> dict[str, str | None]:
    """What came of the fences of a folder's notes; one process a folder, since torch takes seconds to import."""
    names = [name for name in IDS if name.startswith(folder + "/")]
    lines = [json.dumps([name, shipped.read_note(shipped.CORPUS / name).python()]) for name in names]
    environment = {**os.environ, "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUN_FENCES],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=environment,
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    return {name: found.get(name, f"the process ended: {done.stderr[-2000:]}") for name in names}


def test_the_syllabus_and_the_notes_are_the_same_set() -> None:
    assert sorted(IDS) == sorted(SYLLABUS)


@pytest.mark.parametrize("name", IDS)
def test_front_matter_is_the_syllabus_entry_with_tags(name: str) -> None:
    matter = dict(shipped.read_note(shipped.CORPUS / name).matter)
    tags = matter.pop("tags")
    assert matter == SYLLABUS[name]
    assert len(set(tags)) == len(tags) >= 3
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", tag) for tag in tags)


@pytest.mark.parametrize("name", IDS)
def test_parts_title_length_and_questions(name: str) -> None:
    note = shipped.read_note(shipped.CORPUS / name)
    assert tuple(note.parts) == shipped.PARTS
    assert re.findall(r"^# (.*)$", note.prose, re.MULTILINE) == [note.matter["title"]]
    assert FEWEST_WORDS <= note.words <= MOST_WORDS
    assert len(note.questions) >= FEWEST_QUESTIONS
    assert "**Follow-up" in note.prose
    assert [heading for heading, count in Counter(note.questions).items() if count > 1] == []


@pytest.mark.parametrize("name", [*IDS, *(f"{folder}/README.md" for folder in FOLDERS), "README.md"])
def test_links_lead_to_files(name: str) -> None:
    file = shipped.CORPUS / name
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)
    dead = [target for target in targets if "#" in target or not (file.parent / target).is_file()]
    assert dead == []
    if name in IDS:
        assert len(set(targets)) >= 3


@pytest.mark.parametrize("name", IDS)
def test_every_note_is_reached_from_its_folder(name: str) -> None:
    folder, _slash, file = name.partition("/")
    assert f"]({file})" in (shipped.CORPUS / folder / "README.md").read_text(encoding="utf-8")
    assert f"]({name})" in (shipped.CORPUS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", IDS)
def test_formulas_are_closed(name: str) -> None:
    prose = re.sub(r"`[^`\n]*`", "", shipped.read_note(shipped.CORPUS / name).prose).replace("\\$", "")
    for paragraph in re.split(r"\n\s*\n", prose):
        assert paragraph.count("$$") % 2 == 0, paragraph[:200]
        assert paragraph.replace("$$", "").count("$") % 2 == 0, paragraph[:200]


@pytest.mark.parametrize("name", IDS)
def test_python_fences_run(name: str) -> None:
    error = outcomes(name.split("/")[0])[name]
    assert error is None, error


def test_few_fences_are_not_run_and_each_says_why() -> None:
    kept = [code for file in FILES for code in shipped.read_note(file).python(runnable=False)]
    assert len(kept) <= MOST_NOT_RUN
    assert all(code.lstrip().startswith("#") for code in kept)


def test_prerequisites_have_no_cycle() -> None:
    waiting = {name: set(entry["prerequisites"]) for name, entry in SYLLABUS.items()}
    while waiting:
        ready = [name for name, before in waiting.items() if not before & waiting.keys()]
        assert ready, waiting
        for name in ready:
            del waiting[name]


def test_the_table_counts_every_note() -> None:
    assert shipped.table().splitlines()[-1].startswith(f"| all | {len(IDS)} |")
