"""``studyrag models``: what can be installed, what is, and putting it there or away.

Heavy modules are imported inside the commands, so that ``--help`` stays quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from studyrag.catalogue import CatalogueEntry
    from studyrag.installed import InstalledModel
    from studyrag.store import ModelStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich costs every --help 0.15 s
    help="Install, check and remove the models that answer and search.",
)

Name = Annotated[str, typer.Argument(help="A name from `studyrag models list`.", show_default=False)]


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print records instead of a table.")] = False,
) -> None:
    """Show every known model, and whether it is installed."""
    store = _store()
    rows = [(entry, store.find(entry.name)) for entry in store.catalogue.values()]
    if as_json:
        print(json.dumps([_record(entry, model) for entry, model in rows], indent=1))
    elif sys.stdout.isatty():
        _table(rows)
    else:
        _aligned([_HEADER, *(_cells(entry, model) for entry, model in rows)])


@app.command()
def pull(
    name: Name,
    source: Annotated[
        Path | None, typer.Option("--from", help="A file or folder that you have already.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")] = False,
) -> None:
    """Fetch a model, check every byte of it, and install it. A pull that was broken off goes on where it was."""
    from studyrag.catalogue import find_entry
    from studyrag.cli.terminal import progress, say, size

    store = _store()
    entry = find_entry(store.catalogue, name)
    if source is None and not yes and store.find(entry.name) is None and not _agreed(entry):
        say("nothing was fetched")
        raise typer.Exit(1)
    with progress(in_bytes=True) as callback:
        model = store.pull(entry.name, progress=callback, from_path=source, notice=say, finish=finisher(entry))
    say(f"{model.name}: {size(model.bytes)} from {model.source}, verified, in {model.path}")


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A name; all installed ones without it.", show_default=False)
    ] = None,
) -> None:
    """Hash the files of installed models and compare."""
    from studyrag.cli.terminal import progress, say

    store = _store()
    names = [name] if name else [model.name for model in store.installed() if model.name in store.catalogue]
    if not names:
        say("no model is installed")
    for one in names:
        with progress(in_bytes=True) as callback:
            model = store.verify(one, progress=callback)
        print(f"{model.name}: intact ({model.sha256})")


@app.command()
def path(name: Annotated[str, typer.Argument(help="A name, or a path to a .gguf file.", show_default=False)]) -> None:
    """Print where an installed model is: a folder for an embedder, the .gguf file for a generator."""
    print(_store().path(name))


@app.command()
def remove(name: Name) -> None:
    """Delete a model, and what an unfinished pull of it left."""
    from studyrag.cli.terminal import say, size

    freed = _store().remove(name)
    say(f"{name}: removed, {size(freed)} freed")


def _store() -> ModelStore:
    from studyrag.store import ModelStore, default_cache

    return ModelStore(default_cache())


def finisher(entry: CatalogueEntry) -> Callable[[Path], None] | None:
    """An embedder gets its ONNX twin before it becomes visible; a generator is complete as it came."""
    from studyrag.catalogue import ModelKind

    if entry.kind is not ModelKind.EMBEDDER:
        return None

    def finish(folder: Path) -> None:
        from studyrag.exporting import export_onnx, quantise_int8

        export_onnx(folder, folder, name=entry.name)
        quantise_int8(folder)

    return finish


_ASK_FROM = 500_000_000


def _agreed(entry: CatalogueEntry) -> bool:
    """Asks only before a large download, and only a person: a script's pull is an order."""
    from studyrag.cli.terminal import size

    if entry.bytes < _ASK_FROM or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    return typer.confirm(
        f"{entry.name} is {size(entry.bytes)}, licence {entry.licence}. Fetch it?", default=True, err=True
    )


def _record(entry: CatalogueEntry, model: InstalledModel | None) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": str(entry.kind),
        "bytes": model.bytes if model else entry.bytes,
        "installed": model is not None,
        "path": str(model.file) if model else None,
        "default": entry.default,
        "licence": entry.licence,
        "sources": [source.label for source in entry.sources],
    }


_HEADER = ("NAME", "KIND", "SIZE", "INSTALLED", "DEFAULT", "LICENCE", "NOTE")


def _cells(entry: CatalogueEntry, model: InstalledModel | None) -> tuple[str, ...]:
    from studyrag.cli.terminal import size

    about = "" if entry.weights.sha256 or model else "about "
    installed, default = "yes" if model else "-", "yes" if entry.default else "-"
    n_bytes = model.bytes if model else entry.bytes
    return (entry.name, str(entry.kind), about + size(n_bytes), installed, default, entry.licence, entry.summary)


def _table(rows: list[tuple[CatalogueEntry, InstalledModel | None]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in _HEADER:
        table.add_column(title.lower(), justify="right" if title == "SIZE" else "left", overflow="fold")
    for entry, model in rows:
        table.add_row(*_cells(entry, model), style="" if model else "dim")
    Console().print(table)


def _aligned(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
