"""The facade: events in order, abstention before generation, no stale text, and no prompt that does not fit."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studyrag.assistant import MAX_QUESTION_CHARS, Assistant
from studyrag.embedding import HashEmbedder
from studyrag.errors import GenerationFailed, IndexMismatch, Misuse, NotesError
from studyrag.generating import EchoGenerator
from studyrag.index_writing import locked
from studyrag.records import Answer, Answered, Attributed, Event, Message, Piece, Reading
from studyrag.settings import Settings
from tests.makers import write_notes

NOTES = {
    "tea.md": "---\ntags: [Drinks, hot]\n---\n# Tea\n\n## Green tea\n\nGreen tea is brewed at eighty degrees. "
    "It turns bitter when boiled.\n\n## Black tea\n\nBlack tea is brewed with boiling water.\n",
    "sport/bikes.md": "# Bikes\n\n## Chains\n\nA bicycle chain is oiled every two hundred kilometres.\n",
    "only-headings.md": "# Headings\n\n## Alone\n",
}
SUPPORTED = "Green tea is brewed at eighty degrees."
INVENTED = "Quokkas live on Rottnest Island."


class Scripted(EchoGenerator):
    """The package's fake with a reply of the test's choice, in the pieces of its choice. Remembers its prompts."""

    def __init__(self, reply: str = SUPPORTED, *, cuts: Sequence[int] = (), context_tokens: int = 4096) -> None:
        super().__init__(context_tokens=context_tokens)
        self.reply, self.cuts = reply, cuts
        self.prompts: list[Sequence[Message]] = []
        self.closed = False

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        self.prompts.append(messages)
        super().stream(messages, max_tokens=max_tokens)  # refuses what does not fit
        edges = [0, *sorted({cut for cut in self.cuts if cut < len(self.reply)}), len(self.reply)]
        return (self.reply[start:end] for start, end in itertools.pairwise(edges))

    def close(self) -> None:
        self.closed = True


class Scoring(Scripted):
    """A generator that also weighs replies: yes by ``logit``, and the statement that holds ``favourite``."""

    def __init__(self, logit: float, favourite: str = "eighty degrees") -> None:
        super().__init__()
        self.logit, self.favourite = logit, favourite
        self.weighed: list[Sequence[Message]] = []
        self.likelihoods: list[tuple[str, str]] = []

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        self.weighed.append(messages)
        if list(replies) == ["Yes", "No"]:
            return [self.logit, 0.0]
        lines = messages[-1].content.split("\n")
        at = next((line.split()[0] for line in lines if line.startswith("(") and self.favourite in line), "(1)")
        return [-self.logit if reply == "(0" else 0.0 if at.startswith(reply) else -9.0 for reply in replies]

    def weigh_tail(self, messages: Sequence[Message]) -> list[tuple[str, float]]:
        self.likelihoods.append((messages[-1].content, messages[-1].tail))
        return []


Make = Callable[..., Assistant]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes assistants for NOTES (or others) in one folder; any answer is covered unless settings say otherwise."""
    made: list[Assistant] = []

    def build(
        generator: EchoGenerator | None = None,
        *,
        notes: dict[str, str] | None = None,
        embedder: HashEmbedder | None = None,
        notices: list[str] | None = None,
        **settings: Any,
    ) -> Assistant:
        folder = tmp_path / "notes"
        if not folder.exists():
            write_notes(folder, NOTES if notes is None else notes)
        chosen = Settings(
            notes=folder, index=tmp_path / "index", **{"min_coverage": 0.0, "chunk_tokens": 64, **settings}
        )
        said = [] if notices is None else notices
        assistant = Assistant(chosen, embedder or HashEmbedder(), generator, notice=said.append)
        made.append(assistant)
        return assistant

    yield build
    for assistant in made:
        assistant.close()


def answered(events: Iterator[Event]) -> Answer:
    *_, last = events
    assert isinstance(last, Answered)
    return last.answer


def shown(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


# -- events ----------------------------------------------------------------------------------------------------------


def test_the_evidence_comes_first_then_text_with_verdicts_then_the_answer(make: Make) -> None:
    generator = Scripted(f"{SUPPORTED} {INVENTED}", cuts=range(100))
    assistant = make(generator)
    events = list(assistant.ask("How hot is green tea?"))
    assert isinstance(events[0], Reading) and isinstance(events[-1], Answered)
    assert all(isinstance(event, Piece | Attributed) for event in events[1:-1])
    answer = events[-1].answer
    assert answer.text == f"{SUPPORTED} {INVENTED}"
    assert tuple(event.sentence for event in events if isinstance(event, Attributed)) == answer.sentences
    assert [sentence.supported for sentence in answer.sentences] == [True, False]
    assert assistant.last_answer == answer
    first = next(at for at, event in enumerate(events) if isinstance(event, Attributed))
    assert shown(events[:first]) == SUPPORTED


def test_the_evidence_is_out_before_the_generator_is_asked(make: Make) -> None:
    generator = Scripted()
    events = make(generator).ask("How hot is green tea?")
    first = next(events)
    assert isinstance(first, Reading)
    assert generator.prompts == []
    assert any(SUPPORTED in passage.text for passage in first.context.passages)
    next(events)
    assert all(passage.text.strip() in generator.prompts[0][-1].content for passage in first.context.passages)


def test_an_answer_carries_its_lines_its_model_and_its_times(make: Make) -> None:
    assistant = make(Scripted())
    answer = answered(assistant.ask("How hot is green tea?"))
    (citation,) = answer.citations
    assert (citation.number, citation.note_id, citation.headings) == (1, "tea.md", ("Tea", "Green tea"))
    assert (citation.first_line, citation.last_line) == (8, 8)
    assert citation.quote == f"{SUPPORTED} It turns bitter when boiled."
    assert answer.sentences[0].citations == (1,)
    assert (answer.question, answer.model, answer.abstained, answer.nearest) == (
        "How hot is green tea?",
        "fake",
        False,
        (),
    )
    stages = {"index", "embed_query", "query_terms", "lexical", "dense", "fuse", "evidence", "pack", "first_token"}
    assert stages | {"generate", "attribute"} <= answer.timings_ms.keys()
    assert all(milliseconds >= 0 for milliseconds in answer.timings_ms.values())


def test_the_same_question_gets_the_same_answer(make: Make) -> None:
    assistant = make(EchoGenerator())
    one, two = (answered(assistant.ask("How hot is green tea?")) for _ in range(2))
    assert replace(one, timings_ms={}) == replace(two, timings_ms={})


REPLIES = st.lists(
    st.sampled_from(
        [
            SUPPORTED,
            INVENTED,
            "- An item\n- Another [1]\n",
            "1. First. Second\n",
            "Use `a[1]. B` and $x[2]$ [3].",
            "\n\n```python\na[0] = 1\n```\n\n",
            "It is so [1, 2]. [3] Then [see](http://x.y).",
            "$$\nx. Y\n$$\n",
            "It costs $5 [1]. Then more.",
            "[4]",
            "  ",
        ]
    ),
    max_size=6,
).map(lambda parts: " ".join([*parts[:1], SUPPORTED, *parts[1:]]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Assistant, Scripted]]:
    """One assistant for many replies."""
    folder, generator = tmp_path_factory.mktemp("assistant"), Scripted()
    write_notes(folder / "notes", NOTES)
    settings = Settings(notes=folder / "notes", index=folder / "index", min_coverage=0.0, chunk_tokens=64)
    assistant = Assistant(settings, HashEmbedder(), generator)
    yield assistant, generator
    assistant.close()


@example(reply=f"{SUPPORTED} It costs $5 [1]. Then more.", cuts=[])
@given(reply=REPLIES, cuts=st.lists(st.integers(0, 200), max_size=60))
def test_what_is_shown_is_what_the_answer_says_however_the_reply_arrives(
    shared: tuple[Assistant, Scripted], reply: str, cuts: list[int]
) -> None:
    assistant, generator = shared
    generator.reply, generator.cuts = reply, ()
    whole = list(assistant.ask("How hot is green tea?"))
    generator.cuts = cuts
    parts = list(assistant.ask("How hot is green tea?"))
    for events in (whole, parts):
        assert isinstance(events[-1], Answered)
        answer = events[-1].answer
        assert shown(events).strip() == answer.text
        assert "".join(sentence.text for sentence in answer.sentences).strip() == answer.text
        assert all(event.text for event in events if isinstance(event, Piece))
        assert {n for s in answer.sentences for n in s.citations} == {c.number for c in answer.citations}
    assert shown(parts) == shown(whole)


def test_markers_that_the_model_writes_are_neither_shown_nor_kept(make: Make) -> None:
    generator = Scripted(f"{SUPPORTED[:-1]} [7].[8] {INVENTED} [9]", cuts=range(200))
    events = list(make(generator).ask("How hot is green tea?"))
    assert shown(events).strip() == f"{SUPPORTED} {INVENTED}"
    assert "[" not in answered(iter(events)).text


def test_a_generator_that_breaks_off_is_an_error_and_leaves_no_answer(make: Make) -> None:
    class Breaking(Scripted):
        def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
            yield "Green tea"
            raise GenerationFailed("the server went away", fix="start it again")

    assistant = make(Breaking())
    events = assistant.ask("How hot is green tea?")
    with pytest.raises(GenerationFailed, match="went away"):
        list(events)
    assert assistant.last_answer is None


def test_closing_twice_closes_the_generator_and_is_harmless(make: Make) -> None:
    generator = Scripted()
    assistant = make(generator)
    list(assistant.ask("How hot is green tea?"))
    assistant.close()
    assistant.close()
    assert generator.closed


# -- abstention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extract", [False, True])
def test_an_abstention_is_one_event_with_the_nearest_headings_and_asks_no_generator(make: Make, extract: bool) -> None:
    generator = Scripted()
    assistant = make(generator, min_coverage=1.0)
    (event,) = assistant.ask("Where do quokkas live?", extract=extract)
    assert isinstance(event, Answered)
    answer = event.answer
    assert answer.abstained and answer.text == "" and answer.model == "none"
    assert answer.sentences == () and answer.citations == ()
    places = [(near.note_id, near.headings) for near in answer.nearest]
    assert len(places) == len(set(places)) == 3
    assert generator.prompts == []
    assert assistant.last_answer == answer


@pytest.mark.parametrize("extract", [False, True])
def test_without_anything_to_read_no_generator_is_asked_though_all_is_allowed(make: Make, extract: bool) -> None:
    generator = Scripted()
    answer = answered(make(generator).ask("Headings alone?", paths=["only-headings.md"], extract=extract))
    assert answer.abstained
    assert generator.prompts == []


HOT = "How hot is green tea brewed?"


@pytest.fixture
def broad(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the few notes of the tests were a folder of thousands of chunks."""
    monkeypatch.setattr("studyrag.evidence.breadth", lambda _chunks: 1.0)


@pytest.mark.usefixtures("broad")
def test_a_generator_that_scores_decides_where_retrieval_is_unsure(make: Make) -> None:
    yes, no = Scoring(20.0), Scoring(-20.0)
    assert not answered(make(yes, min_coverage=0.5).ask(HOT)).abstained
    events = list(make(no, min_coverage=0.5).ask(HOT))
    assert answered(iter(events)).abstained
    assert len(no.weighed) == 1 and no.prompts == []
    assert not any(isinstance(event, Piece | Attributed) for event in events)


@pytest.mark.usefixtures("broad")
@pytest.mark.parametrize("style", ["quote", "write"])
def test_the_question_is_weighed_against_the_passages_only_where_retrieval_is_unsure(
    make: Make, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    unsure, sure = Scoring(20.0), Scoring(20.0)
    monkeypatch.setattr("studyrag.evidence.SURE", 1.1)
    list(make(unsure, style=style).ask(HOT))
    alone, after = unsure.likelihoods
    assert alone == ("Question:", f" {HOT}")
    assert after[0].endswith("Question:") and SUPPORTED in after[0] and after[1] == f" {HOT}"
    monkeypatch.setattr("studyrag.evidence.SURE", 0.0)
    list(make(sure, style=style).ask(HOT))
    assert sure.likelihoods == []
    assert len(sure.weighed) == (1 if style == "quote" else 0)


def test_a_generator_that_scores_is_not_asked_about_the_hopeless(make: Make) -> None:
    scorer = Scoring(20.0)
    (event,) = make(scorer, min_coverage=1.0).ask("zzzz qqqq wwww")
    assert isinstance(event, Answered) and event.answer.abstained
    assert scorer.weighed == scorer.prompts == []


# -- ranking anew ----------------------------------------------------------------------------------------------------


class Reader(Scoring):
    """Says yes to the passage that holds ``wanted``."""

    wanted = "quokka"

    def log_probabilities(
        self, messages: Sequence[Message], replies: Sequence[str], *, most_tokens: int = 8
    ) -> list[float]:
        if list(replies) == ["Yes", "No"]:
            self.weighed.append(messages)
            return [30.0 if self.wanted in messages[-1].text.partition("\n\nQuestion: ")[0] else -30.0, 0.0]
        return super().log_probabilities(messages, replies, most_tokens=most_tokens)


def test_a_search_reads_the_best_chunks_and_ranks_them_anew_where_it_is_asked_to(make: Make) -> None:
    plain = make(Reader(20.0)).search(HOT, 20)
    assert all(hit.answers is None for hit in plain)
    last = plain[-1].chunk
    reader = Reader(20.0)
    reader.wanted = last.text
    assistant = make(reader, rerank=len(plain))
    (best,) = assistant.search(HOT, 1)
    assert best.chunk == last and best.rank == 1 and best.answers == 30.0
    assert len(reader.weighed) == len(plain)
    assert "rerank" in assistant.last_trace.timings_ms()


def test_an_answer_is_made_of_what_ranks_first_anew(make: Make) -> None:
    first = make(Reader(20.0)).search(HOT, 20)
    reader = Reader(20.0)
    reader.wanted = next(hit.chunk.text for hit in first[1:] if hit.chunk.note_id != first[0].chunk.note_id)
    reading = next(iter(make(reader, rerank=len(first), passages=1).ask(HOT)))
    assert isinstance(reading, Reading)
    assert [passage.text.strip() for passage in reading.context.passages] != [first[0].chunk.text.strip()]
    assert reader.wanted.strip() in reading.context.passages[0].text


def test_what_is_hopeless_is_refused_before_anything_is_read(make: Make) -> None:
    reader = Reader(20.0)
    (event,) = make(reader, rerank=5, min_coverage=1.0).ask("zzzz qqqq wwww")
    assert isinstance(event, Answered) and event.answer.abstained
    assert reader.weighed == []


def test_as_many_are_read_as_the_settings_say_though_fewer_are_answered_from(make: Make) -> None:
    reader = Reader(20.0)
    notes = {f"{name}.md": f"# {name}\n\nGreen tea of kind {name} is brewed hot.\n" for name in "abcdefgh"}
    list(make(reader, notes=notes, rerank=6, passages=1).ask(HOT))
    read = [messages for messages in reader.weighed if "Does the passage contain" in messages[-1].text]
    assert len(read) == 6


def test_without_a_generator_nothing_is_read_and_nothing_is_said_of_it(make: Make) -> None:
    notices: list[str] = []
    make(rerank=5, notices=notices).search(HOT, 3)
    assert not any("ranked anew" in notice for notice in notices)


def test_a_generator_that_cannot_weigh_leaves_the_ranking_as_it_is_and_says_so(make: Make) -> None:
    notices: list[str] = []
    assert make(Scripted(), rerank=5, notices=notices).search(HOT, 3) == make().search(HOT, 3)
    assert any("not ranked anew" in notice for notice in notices)


# -- quoting ---------------------------------------------------------------------------------------------------------


def test_a_generator_that_scores_points_to_sentences_and_writes_none(make: Make) -> None:
    scorer = Scoring(20.0, favourite="turns bitter")
    events = list(make(scorer).ask(HOT))
    answer = answered(iter(events))
    assert scorer.prompts == []
    assert len(scorer.weighed) == 1
    assert "It turns bitter when boiled." in answer.text
    assert "Green tea is brewed" in answer.text  # what "It" points back to
    assert shown(events) == answer.text
    assert isinstance(events[0], Reading)
    assert answer.model == "fake"


def test_style_write_lets_it_write_and_style_quote_keeps_others_from_it(make: Make) -> None:
    writes, quotes = Scoring(20.0), Scripted(INVENTED)
    assert answered(make(writes, style="write").ask(HOT)).text == SUPPORTED
    assert len(writes.prompts) == 1
    answer = answered(make(quotes, style="quote").ask(HOT))
    assert SUPPORTED in answer.text and INVENTED not in answer.text
    assert quotes.prompts == []


def test_notes_without_a_quotable_sentence_are_written_about(make: Make) -> None:
    scorer = Scoring(20.0)
    notes = {"code.md": "# Kettle\n\n```python\n" + "kettle_boils = water_boils\n" * 30 + "```\n"}
    answered(make(scorer, notes=notes).ask("kettle boils water"))
    assert len(scorer.prompts) == 1


# -- strict and extract ----------------------------------------------------------------------------------------------


def test_strict_drops_what_is_unsupported_from_the_screen_and_the_answer(make: Make) -> None:
    reply = f"{INVENTED} {SUPPORTED} {INVENTED}"
    events = list(make(Scripted(reply, cuts=range(200)), strict=True).ask("How hot is green tea?"))
    answer = answered(iter(events))
    assert answer.text == shown(events).strip() == SUPPORTED
    assert [sentence.supported for sentence in answer.sentences] == [True]
    assert [citation.number for citation in answer.citations] == [1]


def test_strict_with_nothing_left_is_an_abstention(make: Make) -> None:
    events = list(make(Scripted(INVENTED), strict=True).ask("How hot is green tea?"))
    answer = answered(iter(events))
    assert (answer.text, answer.sentences, answer.citations, answer.abstained) == ("", (), (), True)
    assert shown(events) == ""
    assert answer.nearest


@pytest.mark.parametrize("generator", [None, Scripted()])
def test_extraction_quotes_the_notes_and_asks_no_generator(make: Make, generator: Scripted | None) -> None:
    events = list(make(generator).ask("How hot is green tea brewed?", extract=generator is not None))
    answer = answered(iter(events))
    assert answer.model == "extract"
    assert SUPPORTED in answer.text
    assert isinstance(events[0], Reading)
    assert shown(events) == answer.text
    assert all(sentence.supported for sentence in answer.sentences)
    assert generator is None or generator.prompts == []


# -- staleness -------------------------------------------------------------------------------------------------------

OLD, NEW = "eighty degrees", "seventy degrees Celsius"


def edit(tmp_path: Path) -> None:
    """Changes one note, removes another, and adds a third."""
    tea = tmp_path / "notes" / "tea.md"
    tea.write_text(NOTES["tea.md"].replace(OLD, NEW))
    (tmp_path / "notes" / "sport" / "bikes.md").unlink()
    (tmp_path / "notes" / "coffee.md").write_text("# Coffee\n\nCoffee is brewed with hot water.\n")


def served(assistant: Assistant, question: str) -> str:
    """Everything of the notes that a question brings to light, by any way."""
    texts = [
        hit.chunk.text for arm in ("hybrid", "bm25", "dense") for hit in assistant.search(question, 50, retriever=arm)
    ]
    for extract in (False, True):
        for event in assistant.ask(question, extract=extract):
            if isinstance(event, Reading):
                texts.extend(passage.text for passage in event.context.passages)
            elif isinstance(event, Answered):
                texts.extend([event.answer.text, *(citation.quote for citation in event.answer.citations)])
                texts.extend(" ".join(near.headings) for near in event.answer.nearest)
    return "\n".join(texts)


QUESTION = "How many degrees for green tea, black tea, coffee and a bicycle chain?"


def test_changed_notes_are_indexed_before_a_question(make: Make, tmp_path: Path) -> None:
    notices: list[str] = []
    assistant = make(EchoGenerator(), notices=notices)
    assert OLD in served(assistant, QUESTION)
    edit(tmp_path)
    text = served(assistant, QUESTION)
    assert NEW in text and "Coffee" in text
    assert OLD not in text and "bicycle" not in text
    assert notices == [f"No index yet: indexing {tmp_path / 'notes'}."]


@pytest.mark.parametrize("changed", [{"chunk_tokens": 100}, {"chunk_overlap": 8}, {"heading_path": False}])
def test_other_settings_of_splitting_make_another_index(make: Make, changed: dict[str, Any]) -> None:
    make().search(QUESTION, 1)
    notices: list[str] = []
    assert make(notices=notices, stale="warn", **changed).search(QUESTION, 1)
    assert [notice for notice in notices if f"another {next(iter(changed))}" in notice]
    notices.clear()
    made = make(notices=notices, **changed)
    assert made.search(QUESTION, 1)
    assert notices == [f"The setting {next(iter(changed))} changed: splitting all notes anew."]
    assert made.search(QUESTION, 1) and len(notices) == 1
    assert {name: getattr(made.refresh().recipe, name) for name in changed} == changed


def test_with_warn_text_that_is_no_longer_in_the_notes_is_never_served(make: Make, tmp_path: Path) -> None:
    notices: list[str] = []
    assistant = make(
        EchoGenerator(), notices=notices, stale="warn", notes={**NOTES, "juice.md": "# Juice\n\nJuice is cold.\n"}
    )
    assert OLD in served(assistant, QUESTION)
    edit(tmp_path)
    notices.clear()
    text = served(assistant, QUESTION)
    for gone in (OLD, "bicycle", "Green tea", "Chains", "Coffee"):
        assert gone not in text
    assert "Juice" in text
    assert set(notices) == {
        "Notes differ from the index (1 new, 1 changed, 1 removed); those are left out."
        " `studyrag index` brings them in."
    }
    assistant.index_notes()
    assert NEW in served(make(EchoGenerator(), stale="warn"), QUESTION)


@pytest.mark.parametrize("stale", ["warn", "reindex"])
def test_when_every_note_changed_and_none_can_be_indexed_nothing_is_served(
    make: Make, tmp_path: Path, stale: str
) -> None:
    generator = Scripted()
    assistant = make(generator, stale=stale)
    list(assistant.ask(QUESTION))
    generator.prompts.clear()
    for path in (tmp_path / "notes").rglob("*.md"):
        path.write_text("# Other\n\nEverything is new here.\n")
    with locked(tmp_path / "index"):
        assert answered(assistant.ask(QUESTION)).abstained
    assert generator.prompts == []


def test_while_another_process_indexes_changed_notes_are_left_out_with_a_notice(make: Make, tmp_path: Path) -> None:
    notices: list[str] = []
    assistant = make(EchoGenerator(), notices=notices)
    list(assistant.ask(QUESTION))
    (tmp_path / "notes" / "tea.md").write_text(NOTES["tea.md"].replace(OLD, NEW))
    notices.clear()
    with locked(tmp_path / "index"):
        text = served(assistant, QUESTION)
    assert OLD not in text and NEW not in text and "bicycle" in text
    assert "could not be brought up to date" in notices[0] and "another studyrag is indexing" in notices[0]
    assert NEW in served(assistant, QUESTION)


def test_on_a_full_disk_changed_notes_are_left_out_with_a_notice(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    notices: list[str] = []
    assistant = make(EchoGenerator(), notices=notices)
    list(assistant.ask(QUESTION))
    (tmp_path / "notes" / "tea.md").write_text(NOTES["tea.md"].replace(OLD, NEW))
    notices.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        text = served(assistant, QUESTION)
    assert OLD not in text and "bicycle" in text
    assert "No space left on device" in notices[0]


def test_an_index_of_another_embedder_is_refused_with_both_names(make: Make) -> None:
    list(make(EchoGenerator()).ask(QUESTION))
    assistant = make(EchoGenerator(), embedder=HashEmbedder(32))
    with pytest.raises(
        IndexMismatch, match=r"built with hash@64/fp32 \(64-d\); settings ask for hash@32/fp32"
    ) as caught:
        list(assistant.ask(QUESTION))
    assert caught.value.fix == "studyrag index --full"
    assistant.index_notes(full=True)
    assert not answered(assistant.ask(QUESTION)).abstained


def test_a_folder_without_notes_is_an_error(make: Make) -> None:
    with pytest.raises(NotesError, match="no markdown notes"):
        list(make(EchoGenerator(), notes={"readme.txt": "x"}).ask(QUESTION))


# -- questions and filters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", ["", "  \n\t", "x" * (MAX_QUESTION_CHARS + 1), "word " * 20_000])
def test_an_empty_or_endless_question_is_refused_before_anything_is_opened(
    make: Make, tmp_path: Path, question: str
) -> None:
    assistant = make(Scripted())
    for call in (lambda: list(assistant.ask(question)), lambda: assistant.search(question, 5)):
        with pytest.raises(Misuse) as caught:
            call()
        assert caught.value.fix
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, {"tea.md", "sport/bikes.md"}),
        ({"paths": ["sport"]}, {"sport/bikes.md"}),
        ({"paths": ["*.md"]}, {"tea.md"}),
        ({"paths": ["sport/*", "tea.md"]}, {"tea.md", "sport/bikes.md"}),
        ({"tags": ["drinks"]}, {"tea.md"}),
        ({"tags": ["#DRINKS", "Hot"]}, {"tea.md"}),
    ],
)
def test_filters_choose_by_path_or_all_tags(make: Make, filters: dict[str, Any], found: set[str]) -> None:
    assistant = make(EchoGenerator())
    assert {hit.chunk.note_id for hit in assistant.search("tea chain", 50, **filters)} == found
    reading = next(assistant.ask("tea chain", **filters))
    assert isinstance(reading, Reading)
    assert {passage.note_id for passage in reading.context.passages} <= found


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"paths": ["nowhere/*"]}, "--path nowhere/*"),
        ({"tags": ["drinks", "cold"]}, "--tag drinks, --tag cold"),
        ({"paths": ["sport"], "tags": ["drinks"]}, "--path sport, --tag drinks"),
    ],
)
def test_filters_that_no_note_passes_are_named(make: Make, filters: dict[str, Any], named: str) -> None:
    assistant = make(EchoGenerator())
    with pytest.raises(Misuse) as caught:
        assistant.search("tea", 5, **filters)
    assert caught.value.message == f"no note passes {named}"


def test_search_gives_so_many_hits_by_the_arm_that_was_asked_for(make: Make) -> None:
    assistant = make(retriever="dense")
    assert [hit.rank for hit in assistant.search("tea", 2)] == [1, 2]
    assert all(hit.lexical_rank is None for hit in assistant.search("tea", 3))
    assert all(hit.dense_rank is None for hit in assistant.search("tea", 3, retriever="bm25"))
    assert "dense" in assistant.last_trace.timings_ms()


# -- the context window ----------------------------------------------------------------------------------------------

_HOSTILE = {
    **NOTES,
    "fence.md": "# Fence\n\n```\n" + "tea = 80\n" * 5000 + "```\n",
    "line.md": "# Line\n\n$$" + "tea + " * 5000 + "x$$\n",
    "heading.md": "\n\n".join("#" * level + " " + "tea " * 3000 for level in range(1, 7)) + "\n\nGreen tea.\n",
    "deep/" * 20 + "path.md": "# Tea path\n\nGreen tea of a long path.\n",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with notes that no window holds, and an index of them."""
    folder = tmp_path_factory.mktemp("hostile")
    write_notes(folder / "notes", _HOSTILE)
    Assistant(Settings(notes=folder / "notes", index=folder / "index", chunk_tokens=64), HashEmbedder()).index_notes()
    return folder


@given(
    window=st.integers(200, 3000),
    answer_tokens=st.integers(16, 600),
    context_tokens=st.integers(100, 3000),
    passages=st.integers(1, 20),
    asked=st.integers(1, 700),
    path=st.sampled_from(["**", *_HOSTILE]),
)
def test_no_prompt_leaves_too_little_room_for_its_answer(
    hostile: Path, window: int, answer_tokens: int, context_tokens: int, passages: int, asked: int, path: str
) -> None:
    """``Scripted`` raises GenerationFailed for a prompt that does not fit; only too long a question may fail."""
    generator = Scripted(context_tokens=window)
    settings = Settings(
        notes=hostile / "notes",
        index=hostile / "index",
        min_coverage=0.0,
        chunk_tokens=64,
        answer_tokens=answer_tokens,
        context_tokens=context_tokens,
        passages=passages,
    )
    assistant = Assistant(settings, HashEmbedder(), generator)
    try:
        answer = answered(assistant.ask("tea " * asked, paths=[path]))
    except Misuse as err:
        assert "leaves no room" in err.message
        assert window - answer_tokens - asked < 64 + 150  # the rules of the prompt are not 150 words long
    else:
        assert answer.abstained or generator.prompts
        for prompt in generator.prompts:
            assert generator.count_tokens(prompt) + answer_tokens <= window
    finally:
        assistant.close()


# -- an answer that nothing supports ---------------------------------------------------------------------------------


def test_an_answer_of_which_nothing_is_supported_is_an_abstention_and_never_shown(make: Make) -> None:
    events = list(make(Scripted(INVENTED)).ask("How hot is green tea?"))
    assert answered(iter(events)).abstained
    assert answered(iter(events)).nearest
    assert shown(events) == ""


def test_what_comes_before_the_first_supported_sentence_is_held_back_until_then(make: Make) -> None:
    events = list(make(Scripted(f"{INVENTED} {SUPPORTED}")).ask("How hot is green tea?"))
    assert shown(events).strip() == f"{INVENTED} {SUPPORTED}"
    assert not answered(iter(events)).abstained
