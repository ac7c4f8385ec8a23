"""The shipped notes as files: their parts, links and fences, and a table of them. ``python evals/shipped_notes.py``.

What must hold of every note is tested in ``tests/test_shipped_notes.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
CORPUS = REPOSITORY / "corpus"
PARTS = ("Overview", "Mathematics", "Implementation", "Connections", "Interview Q&A", "Common mistakes")
_FENCE = re.compile(r"^(```+|~~~+)([^\n]*)\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """A fenced block: ``info`` is what follows the back-ticks (``python``, ``python no-run``, ``mermaid``)."""

    info: str
    text: str


@dataclass(frozen=True)
class ShippedNote:
    """``id`` is its path below corpus/; ``body`` the text after the front matter, ``prose`` that without fences."""

    id: str
    matter: dict[str, Any]
    body: str
    prose: str
    fences: tuple[Fence, ...]

    @property
    def words(self) -> int:
        """As ``wc -w`` counts the body, fences included."""
        return len(self.body.split())

    @property
    def parts(self) -> list[str]:
        return re.findall(r"^## (.*)$", self.prose, re.MULTILINE)

    @property
    def questions(self) -> list[str]:
        return re.findall(r"^### Q: (.*)$", self.prose, re.MULTILINE)

    @property
    def links(self) -> list[str]:
        """Targets of the links that stay in the repository."""
        return re.findall(r"\]\((?!https?:)([^)\s]+)\)", self.prose)

    def python(self, *, runnable: bool = True) -> list[str]:
        """Its Python fences in order: those that run, or those marked ``no-run``."""
        kinds = [fence for fence in self.fences if fence.info.split()[:1] == ["python"]]
        return [fence.text for fence in kinds if ("no-run" in fence.info.split()) is not runnable]


def read_note(file: Path) -> ShippedNote:
    """:raises ValueError: when the front matter is missing."""
    text = file.read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{file}: no front matter")
    body = text[found.end() :]
    fences = tuple(Fence(match[2].strip(), match[3]) for match in _FENCE.finditer(body))
    matter = yaml.safe_load(found[1])
    return ShippedNote(file.relative_to(CORPUS).as_posix(), matter, body, _FENCE.sub("", body), fences)


def note_files() -> list[Path]:
    """Every shipped note; the README.md of the folders are tables of contents, not notes."""
    return sorted(file for file in CORPUS.glob("*/*.md") if file.name != "README.md")


def table() -> str:
    """Notes, words, questions, fences and links by folder, as Markdown."""
    rows = ["| folder | notes | words | questions | python fences | no-run | links |", "| --- |" + " ---: |" * 6]
    totals = [0] * 6
    notes = [read_note(file) for file in note_files()]
    for folder in sorted({note.id.split("/")[0] for note in notes}):
        mine = [note for note in notes if note.id.startswith(folder + "/")]
        counts = [
            len(mine),
            sum(note.words for note in mine),
            sum(len(note.questions) for note in mine),
            sum(len(note.python()) for note in mine),
            sum(len(note.python(runnable=False)) for note in mine),
            sum(len(note.links) for note in mine),
        ]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        rows.append(f"| {folder} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    rows.append("| all | " + " | ".join(f"{total:,}" for total in totals) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
