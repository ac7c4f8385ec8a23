"""The header reader: a whole file passes; whatever is cut, foreign or garbled is named, never read past its end."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from studyrag.errors import ModelDamaged, ModelMissing
from studyrag.gguf import check_gguf


def gguf(*, tensor_bytes: int, template: str = "hi") -> bytes:
    """A file with one F32 tensor of 8 elements, that is 32 bytes."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    keys = [
        string("general.architecture") + struct.pack("<I", 8) + string("toy"),
        string("toy.context_length") + struct.pack("<II", 4, 77),
        string("tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("b"),
        string("scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12),
        string("tokenizer.chat_template") + struct.pack("<I", 8) + string(template),
    ]
    tensor = string("w") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + tensor
    return head + bytes(-len(head) % 32) + bytes(tensor_bytes)


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.gguf"
    path.write_bytes(gguf(tensor_bytes=32))
    header = check_gguf(path)
    assert (header.architecture, header.chat_template, header.context_length) == ("toy", "hi", 77)
    assert header.needed_bytes == path.stat().st_size
    path.write_bytes(gguf(tensor_bytes=32, template=""))
    assert check_gguf(path).chat_template is None


def test_a_real_file_is_exactly_as_long_as_its_tensors_need(tiny_gguf: Path) -> None:
    header = check_gguf(tiny_gguf)
    assert header.needed_bytes == tiny_gguf.stat().st_size
    assert header.chat_template is not None and "im_start" in header.chat_template
    assert header.context_length == 8192


def test_every_cut_is_found(tmp_path: Path) -> None:
    whole, path = gguf(tensor_bytes=32), tmp_path / "toy.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelDamaged) as raised:
            check_gguf(path)
        assert "studyrag models verify" in raised.value.fix
        assert str(path) in raised.value.message


def test_another_format_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelDamaged, match="not a GGUF model file"):
        check_gguf(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="no such model file") as raised:
        check_gguf(tmp_path / "none.gguf")
    assert "pull" in raised.value.fix
    with pytest.raises(ModelMissing, match="cannot be read"):
        check_gguf(tmp_path)


def test_garbled_headers_never_escape_as_other_errors(tmp_path: Path) -> None:
    whole, path, dice = gguf(tensor_bytes=32), tmp_path / "toy.gguf", random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(3):
            data[dice.randrange(4, len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            check_gguf(path)
        except ModelDamaged:
            continue
