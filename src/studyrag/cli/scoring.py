"""``studyrag eval answers`` and ``studyrag eval judge``: the answers scored, and the judge that scores them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from studyrag.cli.evaluating import (
    AsJson,
    Baseline,
    Drafts,
    GoldenFile,
    HeldBack,
    Open,
    Report,
    WorstCount,
    WriteBaseline,
    Yes,
)

if TYPE_CHECKING:
    from studyrag.assistant import Assistant
    from studyrag.evals.answers import AnswerResults
    from studyrag.evals.cache import Cache
    from studyrag.evals.calibrating import Calibration
    from studyrag.evals.golden import Golden
    from studyrag.evals.judge import Judge
    from studyrag.evals.probing import Probe
    from studyrag.protocols import Embedder, Progress
    from studyrag.settings import Settings

SAMPLE = 35
PROBES = "probes.json"
"""Beside the calibrations, which are of judges with their probes."""
JudgeName = Annotated[
    str | None, typer.Option("--judge", help="The judging model, as in the settings.", show_default=False)
]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", help="Where answers and opinions are kept; else beside the index.", show_default=False),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="Calibrations of judges, probes.json beside them; else evals/judge/calibration.json.",
        show_default=False,
    ),
]
Items = Annotated[
    Path | None, typer.Option("--items", help="Folder of labelled items; else evals/judge.", show_default=False)
]


def answers(
    golden: GoldenFile = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, help=f"Questions, five of seven answerable; {SAMPLE} when not given."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All questions instead of a sample.")] = False,
    held_back: HeldBack = False,
    only_open: Open = False,
    strict: Annotated[bool | None, typer.Option("--strict", help="Drop sentences that are not supported.")] = None,
    judge: JudgeName = None,
    metrics: Annotated[
        Literal["all", "core", "fast"],
        typer.Option(
            "--metrics",
            help="all: RAGAS's six too; core: without its FactualCorrectness and AnswerRelevancy; fast: none of them.",
        ),
    ] = "all",
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another sample.")] = 0,
    shard: Annotated[
        str, typer.Option("--shard", help="Only part I of N, as I/N: processes share the work through the cache.")
    ] = "1/1",
    worst: WorstCount = 10,
    as_json: AsJson = False,
    drafts: Drafts = False,
    cache: CacheFolder = None,
    calibration: CalibrationFile = None,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = None,
    report: Report = None,
    yes: Yes = False,
) -> None:
    """Answer golden questions with the real pipeline and score the answers, by RAGAS and by metrics of our own.

    What was answered and judged is kept as it comes: after Ctrl-C the same command goes on where it was.
    """
    from studyrag.cli import evaluating, wiring
    from studyrag.evals.baseline import read_baseline
    from studyrag.evals.measuring import require_extra
    from studyrag.evals.ragas_metrics import CORE, RAGAS, require_ragas

    require_extra()
    ragas = {"all": RAGAS, "core": CORE, "fast": ()}[metrics]
    if ragas:
        require_ragas()
    held_to = read_baseline(baseline) if baseline else None
    chosen = wiring.settings({"strict": strict, "judge": judge})
    which, questions = _questions(golden, sample, every, held_back, only_open, seed, shard, drafts)
    about: dict[str, str | int] = {"selection": which, "seed": seed, "shard": shard, "strict": str(chosen.strict)}
    results = _measure(chosen, questions, about, ragas=ragas, cache=cache, calibration=calibration, yes=yes)
    _show(results, worst=worst, as_json=as_json)
    _write(results, report, write_baseline, worst=worst)
    if held_to is not None:
        evaluating.hold(results, held_to)


def _questions(
    golden: Path | None,
    sample: int | None,
    every: bool,
    held_back: bool,
    only_open: bool,
    seed: int,
    part: str,
    drafts: bool,
) -> tuple[str, tuple[Golden, ...]]:
    """(what was selected, in words; the questions of this shard)."""
    from studyrag.cli.evaluating import home
    from studyrag.errors import Misuse
    from studyrag.evals.golden import find_golden, load, select
    from studyrag.evals.samples import pick, shard

    if held_back and only_open:
        raise Misuse("--held-back and --open exclude each other", fix="pass one of them")
    if every and sample is not None:
        raise Misuse("--all and --sample exclude each other", fix="pass one of them")
    which = "held-back" if held_back else "open" if only_open else "all"
    file = golden or find_golden(home())
    questions = select(load(file, drafts=drafts), which)
    if not every:
        questions = pick(questions, sample or SAMPLE, seed=seed)
    if not any(one.answerable for one in questions):
        raise Misuse(f"{file}: no answerable questions among the {which} ones", fix="choose others, or --all")
    return f"{which}, {'every question' if every else f'a sample of {sample or SAMPLE}'}", shard(questions, part)


def _measure(
    chosen: Settings,
    questions: tuple[Golden, ...],
    about: dict[str, str | int],
    *,
    ragas: tuple[str, ...],
    cache: Path | None,
    calibration: Path | None,
    yes: bool,
) -> AnswerResults:
    from studyrag.assistant import Assistant
    from studyrag.cli import wiring
    from studyrag.cli.terminal import progress, say
    from studyrag.evals.golden import digest

    embedder = wiring.open_embedder(chosen, yes=yes)
    generator, generator_sha256, judge = wiring.open_generator_and_judge(chosen, embedder, yes=yes)
    judge = judge.with_probe(_probe(judge, calibration))
    known = _calibration(judge, calibration)
    about.update(
        golden_sha256=digest(questions),
        generator=generator.name if generator else "extract",
        generator_sha256=generator_sha256,
        judge=judge.name,
        judge_sha256=judge.sha256,
        judge_prompts=judge.prompts,
        calibration=known.labels_sha256 if known else "none",
        embedder=embedder.id,
    )
    with progress() as callback:
        assistant = Assistant(chosen, embedder, generator, progress=callback, notice=say)
        try:
            return _scored(
                assistant, chosen, embedder, judge, known, questions, about, _cache(chosen, cache), ragas, callback
            )
        finally:
            assistant.close()
            judge.close()


def _scored(
    assistant: Assistant,
    chosen: Settings,
    embedder: Embedder,
    judge: Judge,
    known: Calibration | None,
    questions: tuple[Golden, ...],
    about: dict[str, str | int],
    cache: Cache,
    ragas: tuple[str, ...],
    progress: Progress,
) -> AnswerResults:
    from studyrag.evals.answers import metric_names, score_all, summed_up
    from studyrag.evals.golden import stale
    from studyrag.evals.judgements import chances
    from studyrag.evals.ragas_metrics import RagasScorer
    from studyrag.evals.samples import answer_key, ask_all

    index = assistant.refresh()
    texts = {note.id: index.note_text(note.id) for note in index.notes()}
    outdated = stale(questions, texts)
    sound = [one for one in questions if one.id not in {old.id for old in outdated}]
    key = answer_key(assistant, chosen, embedder=embedder.id, generator=str(about["generator_sha256"]))
    samples = ask_all(assistant, sound, cache, key, progress=progress)
    scored, seconds = score_all(
        samples,
        sound,
        judge=judge,
        calibration=known,
        embedder=embedder,
        texts=texts,
        cache=cache,
        ragas=RagasScorer(judge, embedder, cache, chances(known), ragas) if ragas else None,
        progress=progress,
    )
    return summed_up(
        scored,
        names=metric_names(ragas),
        calibration=known,
        about=about,
        seconds=seconds,
        stale=[f"{one.id}: {one.what}" for one in outdated],
    )


def _calibration(judge: Judge, file: Path | None) -> Calibration | None:
    """That of this judge and these prompts; without one, a word on stderr, and no score is called calibrated."""
    from studyrag.cli.terminal import say
    from studyrag.evals.calibrating import read_calibration

    place = file or _labels(None) / "calibration.json"
    found = read_calibration(place, judge_sha256=judge.sha256, prompts=judge.prompts)
    if found is None:
        say(f"no calibration of judge {judge.name} in {place}: its scores are not calibrated (studyrag eval judge)")
    return found


def _probe(judge: Judge, calibrations: Path | None) -> Probe | None:
    """That of this judge, which stands beside the calibrations."""
    from studyrag.evals.probing import read_probe

    place = (calibrations or _labels(None) / "calibration.json").with_name(PROBES)
    return read_probe(place, judge_sha256=judge.sha256, asked=judge.asked)


def _labels(items: Path | None) -> Path:
    from studyrag.cli.evaluating import home

    return items or home() / "evals" / "judge"


def _cache(chosen: Settings, folder: Path | None) -> Cache:
    from studyrag.evals.cache import Cache

    return Cache(folder or chosen.index.with_name(f"{chosen.index.name}-evals"))


def _show(results: AnswerResults, *, worst: int, as_json: bool) -> None:
    from studyrag.cli import showing
    from studyrag.cli.terminal import plain
    from studyrag.evals.answer_tables import answer_tables
    from studyrag.evals.tables import markdown

    if as_json:
        showing.print_json(results.to_json())
    else:
        print(plain(markdown(answer_tables(results, worst=worst))), end="")


def _write(results: AnswerResults, report: Path | None, baseline: Path | None, *, worst: int) -> None:
    from studyrag.cli.terminal import say

    if report is not None:
        from studyrag.evals.answer_plots import answer_plots
        from studyrag.evals.answer_tables import answer_tables
        from studyrag.evals.report import Section, write_section

        made = Section("answers", "Answers", answer_plots(results), answer_tables(results, worst=worst))
        for file in write_section(made, report):
            say(f"wrote {file}")
    if baseline is not None:
        from studyrag.evals.baseline import write_baseline

        write_baseline(results, baseline)
        say(f"wrote {baseline}")


def judge(
    judge: JudgeName = None,
    items: Items = None,
    calibration: CalibrationFile = None,
    cache: CacheFolder = None,
    as_json: AsJson = False,
    report: Report = None,
    yes: Yes = False,
) -> None:
    """Judge the judge on labelled items: calibrate it on half of the notes, measure it on the others.

    Where the folder has statements to train on, a probe of the judge's hidden state is trained on them first.
    """
    from studyrag.cli import showing, wiring
    from studyrag.cli.terminal import plain, progress, say
    from studyrag.evals.answer_tables import judge_tables
    from studyrag.evals.calibrating import write_calibration
    from studyrag.evals.judged import judge_the_judge, trained
    from studyrag.evals.measuring import require_extra
    from studyrag.evals.probing import write_probe
    from studyrag.evals.tables import markdown

    require_extra()
    chosen = wiring.settings({"judge": judge})
    opened = wiring.open_judge(chosen, wiring.open_embedder(chosen, yes=yes), yes=yes)
    folder, kept = _labels(items), _cache(chosen, cache)
    place = calibration or folder / "calibration.json"
    try:
        with progress() as callback:
            known = _probe(opened, place) or _probe(opened, folder / "calibration.json")
            probe = trained(opened, folder, kept, known=known, progress=callback)
            if probe is not None:
                write_probe(place.with_name(PROBES), probe)
            results = judge_the_judge(opened.with_probe(probe), folder, kept, progress=callback)
    finally:
        opened.close()
    write_calibration(place, results.calibration)
    if as_json:
        showing.print_json(results.to_json())
    else:
        print(plain(markdown(judge_tables(results))), end="")
    if report is not None:
        from studyrag.evals.answer_plots import judge_plots
        from studyrag.evals.report import Section, write_section

        for file in write_section(Section("judge", "The judge", judge_plots(results), judge_tables(results)), report):
            say(f"wrote {file}")
    say(f"wrote {place}" + (f" and {place.with_name(PROBES)}" if probe else ""))
