"""Settings to a ready Assistant: opens the models, offering to fetch what is missing.

The only module that knows both the settings and the model store.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from studyrag.cli.terminal import progress, say, size

if TYPE_CHECKING:
    from studyrag.assistant import Assistant
    from studyrag.evals.judge import Judge
    from studyrag.protocols import Embedder, Generator
    from studyrag.settings import Settings


QUOTED = "the answer is the best sentences of the notes."
NOT_RANKED = "chunks are not ranked anew."
"""What having no generator means."""


def settings(flags: Mapping[str, object]) -> Settings:
    from studyrag.errors import SettingsError
    from studyrag.settings import load_settings

    try:
        here = Path.cwd()
    except OSError as err:
        raise SettingsError(f"the current folder cannot be used ({err.strerror})", fix="go to one that exists") from err
    return load_settings(here, flags=flags)


@contextmanager
def assistant(
    chosen: Settings, *, generate: bool = False, searches: bool = False, yes: bool = False, quiet: bool = False
) -> Iterator[Assistant]:
    """An Assistant with its embedder, and with a generator if ``generate`` and one is to be had; closed afterwards.

    ``searches``: it is asked for chunks alone.
    """
    from studyrag.assistant import Assistant

    embedder = open_embedder(chosen, yes=yes)
    embedder.preload()
    without = NOT_RANKED if searches else QUOTED
    generator = open_generator(chosen, yes=yes, without=without) if generate else None
    with progress(quiet=quiet) as callback:
        made = Assistant(chosen, embedder, generator, progress=callback, notice=say)
        try:
            yield made
        finally:
            made.close()


def open_embedder(chosen: Settings, *, yes: bool = False) -> Embedder:
    """:raises ModelMissing: when it is not installed and may not be fetched."""
    from studyrag import embedding

    if chosen.embedder == "hash":
        return embedding.HashEmbedder()
    folder = Path(chosen.embedder).expanduser()
    if not folder.is_dir():
        folder = _installed(chosen.embedder, yes=yes)
    return embedding.open_embedder(folder, precision=chosen.precision)


def open_generator(
    chosen: Settings,
    *,
    yes: bool = False,
    window: int = 0,
    without: str = QUOTED,
) -> Generator | None:
    """None, with a notice, when the model is not installed and was not fetched.

    ``window``: tokens at least; ``without``: what that means, for the notice.
    """
    from studyrag.errors import ModelMissing
    from studyrag.generating import open_generator as opened

    def find(name: str) -> Path:
        return _installed(name, yes=yes)

    try:
        return opened(
            chosen.generator,
            find_model=find,
            context_tokens=max(window, context_window(chosen)),
            threads=chosen.threads or None,
            gpu_layers=chosen.gpu_layers,
            seed=chosen.seed,
            temperature=chosen.temperature,
        )
    except ModelMissing as err:
        if chosen.generator.endswith(".gguf"):
            raise
        say(f"No generator ({err.message}): {without} With one: {err.fix}")
        return None


def open_generator_and_judge(
    chosen: Settings, embedder: Embedder, *, yes: bool = False
) -> tuple[Generator | None, str, Judge]:
    """The generator, what identifies it, and the judge: one loaded model for both where it is the same."""
    from studyrag.evals.judge import JUDGE_WINDOW, Judge

    generator_sha256, judge_sha256 = (model_sha256(name, yes=yes) for name in (chosen.generator, chosen.judge))
    if judge_sha256 != generator_sha256 or judge_sha256 == "fake":
        return open_generator(chosen, yes=yes), generator_sha256, open_judge(chosen, embedder, yes=yes)
    shared = open_generator(chosen, yes=yes, window=JUDGE_WINDOW)
    if shared is None:
        return None, "none", open_judge(chosen, embedder, yes=yes)
    return shared, generator_sha256, Judge(shared, embedder, sha256=judge_sha256)


def open_judge(chosen: Settings, embedder: Embedder, *, yes: bool = False) -> Judge:
    """:raises ModelMissing: when it is not installed and may not be fetched."""
    from studyrag.evals.judge import JUDGE_WINDOW, FakeJudgeModel, Judge
    from studyrag.generating import open_generator as opened

    sha256 = model_sha256(chosen.judge, yes=yes)
    if sha256 == "fake":
        return Judge(FakeJudgeModel(), embedder, sha256=sha256)
    model = opened(
        chosen.judge,
        find_model=lambda name: _installed(name, yes=yes),
        context_tokens=JUDGE_WINDOW,
        threads=chosen.threads or None,
        gpu_layers=chosen.gpu_layers,
    )
    return Judge(model, embedder, sha256=sha256)


def model_sha256(spec: str, *, yes: bool = False) -> str:
    """What identifies the model that ``spec`` names: the SHA-256 of a file, else the words themselves.

    A file outside the store is read for it, a second a GB. "none" for a generator that is not installed.
    """
    from studyrag.errors import ModelMissing
    from studyrag.generating import generator_kind
    from studyrag.gguf import check_gguf
    from studyrag.modelfiles import sha256_of
    from studyrag.store import ModelStore, default_cache

    if generator_kind(spec) != "gguf":
        return spec
    if spec.endswith(".gguf"):
        file = Path(spec).expanduser()
        check_gguf(file)
        return sha256_of(file)
    try:
        _installed(spec, yes=yes)
    except ModelMissing:
        return "none"
    found = ModelStore(default_cache()).find(spec)
    return found.sha256 if found else "none"


def context_window(chosen: Settings) -> int:
    """Tokens that prompt and answer can need: no more memory is taken than that."""
    room_for_question = 1024
    return chosen.context_tokens + chosen.answer_tokens + room_for_question


def _installed(name: str, *, yes: bool) -> Path:
    """Where the model is, fetching it first when ``yes``, or when the person at the terminal agrees."""
    from studyrag.catalogue import find_entry
    from studyrag.cli.models import finisher
    from studyrag.errors import ModelMissing
    from studyrag.store import ModelStore, default_cache

    store = ModelStore(default_cache())
    try:
        return store.path(name)
    except ModelMissing:
        entry = find_entry(store.catalogue, name) if not name.endswith(".gguf") else None
        if entry is None or not (yes or _agreed(f"{entry.name} is not installed ({size(entry.bytes)}). Fetch it now?")):
            raise
        with progress(in_bytes=True) as callback:
            return store.pull(name, progress=callback, notice=say, finish=finisher(entry)).file


def _agreed(question: str) -> bool:
    import typer

    return sys.stdin.isatty() and sys.stderr.isatty() and typer.confirm(question, default=True, err=True)
