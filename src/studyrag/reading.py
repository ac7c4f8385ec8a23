"""Notes folder to Notes: finds markdown files, decodes them, and marks headings, fences, maths and tables.

Parses blocks only (markdown-it-py): inline markup stays as the person wrote it, so spans and line numbers are the
file's own. Does not split, embed or follow links out of the folder. A file that cannot be used is a ``Skipped`` with
its reason, never an exception.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from studyrag.errors import NotesError
from studyrag.records import Block, BlockKind, Note, Section, Skipped

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

SUFFIXES = (".md", ".markdown")
MAX_FRONT_MATTER_CHARS = 16_384
MAX_HEADING_CHARS = 300
_ODD_NAME = "its name is not UTF-8: rename it"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n((?:.*?\n)??)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_VERBATIM = r"`[^`]+`|\$[^$]+\$"
_KINDS = {
    "fence": BlockKind.CODE,
    "code_block": BlockKind.CODE,
    "math_block": BlockKind.MATH,
    "math_block_label": BlockKind.MATH,
    "amsmath": BlockKind.MATH,
    "table_open": BlockKind.TABLE,
    "bullet_list_open": BlockKind.LIST,
    "ordered_list_open": BlockKind.LIST,
    "paragraph_open": BlockKind.PROSE,
    "blockquote_open": BlockKind.PROSE,
    "heading_open": BlockKind.HEADING,
}


class NoteFile(NamedTuple):
    """A markdown file as the file system shows it, before it is read. ``id`` as in Note.

    A tuple, since one is made of every file before every query.
    """

    id: str
    folder: Path
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def path(self) -> Path:
        return self.folder / self.id


def find_notes(folder: Path, *, exclude: Sequence[str] = ()) -> tuple[list[NoteFile], list[Skipped]]:
    """Every markdown file below ``folder``, sorted by id; hidden files and folders are passed over.

    Links to files inside the folder are followed once; links that leave it, and loops, are reported as skipped.

    :raises NotesError: when the folder is missing or cannot be listed.
    """
    walk = Walk(folder, exclude)
    return walk.found, walk.skipped


class Walk:
    """One look at every file below a folder: what ``find_notes`` gives, and which folders were listed.

    Runs before queries: what it does for a file is kept lean.
    """

    def __init__(self, folder: Path, exclude: Sequence[str] = ()) -> None:
        if not folder.is_dir():
            raise NotesError(
                f"{folder}: no such notes folder", fix="set `notes` in studyrag.toml, or run `studyrag init FOLDER`"
            )
        self._root, self._excluded = folder.resolve(), [_compiled(pattern) for pattern in exclude]
        self.found: list[NoteFile] = []
        self.skipped: list[Skipped] = []
        self.folders: dict[str, tuple[int, int]] = {}
        """(mtime_ns, ctime_ns) of each folder, taken before it was listed."""
        self._down(str(self._root), "", (self._root,))
        self.found.sort()
        self.skipped.sort(key=lambda skip: skip.path)

    def _down(self, folder: str, prefix: str, above: tuple[Path, ...]) -> None:
        """``prefix`` is the folder's path below the root, ending in a slash; ``above`` are the real ones down to it."""
        try:
            stat = os.stat(folder)  # noqa: PTH116 - a Path costs more than the call
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as err:
            if not prefix:
                raise NotesError(f"{folder}: {err.strerror}", fix="check the folder's permissions") from err
            self.skipped.append(Skipped(prefix.rstrip("/"), f"folder cannot be listed: {err.strerror}"))
            return
        self.folders[folder] = (stat.st_mtime_ns, stat.st_ctime_ns)
        for entry in listed:
            name = prefix + entry.name
            if entry.name[0] == "." or any(pattern.fullmatch(name) for pattern in self._excluded):
                continue
            if not (name.isascii() or _is_text(name)):
                readable = name.encode(errors="surrogateescape").decode(errors="replace")
                self.skipped.append(Skipped(readable, _ODD_NAME))
                continue
            try:
                self._look(entry, name, above)
            except OSError as err:
                self.skipped.append(Skipped(name, f"cannot be reached: {err.strerror}"))

    def _look(self, entry: os.DirEntry[str], name: str, above: tuple[Path, ...]) -> None:
        if entry.is_symlink() and not self._stays_inside(Path(entry.path), above, name):
            return
        if entry.is_dir():
            real = Path(entry.path).resolve() if entry.is_symlink() else above[-1] / entry.name
            self._down(entry.path, f"{name}/", (*above, real))
        elif name.lower().endswith(SUFFIXES):
            if not entry.is_file():
                self.skipped.append(Skipped(name, "not a regular file"))
                return
            stat = entry.stat()
            self.found.append(NoteFile(name, self._root, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))

    def _stays_inside(self, path: Path, above: tuple[Path, ...], name: str) -> bool:
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            if name.lower().endswith(SUFFIXES):
                self.skipped.append(Skipped(name, "link is broken or goes round in a loop"))
            return False
        if not target.is_relative_to(self._root):
            if target.is_dir() or name.lower().endswith(SUFFIXES):
                self.skipped.append(Skipped(name, "link leaves the notes folder"))
            return False
        if target.is_dir() and any(target == folder or folder.is_relative_to(target) for folder in above):
            self.skipped.append(Skipped(name, "link goes round in a loop"))
            return False
        return True


def _is_text(name: str) -> bool:
    """Whether a name of the file system is UTF-8; Python spells other bytes as lone surrogates, which fit no file."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def matches_glob(name: str, pattern: str) -> bool:
    """Whether a note's path matches: ``*`` stays in one folder, ``**`` crosses, a bare folder means all below it."""
    return _compiled(pattern).fullmatch(name) is not None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Asked for each file before each query, so it is made once."""
    pattern = pattern.strip("/")
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    below = "" if re.search(r"[*?\[]", pattern) else "(?:/.*)?"
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces) + below, re.DOTALL)


def read_note(file: NoteFile, *, max_bytes: int) -> Note | Skipped:
    """The file as a Note, or why it is not one. Reads at most ``max_bytes + 1`` bytes."""
    if file.size > max_bytes:
        return Skipped(
            file.id,
            f"{file.size / 1e6:.1f} MB is larger than max_note_bytes ({max_bytes / 1e6:.1f} MB): split the note",
        )
    try:
        with file.path.open("rb") as handle:
            raw = handle.read(max_bytes + 1)
    except OSError as err:
        return Skipped(file.id, f"cannot be read: {err.strerror}")
    if len(raw) > max_bytes:
        return Skipped(file.id, "grew beyond max_note_bytes while it was read")
    if b"\x00" in raw:
        return Skipped(file.id, "holds NUL bytes: a binary file, or UTF-16 (save it as UTF-8)")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        return Skipped(file.id, f"not UTF-8 (line {line}, byte {err.start}): save it as UTF-8")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        return Skipped(file.id, "empty")
    return parse_note(file.id, text, sha256=hashlib.sha256(raw).hexdigest())


def parse_note(note_id: str, text: str, *, sha256: str = "") -> Note | Skipped:
    """A decoded note. Front matter that cannot be used is left out of the sections, and the note is still read."""
    front, body_line = _front_matter(text)
    sections = tuple(_sections(text, body_line))
    if not any(section.blocks for section in sections):
        return Skipped(note_id, "nothing but front matter" if body_line else "empty")
    return Note(
        id=note_id,
        title=_title(front, sections, note_id),
        tags=_words(front.get("tags")),
        aliases=_words(front.get("aliases")),
        sha256=sha256,
        text=text,
        sections=sections,
    )


def front_matter_problem(text: str) -> str | None:
    """Why the front matter of a note is ignored, or None when it is fine or absent."""
    match = _FRONT_MATTER.match(text)
    return _load_yaml(match.group(1))[1] if match else None


def _front_matter(text: str) -> tuple[Mapping[str, object], int]:
    """(values, lines that it takes up). Broken front matter is ({}, its lines): never indexed as prose."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, 0
    values, _ = _load_yaml(match.group(1))
    return values, text.count("\n", 0, match.end())


def _load_yaml(source: str) -> tuple[Mapping[str, object], str | None]:
    """Safe and bounded: no object construction, no anchors (a YAML bomb is made of them), no huge blocks."""
    import yaml

    if len(source) > MAX_FRONT_MATTER_CHARS:
        return {}, f"front matter is longer than {MAX_FRONT_MATTER_CHARS} characters"
    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(source, Loader=loader)):
            return {}, "front matter uses YAML aliases, which are not read"
        values = yaml.load(source, Loader=loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        return {}, f"front matter is not valid YAML: {str(err).splitlines()[0]}"
    if values is None:
        return {}, None
    if not isinstance(values, dict):
        return {}, "front matter is not a set of `key: value` lines"
    return {str(key): value for key, value in values.items()}, None


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = re.split(r"[,\s]+", value)
    if not isinstance(value, list):
        return ()
    return tuple(str(item).strip().lstrip("#") for item in value if str(item).strip())


def _title(front: Mapping[str, object], sections: Sequence[Section], note_id: str) -> str:
    title = front.get("title")
    if isinstance(title, str) and title.strip():
        return " ".join(title.split())
    first = next((section.headings[0] for section in sections if section.headings), "")
    return first or Path(note_id).stem.replace("_", " ").replace("-", " ")


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark", {"maxNesting": 20}).enable("table").disable("reference").use(dollarmath_plugin)
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _sections(text: str, body_line: int) -> Iterator[Section]:
    """Sections in order; each block's lines are found by markdown-it, its span by the starts of the lines."""
    starts = _line_starts(text)
    lines = text.split("\n")
    source = "\n".join(lines[body_line:])
    path: list[tuple[int, str]] = []
    headings: tuple[str, ...] = ()
    section_line = body_line
    blocks: list[Block] = []
    for token in _parser().parse(source):
        if token.level or token.nesting < 0 or token.map is None:
            if token.type == "inline" and token.level == 1 and blocks and blocks[-1].kind is BlockKind.HEADING:
                level = path.pop()[0]
                path.append((level, clean_heading(token.content)))
                headings = tuple(name for _, name in path if name)
            continue
        first, last = _trimmed(lines, token.map[0] + body_line, token.map[1] + body_line)
        if last < first:
            continue
        kind = _KINDS.get(token.type, BlockKind.OTHER)
        if kind is BlockKind.HEADING:
            yield from _section(headings, section_line, first - 1, blocks, starts, lines)
            section_line, blocks = first, []
            _open_heading(path, token)
        blocks.append(Block(kind, starts[first], starts[last] + len(lines[last]), first + 1, last + 1))
    yield from _section(headings, section_line, len(lines) - 1, blocks, starts, lines)


def _open_heading(path: list[tuple[int, str]], token: Token) -> None:
    level = int(token.tag[1:])
    while path and path[-1][0] >= level:
        path.pop()
    path.append((level, ""))


def _section(
    headings: tuple[str, ...], first: int, last: int, blocks: list[Block], starts: list[int], lines: list[str]
) -> Iterator[Section]:
    if not blocks:
        return
    last = max(min(last, len(lines) - 1), blocks[-1].last_line - 1)
    while last > first and not lines[last].strip():
        last -= 1
    yield Section(headings, starts[first], starts[last] + len(lines[last]), first + 1, last + 1, tuple(blocks))


def _trimmed(lines: list[str], first: int, end: int) -> tuple[int, int]:
    last = min(end, len(lines)) - 1
    while last >= first and not lines[last].strip():
        last -= 1
    return first, last


def _line_starts(text: str) -> list[int]:
    starts = [0]
    starts.extend(match.end() for match in re.finditer("\n", text))
    return starts


def clean_heading(markup: str) -> str:
    """A heading as a person reads it: links by their text, no emphasis marks, one line. Maths and code stay.

    What goes on after ``MAX_HEADING_CHARS`` is left out: it would fill the embedder's window in every chunk below it.
    """
    markup = markup[:MAX_HEADING_CHARS]
    verbatim = re.findall(_VERBATIM, markup)
    text = re.sub(_VERBATIM, "\0", markup)
    text = re.sub(r"!?\[\[(?:[^\]|]*\|)?([^\]]*)\]\]", r"\1", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(\*\*|~~|==|(?<!\w)__)(?=\S)(.+?)(?<=\S)\1(?!(?<=_)\w)", r"\2", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)(.+?)(?<=\S)\*(?![\w*])", r"\1", text)
    parts = iter(verbatim)
    text = re.sub("\0", lambda _: next(parts, ""), text)
    return " ".join(text.replace("`", "").split())
