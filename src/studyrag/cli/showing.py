"""Records to text and JSON for people and scripts. Whatever comes from notes or models is made plain first."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from studyrag.cli.terminal import escaped, plain

if TYPE_CHECKING:
    from studyrag.records import Answer, Citation, Event, Hit, Nearest, Passage, Trace

NOT_COVERED = "Your notes do not cover this."
UNSUPPORTED = "[unsupported]"


def place(note: str, first_line: int, last_line: int, headings: Sequence[str], *, folder: Path) -> str:
    """'note.md:41-58 › Heading › Sub', the file clickable where the terminal can."""
    lines = f"{first_line}" if first_line == last_line else f"{first_line}-{last_line}"
    name = " ".join(plain(note).split("\n"))
    return " › ".join([_link(f"{name}:{lines}", folder / note), *(plain(part) for part in headings[1:] or headings)])


def _link(text: str, path: Path) -> str:
    """OSC 8 hyperlink, only on a terminal that is not known to be dumb."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "linux") or "NO_COLOR" in os.environ:
        return text
    return f"\x1b]8;;file://{quote(path.as_posix())}\x1b\\{text}\x1b]8;;\x1b\\"


def citation_line(citation: Citation, *, folder: Path) -> str:
    where = place(citation.note_id, citation.first_line, citation.last_line, citation.headings, folder=folder)
    return f"[{citation.number}] {where}"


def passage_line(passage: Passage, *, folder: Path) -> str:
    return place(passage.note_id, passage.first_line, passage.last_line, passage.headings, folder=folder)


def nearest_line(near: Nearest, *, folder: Path) -> str:
    return place(near.note_id, near.first_line, near.last_line, near.headings, folder=folder)


class AnswerPrinter:
    """Shows the events of one answer as they come."""

    def __init__(self, *, folder: Path, show_passages: bool = False) -> None:
        self._folder, self._show_passages = folder, show_passages

    def show(self, event: Event) -> None:
        from studyrag.records import Answered, Attributed, Piece, Reading

        if isinstance(event, Reading):
            print("Reading:")
            for passage in event.context.passages:
                print(f"  {passage_line(passage, folder=self._folder)}")
                if self._show_passages:
                    print("\n".join(f"    | {line}" for line in plain(passage.text).split("\n")))
            print(flush=True)
        elif isinstance(event, Piece):
            print(plain(event.text), end="", flush=True)
        elif isinstance(event, Attributed):
            marks = "".join(f"[{number}]" for number in event.sentence.citations)
            if event.sentence.supported is False:
                marks = UNSUPPORTED
            # a mark behind a fence would be part of it, and the fence would not close when it is copied
            gap = "\n" if event.sentence.text.rstrip().endswith(("```", "~~~", "$$")) else " "
            print(f"{gap}{marks}" if marks else "", end="", flush=True)
        elif isinstance(event, Answered):
            self._end(event.answer)

    def _end(self, answer: Answer) -> None:
        if answer.abstained:
            print(NOT_COVERED)
            if answer.nearest:
                print("\nNearest in your notes:")
            for near in answer.nearest:
                print(f"  {nearest_line(near, folder=self._folder)}")
            return
        if not answer.text:
            print("Nothing in the answer was supported by your notes.")
        print("\n")
        for citation in answer.citations:
            print(citation_line(citation, folder=self._folder))
        unsupported = sum(sentence.supported is False for sentence in answer.sentences)
        if unsupported:
            print(f"\n{UNSUPPORTED} marks what no line of your notes was found to support; --strict leaves it out.")


def answer_json(answer: Answer) -> dict[str, Any]:
    """The record that scripts rely on; README documents it."""
    return {
        "question": answer.question,
        "answer": answer.text,
        "abstained": answer.abstained,
        "sentences": [
            {"text": s.text.strip(), "supported": s.supported, "citations": list(s.citations)} for s in answer.sentences
        ],
        "citations": [_cited(citation) for citation in answer.citations],
        "nearest": [_place_json(asdict(near)) for near in answer.nearest],
        "model": answer.model,
        "timings_ms": dict(answer.timings_ms),
    }


def _cited(citation: Citation) -> dict[str, Any]:
    values = _place_json(asdict(citation))
    return {"number": values.pop("number"), **values}


def _place_json(values: dict[str, Any]) -> dict[str, Any]:
    return {"note": values.pop("note_id"), **{key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}}


def hits_json(query: str, hits: Sequence[Hit], timings_ms: Mapping[str, float]) -> dict[str, Any]:
    """The record that scripts rely on; README documents it."""
    return {
        "query": query,
        "hits": [
            {
                "rank": hit.rank,
                "note": hit.chunk.note_id,
                "headings": list(hit.chunk.headings),
                "first_line": hit.chunk.first_line,
                "last_line": hit.chunk.last_line,
                "text": hit.chunk.text,
                "lexical_rank": hit.lexical_rank,
                "dense_rank": hit.dense_rank,
                "answers": hit.answers,
            }
            for hit in hits
        ],
        "timings_ms": dict(timings_ms),
    }


def show_hits(hits: Sequence[Hit], *, folder: Path) -> None:
    if not hits:
        print("Nothing in your notes shares a word or a meaning with that.")
    for hit in hits:
        chunk = hit.chunk
        arms = ", ".join(
            f"{arm} #{rank}" for arm, rank in (("lexical", hit.lexical_rank), ("dense", hit.dense_rank)) if rank
        )
        if hit.answers is not None:
            arms += f", answers {hit.answers:+.1f}"
        where = place(chunk.note_id, chunk.first_line, chunk.last_line, chunk.headings, folder=folder)
        print(f"{hit.rank}. {where}  ({arms})")
        print(f"   {_snippet(chunk.text)}\n")


def _snippet(text: str, width: int = 220) -> str:
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else flat[: width - 1].rsplit(" ", 1)[0] + " …"


def show_trace(trace: Trace) -> None:
    """Each stage with its milliseconds and what it found, on stderr."""
    for stage, milliseconds, facts in trace.events:
        shown = "  ".join(f"{key}={_fact(value)}" for key, value in facts.items())
        print(plain(f"{stage:<14}{milliseconds:9.1f} ms  {shown}"), file=sys.stderr)


def _fact(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_json(value: object) -> None:
    """One object a line. JSON itself escapes the C0 control characters only: the others are escaped here."""
    print(escaped(json.dumps(value, ensure_ascii=False)), flush=True)
