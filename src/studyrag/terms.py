"""Technical text to index terms: one spelling for what people type and what notes contain.

``KV-cache``, ``kv cache`` and ``KVCache`` share terms; so do ``\\sqrt{d_k}``, ``√dₖ`` and ``sqrt(d_k)``, ``O(n²)`` and
``O(n^2)``, ``Qᵀ`` and ``Q^\\top``, ``GPT-4`` and ``gpt4``. English stop words go (stop-words), words are stemmed
(Snowball, PyStemmer); symbols, numbers and identifiers are kept as they are.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

VERSION = 2
"""Part of the index's identity: raise it whenever a text may give other terms than before."""

_GREEK = {
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"), strict=True)),
    "ς": "sigma", "ϵ": "epsilon", "∇": "nabla", "∂": "partial", "∑": "sum", "∏": "prod", "∫": "int", "∞": "infty",
    "√": "sqrt", "∈": "in",
}  # fmt: skip
_LATEX_NAMES = {"ell": "l", "varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi", "infinity": "infty"}
_LATEX_LAYOUT = frozenset(
    "text textbf textit texttt mathrm mathbf mathit mathsf mathtt mathcal mathbb mathfrak boldsymbol bm operatorname "
    "left right big Big bigl bigr Bigl Bigr bigg Bigg hat bar tilde vec dot ddot widehat widetilde overline underline "
    "overbrace underbrace underset overset frac dfrac tfrac binom begin end quad qquad cdot times ldots cdots dots "
    "displaystyle textstyle limits nolimits tag label notag nonumber middle mid vert Vert lVert rVert lvert rvert "
    "langle rangle lfloor rfloor lceil rceil to le ge leq geq ne neq approx sim equiv propto in notin pm "
    "aligned align cases matrix pmatrix bmatrix array stackrel phantom hspace vspace color star ast prime".split()
)
_TRANSPOSE = re.compile(r"\^\s*\{?\s*(?:\\top|\\intercal|⊤|\\(?:mathsf|mathrm|text)\s*\{\s*T\s*\}|T)\s*\}?(?![A-Za-z])")
_LATEX_FONT = re.compile(r"\\(?:text[a-z]*|math[a-z]+|operatorname|boldsymbol|bm|hat|bar|tilde|vec)\*?\s*\{([^{}]*)\}")
_LATEX_COMMAND = re.compile(r"\\([A-Za-z]+)\*?")
_SCRIPT_BRACES = re.compile(r"([_^])\s*\{\s*([^{}]*?)\s*\}")
_LINK_TARGET = re.compile(r"\]\((?!\s)[^)\s\]]*(?:\s+\"[^\"]*\")?\)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_WORD = re.compile(
    r"c\+\+|[cf]#|\d+(?:\.\d+)+[a-z]*|[^\W_]+(?:[_'’\-‐‑–/^][^\W_]+)*(?:\+{1,2}(?![\w+$\\]))?", re.IGNORECASE
)
_CAMEL = re.compile(r"(?:[A-Z][a-z]{2,}|[A-Z]{2,}(?=[A-Z][a-z]{2}))")
_LETTERS_DIGITS = re.compile(r"([a-z]{3,})\d+[a-z]?")
_LONGEST_NAME = 64
"""Letters of an identifier; longer words are data (base64, say), on which the search for capitals would be slow."""


def terms(text: str) -> list[str]:
    """Index terms in order, repeats kept. No usable word -> []."""
    stop, stem = _language()
    found: list[str] = []
    for match in _WORD.finditer(_plain(text)):
        found.extend(_forms(match.group()))
    return [stem(word) if word.isalpha() and len(word) > 2 else word for word in found if word not in stop]


def _forms(word: str) -> list[str]:
    """The spellings one written word is found by: its parts, and the parts joined."""
    if word.isalpha() and (word.islower() or word[1:].islower()):
        return [word.lower()]  # most words, told apart early: queries and whole folders come through here
    word = re.sub(r"['’](?:s|S)?\b", "", word)
    if word.endswith("+") and word.lower() != "c++":
        return [*_forms(word.rstrip("+")), word.lower()]
    if "/" in word:
        return [form for part in word.split("/") for form in _forms(part) if part]
    lower = word.lower()
    parts = [part for part in re.split(r"[_\-‐‑–^]+", lower) if part]
    joined = "".join(parts)
    if len(parts) > 1:
        if "_" in word or "^" in word:
            kept = [part for part in parts if len(part) > 1 and not part.isdigit()]
        else:
            kept = parts
        return [*kept, joined]
    camel = [part.lower() for part in _CAMEL.findall(word)] if len(word) <= _LONGEST_NAME else []
    if len(camel) > 1 and "".join(camel) == joined:
        return [*camel, joined]
    mixed = _LETTERS_DIGITS.fullmatch(joined)
    return [mixed.group(1), joined] if mixed else [joined]


def _plain(text: str) -> str:
    """LaTeX, Greek, sub- and superscripts to letters, digits, ``_`` and ``^``; accents dropped; link targets gone."""
    if "](" in text:
        text = _LINK_TARGET.sub("] ", text)
    if "\\" in text or "^" in text or "{" in text:
        text = _TRANSPOSE.sub("^T", text)
        text = _LATEX_FONT.sub(r"\1", _LATEX_FONT.sub(r"\1", text))
        text = _LATEX_COMMAND.sub(_command, text)
        for _ in range(3):
            text, changed = _SCRIPT_BRACES.subn(r"\1\2", text)
            if not changed:
                break
        text = re.sub(r"[_^]\s*(?=[^\w\s])", " ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(_symbol(text, at) for at in range(len(text)) if not unicodedata.combining(text[at]))
    if "^" in text:
        text = re.sub(r"(?<=\w)\^(?=\w)", "", text)
    return _THOUSANDS.sub("", text) if "," in text else text


def _command(match: re.Match[str]) -> str:
    name = match.group(1)
    return " " if name in _LATEX_LAYOUT else f" {_LATEX_NAMES.get(name, name)}"


def _symbol(text: str, at: int) -> str:
    name = _GREEK.get(text[at].lower())
    if name is None:
        return text[at]
    follows = text[at + 1 : at + 2]
    return f" {name}" + (" " if follows.isalpha() else "")


@lru_cache(maxsize=1)
def _language() -> tuple[frozenset[str], Any]:
    from Stemmer import Stemmer
    from stop_words import get_stop_words

    stop = frozenset(word.replace("'", "") for word in get_stop_words("english"))
    return stop | frozenset(get_stop_words("english")), Stemmer("english").stemWord
