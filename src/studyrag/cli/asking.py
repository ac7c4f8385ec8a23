"""``studyrag ask`` and ``studyrag search``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from studyrag.settings import Settings

RERANKED = 10
"""Chunks of ``--rerank``, where the settings name no number."""
Question = Annotated[
    list[str] | None, typer.Argument(help="The question; `-` reads one a line from standard input.", show_default=False)
]
Paths = Annotated[
    list[str] | None,
    typer.Option("--path", help="Only notes whose path matches this glob or folder.", show_default=False),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", help="Only notes that have this tag in their front matter.", show_default=False),
]
Rerank = Annotated[
    bool | None,
    typer.Option(
        "--rerank/--no-rerank",
        help=f"Let the generator read the best chunks ({RERANKED}, or as many as the setting says) and rank them anew:"
        " slow.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON record, one a line.")]
Traced = Annotated[bool, typer.Option("--trace", help="Show each stage, its time and what it found, on stderr.")]


def ask(
    question: Question = None,
    path: Paths = None,
    tag: Tags = None,
    extract: Annotated[bool, typer.Option("--extract", help="Best sentences of the notes, no generator.")] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Let the generator write in its own words; each sentence is checked.")
    ] = False,
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Drop sentences that the notes do not support.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Generator for this call, as in the settings.", show_default=False)
    ] = None,
    rerank: Rerank = None,
    passages: Annotated[bool, typer.Option("--passages", help="Show what the model reads.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Fetch missing models without asking.")] = False,
    trace: Traced = False,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the notes, with citations, or say that they do not cover it."""
    from studyrag.cli import showing, wiring
    from studyrag.errors import Misuse

    questions = _questions(question)
    first = _checked(next(questions, ""))
    if extract and rerank:
        raise Misuse("--extract asks no generator, --rerank does", fix="pass one of them")
    chosen = _reranking(
        wiring.settings({"strict": strict, "generator": model, "style": "write" if write else None}), rerank
    )
    with wiring.assistant(chosen, generate=not extract, yes=yes, quiet=as_json) as assistant:
        batch = _is_batch(question)
        for one in _chain(first, questions):
            printer = showing.AnswerPrinter(folder=chosen.notes, show_passages=passages)
            for event in assistant.ask(one, paths=path or (), tags=tag or (), extract=extract):
                if not (as_json or batch):
                    printer.show(event)
            answer = assistant.last_answer
            if (as_json or batch) and answer is not None:
                showing.print_json(showing.answer_json(answer))
            if trace:
                showing.show_trace(assistant.last_trace)


def search(
    query: Question = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many chunks.")] = 5,
    retriever: Annotated[
        str | None, typer.Option("--retriever", help="hybrid, bm25 or dense.", show_default=False)
    ] = None,
    rerank: Rerank = None,
    path: Paths = None,
    tag: Tags = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Fetch missing models without asking.")] = False,
    trace: Traced = False,
    as_json: AsJson = False,
) -> None:
    """Show the chunks of the notes that fit a query best."""
    from studyrag.cli import showing, wiring

    questions = _questions(query)
    first = _checked(next(questions, ""))
    chosen = _reranking(wiring.settings({"retriever": retriever}), rerank)
    with wiring.assistant(chosen, generate=chosen.rerank > 0, searches=True, yes=yes, quiet=as_json) as assistant:
        for one in _chain(first, questions):
            hits = assistant.search(one, k, paths=path or (), tags=tag or ())
            if as_json or _is_batch(query):
                showing.print_json(showing.hits_json(one, hits, assistant.last_trace.timings_ms()))
            else:
                showing.show_hits(hits, folder=chosen.notes)
            if trace:
                showing.show_trace(assistant.last_trace)


def _reranking(chosen: Settings, wanted: bool | None) -> Settings:
    """The settings with what the flag says of ranking anew; None: as they are."""
    if wanted is None:
        return chosen
    return chosen.model_copy(update={"rerank": (chosen.rerank or RERANKED) if wanted else 0})


def _is_batch(words: list[str] | None) -> bool:
    return words == ["-"]


def _questions(words: list[str] | None) -> Iterator[str]:
    """The question of the command line, or those of standard input, blank lines left out."""
    if not _is_batch(words):
        yield " ".join(words or ()).encode(errors="surrogateescape").decode(errors="replace")  # argv may not be UTF-8
        return
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _checked(question: str) -> str:
    """Refused before any model is opened."""
    from studyrag.assistant import check_question

    check_question(question)
    return question


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
