"""A warm hybrid query against the embedding of that query alone, in one process, in turns.

Run in the workspace: ``python inside_warm.py ROUNDS QUESTIONS.json``. Prints seconds as JSON. The search is all that
`studyrag search -` does for a question, the look for changed notes included.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from studyrag.assistant import Assistant
from studyrag.cli.wiring import open_embedder
from studyrag.settings import load_settings

K = 5


def main(rounds: int, questions: list[str]) -> None:
    settings = load_settings(Path.cwd())
    embedder = open_embedder(settings)
    assistant = Assistant(settings, embedder)

    def search(question: str) -> None:
        assistant.search(question, K)

    def embed(question: str) -> None:
        embedder.embed([question])

    for question in questions:
        search(question)
    taken: dict[str, list[float]] = {"search": [], "embed": []}
    stages: dict[str, list[float]] = {}
    for number in range(rounds):
        for question in questions:
            turns = [("search", search), ("embed", embed)]
            for name, work in turns if number % 2 else reversed(turns):
                taken[name].append(_seconds(work, question))
            for stage, milliseconds in assistant.last_trace.timings_ms().items():
                stages.setdefault(stage, []).append(milliseconds / 1000)
    print(json.dumps(taken | {"stages": stages}))


def _seconds(work: Callable[[str], None], question: str) -> float:
    started = time.perf_counter()
    work(question)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
