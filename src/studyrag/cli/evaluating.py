"""``studyrag eval retrieval`` and ``draft``: how well retrieval finds what golden questions need, and such questions.

Heavy modules are imported inside the commands, so that ``--help`` stays quick.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from studyrag.evals.answers import AnswerResults
    from studyrag.evals.arms import Arm, IndexSettings
    from studyrag.evals.cache import KeptReader
    from studyrag.evals.results import Results
    from studyrag.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure retrieval and answers on golden questions, judge the judge, and draft such questions.",
)

GoldenFile = Annotated[
    Path | None,
    typer.Option("--golden", help="JSONL file, or folder of them; else beside studyrag.toml.", show_default=False),
]
Compare = Annotated[
    str,
    typer.Option(
        "--compare",
        help="Arms, each tested against the first: bm25, dense, hybrid, rrf, or e.g. dense_weight=0.3+candidates=100,"
        " mmr=0.7, rerank=10 (slow), or chunk_tokens=128, chunk_overlap=64, heading_path=no (an index of their own).",
    ),
]
HeldBack = Annotated[bool, typer.Option("--held-back", help="Only questions of the fifth of notes kept from tuning.")]
Open = Annotated[bool, typer.Option("--open", help="Only questions that may be used for tuning.")]
All = Annotated[bool, typer.Option("--all", help="All questions: the default.")]
WorstCount = Annotated[int, typer.Option("--worst", min=0, help="How many of the worst questions to show.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON record.")]
Drafts = Annotated[bool, typer.Option("--drafts", help="Measure on drafts too, which nobody has checked.")]
BeirFolder = Annotated[
    Path | None,
    typer.Option("--beir", help="Measure on a BEIR data set instead of the notes.", show_default=False),
]
Baseline = Annotated[
    Path | None,
    typer.Option("--baseline", help="Fail when a metric fell below its interval in this file.", show_default=False),
]
WriteBaseline = Annotated[Path | None, typer.Option("--write-baseline", help="Write such a file.", show_default=False)]
Report = Annotated[
    Path | None, typer.Option("--report", help="Write report.md and report.html into this folder.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Fetch missing models without asking.")]


@app.command("retrieval")
def retrieval(
    golden: GoldenFile = None,
    compare: Compare = "hybrid,dense,bm25,rrf",
    held_back: HeldBack = False,
    only_open: Open = False,
    every: All = False,
    worst: WorstCount = 10,
    as_json: AsJson = False,
    drafts: Drafts = False,
    beir: BeirFolder = None,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = None,
    report: Report = None,
    yes: Yes = False,
) -> None:
    """Measure what retrieval finds of what golden questions need, arm against arm. Nothing is generated."""
    from studyrag.cli import wiring
    from studyrag.errors import Misuse
    from studyrag.evals.arms import parse_arms
    from studyrag.evals.baseline import read_baseline
    from studyrag.evals.measuring import require_extra

    require_extra()
    if held_back + only_open + every > 1:
        raise Misuse("--held-back, --open and --all exclude each other", fix="pass one of them")
    if beir is not None and (golden is not None or held_back or only_open):
        raise Misuse("--beir brings its own questions", fix="leave --golden, --held-back and --open away")
    held_to = read_baseline(baseline) if baseline else None
    chosen = wiring.settings({})
    arms = parse_arms(compare, candidates=chosen.candidates, dense_weight=chosen.dense_weight, rerank=chosen.rerank)
    which = "held-back" if held_back else "open" if only_open else "all"
    if beir is not None:
        results = _on_beir(beir, arms, chosen, worst=worst, yes=yes)
    else:
        results = _on_notes(golden, which, arms, chosen, worst=worst, drafts=drafts, yes=yes)
    _show(results, worst=worst, as_json=as_json)
    _write(results, report, write_baseline, worst=worst)
    if held_to is not None:
        hold(results, held_to)


def _on_notes(
    golden: Path | None, which: str, arms: tuple[Arm, ...], chosen: Settings, *, worst: int, drafts: bool, yes: bool
) -> Results:
    from studyrag.assistant import Assistant
    from studyrag.cli import wiring
    from studyrag.cli.terminal import progress, say
    from studyrag.errors import Misuse
    from studyrag.evals.golden import digest, find_golden, load, select
    from studyrag.evals.retrieval import Place, evaluate

    file = golden or find_golden(home())
    questions = select(load(file, drafts=drafts), which)
    if not any(one.answerable for one in questions):
        raise Misuse(f"{file}: no answerable questions among the {which} ones", fix="choose others, or --all")
    if which != "open" and any(arm.overrides for arm in arms):
        say("Questions that are held back from tuning are among these: choose parameters with --open.")
    about: dict[str, str | int] = {
        "golden": file.name, "selection": which, "golden_sha256": digest(questions)
    }  # fmt: skip
    changed = dict.fromkeys(arm.index for arm in arms if arm.index)
    with progress() as callback, ExitStack() as opened:
        reader = _reader(arms, chosen, opened, yes=yes)

        def place(settings: Settings) -> Place:
            embedder = wiring.open_embedder(settings, yes=yes)
            assistant = Assistant(settings, embedder, progress=callback, notice=say)
            opened.callback(assistant.close)
            return Place(assistant.refresh(), embedder)

        used = place(chosen)
        variants = {changes: place(_variant(chosen, changes)) for changes in changed}
        return evaluate(
            used, questions, arms, chosen,
            variants=variants, reader=reader, worst=worst, progress=callback, about=about,
        )  # fmt: skip


def _reader(arms: tuple[Arm, ...], chosen: Settings, opened: ExitStack, *, yes: bool) -> KeptReader | None:
    """What ranks anew in the arms that do, if any do; what it said of a passage is kept beside the index.

    :raises StudyRagError: when it is not installed. :raises Misuse: when the settings' generator cannot.
    """
    from studyrag.cli import wiring
    from studyrag.errors import Misuse, StudyRagError
    from studyrag.evals.cache import Cache, KeptReader
    from studyrag.protocols import Scorer

    if not any(arm.rerank for arm in arms):
        return None
    generator = wiring.open_generator(chosen, yes=yes, without="no arm can rank anew.")
    if generator is None:
        raise StudyRagError(f"{chosen.generator} is not installed", fix="pass --yes, or leave arms with rerank out")
    opened.callback(generator.close)
    if not isinstance(generator, Scorer):
        raise Misuse("an arm with rerank takes a generator that runs here", fix="name a GGUF model as `generator`")
    cache = Cache(chosen.index.with_name(f"{chosen.index.name}-evals"))
    return KeptReader(generator, cache, sha256=wiring.model_sha256(chosen.generator, yes=yes))


def _variant(chosen: Settings, changes: IndexSettings) -> Settings:
    """The same notes in another index, which is kept inside the one in use, for the next comparison."""
    name = "+".join(f"{key}={value}" for key, value in changes)
    folder = chosen.index / "variants" / re.sub(r"[^\w.+=-]+", "_", name)
    return chosen.model_copy(update={**dict(changes), "index": folder})


def _on_beir(folder: Path, arms: tuple[Arm, ...], chosen: Settings, *, worst: int, yes: bool) -> Results:
    from studyrag.cli import wiring
    from studyrag.cli.terminal import progress
    from studyrag.evals.beir import evaluate_beir, load_beir

    data = load_beir(folder)
    embedder = wiring.open_embedder(chosen, yes=yes)
    with progress() as callback, ExitStack() as opened:
        reader = _reader(arms, chosen, opened, yes=yes)
        return evaluate_beir(data, embedder, arms, chosen, reader=reader, worst=worst, progress=callback)


def home() -> Path:
    """The folder of studyrag.toml, or the current one."""
    from studyrag.settings import find_file

    file = find_file(Path.cwd())
    return file.parent if file else Path.cwd()


def _show(results: Results, *, worst: int, as_json: bool) -> None:
    from studyrag.cli import showing
    from studyrag.cli.terminal import plain
    from studyrag.evals.tables import markdown, tables

    if as_json:
        showing.print_json(results.to_json())
    else:
        print(plain(markdown(tables(results, worst=worst))), end="")


def _write(results: Results, report: Path | None, baseline: Path | None, *, worst: int) -> None:
    from studyrag.cli.terminal import say

    if report is not None:
        from studyrag.evals.report import write_report

        for file in write_report(results, report, worst=worst):
            say(f"wrote {file}")
    if baseline is not None:
        from studyrag.evals.baseline import write_baseline

        write_baseline(results, baseline)
        say(f"wrote {baseline}")


def hold(results: Results | AnswerResults, baseline: Any) -> None:
    from studyrag.cli.terminal import say
    from studyrag.errors import StudyRagError
    from studyrag.evals.baseline import fallen, not_asked

    found = fallen(results, baseline)
    if found:
        one = "; ".join(
            f"{fall.metric} {'not measured' if fall.value is None else format(fall.value, '.3f')}"
            f" (baseline {fall.baseline:.3f}, at least {fall.low:.3f})"
            for fall in found
        )
        raise StudyRagError(
            f"{len(found)} metrics fell below the baseline: {one}",
            fix="find what made it worse, or accept it with --write-baseline",
        )
    say("no metric fell below the baseline")
    left = not_asked(results, baseline)
    if left:
        say(f"not measured now, so not compared: {', '.join(left)}")


@app.command("draft")
def draft(
    out: Annotated[Path, typer.Argument(help="JSONL file to write.")] = Path("golden.jsonl"),
    per_note: Annotated[int, typer.Option("--per-note", min=1, help="Most questions a note.")] = 5,
) -> None:
    """Propose golden questions from your notes' own questions, definitions and headings, for you to check."""
    from studyrag.cli import wiring
    from studyrag.cli.terminal import say
    from studyrag.errors import Misuse, StudyRagError
    from studyrag.evals.drafting import drafts, to_jsonl
    from studyrag.reading import find_notes, read_note
    from studyrag.records import Note

    chosen = wiring.settings({})
    if out.exists():
        raise Misuse(f"{out} is there already", fix="name another file: what you checked would be lost")
    files, _skipped = find_notes(chosen.notes, exclude=chosen.exclude)
    read = [read_note(file, max_bytes=chosen.max_note_bytes) for file in files]
    proposed = drafts([note for note in read if isinstance(note, Note)], per_note=per_note)
    if not proposed:
        raise StudyRagError(f"nothing to ask in {chosen.notes}", fix="write golden questions by hand; see docs/cli.md")
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(to_jsonl(proposed))
    except OSError as err:
        raise StudyRagError(f"{out}: cannot be written: {err.strerror}", fix="name another file") from err
    say(f"wrote {len(proposed)} drafts into {out}")
    say('check each: question, evidence and reference; remove `"draft": true` from what is good, and the other lines')
