"""Each measurement of the table: a workspace and a number of repeats in, rows out. The bars are those of the design."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import langchain_env
from measuring import NotMeasured, Ran, Sample, say
from rows import Bar, Row, absolute, missing, ratio
from workspace import Workspace

FASTER_THAN_LANGCHAIN = Bar(10, "× faster", at_least=True)
_EDIT_AFTER = "\n## "


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. ``versions`` gathers those of the other side."""

    work: Workspace
    n: int
    langchain: bool
    versions: dict[str, str]


def help_text(plan: Plan) -> list[Row]:
    plan.work.studyrag("--help")
    taken = [plan.work.studyrag("--help").seconds for _ in range(plan.n)]
    return [absolute("studyrag --help", Sample.of(taken), "s", 0.25)]


def search(plan: Plan) -> list[Row]:
    """Fresh processes, ours and LangChain's in turns, a different question each round."""
    rival, why = _rival(plan)
    first = plan.work.studyrag("search", "--json", "--", plan.work.covered_questions[0])
    if not json.loads(first.output)["hits"]:
        raise NotMeasured("studyrag search found nothing")
    if rival:
        rival.search(plan.work.covered_questions[0])
    ours: list[Ran] = []
    theirs: list[Ran] = []
    for number, question in zip(range(plan.n), _cycled(plan.work.covered_questions), strict=False):
        say(f"cold search, {number + 1} of {plan.n}")
        ours.append(plan.work.studyrag("search", "--", question))
        if rival:
            theirs.append(rival.search(question))
    cold = [run.seconds for run in ours]
    rows = [absolute("search, cold, whole process", Sample.of(cold), "s", 0.7)]
    if rival:
        reference = ("LangChain's", [run.seconds for run in theirs])
        rows.append(ratio("search, cold, against LangChain's hybrid", cold, reference, "s", FASTER_THAN_LANGCHAIN))
    elif plan.langchain:
        rows.append(missing("search, cold, against LangChain's hybrid", why, FASTER_THAN_LANGCHAIN))
    rows.append(_peak("search, peak memory", ours, 300e6))
    if rival:
        rows.append(_peak("LangChain's hybrid, peak memory", theirs, None))
    return rows


def warm(plan: Plan) -> list[Row]:
    """All golden questions, in one process."""
    say("warm queries")
    found = plan.work.inside("inside_warm.py", str(plan.n), _questions_file(plan.work, plan.work.questions))
    ours, alone = ([1000 * second for second in found[name]] for name in ("search", "embed"))
    stages = {name: Sample.of(values).median * 1000 for name, values in found["stages"].items()}
    note = ", ".join(f"{name} {value:.2f}" for name, value in stages.items() if value >= 0.05)
    bar = Bar(1.3, "×")
    return [ratio("warm hybrid query", ours, ("its embedding alone", alone), "ms", bar, note=f"stages {note} ms")]


def index(plan: Plan) -> list[Row]:
    say("full index and raw encode")
    found = plan.work.inside("inside_index.py", str(min(plan.n, 3)), plan.work.model("embedder"))
    note = f"{found['chunks']} chunks in {found['windows']} windows, raw batch {found['batch']}"
    reference = ("raw ONNX encode", found["raw"])
    bar = Bar(0.85, "×", at_least=True)
    return [ratio("full index, chunks a second", found["index"], reference, "/s", bar, note=note)]


def reindex(plan: Plan) -> list[Row]:
    """Whole processes. The edit lengthens one paragraph of the longest note."""
    note = max((plan.work.folder / "corpus").rglob("*.md"), key=lambda file: (file.stat().st_size, file))
    original = note.read_text(encoding="utf-8")
    edited, unchanged = [], []
    try:
        for number in range(plan.n + 1):
            say(f"re-index, {number} of {plan.n}")
            note.write_text(_edited(original, number), encoding="utf-8")
            edited.append(plan.work.studyrag("index").seconds)
            unchanged.append(plan.work.studyrag("index").seconds)
    finally:
        note.write_text(original, encoding="utf-8")
        plan.work.studyrag("index")
    return [
        absolute("re-index after one edited note", Sample.of(edited[1:]), "s", 1.0),
        absolute("re-index after no change", Sample.of(unchanged[1:]), "s", 0.5),
    ]


def answer(plan: Plan) -> list[Row]:
    """In one process, each round another question."""
    say("answers and llama.cpp's own speed, in turns")
    model = plan.work.model("generator")
    questions = _questions_file(plan.work, plan.work.covered_questions)
    found = plan.work.inside("inside_answer.py", str(plan.n), model, questions)
    prompt = f"{Sample.of(found['prompt_tokens']).median:.0f} tokens of prompt, {found['threads']} threads"
    reply = f"{Sample.of(found['tokens']).median:.0f} tokens of answer, attribution included"
    return [
        ratio("written answer, time to first token", found["first_token"],
              ("llama.cpp's prefill", found["prefill"]), "s", Bar(1.1, "×"), note=prompt),
        ratio("written answer, first text on screen", found["shown"],
              ("llama.cpp's prefill", found["prefill"]), "s", None, note="held until a sentence stands on the notes"),
        ratio("written answer, decode rate", found["decode"], ("llama.cpp's own", found["bare_decode"]), "tokens/s",
              Bar(0.95, "×", at_least=True), note=reply),
        ratio("answer in the notes' words, whole", found["quoted"],
              ("llama.cpp's prefill", found["quoted_prefill"]), "s", None, note="to the last sentence"),
        ratio("answer, evidence list", found["evidence"], ("the first token", found["first_token"]), "s",
              Bar(0.5, "×"), note="shown before generation starts"),
    ]  # fmt: skip


def ask(plan: Plan) -> list[Row]:
    """Whole processes: memory, and when things reach the screen."""
    model = plan.work.model("generator")
    question = plan.work.covered_questions[0]
    plan.work.studyrag("ask", "--", question)
    runs = []
    for number in range(min(plan.n, 3)):
        say(f"cold ask, {number + 1} of {min(plan.n, 3)}")
        runs.append(plan.work.studyrag("ask", "--", question))
    evidence, first = (Sample.of(times) for times in zip(*map(_on_screen, runs), strict=True))
    size = model.stat().st_size
    return [
        _peak("ask, peak memory", runs, size + 700e6, note=f"the model file is {size / 1e6:,.0f} MB"),
        absolute("ask, cold, evidence on screen", evidence, "s", None),
        absolute("ask, cold, first token on screen", first, "s", None),
        absolute("ask, cold, whole process", Sample.of(run.seconds for run in runs), "s", None),
    ]


MEASURES: Mapping[str, Callable[[Plan], list[Row]]] = {
    "help": help_text,
    "search": search,
    "warm": warm,
    "index": index,
    "reindex": reindex,
    "answer": answer,
    "ask": ask,
}


def _rival(plan: Plan) -> tuple[langchain_env.LangChain | None, str]:
    """LangChain's hybrid, or why there is none."""
    if not plan.langchain:
        return None, ""
    try:
        rival = langchain_env.prepared(plan.work)
    except NotMeasured as err:
        return None, str(err)
    plan.versions.update(rival.versions)
    return rival, ""


def _peak(what: str, runs: list[Ran], limit: float | None, *, note: str = "") -> Row:
    """The highest of the runs."""
    known = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    if not known:
        return missing(what, "this system does not tell a child's peak memory", Bar(limit, "B") if limit else None)
    return absolute(what, Sample.of(known), "B", limit, note=note)


def _on_screen(run: Ran) -> tuple[float, float]:
    """Seconds until the evidence list was whole, and until the first piece of the answer after it."""
    shown, evidence = b"", 0.0
    for at, part in run.arrivals:
        shown += part
        head, gap, rest = shown.partition(b"\n\n")
        if gap and head.startswith(b"Reading:"):
            evidence = evidence or at
            if rest.strip():
                return evidence, at
    raise NotMeasured("studyrag ask did not answer its first question")


def _edited(text: str, number: int) -> str:
    """One sentence more in the first paragraph under the first part's heading."""
    heading = text.index(_EDIT_AFTER)
    start = text.index("\n\n", heading) + 2
    end = text.index("\n\n", start)
    return f"{text[:end]} This sentence is edit number {number}.{text[end:]}"


def _questions_file(work: Workspace, questions: list[str]) -> Path:
    file = work.folder / "questions.json"
    file.write_text(json.dumps(questions), encoding="utf-8")
    return file


def _cycled(values: list[Any]) -> list[Any]:
    return values * 100
