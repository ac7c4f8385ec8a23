"""From sources to one folder of checked files: a path on this disk, or a model's own sources in order.

Chooses among sources and checks what they bring; how the hub and the wheels are read is hub.py's and wheels.py's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from studyrag.catalogue import CatalogueEntry, HubSource, ModelFile, Source
from studyrag.errors import Misuse, ModelDamaged, PullFailed, StudyRagError
from studyrag.modelfiles import Tick, check_file

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came: the source in words, the SHA-256 of each file, and the names of those that were checked by it."""

    source: str
    sha256: Mapping[str, str]
    pinned: frozenset[str]


def fetch(entry: CatalogueEntry, partial: Path, tick: Tick, notice: Callable[[str], None]) -> Fetched:
    """Put the model's checked files into ``partial / "ready"``, from the first source that has them.

    :raises PullFailed: with one line a source, when none has.
    """
    if os.environ.get("STUDYRAG_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on"):
        raise PullFailed(
            f"STUDYRAG_OFFLINE is set, so {entry.name} is not fetched",
            fix=f"unset STUDYRAG_OFFLINE, or `studyrag models pull {entry.name} --from PATH`",
        )
    failures: list[tuple[Source, StudyRagError]] = []
    for source in entry.sources:
        if failures:
            notice(f"{failures[-1][0].label}: {failures[-1][1].message}; trying {source.label}")
        try:
            return _from_source(source, entry, partial, tick)
        except (PullFailed, ModelDamaged) as err:
            failures.append((source, err))
    lines = "".join(f"\n  {source.label}: {err.message}" for source, err in failures)
    fix = f"{failures[0][1].fix}; or give a file that you have: `studyrag models pull {entry.name} --from PATH`"
    raise PullFailed(f"{entry.name} could not be fetched{lines}", fix=fix) from failures[-1][1]


def copy_from(path: Path, entry: CatalogueEntry, ready: Path, tick: Tick) -> Fetched:
    """Copy the model's files out of a folder, or its only file from a path of any name, and check the copies.

    :raises Misuse: when ``path`` is not there, or is one file of a model that has several.
    :raises ModelDamaged: when a file is not what it should be.
    """
    path = path.expanduser()
    if not path.exists():
        raise Misuse(f"{path}: no such file or folder", fix="give --from a file or folder that exists")
    if path.is_file() and len(entry.files) > 1:
        raise Misuse(f"{entry.name} has {len(entry.files)} files", fix="give --from the folder that holds them")
    try:
        done = 0
        for file in entry.files:
            origin = path if path.is_file() else path / file.name
            if not origin.is_file():
                raise ModelDamaged(f"{path}: holds no {file.name}", fix=f"give --from a folder that has {file.name}")
            done = _copy(origin, ready / file.name, done, tick)
        return _checked(entry, ready, {}, f"path {path.resolve()}")
    except BaseException:
        shutil.rmtree(ready, ignore_errors=True)
        raise


def _from_source(source: Source, entry: CatalogueEntry, partial: Path, tick: Tick) -> Fetched:
    vouched: Mapping[str, str] = {}
    if isinstance(source, HubSource):
        from studyrag.hub import fetch_hub

        into = partial / "hub"
        vouched = fetch_hub(source, entry.files, into, tick)
    else:
        from studyrag.wheels import fetch_wheels

        into = partial / "wheels"
        fetch_wheels(source, entry.files, into, tick)
    try:
        fetched = _checked(entry, into, vouched, source.label)
    except (ModelDamaged, FileNotFoundError):
        shutil.rmtree(into, ignore_errors=True)  # bad bytes must not be resumed from
        raise
    _move(entry.files, into, partial / "ready")
    return fetched


def _checked(entry: CatalogueEntry, folder: Path, vouched: Mapping[str, str], source: str) -> Fetched:
    hashes = {file.name: check_file(folder / file.name, file, vouched.get(file.name)) for file in entry.files}
    pinned = {file.name for file in entry.files if hashes[file.name] in (file.sha256, vouched.get(file.name))}
    return Fetched(source, hashes, frozenset(pinned))


def _move(files: tuple[ModelFile, ...], origin: Path, ready: Path) -> None:
    for file in files:
        target = ready / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        (origin / file.name).replace(target)


def _copy(origin: Path, target: Path, done: int, tick: Tick) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    with origin.open("rb") as source, target.open("wb") as copy:
        while block := source.read(_BLOCK):
            copy.write(block)
            done += len(block)
            tick(done)
    return done
