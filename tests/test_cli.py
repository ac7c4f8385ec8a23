"""The command line as scripts and people rely on it: JSON, exit codes, filters, batch mode, terminals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran, RunCli, cli_environment
from tests.hostile import Running, Terminal, assert_plain, assert_refused, command, held_endpoint, saying

NUMBERS = dict[str, float]
SCRIPT = Path(sys.executable).with_name("studyrag")
NEVER_COVERED = {"STUDYRAG_MIN_COVERAGE": "1"}
DEFAULT_GENERATOR = "qwen2.5-coder-1.5b-instruct"


def assert_shape(value: Any, shape: Any) -> None:
    """``shape``: a type or union, {key: shape} for exactly these keys in this order, [shape] for a list of such."""
    if isinstance(shape, dict):
        assert list(value) == list(shape)
        for key, inner in shape.items():
            assert_shape(value[key], inner)
    elif isinstance(shape, list):
        assert isinstance(value, list) and value, value
        for item in value:
            assert_shape(item, shape[0])
    elif shape is NUMBERS:
        assert value and all(isinstance(k, str) and isinstance(v, int | float) and v >= 0 for k, v in value.items())
    else:
        assert isinstance(value, shape), (value, shape)
        assert shape is not int or not isinstance(value, bool)


PLACE = {"note": str, "headings": [str], "first_line": int, "last_line": int}


# The JSON that scripts rely on


def test_search_json_is_the_documented_record(cli: RunCli, notes: Path) -> None:
    ran = cli("search", "bicycle chain", "-k", "3", "--json", cwd=notes)
    assert ran.code == 0
    arms = {"lexical_rank": int | None, "dense_rank": int | None, "answers": float | None}
    assert_shape(ran.json, {"query": str, "hits": [{"rank": int, **PLACE, "text": str, **arms}], "timings_ms": NUMBERS})
    assert ran.json["query"] == "bicycle chain"
    assert [hit["rank"] for hit in ran.json["hits"]] == [1, 2, 3]
    assert ran.json["hits"][0] == {
        "rank": 1,
        "note": "bikes.md",
        "headings": ["Bikes", "Chains"],
        "first_line": 5,
        "last_line": 5,
        "text": "A bicycle chain is oiled every 200 kilometres.",
        "lexical_rank": 1,
        "dense_rank": 1,
        "answers": None,
    }


def test_search_reads_the_chunks_where_it_is_asked_to(cli: RunCli, notes: Path, tiny_gguf: Path) -> None:
    env = {"STUDYRAG_GENERATOR": str(tiny_gguf)}
    read = cli("search", "bicycle chain", "-k", "3", "--rerank", "--json", cwd=notes, env=env).json["hits"]
    assert [hit["rank"] for hit in read] == [1, 2, 3]
    assert all(isinstance(hit["answers"], float) for hit in read)
    shown = cli("search", "bicycle chain", "-k", "3", "--rerank", cwd=notes, env=env).out
    assert len(re.findall(r", answers [+-]\d+\.\d\)", shown)) == 3
    with (notes / "studyrag.toml").open("a") as file:
        file.write("rerank = 2\n")
    two = cli("search", "chain", "-k", "3", "--json", cwd=notes, env=env).json["hits"]
    assert [hit["answers"] is None for hit in two] == [False, False, True]
    plain = cli("search", "chain", "--no-rerank", "--json", cwd=notes, env=env).json["hits"]
    assert all(hit["answers"] is None for hit in plain)
    answer = cli("ask", "How often is a chain oiled?", "--rerank", "--trace", cwd=notes, env=env)
    assert answer.code == 0 and "rerank" in answer.err


def test_status_and_doctor_tell_of_settings_that_the_index_was_not_built_with(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    env = {"STUDYRAG_CHUNK_OVERLAP": "16"}
    assert cli("status", "--json", cwd=notes).json["other_setting"] is None
    assert cli("status", "--json", cwd=notes, env=env).json["other_setting"] == "chunk_overlap"
    assert "another chunk_overlap" in cli("status", cwd=notes, env=env).out
    ran = cli("doctor", cwd=notes, env=env)
    assert ran.code == 1 and "FAIL  staleness: the index was built with another chunk_overlap" in ran.out
    ran = cli("search", "chain", cwd=notes, env=env)
    assert ran.code == 0 and "chunk_overlap changed: splitting all notes anew" in ran.err
    assert "another" not in cli("status", cwd=notes, env=env).out


def test_what_cannot_rank_anew_is_told(cli: RunCli, notes: Path) -> None:
    ran = cli("search", "bicycle chain", "--rerank", cwd=notes)
    assert ran.code == 0 and "not ranked anew" in ran.err
    ran = cli("ask", "bicycle chain", "--rerank", "--extract", cwd=notes)
    assert ran.code == 2 and "--extract asks no generator" in ran.err


def test_a_note_in_a_folder_is_named_with_forward_slashes(cli: RunCli, notes: Path) -> None:
    (notes / "far" / "away").mkdir(parents=True)
    (notes / "far" / "away" / "boats.md").write_text("# Boats\n\nA schooner has two masts.\n")
    assert (
        cli("search", "schooner masts", "-k", "1", "--json", cwd=notes).json["hits"][0]["note"] == "far/away/boats.md"
    )


def test_ask_json_is_the_documented_record(cli: RunCli, notes: Path) -> None:
    ran = cli("ask", "How is green tea brewed?", "--json", cwd=notes)
    assert ran.code == 0
    assert_shape(
        ran.json,
        {
            "question": str,
            "answer": str,
            "abstained": bool,
            "sentences": [{"text": str, "supported": bool | None, "citations": [int]}],
            "citations": [{"number": int, **PLACE, "quote": str}],
            "nearest": list,
            "model": str,
            "timings_ms": NUMBERS,
        },
    )
    assert ran.json["question"] == "How is green tea brewed?"
    assert (ran.json["abstained"], ran.json["nearest"], ran.json["model"]) == (False, [], "fake")
    assert ran.json["sentences"][0] == {
        "text": "Green tea is brewed at 80 degrees for two minutes.",
        "supported": True,
        "citations": [1],
    }
    assert ran.json["citations"][0] == {
        "number": 1,
        "note": "tea.md",
        "headings": ["Tea", "Green tea"],
        "first_line": 8,
        "last_line": 8,
        "quote": "Green tea is brewed at 80 degrees for two minutes.",
    }


def test_quotes_are_the_lines_that_the_citation_names(cli: RunCli, notes: Path) -> None:
    answers = cli(
        "ask", "-", cwd=notes, stdin="green tea degrees\nbicycle chain oil\nroad tyres bar\n"
    ).out.splitlines()
    assert len(answers) == 3
    for citation in [citation for answer in answers for citation in json.loads(answer)["citations"]]:
        lines = (notes / citation["note"]).read_text().split("\n")
        assert citation["quote"] == "\n".join(lines[citation["first_line"] - 1 : citation["last_line"]])


def test_an_abstention_succeeds_without_asking_the_model_and_names_the_nearest_places(cli: RunCli, notes: Path) -> None:
    with saying("Beijing.") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator, **NEVER_COVERED}
        ran = cli("ask", "What is the capital of China?", "--json", cwd=notes, env=env)
    assert ran.code == 0
    assert endpoint.bodies == []
    assert (ran.json["abstained"], ran.json["answer"], ran.json["model"]) == (True, "", "none")
    assert (ran.json["sentences"], ran.json["citations"]) == ([], [])
    assert_shape(ran.json["nearest"], [PLACE])


def test_an_abstention_reads_as_one(cli: RunCli, notes: Path) -> None:
    ran = cli("ask", "green tea", cwd=notes, env=NEVER_COVERED)
    assert ran.code == 0
    assert ran.out.startswith("Your notes do not cover this.\n\nNearest in your notes:\n  tea.md:8 › Green tea\n")


def test_status_json_tells_what_is_indexed_and_what_is_stale(cli: RunCli, notes: Path) -> None:
    (notes / "empty.md").write_text("")
    (notes / "odd.md").write_text("---\n[\n---\n# Odd\n\nOdd text.\n")
    cli("index", cwd=notes)
    (notes / "new.md").write_text("# New\n\nNew text.\n")
    (notes / "tea.md").write_text("# Tea\n\nTea is hot.\n")
    (notes / "bikes.md").unlink()
    facts = cli("status", "--json", cwd=notes).json
    counts = {"notes": int, "chunks": int, "terms": int, "index_bytes": int}
    assert_shape(
        facts,
        {
            "notes_folder": str,
            "index_folder": str,
            **counts,
            "created": str,
            "embedder": str,
            "chunk_tokens": int,
            "other_setting": str | None,
            "generator": str,
            "stale": {"added": [str], "changed": [str], "removed": [str]},
            "skipped": [{"path": str, "reason": str}],
            "front_matter_problems": [{"note": str, "problem": str}],
            "tags": dict,
            "folders": dict,
        },
    )
    assert (facts["notes"], facts["chunks"], facts["embedder"]) == (3, 5, "hash@64/fp32")
    assert facts["stale"] == {"added": ["new.md"], "changed": ["tea.md"], "removed": ["bikes.md"]}
    assert facts["skipped"] == [{"path": "empty.md", "reason": "empty"}]
    assert [row["note"] for row in facts["front_matter_problems"]] == ["odd.md"]
    assert (facts["tags"], facts["folders"]) == ({"drinks": 1}, {".": 3})


def test_status_for_people_says_the_same(cli: RunCli, notes: Path) -> None:
    (notes / "empty.md").write_text("")
    cli("index", cwd=notes)
    (notes / "tea.md").write_text("# Tea\n\nTea is hot.\n")
    out = cli("status", cwd=notes).out
    for words in (
        "notes      2 in ",
        "4 chunks",
        "hash@64/fp32",
        "1 changed\n           tea.md",
        "empty.md: empty",
        "drinks (1)",
    ):
        assert words in out


def test_models_list_json_is_a_record_a_model(cli: RunCli, tmp_path: Path) -> None:
    models = cli("models", "list", "--json", env={"STUDYRAG_CACHE": str(tmp_path)}).json
    record = {"name": str, "kind": str, "bytes": int, "installed": bool, "path": str | None, "default": bool}
    assert_shape(models, [{**record, "licence": str, "sources": [str]}])
    assert not any(model["installed"] or model["path"] for model in models)
    defaults = {model["kind"]: model["name"] for model in models if model["default"]}
    assert defaults == {"embedder": "all-MiniLM-L6-v2", "generator": DEFAULT_GENERATOR}


def test_models_list_shows_what_is_installed(cli: RunCli, tiny_gguf: Path) -> None:
    by_name = {model["name"]: model for model in cli("models", "list", "--json").json}
    tiny = by_name["smollm2-135m-instruct"]
    assert (tiny["installed"], tiny["path"]) == (True, str(tiny_gguf))
    assert cli("models", "path", "smollm2-135m-instruct").out.strip() == str(tiny_gguf)


# Questions from standard input


@pytest.mark.parametrize(("name", "key"), [("search", "query"), ("ask", "question")])
def test_a_dash_reads_a_question_a_line_and_prints_an_object_a_line(
    cli: RunCli, notes: Path, name: str, key: str
) -> None:
    ran = cli(name, "-", cwd=notes, stdin="green tea\n\n   \n  bicycle chain  \nroad tyres")
    assert ran.code == 0
    assert [json.loads(line)[key] for line in ran.out.splitlines()] == ["green tea", "bicycle chain", "road tyres"]


def test_no_question_on_standard_input_is_misuse(cli: RunCli, notes: Path) -> None:
    assert_refused(cli("ask", "-", cwd=notes, stdin="\n  \n"), 2, "the question is empty")


def test_a_batch_loads_its_models_once(notes: Path, tmp_path: Path, minilm_folder: Path, tiny_gguf: Path) -> None:
    """After the first answer the model files are gone; the second question is answered all the same."""
    embedder, generator = tmp_path / "embedder", tmp_path / "tiny.gguf"
    embedder.mkdir()
    for file in minilm_folder.iterdir():
        (embedder / file.name).symlink_to(file)
    generator.symlink_to(tiny_gguf)
    env = {
        "STUDYRAG_EMBEDDER": str(embedder),
        "STUDYRAG_GENERATOR": str(generator),
        "STUDYRAG_ANSWER_TOKENS": "16",
        "STUDYRAG_PASSAGES": "1",
    }
    with Running("ask", "-", cwd=notes, env=env, stdin=True) as batch:
        batch.write("How is green tea brewed?\n")
        batch.wait_for("out", "\n")
        for file in [*embedder.iterdir(), generator]:
            file.unlink()
        batch.write("How often is a bicycle chain oiled?\n")
        ran = batch.finish()
    assert ran.code == 0, ran.err
    answers = [json.loads(line) for line in ran.out.splitlines()]
    assert [answer["model"] for answer in answers] == ["tiny", "tiny"]
    assert answers[1]["question"] == "How often is a bicycle chain oiled?"


# Filters and options


@pytest.fixture
def shelves(notes: Path) -> Path:
    """The two notes and three more, in folders, with tags."""
    for name, tags, text in (
        ("kitchen/soup.md", "[food, Winter]", "Soup is boiled in water."),
        ("kitchen/deep/bread.md", "[food]", "Bread is baked, not boiled in water."),
        ("garden/pond.md", "[winter]", "The pond holds water."),
    ):
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).write_text(f"---\ntags: {tags}\n---\n# {Path(name).stem.title()}\n\n{text}\n")
    return notes


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--path", "kitchen"], {"kitchen/soup.md", "kitchen/deep/bread.md"}),
        (["--path", "kitchen/*.md"], {"kitchen/soup.md"}),
        (["--path", "**/*.md"], {"tea.md", "bikes.md", "kitchen/soup.md", "kitchen/deep/bread.md", "garden/pond.md"}),
        (["--path", "garden", "--path", "tea.md"], {"garden/pond.md", "tea.md"}),
        (["--tag", "food"], {"kitchen/soup.md", "kitchen/deep/bread.md"}),
        (["--tag", "#WINTER"], {"kitchen/soup.md", "garden/pond.md"}),
        (["--tag", "food", "--tag", "winter"], {"kitchen/soup.md"}),
        (["--tag", "winter", "--path", "garden"], {"garden/pond.md"}),
    ],
)
def test_filters_leave_only_the_notes_that_pass(cli: RunCli, shelves: Path, flags: list[str], found: set[str]) -> None:
    ran = cli("search", "boiled water", "-k", "50", "--json", *flags, cwd=shelves)
    assert {hit["note"] for hit in ran.json["hits"]} == found


def test_an_answer_cites_only_the_notes_that_pass(cli: RunCli, shelves: Path) -> None:
    asked = cli("ask", "boiled water", "--json", "--tag", "food", "--path", "kitchen/*.md", cwd=shelves)
    assert {citation["note"] for citation in asked.json["citations"]} == {"kitchen/soup.md"}


@pytest.mark.parametrize("flags", [["--path", "attic/*"], ["--tag", "summer"], ["--tag", "food", "--path", "tea.md"]])
def test_a_filter_that_no_note_passes_is_misuse(cli: RunCli, shelves: Path, flags: list[str]) -> None:
    assert_refused(cli("ask", "boiled water", *flags, cwd=shelves), 2, "no note passes", flags[1], "studyrag status")


@pytest.mark.parametrize("retriever", ["bm25", "dense", "hybrid"])
def test_a_retriever_uses_its_arms_only(cli: RunCli, notes: Path, retriever: str) -> None:
    hits = cli("search", "bicycle chain", "--retriever", retriever, "--json", cwd=notes).json["hits"]
    assert hits[0]["note"] == "bikes.md"
    assert any(hit["lexical_rank"] for hit in hits) == (retriever != "dense")
    assert any(hit["dense_rank"] for hit in hits) == (retriever != "bm25")


def test_extract_quotes_the_notes_without_any_model(cli: RunCli, notes: Path) -> None:
    with saying("Not this.") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        answer = cli("ask", "How long is black tea brewed?", "--extract", "--json", cwd=notes, env=env).json
    assert endpoint.bodies == []
    assert answer["model"] == "extract"
    text = (notes / "tea.md").read_text() + (notes / "bikes.md").read_text()
    assert answer["sentences"]
    assert all(sentence["supported"] and sentence["text"] in text for sentence in answer["sentences"])
    assert "Black tea is brewed with boiling water for four minutes." in answer["answer"].split("\n")


def test_quoted_neighbours_stand_together_and_share_a_citation(cli: RunCli, notes: Path) -> None:
    oolong = ["Oolong tea is rinsed once with water.", "Oolong tea is brewed at 90 degrees with water."]
    (notes / "oolong.md").write_text(f"# Oolong\n\n{' '.join(oolong)}\n")
    out = cli("ask", "Is oolong tea rinsed, or brewed at 90 degrees with water?", "--extract", cwd=notes).out
    assert f"\n\n{oolong[0]} [1] {oolong[1]} [1]" in out
    assert "\n\n[1] oolong.md:3 › Oolong\n" in out


def test_a_quoted_fence_closes_before_its_citation(cli: RunCli, notes: Path) -> None:
    fence = "```sh\nkettle --boil oolong --degrees 90\n```"
    (notes / "kettle.md").write_text(f"# Kettle\n\n## Boil oolong to 90 degrees\n\n{fence}\n")
    out = cli("ask", "kettle command to boil oolong to 90 degrees", "--extract", cwd=notes).out
    assert f"{fence}\n[" in out


UNFOUNDED = "Green tea is brewed at 80 degrees for two minutes. Penguins invented radar in Lisbon."


def test_a_sentence_that_the_notes_do_not_support_is_marked(cli: RunCli, notes: Path) -> None:
    with saying(UNFOUNDED) as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        shown = cli("ask", "green tea", cwd=notes, env=env)
        answer = cli("ask", "green tea", "--json", cwd=notes, env=env).json
    assert "two minutes. [1] Penguins invented radar in Lisbon. [unsupported]\n" in shown.out
    assert [sentence["supported"] for sentence in answer["sentences"]] == [True, False]
    assert len(endpoint.bodies) == 2


def test_strict_drops_what_the_notes_do_not_support(cli: RunCli, notes: Path) -> None:
    with saying(UNFOUNDED) as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        shown = cli("ask", "green tea", "--strict", cwd=notes, env=env)
        answer = cli("ask", "green tea", "--strict", "--json", cwd=notes, env=env).json
    assert "Penguins" not in shown.out
    assert answer["answer"] == "Green tea is brewed at 80 degrees for two minutes."


def test_an_answer_that_nothing_supports_is_not_shown(cli: RunCli, notes: Path) -> None:
    with saying("Penguins invented radar in Lisbon.") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        shown = cli("ask", "green tea", cwd=notes, env=env)
        answer = cli("ask", "green tea", "--strict", "--json", cwd=notes, env=env).json
    assert "Penguins" not in shown.out
    assert "Your notes do not cover this.\n\nNearest in your notes:\n  tea.md:8 › Green tea\n" in shown.out
    assert (answer["abstained"], answer["answer"], answer["sentences"]) == (True, "", [])


def test_trace_shows_every_stage_on_stderr_and_leaves_stdout_alone(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    ran = cli("ask", "green tea", "--trace", "--json", cwd=notes)
    stages = [line.split()[0] for line in ran.err.splitlines()]
    assert {"index", "embed_query", "query_terms", "lexical", "dense", "fuse", "evidence", "pack", "generate"} <= set(
        stages
    )
    assert all(re.match(r"\S+ +[\d.]+ ms", line) for line in ran.err.splitlines())
    assert ran.json["answer"]


def test_passages_shows_what_the_model_reads(cli: RunCli, notes: Path) -> None:
    out = cli("ask", "green tea", "--passages", cwd=notes).out
    assert "  tea.md:6-8 › Green tea\n    | ## Green tea\n    | \n    | Green tea is brewed at" in out


def test_an_answer_reads_as_evidence_then_sentences_then_sources(cli: RunCli, notes: Path) -> None:
    out = cli("ask", "How is green tea brewed?", "--path", "tea.md", cwd=notes).out
    assert out == (
        "Reading:\n  tea.md:6-8 › Green tea\n  tea.md:10-12 › Black tea\n\n"
        "Green tea is brewed at 80 degrees for two minutes. [1] "
        "Black tea is brewed with boiling water for four minutes. [2]\n\n"
        "[1] tea.md:8 › Green tea\n[2] tea.md:12 › Black tea\n"
    )


# Settings


def test_init_makes_a_folder_of_notes_answer(cli: RunCli, notes: Path) -> None:
    (notes / "studyrag.toml").unlink()
    made = cli("init", str(notes))
    assert made.code == 0
    assert f"cd {notes}" in made.err
    assert cli("search", "bicycle chain", "-k", "1", "--json", cwd=notes).json["hits"][0]["note"] == "bikes.md"
    assert (notes / ".studyrag" / "CURRENT").is_file()


def test_init_leaves_settings_that_are_there_alone(cli: RunCli, notes: Path) -> None:
    before = (notes / "studyrag.toml").read_bytes()
    assert_refused(cli("init", cwd=notes), 2, "studyrag.toml is there already", "edit it")
    assert (notes / "studyrag.toml").read_bytes() == before


def test_init_of_a_folder_that_is_not_there_is_misuse(cli: RunCli, tmp_path: Path) -> None:
    assert_refused(cli("init", str(tmp_path / "nowhere")), 2, "no such folder", "mkdir")


def test_settings_are_found_upwards_from_where_the_command_runs(cli: RunCli, shelves: Path) -> None:
    ran = cli("search", "pond", "-k", "1", "--json", cwd=shelves / "kitchen" / "deep")
    assert ran.json["hits"][0]["note"] == "garden/pond.md"
    assert (shelves / ".studyrag").is_dir()


def test_without_settings_the_fix_is_init(cli: RunCli, tmp_path: Path) -> None:
    for arguments in (["index"], ["ask", "tea"]):
        assert_refused(cli(*arguments, cwd=tmp_path), 2, "no studyrag.toml", "studyrag init")


def test_a_flag_overrides_the_environment_which_overrides_the_file(cli: RunCli, notes: Path) -> None:
    with (notes / "studyrag.toml").open("a") as file:
        file.write('generator = "no-such-model"\nretriever = "bm25"\n')
    dense = {"STUDYRAG_RETRIEVER": "dense"}
    by_file = cli("search", "green tea", "--json", cwd=notes).json["hits"]
    by_environment = cli("search", "green tea", "--json", cwd=notes, env=dense).json["hits"]
    by_flag = cli("search", "green tea", "--json", "--retriever", "bm25", cwd=notes, env=dense).json["hits"]
    assert [hit["dense_rank"] for hit in by_file + by_flag] == [None] * len(by_file + by_flag)
    assert [hit["lexical_rank"] for hit in by_environment] == [None] * len(by_environment)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("retreiver = 'bm25'", ["unknown setting `retreiver`", "did you mean `retriever`?"]),
        ("retriever = 'magic'", ["'magic'", "'hybrid', 'bm25' or 'dense'", "studyrag.toml"]),
        ("chunk_tokens = 3", ["`chunk_tokens` = 3", "64", "studyrag.toml"]),
        ("notes =", ["not valid TOML", "line 3"]),
    ],
)
def test_a_bad_setting_is_named_with_its_cure(cli: RunCli, notes: Path, line: str, said: list[str]) -> None:
    with (notes / "studyrag.toml").open("a") as file:
        file.write(line + "\n")
    assert_refused(cli("search", "tea", cwd=notes), 2, *said)


def test_a_bad_setting_is_mended_where_it_was_made(cli: RunCli, notes: Path) -> None:
    assert_refused(cli("search", "tea", "--retriever", "magic", cwd=notes), 2, "'magic'", "Change it in the flag")
    env = {"STUDYRAG_RETRIEVER": "magic"}
    assert_refused(cli("search", "tea", cwd=notes, env=env), 2, "Change it in STUDYRAG_RETRIEVER")
    misspelt = {"STUDYRAG_RETREIVER": "bm25"}
    assert_refused(cli("search", "tea", cwd=notes, env=misspelt), 2, "did you mean `STUDYRAG_RETRIEVER`?")


# Keeping up with the notes


def test_asking_never_serves_text_that_left_the_notes(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    (notes / "tea.md").write_text("# Tea\n\n## Green tea\n\nGreen tea is brewed at 70 degrees.\n")
    answer = cli("ask", "green tea degrees", "--json", cwd=notes).json
    assert "70 degrees" in answer["answer"]
    assert "80 degrees" not in json.dumps(answer)
    (notes / "bikes.md").rename(notes / "cycling.md")
    hits = cli("search", "bicycle chain", "--json", cwd=notes).json["hits"]
    assert {hit["note"] for hit in hits} == {"tea.md", "cycling.md"}
    (notes / "cycling.md").unlink()
    assert "bicycle" not in cli("search", "bicycle chain", cwd=notes).out


def test_stale_warn_leaves_changed_notes_out_and_says_so(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    before = (notes / ".studyrag" / "CURRENT").read_text()
    (notes / "tea.md").write_text("# Tea\n\nTea is cold.\n")
    ran = cli("search", "green tea", "--json", cwd=notes, env={"STUDYRAG_STALE": "warn"})
    assert {hit["note"] for hit in ran.json["hits"]} == {"bikes.md"}
    assert "1 changed" in ran.err
    assert "`studyrag index`" in ran.err
    assert (notes / ".studyrag" / "CURRENT").read_text() == before
    assert cli("index", cwd=notes).code == 0
    assert "cold" in cli("search", "tea", cwd=notes, env={"STUDYRAG_STALE": "warn"}).out


def test_index_reads_only_what_changed(cli: RunCli, notes: Path) -> None:
    assert "2 notes, 4 chunks; 4 chunks embedded from 2 files read" in cli("index", cwd=notes).err
    assert "nothing changed" in cli("index", cwd=notes).err
    (notes / "tea.md").write_text((notes / "tea.md").read_text().replace("80", "75"))
    assert "1 chunks embedded from 1 files read" in cli("index", cwd=notes).err
    assert "4 chunks embedded from 2 files read" in cli("index", "--full", cwd=notes).err


# Models that are not there


def test_without_a_generator_and_a_terminal_the_answer_is_extracted_and_the_command_named(
    cli: RunCli, notes: Path, tmp_path: Path
) -> None:
    env = {"STUDYRAG_GENERATOR": DEFAULT_GENERATOR, "STUDYRAG_CACHE": str(tmp_path / "empty")}
    ran = cli("ask", "How is green tea brewed?", "--json", cwd=notes, env=env)
    assert ran.code == 0
    assert ran.json["model"] == "extract"
    assert "Green tea is brewed at 80 degrees for two minutes." in ran.json["answer"]
    assert f"studyrag models pull {DEFAULT_GENERATOR}" in ran.err
    assert "Fetch it now?" not in ran.err


def test_without_an_embedder_the_command_that_fetches_it_is_named(cli: RunCli, notes: Path, tmp_path: Path) -> None:
    env = {"STUDYRAG_EMBEDDER": "all-MiniLM-L6-v2", "STUDYRAG_CACHE": str(tmp_path / "empty")}
    for arguments in (["index"], ["search", "tea"], ["ask", "tea", "--extract"]):
        ran = cli(*arguments, cwd=notes, env=env)
        assert_refused(ran, 1, "all-MiniLM-L6-v2 is not installed", "studyrag models pull all-MiniLM-L6-v2")


def test_yes_pulls_at_once_and_says_why_it_could_not(cli: RunCli, notes: Path, tmp_path: Path) -> None:
    env = {"STUDYRAG_GENERATOR": DEFAULT_GENERATOR, "STUDYRAG_CACHE": str(tmp_path / "empty")}
    ran = cli("ask", "green tea", "--yes", cwd=notes, env=env)
    assert_refused(ran, 1, "STUDYRAG_OFFLINE is set", f"studyrag models pull {DEFAULT_GENERATOR} --from PATH")


@pytest.mark.parametrize("arguments", [["pull"], ["path"], ["verify"], ["remove"]])
def test_an_unknown_model_is_misuse_and_the_nearest_name_is_given(cli: RunCli, arguments: list[str]) -> None:
    ran = cli("models", *arguments, "qwen2.5-coder-1.5b")
    assert_refused(ran, 2, "no model is called 'qwen2.5-coder-1.5b'", DEFAULT_GENERATOR)


# The command itself


def test_version_is_printed(cli: RunCli) -> None:
    ran = cli("--version")
    assert ran.code == 0
    assert re.fullmatch(r"studyrag \d+\.\d+\.\d+\n", ran.out)


def test_help_names_every_command(cli: RunCli) -> None:
    ran = cli("--help")
    assert ran.code == 0
    for name in ("ask", "search", "init", "index", "status", "doctor", "models"):
        assert re.search(rf"^\W*{name}  ", ran.out, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["models"]])
def test_a_bare_command_shows_its_help(cli: RunCli, arguments: list[str]) -> None:
    ran = cli(*arguments)
    assert (ran.code, ran.err) == (2, "")
    assert "Usage:" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["aks", "tea"], "No such command 'aks'"),
        (["search", "tea", "--jsn"], "No such option: --jsn"),
        (["search", "tea", "-k", "0"], "greater than or equal to 1"),
        (["search", "tea", "-k", "many"], "'-k'"),
        (["models", "pull"], "Missing argument 'name'"),
        (["status", "now"], "unexpected extra argument"),
    ],
)
def test_a_mistyped_command_line_is_misuse(cli: RunCli, notes: Path, arguments: list[str], said: str) -> None:
    assert_refused(cli(*arguments, cwd=notes), 2, said, "--help`")


def _script(**variables: str) -> Ran:
    done = subprocess.run([SCRIPT], env=cli_environment(variables), capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_produced(shell: str) -> None:
    ran = _script(_STUDYRAG_COMPLETE=f"source_{shell}")
    assert ran.code == 0
    assert f"_STUDYRAG_COMPLETE=complete_{shell}" in ran.out


def test_commands_and_options_complete() -> None:
    assert _script(_STUDYRAG_COMPLETE="complete_bash", COMP_WORDS="studyrag mo", COMP_CWORD="1").out.split() == [
        "models"
    ]
    options = _script(_STUDYRAG_COMPLETE="complete_bash", COMP_WORDS="studyrag ask --ex", COMP_CWORD="2").out.split()
    assert options == ["--extract"]


def test_a_reader_that_stops_reading_is_no_error(notes: Path) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        command("search", "-"),
        cwd=notes,
        env=cli_environment(),
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as done:
        os.close(writer)
        os.close(reader)
        _, err = done.communicate(b"green tea\n" * 20)
    assert done.returncode == 0
    assert b"Error" not in err


def test_doctor_succeeds_when_all_is_well(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    ran = cli("doctor", cwd=notes)
    assert ran.code == 0, ran.out
    assert "FAIL" not in ran.out
    assert "every checksum right" in ran.out


def test_doctor_fails_with_a_remedy_for_each_fault(cli: RunCli, notes: Path, tmp_path: Path) -> None:
    env = {"STUDYRAG_GENERATOR": DEFAULT_GENERATOR, "STUDYRAG_CACHE": str(tmp_path / "empty")}
    ran = cli("doctor", cwd=notes, env=env)
    assert ran.code == 1
    assert re.search(r"FAIL  index: .*\n      remedy: studyrag index\n", ran.out)
    assert re.search(rf"FAIL  generator: .*\n      remedy: studyrag models pull {DEFAULT_GENERATOR}\n", ran.out)
    assert "ok    notes: 2 markdown files" in ran.out


def test_doctor_says_what_is_wrong_with_the_settings(cli: RunCli, tmp_path: Path) -> None:
    ran = cli("doctor", cwd=tmp_path)
    assert ran.code == 1
    assert "FAIL  settings: no studyrag.toml" in ran.out
    assert "remedy: run `studyrag init`" in ran.out


def test_doctor_notices_notes_that_changed(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    (notes / "tea.md").write_text("# Tea\n\nTea is cold.\n")
    ran = cli("doctor", cwd=notes)
    assert ran.code == 1
    assert "FAIL  staleness: 1 files differ from the index\n      remedy: studyrag index\n" in ran.out


# At a terminal

LINK = re.compile(r"\x1b\]8;;(file://[^\x1b]*)\x1b\\([^\x1b]*)\x1b\]8;;\x1b\\")


def test_citations_are_links_at_a_terminal(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    with Terminal("ask", "How is green tea brewed?", cwd=notes) as terminal:
        assert terminal.finish() == 0
        links = LINK.findall(terminal.screen)
        assert (f"file://{notes}/tea.md", "tea.md:8") in links
        assert_plain(LINK.sub("", terminal.screen).replace("\r\n", "\n"))


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_no_links_where_the_terminal_cannot_or_may_not(cli: RunCli, notes: Path, env: dict[str, str]) -> None:
    cli("index", cwd=notes)
    with Terminal("ask", "How is green tea brewed?", cwd=notes, env=env) as terminal:
        assert terminal.finish() == 0
        assert "[1] tea.md:8 › Green tea" in terminal.screen
        assert_plain(terminal.screen.replace("\r\n", "\n"))


def test_no_links_in_a_pipe(cli: RunCli, notes: Path) -> None:
    ran = cli("ask", "How is green tea brewed?", cwd=notes, env={"TERM": "xterm-256color"})
    assert "[1] tea.md:8 › Green tea" in ran.out
    assert_plain(ran.out, ran.err)


def test_a_first_answer_is_whole_although_a_progress_bar_came_before_it(notes: Path) -> None:
    with Terminal("ask", "How is green tea brewed?", cwd=notes) as terminal:
        assert terminal.finish() == 0
    shown = LINK.sub(r"\2", terminal.screen)
    assert "reading" in shown
    answer = shown[shown.index("Reading:") :]
    assert "\r\nGreen tea is brewed at 80 degrees for two minutes. [1] Black tea" in answer
    assert_plain(answer.replace("\r\n", "\n"))


def test_the_evidence_is_on_the_screen_before_the_first_token(cli: RunCli, notes: Path) -> None:
    """The endpoint says nothing until the test has seen the list."""
    cli("index", cwd=notes)
    with held_endpoint(after="Green tea is brewed at 80 degrees for two minutes.") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator, "TERM": "dumb"}
        with Terminal("ask", "How is green tea brewed?", cwd=notes, env=env) as terminal:
            terminal.wait_for("Reading:\r\n  tea.md:6-8 › Green tea\r\n")
            assert "80 degrees" not in terminal.screen
            endpoint.release.set()
            assert terminal.finish() == 0
    assert "80 degrees for two minutes. [1]" in terminal.screen


def test_the_evidence_comes_first_in_a_pipe_too(cli: RunCli, notes: Path) -> None:
    cli("index", cwd=notes)
    with held_endpoint(after="Green tea is brewed at 80 degrees for two minutes.") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator}
        with Running("ask", "How is green tea brewed?", cwd=notes, env=env) as asked:
            asked.wait_for("out", "Reading:\n  tea.md:6-8 › Green tea\n")
            endpoint.release.set()
            assert asked.finish().code == 0


def test_tokens_are_shown_as_they_come(cli: RunCli, notes: Path) -> None:
    """From the first sentence on that the notes support."""
    cli("index", cwd=notes)
    before = "Green tea is brewed at 80 degrees for two minutes. Black tea is brewed "
    with held_endpoint(before=before, after="with boiling water for four minutes.") as endpoint:
        env = {"STUDYRAG_GENERATOR": endpoint.generator, "TERM": "dumb"}
        with Terminal("ask", "How is green tea brewed?", cwd=notes, env=env) as terminal:
            terminal.wait_for("\r\n\r\nGreen tea is brewed at 80 degrees for two minutes. [1] Black tea is brewed")
            endpoint.release.set()
            assert terminal.finish() == 0


def test_a_missing_generator_is_offered_at_a_terminal_with_its_size(cli: RunCli, notes: Path, tmp_path: Path) -> None:
    cli("index", cwd=notes)
    env = {"STUDYRAG_GENERATOR": DEFAULT_GENERATOR, "STUDYRAG_CACHE": str(tmp_path / "empty"), "TERM": "dumb"}
    with Terminal("ask", "How is green tea brewed?", cwd=notes, env=env) as terminal:
        terminal.wait_for(f"{DEFAULT_GENERATOR} is not installed (1.1 GB). Fetch it now? [Y/n]")
        terminal.type("n\n")
        assert terminal.finish() == 0
        assert f"studyrag models pull {DEFAULT_GENERATOR}" in terminal.screen
        assert "Green tea is brewed at 80 degrees for two minutes. [1]" in terminal.screen


def test_an_offer_that_is_taken_pulls(cli: RunCli, notes: Path, tmp_path: Path) -> None:
    cli("index", cwd=notes)
    env = {"STUDYRAG_GENERATOR": DEFAULT_GENERATOR, "STUDYRAG_CACHE": str(tmp_path / "empty"), "TERM": "dumb"}
    with Terminal("ask", "How is green tea brewed?", cwd=notes, env=env) as terminal:
        terminal.wait_for("Fetch it now? [Y/n]")
        terminal.type("\n")
        assert terminal.finish() == 1
        assert "STUDYRAG_OFFLINE is set" in terminal.screen


def test_a_large_pull_is_asked_about_at_a_terminal(tmp_path: Path) -> None:
    with Terminal(
        "models", "pull", DEFAULT_GENERATOR, cwd=tmp_path, env={"STUDYRAG_CACHE": str(tmp_path), "TERM": "dumb"}
    ) as terminal:
        terminal.wait_for("is 1.1 GB, licence Apache-2.0. Fetch it? [Y/n]")
        terminal.type("n\n")
        assert terminal.finish() == 1
        assert "nothing was fetched" in terminal.screen
