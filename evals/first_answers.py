"""Asks every question of a file in evals/golden with the real pipeline, and writes the answers as Markdown to be read.

``.venv/bin/python evals/first_answers.py evals/golden/first_questions.jsonl OUT.md [IDS…]``. Judges nothing: a person
does.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from studyrag.cli import showing, wiring


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    wanted = set(sys.argv[3:])
    questions = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    lines: list[str] = []
    chosen = wiring.settings({})
    with wiring.assistant(chosen, generate=True, quiet=True) as assistant:
        for question in questions:
            if wanted and question["id"] not in wanted:
                continue
            started = time.perf_counter()
            for _ in assistant.ask(question["question"]):
                pass
            seconds = time.perf_counter() - started
            answer = assistant.last_answer
            assert answer is not None
            seen = [facts for stage, _, facts in assistant.last_trace.events if stage == "coverage"]
            coverage = {**seen[0], **seen[-1], "retrieval": seen[0]["probability"]}
            lines += [
                f"### {question['id']} {question['question']}",
                "",
                f"{seconds:.1f} s, first token {answer.timings_ms.get('first_token', 0) / 1000:.1f} s, evidence"
                f" {coverage['retrieval']:.2f} by retrieval, {coverage['probability']:.2f} in all (found"
                f" {coverage.get('found_logit', float('nan')):.2f}); reference: {question['reference'] or 'none'}",
                "",
            ]
            if answer.abstained:
                lines += ["> (abstained)", ""]
            for sentence in answer.sentences:
                marks = "".join(f"[{number}]" for number in sentence.citations)
                marks = showing.UNSUPPORTED if sentence.supported is False else marks
                lines.append(f"> {sentence.text.strip()} {marks}".replace("\n", "\n> "))
            lines.append("")
            for citation in answer.citations:
                lines.append(
                    f"- {showing.citation_line(citation, folder=chosen.notes)}: {' '.join(citation.quote.split())}"
                )
            lines.append("")
            out.write_text("\n".join(lines), encoding="utf-8")
            print(question["id"], f"{seconds:.1f}", flush=True)


if __name__ == "__main__":
    main()
