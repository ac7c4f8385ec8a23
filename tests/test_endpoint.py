"""The endpoint adapter against a scripted server: what is sent, what is refused, and that the key stays secret."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from studyrag.endpoint import OpenAICompatible, estimate_tokens
from studyrag.errors import GenerationFailed, Misuse
from studyrag.llama import LlamaCpp
from studyrag.records import Message
from tests.stub_endpoint import Stub, event, running_stub, words

MESSAGES = [Message("system", "Be brief."), Message("user", "What is a mean?")]
KEY = "sk-very-secret"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running_stub() as made:
        yield made


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("STUDYRAG_API_KEY", raising=False)


def ask(stub: Stub, *, api_key: str | None = None, timeout_s: float = 10.0) -> str:
    generator = OpenAICompatible(stub.url + "/", "tiny", api_key=api_key, timeout_s=timeout_s, temperature=0.5, seed=7)
    try:
        return "".join(generator.stream(MESSAGES, max_tokens=33))
    finally:
        generator.close()


def failure(stub: Stub, *, api_key: str | None = None, timeout_s: float = 10.0) -> GenerationFailed:
    with pytest.raises(GenerationFailed) as raised:
        ask(stub, api_key=api_key, timeout_s=timeout_s)
    return raised.value


def test_request_and_reply(stub: Stub) -> None:
    stub.body = words("A mean — é 猫.")
    assert ask(stub) == "A mean — é 猫. "
    path, headers, body = stub.requests[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a mean?"}],
        "max_tokens": 33,
        "temperature": 0.5,
        "seed": 7,
        "stream": True,
    }


def test_key_from_the_environment_goes_to_the_host_only(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("STUDYRAG_API_KEY", KEY)
    ask(stub)
    assert stub.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    with running_stub() as elsewhere:
        stub.status, stub.headers = 307, {"Location": f"{elsewhere.url}/chat/completions"}
        assert "redirects to" in failure(stub).fix
        assert elsewhere.requests == []


def test_key_is_never_shown(stub: Stub) -> None:
    stub.status, stub.body = 401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    error = failure(stub, api_key=KEY)
    assert error.message.endswith("HTTP 401: Incorrect API key provided: ***")
    assert "STUDYRAG_API_KEY" in error.fix
    assert KEY not in repr(OpenAICompatible(stub.url, "m", api_key=KEY)) + repr(error) + error.fix


@pytest.mark.parametrize(
    ("status", "body", "shown", "fix"),
    [
        (404, '{"error": "model not found"}', "HTTP 404: model not found", "ollama pull"),
        (404, "<html>\n nowhere</html>", "HTTP 404: <html> nowhere</html>", "ends in /v1"),
        (403, '{"detail": "no"}', "HTTP 403: no", "may use this model"),
        (429, "{}", "HTTP 429: {}", "quota"),
        (400, '{"error": {"message": "context length"}}', "HTTP 400: context length", "context_tokens"),
        (503, "", "HTTP 503: it does not say why", "server's log"),
        (500, "[1]", "HTTP 500: [1]", "server's log"),
    ],
)
def test_refusals_say_what_the_server_said_and_the_fix(
    stub: Stub, status: int, body: str, shown: str, fix: str
) -> None:
    stub.status, stub.body = status, body
    error = failure(stub)
    assert error.message == f"tiny at {stub.url}/: {shown}".replace("/:", ":")
    assert fix in error.fix


def test_long_error_bodies_are_cut(stub: Stub) -> None:
    stub.status, stub.body = 500, "x" * 5000
    assert len(failure(stub).message) < 400


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = failure(Stub(url=f"http://127.0.0.1:{port}/v1"))
    assert "no connection" in error.message
    assert "start the server" in error.fix


def test_timeout(stub: Stub) -> None:
    stub.delay_s = 1.0
    error = failure(stub, timeout_s=0.1)
    assert "no answer within 0.1 s" in error.message
    assert "timeout" in error.fix


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (event("A mean"), "the reply was cut off"),
        ("", "the reply was cut off"),
        ("data: {not json\n\n", "not a chat-completions stream"),
        ('data: {"choices": 3}\n\n', "not a chat-completions stream"),
        ("data: []\n\n", "not a chat-completions stream"),
        ("<html>a web page</html>", "not a chat-completions stream"),
        ('{"choices": [{"message": {"content": "not streamed"}}]}', "not a chat-completions stream"),
        ('data: {"error": {"message": "out of memory"}}\n\n', ": out of memory"),
        (event("A", "content_filter"), "content filter"),
    ],
)
def test_broken_streams(stub: Stub, body: str, shown: str) -> None:
    stub.body = body
    assert shown in failure(stub).message


def test_a_stream_cut_within_the_announced_length(stub: Stub) -> None:
    stub.body, stub.headers = event("A mean"), {"Content-Length": "5000"}
    assert "the connection broke" in failure(stub).message


def test_a_reason_for_the_end_is_as_good_as_done(stub: Stub) -> None:
    stub.body = event("A mean") + event("", "length")
    assert ask(stub) == "A mean"


@pytest.mark.parametrize("url", ["", "localhost:11434", "http://", "http://user:pass@host/v1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(Misuse) as raised:
        OpenAICompatible(url, "m")
    assert "pass@" not in raised.value.message


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcdef gh", 4), ("a  b", 3), ("x = 10", 6), ("é猫", 5)]
)
def test_estimate_by_hand(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_estimate_exceeds_a_real_tokenizer(tiny_gguf: Path) -> None:
    """Also of text that is hard on tokenizers; the real count includes a template, so it is taken off."""
    model = LlamaCpp(tiny_gguf, name="tiny", threads=1)
    empty = model.count_tokens([Message("user", "")])
    notes = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[1].glob("corpus/*/*.md"))[::7]]
    hard = [
        "",
        "a",
        "antidisestablishmentarianism",
        "3.14159 + 2.71828j",
        "\n\n\n",
        "    if x:\n\t\treturn {}",
        "∑ᵢ xᵢ²",
        "平均値は合計を個数で割ったもの",
        "🐈\u200d⬛👩\u200d👩\u200d👧",
        "Größe naïve Ærø",
        "<|im_end|>",
        r"\frac{\partial L}{\partial w_{ij}}",
    ]
    for text in [*notes, *hard]:
        assert estimate_tokens(text) >= model.count_tokens([Message("user", text)]) - empty, text[:60]
    model.close()


def test_json_is_asked_for_by_a_strict_schema_at_temperature_0(stub: Stub) -> None:
    stub.body = words('{"a": 1}')
    made = OpenAICompatible(stub.url, "tiny", temperature=0.9)
    assert json.loads(made.write_json(MESSAGES, {"type": "object"}, max_tokens=20)) == {"a": 1}
    made.close()
    body = stub.requests[0][2]
    wanted = {"name": "reply", "strict": True, "schema": {"type": "object"}}
    assert body["response_format"] == {"type": "json_schema", "json_schema": wanted}
    assert (body["temperature"], body["max_tokens"]) == (0.0, 20)


def test_json_that_ends_for_want_of_tokens_is_an_error_but_text_is_not(stub: Stub) -> None:
    stub.body = event('{"a": ') + event(None, "length") + "data: [DONE]\n\n"
    made = OpenAICompatible(stub.url, "tiny")
    with pytest.raises(GenerationFailed, match="cut off for want of tokens"):
        made.write_json(MESSAGES, {}, max_tokens=2)
    assert "".join(made.stream(MESSAGES, max_tokens=2)) == '{"a": '
    made.close()
