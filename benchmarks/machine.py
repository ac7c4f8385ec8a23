"""What was measured, and on what: commit, source, machine, versions, models. Starts no git, imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("studyrag", "onnxruntime", "tokenizers", "faiss-cpu", "numpy", "llama-cpp-python", "typer", "pydantic")


def facts() -> dict[str, Any]:
    """Everything but the models, JSON-ready."""
    return {
        "commit": commit(),
        "source_sha256": source_hash(),
        "machine": {
            "processor": _processor(),
            "cores": cores(),
            "memory_bytes": _memory(),
            "system": platform.platform(),
            "load_before": _load(),
        },
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def load_per_core() -> float | None:
    """Others' demand for the processor in the last minute; None where the system does not tell."""
    load = _load()
    return None if load is None else load / cores()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str | None:
    """The commit that is checked out, read from .git; None outside a checkout. ``source_hash`` tells local edits."""
    git = ROOT / ".git"
    try:
        if git.is_file():
            git = (ROOT / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
        loose = shared / name
        if loose.is_file():
            return loose.read_text(encoding="utf-8").strip()
        packed = (shared / "packed-refs").read_text(encoding="utf-8")
        found = re.search(rf"^([0-9a-f]{{40,}}) {re.escape(name)}$", packed, re.MULTILINE)
        return found.group(1) if found else None
    except OSError:
        return None


def source_hash() -> str:
    """SHA-256 over the program's and the corpus's files, names included: two runs with one hash measured one thing."""
    digest = hashlib.sha256()
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.toml"), *(ROOT / "corpus").rglob("*.md")]
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def model_hash(path: Path) -> str | None:
    """SHA-256 of an installed model's weights, from the manifest that the store wrote when it verified them."""
    folder = path if path.is_dir() else path.parent
    try:
        return str(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.processor()


def _memory() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
