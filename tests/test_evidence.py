"""Evidence: absolute, bounded, monotone, and computed by hand where it can be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyrag import evidence as evidence_module
from studyrag.evidence import (
    ABSOLUTE,
    BROAD,
    BROADEST,
    COEFFICIENTS,
    DEPTH,
    HOPELESS,
    NARROWEST,
    SURE,
    TOP,
    VERDICTS,
    asks_of_oneself,
    breadth,
    doubtful,
    hopeless,
    strange_names,
    weigh,
    with_verdict,
)
from studyrag.records import Evidence, Hit
from tests.makers import chunk, hit

KETTLE = hit(chunk("The kettle boils water.", "k"), 1, cosine=0.8)
OVEN = hit(chunk("The oven makes heat.", "o"), 2, cosine=0.6)
WEIGHTS = {"kettl": 3.0, "oven": 1.0, "quokka": 4.0}

values = st.fixed_dictionaries(
    {name: st.floats(0 if name == "breadth" else -1, 1) for name in COEFFICIENTS if name != "intercept"}
)


def features(
    hits: Sequence[Hit], weights: Mapping[str, float], unknown: Sequence[str], question: str = ""
) -> dict[str, float]:
    """In a folder where everything counts."""
    return evidence_module.features(hits, weights, unknown, question, n_chunks=BROADEST)


def test_features_are_shares_of_the_questions_weight_and_cosines() -> None:
    found = features([OVEN, KETTLE], WEIGHTS, ["quokka"])
    assert found == pytest.approx(
        {"cosine": 0.8, "peak": 0.8 - 0.6, "covered": 3 / 8, "unknown": 4 / 8, "named": 0.0, "own": 0.0, "breadth": 1.0}
    )


def test_the_peak_is_above_the_mean_of_the_other_best_hits_and_of_one_alone_above_nothing() -> None:
    hits = [hit(chunk("Text.", f"c{at}"), at, cosine=at / 100) for at in range(DEPTH, 0, -1)]
    others = sum(range(1, DEPTH)) / (DEPTH - 1) / 100
    assert features(hits, {}, [])["peak"] == pytest.approx(DEPTH / 100 - others)
    assert features([*hits, hit(chunk("Text.", "deep"), DEPTH + 1, cosine=-1.0)], {}, []) == features(hits, {}, [])
    assert features(hits[:1], {}, [])["peak"] == features(hits[:1], {}, [])["cosine"] == DEPTH / 100


def test_words_in_the_heading_path_count_as_held() -> None:
    assert features([KETTLE], {"note": 1.0}, [])["covered"] == 1.0  # the title of every test chunk


def test_only_the_best_hits_are_searched_for_the_questions_words() -> None:
    hits = [hit(chunk("Nothing.", f"c{at}"), at) for at in range(1, TOP + 1)]
    assert features([*hits, KETTLE], WEIGHTS, [])["covered"] == 0.0


def test_no_hits_and_no_words_are_no_evidence() -> None:
    nothing = features([], WEIGHTS, [])
    assert nothing == {**dict.fromkeys(nothing, 0.0), "unknown": 1.0, "breadth": 1.0}
    assert not weigh(nothing, threshold=0.5).covered
    assert features([KETTLE], {}, [])["covered"] == 0.0


@given(values, st.floats(0, 1))
def test_the_probability_is_one_and_the_threshold_decides(made: dict[str, float], threshold: float) -> None:
    evidence = weigh(made, threshold=threshold)
    assert 0 < evidence.probability < 1
    assert evidence.covered == (evidence.probability >= threshold)
    assert evidence.features == made


@given(values, st.sampled_from([n for n in COEFFICIENTS if n not in ("intercept", "breadth")]), st.floats(0.01, 0.5))
def test_more_of_a_feature_moves_the_probability_as_its_coefficient_says(
    made: dict[str, float], name: str, more: float
) -> None:
    difference = (
        weigh({**made, name: made[name] + more}, threshold=0).probability - weigh(made, threshold=0).probability
    )
    assert difference * COEFFICIENTS[name] >= 0


def test_breadth_is_that_of_the_logarithm_of_the_chunks() -> None:
    assert [breadth(n) for n in (0, 1, NARROWEST, BROADEST, 10 * BROADEST)] == pytest.approx([0, 0, 0, 1, 1])
    assert breadth(round((NARROWEST * BROADEST) ** 0.5)) == pytest.approx(0.5, abs=0.01)


@given(values, st.sampled_from(BROAD), st.floats(-1, 1))
def test_in_a_narrow_folder_only_cosines_and_names_are_evidence(
    made: dict[str, float], name: str, value: float
) -> None:
    narrow = {**made, "breadth": 0.0, "found_logit": 0.0, "gain": 0.0}
    one, other = Evidence(0.5, True, narrow), Evidence(0.5, True, {**narrow, name: value})
    assert weigh(one.features, threshold=0) == weigh(narrow, threshold=0)
    assert weigh(other.features, threshold=0).probability == weigh(narrow, threshold=0).probability
    assert not doubtful(one) and hopeless(Evidence(0.29, False, narrow), threshold=0.3)


def test_nearer_hits_that_hold_the_questions_words_count_for_the_notes_and_unknown_words_against() -> None:
    def probability(hits: list[Hit], unknown: list[str]) -> float:
        return weigh(features(hits, WEIGHTS, unknown), threshold=0.5).probability

    far = hit(chunk("The kettle boils water.", "k"), 1, cosine=0.2)
    assert probability([KETTLE], []) > probability([far], [])
    assert probability([KETTLE], []) > probability([KETTLE], ["quokka"])


def test_the_probability_is_the_logistic_of_the_weighted_sum() -> None:
    made = {name: 0.5 for name in COEFFICIENTS if name != "intercept"}
    score = COEFFICIENTS["intercept"] + sum((0.25 if name in BROAD else 0.5) * COEFFICIENTS[name] for name in made)
    assert weigh(made, threshold=0).probability == pytest.approx(1 / (1 + math.exp(-score)))


@pytest.mark.parametrize("weights", VERDICTS)
@given(st.floats(-1, 1), st.booleans(), st.floats(-30, 30), st.floats(0.01, 10))
def test_what_speaks_for_the_passages_raises_the_probability(
    weights: Mapping[str, float], cosine: float, named: bool, value: float, more: float
) -> None:
    found = {"cosine": cosine, "peak": cosine / 2, "named": float(named), "own": 0.0, "covered": 0.3, "breadth": 1.0}
    evidence = Evidence(0.5, covered=False, features=found)
    verdict = {name: value for name in weights if name not in ("intercept", *ABSOLUTE)}
    before = with_verdict(evidence, verdict, threshold=0.5)
    for name in verdict:
        after = with_verdict(evidence, {**verdict, name: value + more}, threshold=0.5)
        assert 0 <= before.probability <= after.probability <= 1
        assert after.covered == (after.probability >= 0.5)
        assert after.features == {**evidence.features, **verdict, name: value + more}


def test_a_question_is_doubtful_until_retrieval_is_sure() -> None:
    assert [doubtful(Evidence(p, covered=True, features={"breadth": 1.0})) for p in (0.0, SURE - 0.01, SURE, 1.0)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_evidence_is_hopeless_far_below_the_threshold_only() -> None:
    def at(probability: float) -> Evidence:
        return Evidence(probability, covered=False, features={"breadth": 1.0})

    assert hopeless(at(HOPELESS * 0.5 - 0.01), threshold=0.5)
    assert not hopeless(at(HOPELESS * 0.5 + 0.01), threshold=0.5)
    assert not hopeless(at(0.0), threshold=0.0)


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("How does Kestrel normalisation work?", ("Kestrel",)),
        ("What does the Harlow–Venn gate do?", ("Harlow–Venn",)),
        ("Does LoRA+ help?", ("LoRA+",)),
        ("whats echo-gated routing", ("echo-gated",)),
        ("Kestrels fly.", ()),
        ("It ends. Kestrels fly.", ()),
        ("how do kestrels fly?", ()),
        ("What is a kettle-heat curve?", ()),
        ("", ()),
    ],
)
def test_strange_names_are_written_as_names_and_hold_a_term_that_no_note_holds(
    question: str, names: tuple[str, ...]
) -> None:
    unknown = ["kestrel", "harlow", "venn", "lora+", "echo", "kettleheat"]
    assert strange_names(question, unknown) == names


def test_a_name_that_no_note_knows_lowers_the_probability() -> None:
    plain, named = (
        weigh(features([KETTLE], WEIGHTS, ["kestrel"], question), threshold=0.5).probability
        for question in ("how does a kestrel boil water", "how does a Kestrel boil water")
    )
    assert named < plain


@pytest.mark.parametrize(
    ("question", "own"),
    [
        ("What did I score in my driving test?", True),
        ("when is my dentist appointment", True),
        ("whats my shoe size", True),
        ("How much do I owe the bank?", True),
        ("What is the number of my locker?", True),
        ("who came to our last meeting", True),
        ("What did the neighbour say about me?", True),
        ("What is a kettle?", False),
        ("my kettle leaks, what do i do", False),
        ("Which kettle should I use?", False),
        ("how do i descale my kettle", False),
        ("How many cups do I get from one kettle?", False),
        ("Wann ist meine Prüfung?", False),
        ("", False),
    ],
)
def test_questions_about_the_askers_own_life(question: str, own: bool) -> None:
    assert asks_of_oneself(question) == own


def test_a_question_about_oneself_is_for_a_diary() -> None:
    diary = hit(chunk("I boiled my kettle twice and my sister came.", "d"), 1, cosine=0.8)
    question = "When did I boil the kettle?"
    assert features([KETTLE], WEIGHTS, [], question)["own"] == 1.0
    assert features([diary], WEIGHTS, [], question)["own"] == 0.0
    asked, plain = (weigh(features([KETTLE], WEIGHTS, [], q), threshold=0.5) for q in (question, "When does it boil?"))
    assert asked.probability < plain.probability
