"""studyrag.toml, environment variables and flags, merged and checked.

The file is found upwards from where the command runs; ``STUDYRAG_…`` variables override it, flags override both.
Unknown keys are refused with the nearest known one. Stops at the facade: below it, plain keyword arguments.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from studyrag.errors import SettingsError

FILE_NAME = "studyrag.toml"
_PREFIX = "STUDYRAG_"
_NOT_SETTINGS = frozenset({"STUDYRAG_CACHE", "STUDYRAG_OFFLINE", "STUDYRAG_API_KEY"})


class Settings(BaseModel):
    """Every setting with its default. Paths in studyrag.toml are relative to its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    notes: Path = Field(Path("."), description="Folder of markdown notes.")
    index: Path = Field(Path(".studyrag"), description="Folder of the index, made when missing.")
    exclude: tuple[str, ...] = Field((), description="Globs of notes to leave out, e.g. `archive/**`.")
    max_note_bytes: int = Field(4_000_000, ge=1_000, description="Larger notes are skipped, and reported.")
    stale: Literal["reindex", "warn"] = Field(
        "reindex",
        description="When notes changed since indexing: `reindex` indexes them before answering, `warn` says so and"
        " leaves them out.",
    )

    embedder: str = Field("all-MiniLM-L6-v2", description="Embedding model: a catalogue name, or a model's folder.")
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="Arithmetic of the embedder; int8 is faster, a little worse."
    )
    chunk_tokens: int = Field(
        256,
        ge=64,
        le=2048,
        description="Longest chunk in the embedder's tokens, heading path included; its window (256) is the limit.",
    )
    chunk_overlap: int = Field(
        0,
        ge=0,
        description="Tokens at most that a chunk repeats of the one before it, in whole blocks (paragraphs, lists,"
        " fences); half of `chunk_tokens` at most.",
    )
    heading_path: bool = Field(
        True,
        description="Whether a chunk is indexed together with the path of its headings. What counts as covered was"
        " measured with it.",
    )

    retriever: Literal["hybrid", "bm25", "dense"] = Field(
        "hybrid", description="Which arms rank the chunks: `hybrid`, `bm25` or `dense`."
    )
    candidates: int = Field(50, ge=1, le=1000, description="Chunks that each arm proposes.")
    dense_weight: float = Field(0.6, ge=0, le=1, description="Share of the dense arm in the fused score.")
    rerank: int = Field(
        0,
        ge=0,
        le=50,
        description="Chunks that the generator reads one by one to rank them anew, a second or two each.",
    )
    passages: int = Field(5, ge=1, le=20, description="Most passages the generator reads.")
    context_tokens: int = Field(900, ge=100, description="Most tokens of notes in a prompt, counted by the generator.")
    min_coverage: float = Field(
        0.3, ge=0, le=1, description="Estimated probability that the notes answer, below which no answer is given."
    )

    style: Literal["auto", "quote", "write"] = Field(
        "auto",
        description="Answers in the notes' own sentences (`quote`), or in the generator's words, each sentence checked"
        " (`write`); `auto` quotes where the generator runs here, and writes where it is a server.",
    )
    generator: str = Field(
        "qwen2.5-coder-1.5b-instruct",
        description="Catalogue name, path of a .gguf file, `openai:URL#MODEL`, or `fake`.",
    )
    judge: str = Field(
        "qwen2.5-coder-1.5b-instruct",
        description="Model that judges answers in `studyrag eval`: named as the generator is.",
    )
    answer_tokens: int = Field(320, ge=16, le=8192, description="Most tokens of an answer.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 always picks the likeliest token.")
    seed: int = Field(0, ge=0, description="Seed of the generator.")
    threads: int = Field(0, ge=0, description="Threads of the generator; 0: the physical cores that are free.")
    gpu_layers: int = Field(0, ge=-1, description="Layers of a GGUF model on the GPU; -1: all.")
    strict: bool = Field(False, description="Drop sentences that the notes do not support.")

    @field_validator("chunk_overlap")
    @classmethod
    def _overlaps_by_half_at_most(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("chunk_tokens", value * 2) // 2:
            raise ValueError("more than half of chunk_tokens")
        return value


def find_file(start: Path) -> Path | None:
    """The nearest studyrag.toml in ``start`` or above it."""
    start = start.resolve()
    for folder in (start, *start.parents):
        with contextlib.suppress(OSError):  # a folder that may not be looked into has none for us
            if (folder / FILE_NAME).is_file():
                return folder / FILE_NAME
    return None


def load_settings(
    start: Path, *, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """The settings in force at ``start``; ``flags`` with value None count as not given.

    :raises SettingsError: for no file (unless notes and index come from elsewhere), unknown keys and bad values.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    from_environment = {
        key[len(_PREFIX) :].lower(): value
        for key, value in environ.items()
        if key.startswith(_PREFIX) and key not in _NOT_SETTINGS
    }
    file = find_file(start)
    if file is None and "notes" not in {**from_environment, **given}:
        raise SettingsError(
            f"no {FILE_NAME} in {start.resolve()} or any folder above it",
            fix="run `studyrag init` in your notes folder, or go to a folder that has one",
        )
    values: dict[str, Any] = _read(file) if file else {}
    _refuse_unknown(values, where=str(file))
    values.update({key: _beside(file, values[key]) for key in ("generator", "judge", "embedder") if key in values})
    _refuse_unknown(from_environment, where="environment", spell=lambda key: _PREFIX + key.upper())
    home = file.parent if file else start.resolve()
    for source in (from_environment, given):
        values.update({key: _list(key, value) for key, value in source.items()})
    try:
        settings = Settings(**values)
    except ValidationError as err:
        raise _bad_value(err, file, from_environment, given) from err
    base = {"notes": home, "index": home}
    if "notes" in given:
        base["notes"] = start.resolve()
    placed = {key: (folder / _expanded(key, getattr(settings, key))).resolve() for key, folder in base.items()}
    return settings.model_copy(update=placed)


def _beside(file: Path | None, value: object) -> object:
    """A model's file or folder that studyrag.toml names relative to itself; any other value as it is."""
    if file is None or not isinstance(value, str) or value.startswith(("~", "openai:")):
        return value
    place = file.parent / value
    return str(place) if value.endswith(".gguf") or ("/" in value and place.is_dir()) else value


def _expanded(key: str, path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as err:
        raise SettingsError(
            f"setting `{key}` = '{path}': there is no such user", fix="write the folder in full"
        ) from err


def _list(key: str, value: object) -> object:
    return (
        tuple(part for part in value.split(os.pathsep) if part)
        if key == "exclude" and isinstance(value, str)
        else value
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SettingsError(f"{file}: not valid TOML: {err}", fix="correct that line") from err
    except OSError as err:
        raise SettingsError(f"{file}: cannot be read: {err.strerror}", fix="check its permissions") from err


def _refuse_unknown(values: Mapping[str, object], *, where: str, spell: Any = str) -> None:
    known = list(Settings.model_fields)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean `{spell(near[0])}`?" if near else f"known: {', '.join(known)}"
            raise SettingsError(f"{where}: unknown setting `{spell(key)}`", fix=hint)


def _bad_value(
    err: ValidationError, file: Path | None, from_environment: Mapping[str, object], given: Mapping[str, object]
) -> SettingsError:
    first = err.errors()[0]
    key = str(first["loc"][0])
    where = "the flag" if key in given else _PREFIX + key.upper() if key in from_environment else str(file)
    return SettingsError(
        f"setting `{key}` = {first['input']!r}: {first['msg']}",
        fix=f"{Settings.model_fields[key].description} Change it in {where}",
    )
