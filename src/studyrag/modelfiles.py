"""What a fetched file must be before it is believed: its hash, its format, and text that names no code.

Pure checks on local files, for the store and its sources. Fetches nothing; deletes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studyrag.errors import ModelDamaged

if TYPE_CHECKING:
    from studyrag.catalogue import ModelFile

Tick = Callable[[int], None]
"""Called with the bytes of the model that are in place so far; may raise KeyboardInterrupt."""

PULL_AGAIN = "pull it again, or over another network"

_BLOCK = 1 << 20
_MAX_TEXT = 50_000_000
_NAMES_CODE = frozenset({"auto_map", "trust_remote_code", "custom_pipelines", "custom_code"})


def sha256_of(path: Path, on_bytes: Callable[[int], None] = lambda _n: None) -> str:
    """The hash of a file in lower-case hex; ``on_bytes`` gets the size of each block that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()


def check_file(path: Path, file: ModelFile, vouched: str | None) -> str:
    """The SHA-256 of ``path`` when it is an acceptable ``file``.

    ``vouched`` is the hash that the source gave for a file that the catalogue does not pin; None where it gave none,
    and then the hash is only recorded.

    :raises ModelDamaged: for a page of HTML, another format, unsafe settings, or a hash that is not the expected one.
    """
    _check_format(path, file.name)
    got = sha256_of(path)
    expected = file.sha256 or vouched
    if expected is not None and got != expected and not file.loose:
        raise ModelDamaged(f"{file.name}: wrong SHA-256: expected {expected}, got {got}", fix=PULL_AGAIN)
    return got


def is_html(path: Path) -> bool:
    """Whether the file begins as a web page does: what proxies and login pages answer in place of a file."""
    with path.open("rb") as stream:
        start = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"))


def _check_format(path: Path, name: str) -> None:
    if is_html(path):
        message = f"{name}: an HTML page came instead: a proxy or login page?"
        raise ModelDamaged(message, fix="open https://huggingface.co in a browser to log in to the network, then retry")
    if name.endswith(".gguf"):
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelDamaged(f"{name}: not a GGUF file", fix=PULL_AGAIN)
    elif name.endswith(".safetensors"):
        _check_safetensors(path, name)
    else:
        _check_text(path, name)


def _check_safetensors(path: Path, name: str) -> None:
    """The format: 8 bytes little-endian header length, then a JSON object of that length."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(1)
    if not 2 <= length <= max(path.stat().st_size - 8, 0) or header != b"{":
        raise ModelDamaged(f"{name}: not a safetensors file", fix=PULL_AGAIN)


def _check_text(path: Path, name: str) -> None:
    if path.stat().st_size > _MAX_TEXT:
        raise ModelDamaged(f"{name}: too large for a file of settings", fix=PULL_AGAIN)
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if name.endswith(".json") else None
    except (ValueError, RecursionError) as err:
        raise ModelDamaged(f"{name}: not the text it should be ({err})", fix=PULL_AGAIN) from err
    if name.endswith("modules.json"):
        _check_modules(value, name)
    if name.endswith("config.json"):
        _refuse_code(value, name)


def _check_modules(value: Any, name: str) -> None:
    """sentence-transformers imports what modules.json names, from the model's own folder too: only its own may be."""
    rows = value if isinstance(value, list) else [None]
    for row in rows:
        kind = str(row.get("type")) if isinstance(row, dict) else "?"
        place = str(row.get("path")) if isinstance(row, dict) else ".."
        if not kind.startswith("sentence_transformers.") or ".." in place or place.startswith("/"):
            raise ModelDamaged(f"{name}: asks for code from outside sentence-transformers ({kind})", fix=PULL_AGAIN)


def _refuse_code(value: Any, name: str) -> None:
    """Walks the whole value, as such keys also work in nested configurations."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key in _NAMES_CODE & item.keys():
                if item[key]:
                    raise ModelDamaged(f"{name}: asks for code to be run ({key})", fix=PULL_AGAIN)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
