"""The checks of ``studyrag doctor``: each looks at one thing and knows its remedy."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studyrag.cli.terminal import size
from studyrag.errors import IndexMissing, StudyRagError

if TYPE_CHECKING:
    from studyrag.settings import Settings

_PACKAGES = ("faiss", "langchain_text_splitters", "llama_cpp", "onnxruntime", "rank_bm25", "sentence_transformers")
_LEAST_FREE = 500_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and how it went; ``remedy`` is empty where all is well."""

    what: str
    fine: bool
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every check, in the order in which to mend them. Those that need settings are left out when those are broken."""
    from studyrag.cli import wiring

    findings = [_python(), *_packages()]
    try:
        chosen = wiring.settings({})
    except StudyRagError as err:
        return [*findings, Finding("settings", False, err.message, err.fix)]
    findings.append(Finding("settings", True, f"notes {chosen.notes}, index {chosen.index}"))
    checks = (_notes, _embedder, _index, _staleness, _generator, _disk)
    return [*findings, *(_checked(check, chosen) for check in checks)]


def _checked(check: Callable[[Settings], Finding], chosen: Settings) -> Finding:
    try:
        return check(chosen)
    except StudyRagError as err:
        return Finding(check.__name__.strip("_"), False, err.message, err.fix)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    found = f"missing: {', '.join(missing)}" if missing else "all there"
    yield Finding(
        "packages", not missing, found, "install studyrag again: `make setup` or `pipx install --force .` in its clone"
    )


def _notes(chosen: Settings) -> Finding:
    from studyrag.reading import find_notes

    files, skipped = find_notes(chosen.notes, exclude=chosen.exclude)
    found = f"{len(files)} markdown files, {size(sum(file.size for file in files))}"
    if skipped:
        found += f", {len(skipped)} passed over ({skipped[0].path}: {skipped[0].reason})"
    return Finding("notes", bool(files), found, f"put .md files into {chosen.notes}")


def _embedder(chosen: Settings) -> Finding:
    from studyrag.cli import wiring

    embedder = wiring.open_embedder(chosen)
    vector = embedder.embed(["A test sentence."])[0]
    length = float((vector @ vector) ** 0.5)
    return Finding("embedder", abs(length - 1) < 1e-3, f"{embedder.id}, {embedder.dim} dimensions", "pull it again")


def _index(chosen: Settings) -> Finding:
    from studyrag.cli import wiring
    from studyrag.index import Index

    opened = Index(chosen.index, check_all=True)
    wanted = wiring.open_embedder(chosen).id
    fine = opened.recipe.embedder == wanted
    found = f"{opened.n_notes} notes, {opened.n_chunks} chunks, every checksum right"
    if not fine:
        found = f"built with {opened.recipe.embedder}, settings ask for {wanted}"
    return Finding("index", fine, found, "studyrag index --full")


def _staleness(chosen: Settings) -> Finding:
    from studyrag.building import find_changes
    from studyrag.index import Index

    try:
        opened = Index(chosen.index)
        changes = find_changes(opened, chosen.notes, exclude=chosen.exclude)
    except IndexMissing:
        return Finding("staleness", False, "no index", "studyrag index")
    other = opened.recipe.differing(chosen)
    if other and not changes:
        return Finding("staleness", False, f"the index was built with another {other}", "studyrag index")
    count = len(changes.added) + len(changes.changed) + len(changes.removed)
    return Finding(
        "staleness", not changes, f"{count} files differ from the index" if changes else "none", "studyrag index"
    )


def _generator(chosen: Settings) -> Finding:
    from studyrag.cli import wiring
    from studyrag.errors import ModelMissing
    from studyrag.records import Message

    generator = wiring.open_generator(chosen)
    if generator is None:
        raise ModelMissing(f"{chosen.generator} is not installed", fix=f"studyrag models pull {chosen.generator}")
    try:
        tokens = generator.count_tokens([Message("user", "Hello")])
        reply = "".join(generator.stream([Message("user", "Say hello.")], max_tokens=4))
    finally:
        generator.close()
    return Finding(
        "generator", True, f"{generator.name} opens and replies ({tokens} tokens in, {len(reply)} characters out)"
    )


def _disk(chosen: Settings) -> Finding:
    folder = chosen.index if chosen.index.exists() else chosen.notes
    free = shutil.disk_usage(folder).free
    return Finding(
        "disk", free > _LEAST_FREE, f"{size(free)} free", f"free {size(_LEAST_FREE)} for rebuilding the index"
    )
