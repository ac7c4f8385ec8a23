"""Which generators there are, how a setting names one, and the fake that tests and demonstrations use.

The other two live in ``llama`` (a GGUF file, run here) and ``endpoint`` (a server). No prompt is written here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studyrag.endpoint import OpenAICompatible
from studyrag.errors import Misuse
from studyrag.llama import LlamaCpp
from studyrag.room import require_room

if TYPE_CHECKING:
    from studyrag.protocols import Generator
    from studyrag.records import Message

_PASSAGE = re.compile(r"^\[(\d+)\](?: .*)?$", re.MULTILINE)
_QUESTION = re.compile(r"^Question:", re.MULTILINE)
_NOT_PROSE = re.compile(r"\s*(?:#|\||```|~~~|\$\$|---)|\s*$")
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s|$)|\Z)", re.DOTALL)


class EchoGenerator:
    """Answers with the first sentence of each of the first passages, verbatim: deterministic, checkable, no model.

    A token is a word. A prompt without passages is answered with the first sentence of its last message.
    """

    def __init__(self, *, passages: int = 2, context_tokens: int = 4096) -> None:
        self._passages, self._context_tokens = passages, context_tokens

    @property
    def name(self) -> str:
        return "fake"

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Words, at least 1 a message; no messages -> 0."""
        return sum(max(1, len(message.text.split())) for message in messages)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Word by word, each with the white space after it."""
        require_room(
            self.name,
            prompt_tokens=self.count_tokens(messages),
            max_tokens=max_tokens,
            context_tokens=self._context_tokens,
        )
        content = messages[-1].text
        sentences = [first_sentence(text) for text in passages_in(content)[: self._passages]]
        reply = " ".join(filter(None, sentences)) or first_sentence(content) or "Nothing was asked."
        return iter(re.findall(r"\S+\s*", reply)[:max_tokens])

    def close(self) -> None:
        return


def passages_in(prompt: str) -> list[str]:
    """Texts of the passages: each follows its line ``[1] path``, ``[2] path`` …; the last ``Question:`` ends them.

    A line ``[7] …`` out of sequence is part of a text.
    """
    questions = list(_QUESTION.finditer(prompt))
    end = questions[-1].start() if questions else len(prompt)
    texts: list[str] = []
    start = None
    for marker in _PASSAGE.finditer(prompt, 0, end):
        if int(marker[1]) != len(texts) + (1 if start is None else 2):
            continue
        if start is not None:
            texts.append(prompt[start : marker.start()].strip())
        start = marker.end()
    return texts if start is None else [*texts, prompt[start:end].strip()]


def first_sentence(text: str) -> str:
    """The first sentence of the first lines that are prose, verbatim; else the first line; no text -> ""."""
    lines = text.strip().splitlines()
    prose = next((i for i, line in enumerate(lines) if not _NOT_PROSE.match(line)), None)
    if prose is None:
        return lines[0] if lines else ""
    paragraph = re.split(r"\n\s*\n", "\n".join(lines[prose:]), maxsplit=1)[0]
    match = _SENTENCE.search(paragraph)
    return match[0].strip() if match else ""


def _open_fake(_spec: str, *, context_tokens: int, **_: object) -> Generator:
    return EchoGenerator(context_tokens=context_tokens)


def _open_endpoint(
    spec: str, *, context_tokens: int, seed: int, temperature: float, timeout_s: float, api_key: str | None, **_: object
) -> Generator:
    base_url, _hash, model = spec.removeprefix("openai:").partition("#")
    return OpenAICompatible(
        base_url,
        model,
        api_key=api_key,
        timeout_s=timeout_s,
        temperature=temperature,
        seed=seed,
        context_tokens=context_tokens,
    )


def _open_gguf(
    spec: str,
    *,
    find_model: Callable[[str], Path],
    context_tokens: int,
    threads: int | None,
    gpu_layers: int,
    seed: int,
    temperature: float,
    repeat_penalty: float,
    **_: object,
) -> Generator:
    is_path = spec.endswith(".gguf")
    path = Path(spec).expanduser() if is_path else find_model(spec)
    return LlamaCpp(
        path,
        name=path.stem if is_path else spec,
        context_tokens=context_tokens,
        threads=threads,
        gpu_layers=gpu_layers,
        seed=seed,
        temperature=temperature,
        repeat_penalty=repeat_penalty,
    )


GENERATORS: Mapping[str, Callable[..., Generator]] = {
    "gguf": _open_gguf,
    "openai": _open_endpoint,
    "fake": _open_fake,
}


def generator_kind(spec: str) -> str:
    """Key of GENERATORS: ``fake``, ``openai:URL#MODEL``, else a .gguf file or a catalogue name.

    :raises Misuse: for an empty name, or a server's address without ``openai:`` before it.
    """
    kind = spec if spec == "fake" else "openai" if spec.startswith("openai:") else "gguf"
    if not spec.strip() or spec.startswith(("http://", "https://")):
        raise Misuse(
            f"no generator is called {spec!r}",
            fix="give a catalogue name, a path to a .gguf file, openai:http://HOST/v1#MODEL, or fake",
        )
    return kind


def open_generator(
    spec: str,
    *,
    find_model: Callable[[str], Path],
    context_tokens: int = 4096,
    threads: int | None = None,
    gpu_layers: int = 0,
    seed: int = 0,
    temperature: float = 0.0,
    repeat_penalty: float = 1.0,
    timeout_s: float = 120.0,
    api_key: str | None = None,
) -> Generator:
    """The generator that ``spec`` names. ``find_model`` turns a catalogue name into its file. Nothing is loaded yet.

    :raises Misuse: when ``spec`` names none; whatever ``find_model`` raises is passed on.
    """
    return GENERATORS[generator_kind(spec)](
        spec,
        find_model=find_model,
        context_tokens=context_tokens,
        threads=threads,
        gpu_layers=gpu_layers,
        seed=seed,
        temperature=temperature,
        repeat_penalty=repeat_penalty,
        timeout_s=timeout_s,
        api_key=api_key,
    )
