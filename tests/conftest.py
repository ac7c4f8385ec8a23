"""Shared fixtures: no network, settings only from the test, real models from the cache that ``make setup`` fills."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from studyrag.embedding import HashEmbedder, OnnxEmbedder
from studyrag.store import ModelStore, default_cache

# The same examples in every run, no clock, nothing written into the repository.
settings.register_profile("studyrag", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("studyrag")

REPOSITORY = Path(__file__).parents[1]
_LOCAL = ("127.0.0.1", "::1", "localhost")


def load_script(path: str) -> ModuleType:
    """A script of the repository that is in no package, as a module."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine in no test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("STUDYRAG_") and name != "STUDYRAG_CACHE":
            monkeypatch.delenv(name)


def _installed(name: str) -> Path:
    store = ModelStore(default_cache())
    model = store.find(name)
    if model is None:
        pytest.fail(f"{name} is not installed: run `make setup-test`, or `studyrag models pull {name}`")
    return model.file


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return _installed("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> OnnxEmbedder:
    """The real default embedder."""
    return OnnxEmbedder(minilm_folder)


@pytest.fixture(scope="session")
def tiny_gguf() -> Path:
    """A real model that is only good for plumbing: its answers mean nothing."""
    return _installed("smollm2-135m-instruct")


@pytest.fixture
def hash_embedder() -> HashEmbedder:
    return HashEmbedder()


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


RunCli = Callable[..., Ran]


@pytest.fixture
def cli(tmp_path: Path) -> RunCli:
    """Runs the real command in a process of its own, offline, with the package's fake models unless told otherwise."""

    def run(
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes = "",
        under: Sequence[str] = (),
        timeout: float = 120,
        **popen: Any,
    ) -> Ran:
        done = subprocess.run(
            [*under, sys.executable, "-m", "studyrag", *arguments],
            cwd=cwd or tmp_path,
            env=cli_environment(env),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            **popen,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def cli_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command under test: fakes, no network, no settings of the person who runs the tests."""
    unwanted = ("STUDYRAG_", "PYTHONUNBUFFERED")  # unbuffered output would hide a missing flush
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    cache = {"STUDYRAG_CACHE": os.environ["STUDYRAG_CACHE"]} if "STUDYRAG_CACHE" in os.environ else {}
    fakes = {"STUDYRAG_EMBEDDER": "hash", "STUDYRAG_GENERATOR": "fake", "STUDYRAG_MIN_COVERAGE": "0"}
    return {**kept, **cache, **fakes, "STUDYRAG_OFFLINE": "1", "PYTHONWARNINGS": "error", **(more or {})}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A small notes folder with its studyrag.toml."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "studyrag.toml").write_text('notes = "."\nindex = ".studyrag"\n')
    (folder / "tea.md").write_text(
        "---\ntags: [drinks]\n---\n# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n\n"
        "## Black tea\n\nBlack tea is brewed with boiling water for four minutes.\n"
    )
    (folder / "bikes.md").write_text(
        "# Bikes\n\n## Chains\n\nA bicycle chain is oiled every 200 kilometres.\n\n## Tyres\n\n"
        "Road tyres are pumped to 7 bar.\n"
    )
    return folder
