"""The header of a GGUF model file: enough to say that the file is whole, and to read what must be known before loading.

llama.cpp refuses a cut file without saying why, and maps it into memory; hence this check of every tensor's extent
against the file's size, first. It does not read tensors and verifies no hash (`studyrag models verify` does).
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from studyrag.errors import ModelDamaged, ModelMissing

_FIX = "studyrag models verify; if it is damaged, pull the model again (studyrag models pull)"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# ggml type -> (elements of a block, bytes of a block); types that are not here count as 0 bytes
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``chat_template`` and ``context_length`` (tokens, as trained) are None where the file does not say.

    ``needed_bytes`` is the size that a complete file has at least.
    """

    architecture: str
    chat_template: str | None
    context_length: int | None
    needed_bytes: int


def check_gguf(path: Path) -> GgufHeader:
    """The header of a file that is a GGUF and holds all its tensors.

    :raises ModelMissing: when there is no such file.
    :raises ModelDamaged: when it is something else, or shorter than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelDamaged(f"{path}: not a GGUF model file", fix=_FIX)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _Reader(data).header()
    except FileNotFoundError as err:
        raise ModelMissing(f"{path}: no such model file", fix="studyrag models pull, or mend the path") from err
    except OSError as err:
        raise ModelMissing(f"{path}: cannot be read ({err.strerror})", fix="mend the path or its permissions") from err
    except (struct.error, OverflowError, UnicodeDecodeError, _Malformed) as err:
        raise ModelDamaged(f"{path}: its GGUF header is cut off or damaged ({size:,} bytes)", fix=_FIX) from err
    if size < header.needed_bytes:
        raise ModelDamaged(f"{path}: cut off: {size:,} bytes, but its tensors end at {header.needed_bytes:,}", fix=_FIX)
    return header


class _Malformed(Exception):
    """The bytes parse, but not as a GGUF of version 2 or later."""


class _Reader:
    """Walks the header once; every read beyond the end of the file raises struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def header(self) -> GgufHeader:
        if self._number("I") not in (2, 3):
            raise _Malformed
        tensors, keys = self._number("Q"), self._number("Q")
        values: dict[str, str | int | float | None] = {}
        for _ in range(keys):
            key = self._string()
            values[key] = self._value(self._number("I"))
        ends = [self._tensor_end() for _ in range(tensors)]
        alignment = _whole(values.get("general.alignment")) or 32
        start = -(-self._at // alignment) * alignment
        architecture, template = str(values.get("general.architecture", "")), values.get("tokenizer.chat_template")
        return GgufHeader(
            architecture=architecture,
            chat_template=template if isinstance(template, str) and template else None,
            context_length=_whole(values.get(f"{architecture}.context_length")),
            needed_bytes=start + max(ends, default=0),
        )

    def _number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value  # type: ignore[no-any-return]  # struct's tuples are untyped

    def _string(self) -> str:
        length = self._number("Q")
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise _Malformed
        return self._data[start : self._at].decode("utf-8")

    def _value(self, kind: int) -> str | int | float | None:
        """A scalar or a string; an array is stepped over and is None."""
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_code(kind))
        inner, count = self._number("I"), self._number("Q")
        if inner == _STRING:
            self._skip_strings(count)
        else:
            self._at += count * struct.calcsize("<" + _code(inner))
        return None

    def _skip_strings(self, count: int) -> None:
        """The vocabulary: 300,000 of them in a common model, hence the bare loop."""
        length_at, data, at = struct.Struct("<Q").unpack_from, self._data, self._at
        for _ in range(count):
            at += 8 + length_at(data, at)[0]
        self._at = at

    def _tensor_end(self) -> int:
        """Where this tensor's bytes end, counted from the start of the data."""
        self._string()
        elements = 1
        for _ in range(self._number("I")):
            elements *= self._number("Q")
        block, width = _BLOCKS.get(self._number("I"), (1, 0))
        return self._number("Q") + -(-elements // block) * width


def _code(kind: int) -> str:
    if kind not in _SCALARS:
        raise _Malformed
    return _SCALARS[kind]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
