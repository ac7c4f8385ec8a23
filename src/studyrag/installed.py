"""One installed model as it lies on disk: its manifest, written and read here, and whether its bytes still fit it.

Knows no catalogue of names and no cache; those are store.py's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from studyrag.catalogue import CatalogueEntry, ModelKind
from studyrag.modelfiles import sha256_of

if TYPE_CHECKING:
    from studyrag.fetching import Fetched
    from studyrag.protocols import Progress

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of an installed model. ``pinned``: its hash is the catalogue's or the hub's, not just recorded here."""

    name: str
    bytes: int
    sha256: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model on this disk. ``path`` is its folder; ``sha256`` that of its weights; ``pulled_at`` ISO 8601, UTC."""

    name: str
    kind: ModelKind
    path: Path
    sha256: str
    bytes: int
    source: str
    pulled_at: str
    files: tuple[StoredFile, ...]

    @property
    def file(self) -> Path:
        """What a loader opens: the folder of an embedder, the .gguf file of a generator."""
        return self.path if self.kind is ModelKind.EMBEDDER else self.path / self.files[0].name


def read_manifest(folder: Path) -> InstalledModel | None:
    """The manifest as it was written; None where it cannot be read."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(StoredFile(**row) for row in facts.pop("files"))
        return InstalledModel(**{**facts, "kind": ModelKind(facts["kind"]), "path": folder, "files": files})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_model(folder: Path) -> InstalledModel | None:
    """The model in ``folder``; None unless every file of its manifest is there at its size."""
    model = read_manifest(folder)
    if model is None or not model.files:
        return None
    try:
        whole = all((folder / file.name).stat().st_size == file.bytes for file in model.files)
    except OSError:
        return None
    return model if whole else None


def write_manifest(folder: Path, entry: CatalogueEntry, source: str, files: Sequence[StoredFile]) -> None:
    facts = {
        "name": entry.name,
        "kind": str(entry.kind),
        "sha256": files[0].sha256,
        "bytes": sum(file.bytes for file in files),
        "source": source,
        "pulled_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": [asdict(file) for file in files],
    }
    scratch = folder / f".{MANIFEST}"
    scratch.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    scratch.replace(folder / MANIFEST)


def stored_files(folder: Path, fetched: Fetched) -> list[StoredFile]:
    return [
        StoredFile(name, (folder / name).stat().st_size, sha256, pinned=name in fetched.pinned)
        for name, sha256 in fetched.sha256.items()
    ]


def damage(model: InstalledModel, progress: Progress) -> str:
    """What is wrong with the first file whose hash differs; empty when all are right."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        progress(f"{model.name}: verifying", done, model.bytes)

    for file in model.files:
        got = sha256_of(model.path / file.name, count)
        if got != file.sha256:
            return f"{file.name}: wrong SHA-256: expected {file.sha256}, got {got}"
    return ""
