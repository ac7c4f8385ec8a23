"""LangChain's environment: benchmarks/.venv, which sees the project's packages and adds LangChain's to them.

So both sides run the same torch, sentence-transformers, FAISS and rank-bm25, nothing large is fetched twice, and the
project's own environment never changes: pip leaves alone what lies outside the environment that it installs into.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

from measuring import NotMeasured, Ran, run, say
from workspace import HERE, Workspace

FOLDER = HERE / ".venv"
REQUIREMENTS = HERE / "langchain.txt"
SCRIPT = HERE / "langchain_hybrid.py"


@dataclass(frozen=True, slots=True)
class LangChain:
    """LangChain's hybrid over the workspace's chunks, saved and ready to be searched."""

    python: Path
    store: Path
    model: Path
    versions: dict[str, str]

    def search(self, question: str) -> Ran:
        """A whole fresh process: load the store, answer one question."""
        return run([self.python, SCRIPT, "search", self.store, self.model, question])


def prepared(work: Workspace) -> LangChain:
    """:raises NotMeasured: when its packages cannot be had."""
    python = _environment()
    store, model = work.folder / "langchain", work.model("embedder")
    say("saving LangChain's FAISS store of the same chunks")
    work.inside("inside_chunks.py", work.folder / "chunks.json")
    versions = json.loads(run([python, SCRIPT, "build", work.folder / "chunks.json", model, store]).output)
    return LangChain(python, store, model, versions)


def _environment() -> Path:
    """The Python of an environment that has what langchain.txt asks for."""
    scripts = sysconfig.get_path("scripts", "venv", {"base": str(FOLDER), "platbase": str(FOLDER)})
    python = Path(scripts) / Path(sys.executable).name
    done = FOLDER / ".done"
    wanted = f"{sys.version}\n{sysconfig.get_path('purelib')}\n{REQUIREMENTS.read_text(encoding='utf-8')}"
    if done.is_file() and done.read_text(encoding="utf-8") == wanted:
        return python
    say(f"making {FOLDER} for LangChain, once")
    venv.create(FOLDER, clear=True, with_pip=False, symlinks=sys.platform != "win32")
    own = sysconfig.get_path("purelib", "venv", {"base": str(FOLDER), "platbase": str(FOLDER)})
    (Path(own) / "project.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=False)
    if install.returncode != 0:
        raise NotMeasured("LangChain could not be installed: see pip's message, or use --no-langchain")
    done.write_text(wanted, encoding="utf-8")
    return python
