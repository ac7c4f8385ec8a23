"""Sentences: nothing is lost, maths, code and lists stay whole, and a stream gives what the whole text gives."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag.sentences import SentenceStream, UnitKind, units
from tests.makers import markdown, paragraphs

HARD = st.text(alphabet="aB1.!?`$\\()[]|-*#~>: \n_e", max_size=80)


def texts(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in units(text)]


def kinds(text: str) -> list[UnitKind]:
    return [unit.kind for unit in units(text)]


def streamed(text: str, cuts: list[int]) -> list[str]:
    """The sentences of a text that arrives in pieces, cut at ``cuts``."""
    stream = SentenceStream()
    edges = [0, *sorted({cut for cut in cuts if cut < len(text)}), len(text)]
    done = [sentence for start, end in itertools.pairwise(edges) for sentence in stream.feed(text[start:end])]
    return [*done, *stream.rest()]


# -- units -----------------------------------------------------------------------------------------------------------


@given(st.one_of(markdown, HARD))
def test_units_are_in_order_apart_and_without_white_space_around_sentences(text: str) -> None:
    end = 0
    for unit in units(text):
        assert end <= unit.start < unit.end <= len(text)
        end = unit.end
        if unit.kind is UnitKind.SENTENCE:
            assert text[unit.start : unit.end] == text[unit.start : unit.end].strip()


@given(markdown)
def test_no_text_is_lost_but_headings_table_rules_and_list_markers(text: str) -> None:
    inside = {at for unit in units(text) for at in range(unit.start, unit.end)}
    lost = "".join(letter if at not in inside else " " for at, letter in enumerate(text))
    for line in lost.split("\n"):
        assert re.fullmatch(r"\s*|#+ .*|[-|\s]*|- *", line), line


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It is 3.5 times e.g. Adam vs. SGD. Next.", ["It is 3.5 times e.g. Adam vs. SGD.", "Next."]),
        ("See Fig. 3 and Eq. 2. Dr. Smith et al. Showed it.", ["See Fig. 3 and Eq. 2.", "Dr. Smith et al. Showed it."]),
        ('He said "stop." Then (see it.) It went.', ['He said "stop."', "Then (see it.)", "It went."]),
        ("Use `a. B` here. `np.sum` adds.", ["Use `a. B` here.", "`np.sum` adds."]),
        ("Let $x. Y$ be. $z$ is.", ["Let $x. Y$ be.", "$z$ is."]),
        (r"Let \(a. B\) be. Then \[c. D\] is.", [r"Let \(a. B\) be.", r"Then \[c. D\] is."]),
        ("It costs $5. Then $6. Done.", ["It costs $5.", "Then $6.", "Done."]),
        ("See [a](http://x. Y/z). End.", ["See [a](http://x. Y/z).", "End."]),
        ("An array x.shape of 3. of them", ["An array x.shape of 3. of them"]),
        ("$$E = mc^2$$ is energy. It is old.", ["$$E = mc^2$$ is energy.", "It is old."]),
        ("Use it. ```x. Y``` does. Foo.", ["Use it.", "```x. Y``` does.", "Foo."]),
        ("```x. Y``` does. Foo.", ["```x. Y``` does.", "Foo."]),
        ("**Bold.** *Also.* Plain.", ["**Bold.**", "*Also.*", "Plain."]),
        ("Wait... What?", ["Wait...", "What?"]),
        ("Zeile eins. Über uns.", ["Zeile eins.", "Über uns."]),
        ("A line\nthat goes on. Next\none.", ["A line\nthat goes on.", "Next\none."]),
        ("", []),
        (" \n\n\t", []),
    ],
)
def test_prose_is_cut_at_its_sentences_only(text: str, sentences: list[str]) -> None:
    assert texts(text) == sentences
    assert set(kinds(text)) <= {UnitKind.SENTENCE}


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ("```python\nx = 1. Y\n\n# Not a heading. No\n```", UnitKind.CODE),
        ("~~~\na. B\n```\nc. D\n~~~", UnitKind.CODE),
        ("$$\nx. Y\n\n= 2\n$$", UnitKind.MATH),
        ("$$x. Y$$", UnitKind.MATH),
        ("$$ x. Y\n+ z $$", UnitKind.MATH),
        ("\\[\nx. Y\n\\]", UnitKind.MATH),
        ("\\[ x. Y \\]", UnitKind.MATH),
        ("| a. B | c |", UnitKind.ROW),
    ],
)
def test_fences_formulas_and_rows_are_whole(block: str, kind: UnitKind) -> None:
    text = f"Before. It\n{block}\nAfter. End.\n"
    assert texts(text) == ["Before.", "It", block, "After.", "End."]
    assert kinds(text)[2] is kind


def test_a_fence_or_formula_that_is_never_closed_runs_to_the_end() -> None:
    assert texts("Text.\n```\na. B\n\nc") == ["Text.", "```\na. B\n\nc"]
    assert texts("Text.\n$$\na. B\n\nc") == ["Text.", "$$\na. B\n\nc"]


def test_list_items_are_units_without_their_markers() -> None:
    text = "Two things:\n- first. More\n  of it.\n* second\n3. third\n4) fourth\n\n   - nested. Also"
    assert texts(text) == [
        "Two things:",
        "first.",
        "More\n  of it.",
        "second",
        "third",
        "fourth",
        "nested.",
        "Also",
    ]


def test_table_rules_and_headings_are_no_units() -> None:
    assert texts("# A heading. With dot\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n---\n## Sub\nText.") == [
        "| a | b |",
        "| 1 | 2 |",
        "Text.",
    ]


@pytest.mark.parametrize("part", ["`", "$", "$a ", "`a ", "a. B ", "\\(", "\\[", "](", "$$a ", "- ", "|-", "  ", "("])
def test_long_lines_of_marks_that_are_never_closed_take_no_quadratic_time(part: str) -> None:
    """A quadratic pass over these needs minutes; there is no clock here, only patience."""
    text = part * 30_000 + "x"
    assert "".join(streamed(text, [])) == text


# -- streams ---------------------------------------------------------------------------------------------------------


@given(st.one_of(markdown, HARD), st.lists(st.integers(0, 300), max_size=40))
def test_a_stream_concatenates_to_its_input_however_it_is_cut(text: str, cuts: list[int]) -> None:
    assert "".join(streamed(text, cuts)) == (text if text.strip() else "")


_answers = st.lists(
    st.one_of(
        paragraphs,
        st.sampled_from(
            [
                "It holds, e.g. for `a. B` and $c. D$. Then it ends.",
                "`np.sum` adds. $x$ is a number. $$y. Z$$ too.",
                "- One. Two\n- Three\n\n1. Four. Five",
                "```python\nx = 1. Y\n\n# no. No\n```",
                "$$\nx. Y\n= z\n$$",
                "It costs $5. Then $6. Done.",
                "Use it. ```x. Y``` does. Foo.",
                r"So \(a. B\) and \[c. D\] hold. Fig. 2 shows it.",
                '"Quoted." (In brackets.) **Bold.** End.',
            ]
        ),
    ),
    min_size=1,
    max_size=5,
).map("\n\n".join)


@given(_answers, st.lists(st.integers(0, 600), max_size=200))
def test_the_sentences_of_a_stream_do_not_depend_on_how_it_is_cut(text: str, cuts: list[int]) -> None:
    assert streamed(text, cuts) == streamed(text, [])
    assert streamed(text, list(range(len(text)))) == streamed(text, [])


@given(_answers)
def test_each_streamed_sentence_holds_one_unit(text: str) -> None:
    assert [texts(sentence) for sentence in streamed(text, [])] == [[unit] for unit in texts(text)]


@pytest.mark.parametrize(
    "verbatim", ["`a. B`", "``a. B``", "$a. B$", "$$a. B$$", r"\(a. B\)", "```\na. B\n```", "$$\na. B\n$$"]
)
def test_maths_and_code_are_never_cut_though_they_arrive_letter_by_letter(verbatim: str) -> None:
    text = f"Before. It is {verbatim} here. After." if "\n" not in verbatim else f"Before.\n\n{verbatim}\n\nAfter."
    assert any(verbatim in sentence for sentence in streamed(text, list(range(len(text)))))
    assert len(streamed(text, list(range(len(text))))) == 3


def test_a_sentence_is_out_as_soon_as_the_next_begins() -> None:
    stream = SentenceStream()
    assert stream.feed("One is here.") == []
    assert stream.feed(" ") == []
    assert stream.feed("T") == ["One is here. "]
    assert stream.feed("wo.\n\n- ") == []
    assert stream.feed("item") == ["Two.\n\n"]
    assert stream.rest() == ["- item"]
    assert stream.rest() == []


def test_the_head_is_what_has_come_of_the_next_sentence_to_be_finished() -> None:
    stream = SentenceStream()
    assert stream.head() == ""
    stream.feed("It costs $5. Then")
    assert stream.head() == "It costs $5. "
    stream.feed(" more$.\nAnd")
    assert stream.head() == "And"


def test_what_is_never_closed_delays_sentences_no_longer_than_its_paragraph() -> None:
    stream = SentenceStream()
    assert stream.feed("It opens \\(beta. And goes on.\n") == []
    assert stream.feed("\nNext. M") == ["It opens \\(beta. ", "And goes on.\n\n", "Next. "]


def test_a_lone_dollar_delays_sentences_no_longer_than_its_line() -> None:
    stream = SentenceStream()
    assert stream.feed("It costs $5. Then more. ") == []
    assert stream.feed("And\n") == ["It costs $5. ", "Then more. "]
