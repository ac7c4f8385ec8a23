"""Writes the workspace's chunks for LangChain: ``[{"id", "text"}]``, the text that studyrag itself embeds.

Run in the workspace: ``python inside_chunks.py OUT.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from studyrag.index import Index
from studyrag.records import embedding_text
from studyrag.settings import load_settings


def main(out: Path) -> None:
    index = Index(load_settings(Path.cwd()).index)
    chunks = [{"id": chunk.id, "text": embedding_text(chunk)} for chunk, _ in index.all_chunks()]
    out.write_text(json.dumps(chunks), encoding="utf-8")
    print(json.dumps({"chunks": len(chunks)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
