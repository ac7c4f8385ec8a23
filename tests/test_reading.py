"""Reading: what counts as a note, what a note's parts are, and that nothing in a folder can stop it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.errors import NotesError
from studyrag.reading import (
    MAX_HEADING_CHARS,
    NoteFile,
    clean_heading,
    find_notes,
    front_matter_problem,
    matches_glob,
    parse_note,
    read_note,
)
from studyrag.records import BlockKind, Note, Section, Skipped
from tests.makers import markdown, note, write_notes

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions of POSIX")


def kinds(section: Section) -> list[BlockKind]:
    return [block.kind for block in section.blocks]


def read(folder: Path, name: str, *, max_bytes: int = 4_000_000) -> Note | Skipped:
    files, _ = find_notes(folder)
    return read_note(next(file for file in files if file.id == name), max_bytes=max_bytes)


def reason(folder: Path, name: str, *, max_bytes: int = 4_000_000) -> str:
    made = read(folder, name, max_bytes=max_bytes)
    assert isinstance(made, Skipped)
    assert made.path == name
    return made.reason


# -- finding files ---------------------------------------------------------------------------------------------------


def test_notes_are_found_in_every_folder_sorted_by_path_with_forward_slashes(tmp_path: Path) -> None:
    names = ["b.md", "a/z.markdown", "a-b.md", "a/deep/q.MD", "a/picture.png", "c.txt"]
    write_notes(tmp_path, dict.fromkeys(names, "x"))
    files, skipped = find_notes(tmp_path)
    assert [file.id for file in files] == ["a-b.md", "a/deep/q.MD", "a/z.markdown", "b.md"]
    assert skipped == []


def test_hidden_files_and_folders_are_passed_over_without_a_word(tmp_path: Path) -> None:
    write_notes(tmp_path, {".obsidian/x.md": "x", ".draft.md": "x", "a.md": "x"})
    files, skipped = find_notes(tmp_path)
    assert [file.id for file in files] == ["a.md"]
    assert skipped == []


def test_excluded_notes_and_folders_are_not_found(tmp_path: Path) -> None:
    write_notes(tmp_path, {"a.md": "x", "archive/b.md": "x", "deep/archive/c.md": "x", "deep/draft-1.md": "x"})
    files, _ = find_notes(tmp_path, exclude=["archive", "**/draft-*"])
    assert [file.id for file in files] == ["a.md", "deep/archive/c.md"]


def test_a_missing_folder_is_an_error_that_names_it_and_the_setting(tmp_path: Path) -> None:
    with pytest.raises(NotesError, match="nowhere: no such notes folder") as caught:
        find_notes(tmp_path / "nowhere")
    assert "`notes`" in caught.value.fix


@POSIX
def test_links_inside_the_folder_are_followed_and_links_that_leave_it_are_reported(tmp_path: Path) -> None:
    write_notes(tmp_path, {"notes/a.md": "x", "secret/s.md": "x", "notes/real/r.md": "x"})
    notes = tmp_path / "notes"
    (notes / "alias.md").symlink_to(notes / "a.md")
    (notes / "linked").symlink_to(notes / "real")
    (notes / "out").symlink_to(tmp_path / "secret")
    (notes / "out.md").symlink_to(tmp_path / "secret" / "s.md")
    files, skipped = find_notes(notes)
    assert [file.id for file in files] == ["a.md", "alias.md", "linked/r.md", "real/r.md"]
    assert [(skip.path, skip.reason) for skip in skipped] == [
        ("out", "link leaves the notes folder"),
        ("out.md", "link leaves the notes folder"),
    ]


@POSIX
def test_links_in_a_circle_and_broken_links_are_reported(tmp_path: Path) -> None:
    write_notes(tmp_path, {"a/n.md": "x", "b/m.md": "x"})
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "self.md").symlink_to(tmp_path / "self.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "not-there")
    files, skipped = find_notes(tmp_path)
    assert {"a/n.md", "b/m.md"} <= {file.id for file in files}
    reasons = {skip.path: skip.reason for skip in skipped}
    assert reasons["a/up"] == "link goes round in a loop"
    assert "loop" in reasons["self.md"]
    assert "broken" in reasons["gone.md"]


@POSIX
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_called_md_is_reported_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    assert find_notes(tmp_path) == ([], [Skipped("pipe.md", "not a regular file")])


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("a", {"a/x.md", "a/b/y.md"}),
        ("a/*", {"a/x.md"}),
        ("a/**", {"a/x.md", "a/b/y.md"}),
        ("**/y.md", {"a/b/y.md", "y.md"}),
        ("?.md", {"y.md"}),
        ("*.md", {"y.md", "ab.md"}),
        ("/a/", {"a/x.md", "a/b/y.md"}),
        ("x.md", set()),
        ("a.b", set()),
    ],
)
def test_globs_stay_in_one_folder_unless_doubled(pattern: str, matched: set[str]) -> None:
    names = ["a/x.md", "a/b/y.md", "y.md", "ab.md"]
    assert {name for name in names if matches_glob(name, pattern)} == matched


# -- decoding --------------------------------------------------------------------------------------------------------


def test_a_note_is_decoded_with_its_own_line_numbers_whatever_its_newlines(tmp_path: Path) -> None:
    (tmp_path / "w.md").write_bytes("\ufeff# T\r\n\r\nOne.\rTwo.\n".encode())
    made = read(tmp_path, "w.md")
    assert isinstance(made, Note)
    assert made.text == "# T\n\nOne.\nTwo.\n"
    assert made.title == "T"
    assert made.sections[0].last_line == 4


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"---\ntitle: x\n---\n", "nothing but front matter"),
        (b"# A\n\nfine\n\xff\xfe bad\n", "not UTF-8 (line 4, byte 10): save it as UTF-8"),
        ("# Ä".encode("latin-1"), "not UTF-8 (line 1, byte 2): save it as UTF-8"),
        ("# hello".encode("utf-16"), "holds NUL bytes: a binary file, or UTF-16 (save it as UTF-8)"),
        (b"\x89PNG\x00\x00", "holds NUL bytes: a binary file, or UTF-16 (save it as UTF-8)"),
    ],
)
def test_a_file_that_is_no_note_is_skipped_with_its_reason(tmp_path: Path, content: bytes, because: str) -> None:
    (tmp_path / "n.md").write_bytes(content)
    assert reason(tmp_path, "n.md") == because


def test_a_file_over_the_limit_is_skipped_without_being_read(tmp_path: Path) -> None:
    (tmp_path / "big.md").write_bytes(b"x" * 2001)
    files, _ = find_notes(tmp_path)
    (tmp_path / "big.md").unlink()
    made = read_note(files[0], max_bytes=2000)
    assert made == Skipped("big.md", "0.0 MB is larger than max_note_bytes (0.0 MB): split the note")


def test_a_file_that_grows_while_it_is_read_is_not_read_beyond_the_limit(tmp_path: Path) -> None:
    (tmp_path / "log.md").write_bytes(b"x" * 10)
    files, _ = find_notes(tmp_path)
    (tmp_path / "log.md").write_bytes(b"x" * 5000)
    assert read_note(files[0], max_bytes=2000) == Skipped("log.md", "grew beyond max_note_bytes while it was read")


def test_no_more_than_the_limit_is_ever_read(tmp_path: Path) -> None:
    asked: list[int] = []

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None and size >= 0, "all of it"
            asked.append(size)
            return b"x" * size

    class Growing(type(tmp_path)):  # type: ignore[misc]
        def open(self, *_: object, **__: object) -> Endless:
            return Endless()

    made = read_note(NoteFile("log.md", Growing(tmp_path), 10, 0, 0), max_bytes=2000)
    assert isinstance(made, Skipped)
    assert asked == [2001]


def test_a_file_that_went_away_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "n.md").write_text("x")
    files, _ = find_notes(tmp_path)
    (tmp_path / "n.md").unlink()
    made = read_note(files[0], max_bytes=2000)
    assert isinstance(made, Skipped)
    assert made.reason.startswith("cannot be read: ")


def test_the_hash_is_that_of_the_bytes_on_disk(tmp_path: Path) -> None:
    write_notes(tmp_path, {"a.md": "# T\nx", "b.md": "# T\r\nx", "c.md": "# T\nx"})
    (tmp_path / "b.md").write_bytes(b"# T\r\nx")
    hashes = [made.sha256 for name in ("a.md", "b.md", "c.md") if isinstance(made := read(tmp_path, name), Note)]
    assert hashes[0] == hashes[2] != hashes[1]


# -- front matter ----------------------------------------------------------------------------------------------------


def test_front_matter_gives_title_tags_and_aliases_and_is_no_text() -> None:
    made = note("---\ntitle: My  Note\ntags: [one, '#two']\naliases: other, names\n---\n# Heading\n\nBody.\n")
    assert (made.title, made.tags, made.aliases) == ("My Note", ("one", "two"), ("other", "names"))
    assert [section.first_line for section in made.sections] == [6]
    assert made.text.startswith("---\ntitle")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# First *heading*\n\n# Second\n\nx", "First heading"),
        ("before\n\n## Sub\n\nx", "Sub"),
        ("no heading", "kv cache notes"),
        ("---\ntitle: [1, 2]\n---\nno heading", "kv cache notes"),
        ("---\ntitle: '  '\n---\n# Heading\nx", "Heading"),
    ],
)
def test_the_title_falls_back_to_the_first_heading_and_then_the_file_name(text: str, title: str) -> None:
    assert note(text, "folder/kv_cache-notes.md").title == title


@pytest.mark.parametrize("text", ["---\n---\n# T\n\nx", "---\n\n---\n# T\n\nx", "---\n...\n# T\n\nx"])
def test_empty_front_matter_is_front_matter(text: str) -> None:
    made = note(text)
    assert front_matter_problem(text) is None
    assert [kinds(section) for section in made.sections] == [[BlockKind.HEADING, BlockKind.PROSE]]


@pytest.mark.parametrize(
    ("front", "problem"),
    [
        ("title: [unclosed", "front matter is not valid YAML"),
        ("- a\n- list", "front matter is not a set of `key: value` lines"),
        ("a: &x [lol]\nb: [*x, *x]", "front matter uses YAML aliases, which are not read"),
        ("when: 2024-99-99", "front matter is not valid YAML"),
        ("a: !!python/object/apply:os.system ['exit 1']", "front matter is not valid YAML"),
        ("[" * 5000, "front matter"),
        ("x: " + "y" * 20_000, "front matter is longer than 16384 characters"),
    ],
)
def test_unusable_front_matter_is_reported_never_run_and_never_indexed_as_text(front: str, problem: str) -> None:
    text = f"---\n{front}\n---\nBody.\n"
    made = note(text)
    assert (front_matter_problem(text) or "").startswith(problem)
    assert [made.text[section.start : section.end] for section in made.sections] == ["Body."]
    assert made.tags == ()


def test_good_front_matter_and_none_are_no_problem() -> None:
    assert front_matter_problem("---\ntitle: x\n---\nBody.") is None
    assert front_matter_problem("Body.\n\n---\n\nMore.") is None


# -- blocks and sections ---------------------------------------------------------------------------------------------


def test_a_hash_inside_a_fence_or_a_formula_is_no_heading() -> None:
    made = note("# Real\n\n```python\n# comment\n```\n\n~~~\n# other\n~~~\n\n$$\n# maths\n$$\n\n    # indented\n")
    assert [section.headings for section in made.sections] == [("Real",)]
    assert kinds(made.sections[0]) == [
        BlockKind.HEADING,
        BlockKind.CODE,
        BlockKind.CODE,
        BlockKind.MATH,
        BlockKind.CODE,
    ]


def test_a_fence_that_is_never_closed_runs_to_the_end() -> None:
    made = note("# Real\n\n```\n# comment\n\ntext\n")
    assert kinds(made.sections[0]) == [BlockKind.HEADING, BlockKind.CODE]
    assert made.sections[0].last_line == 6


def test_heading_paths_follow_the_levels() -> None:
    made = note("intro\n\n# A\n\n### Deep\nx\n\n## B\ny\n\nSetext\n------\nz\n\n# C\nw\n")
    assert [section.headings for section in made.sections] == [
        (),
        ("A",),
        ("A", "Deep"),
        ("A", "B"),
        ("A", "Setext"),
        ("C",),
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("| a | b |\n|---|---|\n| 1 | `x|y` |", BlockKind.TABLE),
        ("$$\nx = 1\n\ny = 2\n$$", BlockKind.MATH),
        ("- a\n\n  still a\n- b", BlockKind.LIST),
        ("1. a\n2. b", BlockKind.LIST),
        ("> quoted\n> # not a heading", BlockKind.PROSE),
        ("<div>\nhtml\n</div>", BlockKind.OTHER),
        ("[1]: https://example.org", BlockKind.PROSE),
        ("[^1]: a-footnote", BlockKind.PROSE),
    ],
)
def test_each_construct_is_one_block_of_its_kind(text: str, kind: BlockKind) -> None:
    made = note(f"# T\n\n{text}\n\nAfter.\n")
    found = made.sections[0].blocks[1]
    assert found.kind is kind
    assert made.text[found.start : found.end] == text


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("**Bold** and *leaning*", "Bold and leaning"),
        ("[text](http://x.y) and [[note|shown]] and [[note]]", "text and shown and note"),
        ("`np.dot` of $Q_i * K_j * V$", "np.dot of $Q_i * K_j * V$"),
        ("snake_case __init__x 2 * 3 * 4", "snake_case __init__x 2 * 3 * 4"),
        ("`__init__` and **`a**b**c`** in $x^{**}$", "__init__ and a**b**c in $x^{**}$"),
        ("~~old~~  ==new==", "old new"),
    ],
)
def test_headings_are_read_without_their_markup(markup: str, plain: str) -> None:
    assert clean_heading(markup) == plain


def test_an_endless_heading_is_cut_so_that_chunks_below_it_have_room() -> None:
    made = note("# " + "very " * 1000 + "\n\nText.\n")
    assert len(made.sections[0].headings[0]) <= MAX_HEADING_CHARS
    assert made.title == made.sections[0].headings[0]


@given(markdown)
def test_blocks_are_whole_lines_in_order_and_lose_no_line_with_text(text: str) -> None:
    made = parse_note("n.md", text)
    if isinstance(made, Skipped):
        return
    lines = made.text.split("\n")
    covered: list[int] = []
    for section in made.sections:
        assert made.text[section.start : section.end] == "\n".join(lines[section.first_line - 1 : section.last_line])
        for block in section.blocks:
            expected = "\n".join(lines[block.first_line - 1 : block.last_line])
            assert made.text[block.start : block.end] == expected
            assert section.start <= block.start < block.end <= section.end
            covered.extend(range(block.first_line, block.last_line + 1))
    assert covered == sorted(set(covered))
    front = made.text[: made.sections[0].start]
    assert not front.strip() or front.startswith("---\n")
    said = {number for number, line in enumerate(lines, start=1) if line.strip()}
    assert {number for number in said if number >= made.sections[0].first_line} <= set(covered)


@given(st.text(alphabet="#-=`~$|*>[]:\\ \n\tab1.<é\u2028", max_size=120))
def test_any_text_is_read_without_an_error_and_without_losing_a_line(text: str) -> None:
    made = parse_note("n.md", text)
    if isinstance(made, Skipped):
        return
    body = made.text.count("\n", 0, made.sections[0].start)
    lines = made.text.split("\n")
    covered = {n for s in made.sections for b in s.blocks for n in range(b.first_line, b.last_line + 1)}
    missing = [line for n, line in enumerate(lines, start=1) if n > body and n not in covered and line.strip()]
    assert missing == []
