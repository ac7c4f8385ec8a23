"""Whether each topic of the syllabus is found in its note: ``.venv/bin/python evals/coverage.py [OUT.md]``.

Every must_cover phrase is a query; it is covered when its note is among the first three hits. A phrase that points
elsewhere (``(… see X)``) may be found there too. Prints the share by folder and every miss with what came instead.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

SYLLABUS = Path(__file__).parent / "syllabus"
BAR = 0.97
_SEE = re.compile(r"\s*\([^()]*\bsee ([a-z_]+)[^()]*\)")


@dataclass(frozen=True)
class Topic:
    """One must_cover phrase of a note, as a query, and the notes it may point to."""

    note: str
    phrase: str
    elsewhere: tuple[str, ...]

    def homes(self, notes: list[str]) -> set[str]:
        """Its note and those whose file name a ``see`` names."""
        return {self.note, *(note for note in notes if Path(note).stem in self.elsewhere)}


def topics() -> Iterator[Topic]:
    for file in sorted(SYLLABUS.glob("*.yaml")):
        for entry in yaml.safe_load(file.read_text(encoding="utf-8")):
            for item in entry["must_cover"]:
                text = item.removeprefix("+ ").strip()
                yield Topic(entry["path"], _SEE.sub("", text), tuple(_SEE.findall(text)))


def main() -> None:
    from studyrag.cli import wiring

    found: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    misses: list[str] = []
    with wiring.assistant(wiring.settings({}), quiet=True) as assistant:
        everything = list(topics())
        notes = sorted({topic.note for topic in everything})
        for topic in everything:
            hits = assistant.search(topic.phrase, 3)
            folder = topic.note.split("/")[0]
            asked[folder] += 1
            if {hit.chunk.note_id for hit in hits} & topic.homes(notes):
                found[folder] += 1
            else:
                places = "; ".join(f"{hit.chunk.note_id} › {hit.chunk.headings[-1]}" for hit in hits)
                misses.append(f"- {topic.note}: {topic.phrase}\n  - {places}")
    lines = ["| folder | topics | found | share |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {name} | {asked[name]} | {found[name]} | {found[name] / asked[name]:.3f} |" for name in sorted(asked)]
    share = found.total() / asked.total()
    lines.append(f"| all | {asked.total()} | {found.total()} | {share:.3f} |")
    text = "\n".join([*lines, "", *misses])
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if share >= BAR else 1)


if __name__ == "__main__":
    main()
