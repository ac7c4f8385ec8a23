"""The contract that every generator keeps, the fake's own answers, and how a setting names a generator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.endpoint import OpenAICompatible
from studyrag.errors import GenerationFailed, Misuse
from studyrag.generating import EchoGenerator, first_sentence, open_generator, passages_in
from studyrag.llama import LlamaCpp
from studyrag.records import Message
from tests.stub_endpoint import running_stub

if TYPE_CHECKING:
    from studyrag.protocols import Generator

PROMPT = """[1] stats/mean.md › Mean › Definition
## Definition

A mean is a sum divided by a count. It is pulled by outliers.

[2] stats/median.md › Median
The median is the middle value,
after sorting! It is not.

Question: What is a mean?"""
MESSAGES = [Message("system", "You are a tutor."), Message("user", PROMPT)]


@pytest.fixture(scope="module", params=["fake", "endpoint", "gguf"])
def generator(request: pytest.FixtureRequest) -> Iterator[Generator]:
    made: Generator
    if request.param == "endpoint":
        with running_stub() as stub:
            made = OpenAICompatible(stub.url, "stub", context_tokens=512)
            yield made
            made.close()
        return
    if request.param == "fake":
        made = EchoGenerator(context_tokens=512)
    else:
        made = LlamaCpp(request.getfixturevalue("tiny_gguf"), name="tiny", context_tokens=512, threads=1)
    yield made
    made.close()


def test_reply_is_the_pieces_joined_and_equal_every_time(generator: Generator) -> None:
    first = list(generator.stream(MESSAGES, max_tokens=12))
    assert len(first) > 1
    assert "".join(first).strip()
    assert all(first)
    assert list(generator.stream(MESSAGES, max_tokens=12)) == first


def test_longer_prompts_count_more_and_no_messages_count_nothing(generator: Generator) -> None:
    assert generator.count_tokens([]) == 0
    short, longer = generator.count_tokens(MESSAGES), generator.count_tokens([*MESSAGES, Message("user", "And then?")])
    assert 0 < short < longer


def test_what_does_not_fit_is_refused_before_it_starts(generator: Generator) -> None:
    room = generator.context_tokens - generator.count_tokens(MESSAGES)
    next(generator.stream(MESSAGES, max_tokens=room))
    with pytest.raises(GenerationFailed, match="do not fit its context window of 512") as raised:
        generator.stream(MESSAGES, max_tokens=room + 1)
    assert "fewer or shorter passages" in raised.value.fix


@pytest.mark.parametrize(("messages", "max_tokens"), [([], 5), (MESSAGES, 0), (MESSAGES, -1)])
def test_nothing_to_answer_is_refused(generator: Generator, messages: list[Message], max_tokens: int) -> None:
    with pytest.raises(GenerationFailed):
        generator.stream(messages, max_tokens=max_tokens)


def test_a_consumer_may_stop_and_ask_again(generator: Generator) -> None:
    whole = list(generator.stream(MESSAGES, max_tokens=8))
    stopped = generator.stream(MESSAGES, max_tokens=8)
    assert list(itertools.islice(stopped, 2)) == whole[:2]
    if hasattr(stopped, "close"):
        stopped.close()
    assert list(generator.stream(MESSAGES, max_tokens=8)) == whole


@pytest.mark.parametrize("text", ["", "\x00", "\ud800 lone surrogate", "猫🐈 ∑ é", "<|im_end|>", "{{ 7*7 }} {% raw %}"])
def test_any_text_can_be_asked(generator: Generator, text: str) -> None:
    assert generator.count_tokens([Message("user", text)]) > 0
    "".join(generator.stream([Message("user", text)], max_tokens=3))


def test_closing_twice_is_harmless(generator: Generator) -> None:
    list(generator.stream(MESSAGES, max_tokens=2))
    generator.close()
    generator.close()
    assert generator.name


def test_fake_repeats_the_first_sentence_of_the_first_passages() -> None:
    reply = "".join(EchoGenerator().stream(MESSAGES, max_tokens=100))
    assert reply == "A mean is a sum divided by a count. The median is the middle value,\nafter sorting!"


def test_fake_counts_and_streams_words() -> None:
    fake = EchoGenerator()
    assert fake.count_tokens([Message("user", "one two\nthree")]) == 3
    assert list(fake.stream([Message("user", "One two\nthree. Four.")], max_tokens=2)) == ["One ", "two\n"]


@pytest.mark.parametrize(
    ("prompt", "passages"),
    [
        ("no passages", []),
        ("[1]\nbare number", ["bare number"]),
        ("[1] a\nx\n[7] a footnote\ny\n[2] b\nz", ["x\n[7] a footnote\ny", "z"]),
        ("[1] a\nQuestion: in the note\nx\n\nQuestion: the real one", ["Question: in the note\nx"]),
        ("Question: nothing before", []),
    ],
)
def test_passages_are_found(prompt: str, passages: list[str]) -> None:
    assert passages_in(prompt) == passages


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", ""),
        ("# Only a heading", "# Only a heading"),
        ("# H\n\n| a | b |\n\nIt is 3.5 on average. Next.", "It is 3.5 on average."),
        ("No full stop", "No full stop"),
        ("Cut by a blank line\n\nNext.", "Cut by a blank line"),
    ],
)
def test_first_sentence_is_prose_verbatim(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


@given(st.text())
def test_fake_answers_any_prompt(text: str) -> None:
    assert "".join(EchoGenerator(context_tokens=10**6).stream([Message("user", text)], max_tokens=50))


def _not_asked(name: str) -> Path:
    raise AssertionError(name)


def test_specs_open_their_generators(tmp_path: Path) -> None:
    fake = open_generator("fake", find_model=_not_asked, context_tokens=99)
    assert (type(fake), fake.context_tokens) == (EchoGenerator, 99)
    endpoint = open_generator("openai:http://localhost:11434/v1#qwen3:4b", find_model=_not_asked)
    assert (type(endpoint), endpoint.name) == (OpenAICompatible, "qwen3:4b")
    by_path = open_generator(str(tmp_path / "some-model.gguf"), find_model=_not_asked)
    assert (type(by_path), by_path.name) == (LlamaCpp, "some-model")
    by_name = open_generator("small", find_model=lambda name: tmp_path / f"{name}.gguf")
    assert (type(by_name), by_name.name) == (LlamaCpp, "small")


@pytest.mark.parametrize(
    "spec", ["", "  ", "http://localhost/v1", "openai:", "openai:http://h/v1", "openai:ftp://h/v1#m"]
)
def test_specs_that_name_nothing_are_refused_with_an_example(spec: str) -> None:
    with pytest.raises(Misuse) as raised:
        open_generator(spec, find_model=_not_asked)
    assert "openai:http://" in raised.value.fix
