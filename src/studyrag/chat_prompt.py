"""A chat's messages to the tokens of a prompt, by the model's own template, in the batches in which they are evaluated.

Message contents are never read as control tokens: the template is rendered around placeholders, its own parts are
tokenised with control tokens and the contents without. So a note that contains ``<|im_end|>`` cannot end the prompt.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from studyrag.errors import GenerationFailed
from studyrag.llama_native import BATCH, MOST_OUTPUTS, NativeModel
from studyrag.records import Message

Render = Callable[[Sequence[Message]], str]

_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True, slots=True)
class Prompt:
    """``ends``: where the messages before the last end; ``content_end``: where the last one's content does.

    ``tail_end``: where its tail ends, as far as the tail's tokens are the same whatever follows; None without an order.
    """

    tokens: list[int]
    ends: list[int]
    content_end: int
    tail_end: int | None

    def batches(self) -> list[list[int]]:
        """The tokens, cut after every message, and before the last one's tail, or its order if it has one.

        So the next prompt can keep those it shares; the cuts depend on the prompt alone, so that the sums, and with
        them the reply, are the same whether a batch was kept or not. No cut for its own sake: a batch of a few tokens
        costs as much as 25 more. A tail that is to be kept goes with its content, if its tokens can all be weighed in
        one batch.
        """
        edges = {0, *self.ends, len(self.tokens)}
        if self.tail_end is None:
            edges.add(self.content_end)
        else:
            edges.add(self.tail_end)
            if self.tail_end - self.content_end >= MOST_OUTPUTS:  # one more is weighed: the one before the first
                edges.update(range(self.content_end, self.tail_end, MOST_OUTPUTS))
        return [
            self.tokens[at : min(at + BATCH, end)]
            for start, end in itertools.pairwise(sorted(edges))
            for at in range(start, end, BATCH)
        ]

    def weighing(self, tail: Sequence[int]) -> Prompt:
        """The prompt as far as it is evaluated to weigh every token of ``tail``, which comes after the content."""
        end = self.content_end
        return Prompt([*self.tokens[:end], *tail[:-1]], self.ends, end, end + len(tail) - 1)


def renderer(template: str, begin: str, end: str) -> Render:
    """Messages to the model's own chat format, by llama-cpp-python's sandboxed Jinja."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    formatter = Jinja2ChatFormatter(template=template, eos_token=end, bos_token=begin)

    def render(messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return str(formatter(messages=turns, enable_thinking=False).prompt)

    return render


def template_parts(render: Render, messages: Sequence[Message], path: Path) -> list[str]:
    """Template text and content numbers in turn: ``[text, "0", text, "1", text]``.

    A template that knows no system message gets that content at the head of the next message.

    :raises GenerationFailed: when the template refuses the messages or leaves one out.
    """
    from jinja2 import TemplateError

    marks = [Message(message.role, f"\ue000{i}\ue001") for i, message in enumerate(messages)]
    tries = [marks]
    if len(marks) > 1 and marks[0].role == "system":
        tries.append([Message(marks[1].role, f"{marks[0].content}\n\n{marks[1].content}"), *marks[2:]])
    reason = "it leaves a message out"
    for attempt in tries:
        try:
            parts = _PLACEHOLDER.split(render(attempt))
        except (TemplateError, ValueError, TypeError) as err:
            reason = str(err) or type(err).__name__
            continue
        if parts[1::2] == [str(i) for i in range(len(marks))]:
            return parts
    raise GenerationFailed(
        f"{path}: its chat template does not take these messages ({reason})",
        fix="use another model, or messages that alternate between user and assistant",
    )


def tokenised(native: NativeModel, render: Render, messages: Sequence[Message], path: Path) -> Prompt:
    """The prompt of these messages; ``path`` names the model in an error.

    Plain text of the template is tokenised together with the content beside it, as llama.cpp does it for a whole
    prompt: the only difference is that control tokens inside contents stay text.

    :raises GenerationFailed: when the template does not take the messages.
    """
    parts = template_parts(render, messages, path)
    tokens: list[int] = []
    ends: list[int] = []
    content_end = 0
    last = messages[-1]
    plain = ""
    for position, part in enumerate(parts):
        if position % 2:
            one = messages[int(part)]
            if one is last and one.text != one.content:
                tokens += native.tokenize(plain + one.content, special=False)
                content_end = len(tokens)
                plain = one.text[len(one.content) :]
            else:
                plain += one.text
            continue
        head, control, tail = _around_control(native, part)
        plain += head
        if control:
            tokens += native.tokenize(plain, special=False)
            if 0 < position < len(parts) - 1:
                ends.append(len(tokens))
            tokens += native.tokenize(control, special=True)
            plain = tail
    tokens += native.tokenize(plain, special=False)
    content_end = content_end or len(tokens)
    tail_end = None if last.order is None else content_end + _shared(native, last.tail, tokens[content_end:])
    begin = native.bos_to_add()
    if begin is not None and tokens[:1] != [begin]:
        tokens.insert(0, begin)
        ends, content_end = [end + 1 for end in ends], content_end + 1
        tail_end = None if tail_end is None else tail_end + 1
    return Prompt(tokens, ends, content_end, tail_end)


def _shared(native: NativeModel, tail: str, tokens: Sequence[int]) -> int:
    """How many of ``tokens`` are those of ``tail`` whatever follows it: its last may become one with what does."""
    own = native.tokenize(tail, special=False)[:-1]
    return next((at for at, (one, other) in enumerate(zip(own, tokens, strict=False)) if one != other), len(own))


def _around_control(native: NativeModel, part: str) -> tuple[str, str, str]:
    """Template text as plain head, the stretch from its first to its last control token, and plain tail."""
    written = [text for text in map(native.control_text, native.tokenize(part, special=True)) if text]
    if not written:
        return part, "", ""
    start, end = part.find(written[0]), part.rfind(written[-1]) + len(written[-1])
    return part[:start], part[start:end], part[end:]
