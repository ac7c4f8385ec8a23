"""``studyrag init``, ``index``, ``status`` and ``doctor``: setting up and looking after an index."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from studyrag.index import Index
    from studyrag.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON record.")]

_TEMPLATE = """\
# studyrag: settings of the notes in this folder. `studyrag doctor` checks them; docs/settings.md lists them all.
notes = "."
index = ".studyrag"

# exclude = ["archive/**"]
# stale = "warn"             # when notes changed: warn instead of indexing them before the answer
# generator = "qwen2.5-coder-1.5b-instruct"   # or a .gguf file, or "openai:http://localhost:11434/v1#model"
"""


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of markdown notes.", show_default=True)] = Path("."),
) -> None:
    """Write studyrag.toml into a notes folder."""
    from studyrag.cli.terminal import say
    from studyrag.errors import Misuse, StudyRagError
    from studyrag.settings import FILE_NAME

    file = folder / FILE_NAME
    if not folder.is_dir():
        raise Misuse(f"{folder}: no such folder", fix=f"mkdir {folder}")
    if file.exists():
        raise Misuse(f"{file} is there already", fix="edit it, or delete it first")
    try:
        file.write_text(_TEMPLATE, encoding="utf-8")
    except OSError as err:
        with contextlib.suppress(OSError):
            file.unlink()
        raise StudyRagError(f"{file}: cannot be written: {err.strerror}", fix="make the folder writable") from err
    say(f"wrote {file}")
    say(f'next: cd {folder} && studyrag ask "…"')


def index(
    full: Annotated[bool, typer.Option("--full", help="Read and embed everything again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Fetch missing models without asking.")] = False,
) -> None:
    """Bring the index up to date with the notes. Only changed notes are read and embedded."""
    from studyrag.assistant import Assistant
    from studyrag.cli import wiring
    from studyrag.cli.terminal import progress, say

    started = time.perf_counter()
    chosen = wiring.settings({})
    embedder = wiring.open_embedder(chosen, yes=yes)
    with progress() as callback:
        built = Assistant(chosen, embedder, progress=callback, notice=say).index_notes(full=full)
    seconds = time.perf_counter() - started
    what = f"{built.embedded} chunks embedded from {built.reread} files read" if built.written else "nothing changed"
    say(f"{built.notes} notes, {built.chunks} chunks; {what}; {seconds:.1f} s; {chosen.index}")
    if built.skipped:
        say(f"{built.skipped} files skipped: `studyrag status` says why")


def status(as_json: AsJson = False) -> None:
    """Show what is indexed, what was skipped and why, the models, and whether the notes changed since."""
    from studyrag.cli import showing, wiring
    from studyrag.index import Index

    chosen = wiring.settings({})
    opened = Index(chosen.index)
    facts = _status(chosen, opened)
    if as_json:
        showing.print_json(facts)
        return
    _show_status(facts)


def _status(chosen: Settings, opened: Index) -> dict[str, Any]:
    from studyrag.building import find_changes

    changes = find_changes(opened, chosen.notes, exclude=chosen.exclude)
    notes = opened.notes()
    return {
        "notes_folder": str(chosen.notes),
        "index_folder": str(chosen.index),
        "notes": opened.n_notes,
        "chunks": opened.n_chunks,
        "terms": opened.n_terms,
        "index_bytes": opened.bytes,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(opened.created)),
        "embedder": opened.recipe.embedder,
        "chunk_tokens": opened.recipe.chunk_tokens,
        "other_setting": opened.recipe.differing(chosen) or None,
        "generator": chosen.generator,
        "stale": {"added": list(changes.added), "changed": list(changes.changed), "removed": list(changes.removed)},
        "skipped": [{"path": row.skipped.path, "reason": row.skipped.reason} for row in opened.skipped()],
        "front_matter_problems": [{"note": note.id, "problem": note.problem} for note in notes if note.problem],
        "tags": dict(sorted(Counter(tag for note in notes for tag in note.tags).items())),
        "folders": dict(sorted(Counter(note.id.rpartition("/")[0] or "." for note in notes).items())),
    }


def _show_status(facts: dict[str, Any]) -> None:
    from studyrag.cli.terminal import plain, size

    print(plain(f"notes      {facts['notes']} in {facts['notes_folder']}"))
    for folder, count in facts["folders"].items():
        print(plain(f"           {count:4} {folder}"))
    counts = f"{facts['chunks']} chunks, {facts['terms']} terms, {size(facts['index_bytes'])}"
    print(plain(f"index      {counts}, built {facts['created']}, in {facts['index_folder']}"))
    print(plain(f"embedder   {facts['embedder']}, chunks of up to {facts['chunk_tokens']} tokens"))
    print(plain(f"generator  {facts['generator']}"))
    stale = {what: names for what, names in facts["stale"].items() if names}
    print(f"stale      {'; '.join(f'{len(names)} {what}' for what, names in stale.items()) or 'no'}")
    if facts["other_setting"]:
        print(f"           the index was built with another {facts['other_setting']}")
    for names in stale.values():
        print("\n".join(plain(f"           {name}") for name in names[:20]))
    print(f"skipped    {len(facts['skipped'])}")
    for row in facts["skipped"]:
        print(plain(f"           {row['path']}: {row['reason']}"))
    for row in facts["front_matter_problems"]:
        print(plain(f"warning    {row['note']}: {row['problem']}"))
    if facts["tags"]:
        print(plain("tags       " + ", ".join(f"{tag} ({count})" for tag, count in facts["tags"].items())))


def doctor() -> None:
    """Check everything that answering needs; each failed check names its remedy."""
    from studyrag.cli.diagnosis import examine
    from studyrag.cli.terminal import plain

    findings = examine()
    for finding in findings:
        print(plain(f"{'ok  ' if finding.fine else 'FAIL'}  {finding.what}: {finding.found}"))
        if not finding.fine:
            print(plain(f"      remedy: {finding.remedy}"))
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)
