"""The command tree. Heavy modules are imported inside the commands, so that ``--help`` stays quick."""

from __future__ import annotations

from typing import Annotated

import typer

from studyrag.cli import asking, evaluating, models, scoring, upkeep

app = typer.Typer(
    name="studyrag",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Answers from your own markdown notes, with citations to the exact lines, or an honest 'not covered'.",
)
app.command("ask")(asking.ask)
app.command("search")(asking.search)
app.command("init")(upkeep.init)
app.command("index")(upkeep.index)
app.command("status")(upkeep.status)
app.command("doctor")(upkeep.doctor)
app.add_typer(models.app, name="models")
evaluating.app.command("answers")(scoring.answers)
evaluating.app.command("judge")(scoring.judge)
app.add_typer(evaluating.app, name="eval")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"studyrag {version('studyrag')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of the command itself."""
