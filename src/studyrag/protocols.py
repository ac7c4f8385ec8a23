"""The seams: what a stage needs from the thing behind it. Small, synchronous, batch in and batch out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from studyrag.records import Message

    Vector = NDArray[np.float32]
    Vectors = NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total); total 0 means that it is not known. Must be cheap; may raise KeyboardInterrupt."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """The progress callback of those who show none."""


class Embedder(Protocol):
    """Text to unit vectors. ``id`` names model, weights and precision: two embedders with one id agree to 1e-4."""

    @property
    def id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """The window, special tokens included; what lies beyond it does not reach the vector."""
        ...

    def preload(self) -> None:
        """Starts loading in the background, where that helps; errors come at first use."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens included, before any truncation."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) float32, unit rows, in input order; no texts -> (0, dim)."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A generator that can also say how probable texts are, without writing any: it has its own probabilities."""

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        """For each of ``replies``, in order, ln P(reply begins with it), as far as its first ``most_tokens`` tokens.

        :raises GenerationFailed: as for ``Generator.stream``.
        """
        ...

    def weigh_tail(self, messages: Sequence[Message]) -> list[tuple[str, float]]:
        """Each token of the last message's tail with ln P(token | all before it); its order is not looked at.

        :raises GenerationFailed: as for ``Generator.stream``.
        """
        ...


@runtime_checkable
class StateReader(Protocol):
    """A generator that shows what it makes of a prompt before it writes: its own hidden state."""

    def hidden_state(self, messages: Sequence[Message]) -> Vector:
        """(d,) float32: the last layer's output, normalised as the output layer gets it, after the prompt's last token.

        :raises GenerationFailed: as for ``Generator.stream``.
        """
        ...


@runtime_checkable
class JsonWriter(Protocol):
    """A generator whose reply can be held to a JSON schema."""

    def write_json(self, messages: Sequence[Message], schema: Mapping[str, object], *, max_tokens: int) -> str:
        """One JSON value, as text, that fits ``schema`` (as far as the model's server holds it to that).

        :raises GenerationFailed: as for ``Generator.stream``, and when the reply is cut off at ``max_tokens``.
        """
        ...


class Generator(Protocol):
    """A chat model. Deterministic for equal input, seed and temperature."""

    @property
    def name(self) -> str:
        """What the answer's ``model`` says: a catalogue name, a file name, or an endpoint's model."""
        ...

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together may not exceed this."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole prompt as the model will read it, chat template included."""
        ...

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Pieces of the reply as they come; their concatenation is the reply.

        :raises GenerationFailed: when the model breaks off or cannot be reached.
        """
        ...

    def close(self) -> None:
        """Free what it holds; closing twice is harmless."""
        ...
