"""Terms: what a person types and what a note contains meet, and nothing in a text can stop it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.terms import terms


@pytest.mark.parametrize(
    "spellings",
    [
        ("KV-cache", "kv cache", "KV_cache", "kv-caches", "KVCache", "kv/cache"),
        (r"\sqrt{d_k}", "√dₖ", "sqrt(d_k)", r"$\sqrt{d_{k}}$", "sqrt d_k"),
        ("L2", "l2", r"\ell_2", r"$L_{2}$", "L²", "L_2"),
        ("GPT-4", "gpt4", "GPT 4"),
        ("O(n²)", "O(n^2)", "$O(n^{2})$", "o(n2)"),
        ("Qᵀ", r"Q^\top", "Q^T", r"Q^{\top}", r"Q^{\mathsf{T}}", "QT"),
        ("α", r"\alpha", "alpha", "Alpha"),
        ("ε-greedy", r"$\epsilon$-greedy", "epsilon greedy", r"\varepsilon-greedy"),
        ("naïve", "naive", "nai\u0308ve"),
        ("10,000", "10000"),
        ("Bayes' rule", "Bayes’s rule", "bayes rule"),
        (r"\text{softmax}(x)", "softmax(x)", r"\mathrm{softmax}(x)", r"\operatorname{softmax}(x)"),
        ("cross-entropy", "cross entropy", "crossentropy"),
        ("log-likelihoods", "log likelihood"),
        ("embeddings", "embedding"),
    ],
)
def test_spellings_of_one_thing_share_a_term_with_the_first(spellings: tuple[str, ...]) -> None:
    wanted = set(terms(spellings[0]))
    assert wanted
    for spelling in spellings[1:]:
        assert wanted & set(terms(spelling)), spelling


@pytest.mark.parametrize(
    ("one", "other"),
    [("L1", "L2"), ("GPT-4", "GPT-3"), ("C++", "C"), ("C#", "C++"), ("BM25", "BM42"), ("0.5", "5"), ("d_k", "d_v")],
)
def test_things_that_differ_in_a_digit_or_sign_have_a_term_of_their_own(one: str, other: str) -> None:
    assert set(terms(one)) - set(terms(other))
    assert set(terms(other)) - set(terms(one))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ... --- $$ \\ ^_", []),
        ("what is the of and", []),
        ("The caches were cached", ["cach", "cach"]),
        ("running runs", ["run", "run"]),
        ("d_k", ["dk"]),
        ("max_new_tokens", ["max", "new", "token", "maxnewtoken"]),
        ("LayerNorm", ["layer", "norm", "layernorm"]),
        ("Llama3", ["llama", "llama3"]),
        (r"\frac{a_1}{b_2} \cdot \mathbf{W}", ["a1", "b2", "w"]),
        ("[shown](http://hidden.example/path)", ["shown"]),
    ],
)
def test_exact_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_repeats_are_kept_in_order() -> None:
    assert terms("tensor matrix tensor") == ["tensor", "matrix", "tensor"]


def test_stop_words_that_mean_something_in_mathematics_are_kept() -> None:
    assert terms("test value system") == ["test", "valu", "system"]


@given(st.text(max_size=200))
def test_any_text_gives_terms_without_spaces_and_the_same_ones_twice(text: str) -> None:
    found = terms(text)
    assert found == terms(text)
    assert all(term and not any(letter.isspace() for letter in term) for term in found)


@given(st.text(alphabet="\\{}^_$sqrtdk αβ√²ₖᵀ()'’-/.,0a", max_size=60))
def test_any_formula_gives_terms_without_its_marks(text: str) -> None:
    assert not any(mark in term for term in terms(text) for mark in "\\{}^_$ ()")


def test_a_hundred_thousand_characters_without_a_space_are_one_pass() -> None:
    assert len(terms("a_" * 50_000)) == 1
    assert terms("\\" * 100_000) == []
    assert terms("{" * 50_000 + "_{" * 25_000) == []
