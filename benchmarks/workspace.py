"""What is measured on: a temporary copy of the shipped notes and index, so that nothing of the checkout changes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from machine import ROOT
from measuring import NotMeasured, Ran, run, say

HERE = Path(__file__).resolve().parent
GOLDEN = ROOT / "evals" / "golden" / "first_questions.jsonl"


@dataclass(frozen=True)
class Workspace:
    """A folder with studyrag.toml, corpus/ and an up-to-date indexes/corpus."""

    folder: Path

    @cached_property
    def questions(self) -> list[str]:
        """Those of the golden set, in its order."""
        return [str(row["question"]) for row in _golden()]

    @cached_property
    def covered_questions(self) -> list[str]:
        """Those that the notes answer."""
        return [str(row["question"]) for row in _golden() if row["notes"]]

    @cached_property
    def models(self) -> list[dict[str, Any]]:
        """The default models, as `studyrag models list --json` tells them."""
        found = json.loads(self.studyrag("models", "list", "--json").output)
        return [model for model in found if model["default"]]

    def model(self, kind: str) -> Path:
        """The default embedder's folder, or the default generator's file.

        :raises NotMeasured: when it is not installed.
        """
        model = next(one for one in self.models if one["kind"] == kind)
        if not model["path"]:
            raise NotMeasured(f"{model['name']} is not installed: studyrag models pull {model['name']}")
        return Path(model["path"])

    def studyrag(self, *arguments: str) -> Ran:
        """The installed command, as a fresh process in this folder."""
        return run([command(), *arguments], cwd=self.folder)

    def inside(self, script: str, *arguments: str | Path) -> dict[str, Any]:
        """What one of the scripts beside this one prints as JSON: it measures inside a process of its own."""
        out = run([sys.executable, HERE / script, *arguments], cwd=self.folder).output
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


@contextmanager
def workspace() -> Iterator[Workspace]:
    """A fresh copy, removed afterwards. Builds the index first where the checkout has none."""
    with TemporaryDirectory(prefix="studyrag-bench-") as name:
        made = Workspace(Path(name).resolve())
        for part in ("studyrag.toml", "corpus", "indexes/corpus"):
            _copy(ROOT / part, made.folder / part)
        say(f"bringing the index of a copy up to date in {made.folder}")
        made.studyrag("index", "--yes")
        yield made


def command() -> Path:
    """The `studyrag` of the environment that runs this."""
    found = shutil.which("studyrag", path=str(Path(sys.executable).parent))
    if found is None:
        raise NotMeasured(f"no studyrag beside {sys.executable}: run `make setup`, then `make bench`")
    return Path(found)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def _golden() -> list[dict[str, Any]]:
    return [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines() if line.strip()]
