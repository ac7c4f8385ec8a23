"""Settings: file, then environment, then flags; what is wrong is named, with the nearest thing that is right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from studyrag.errors import SettingsError
from studyrag.settings import FILE_NAME, Settings, find_file, load_settings


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path, **environ: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(folder, environ=environ)
    return caught.value


def test_the_file_is_found_upwards_and_the_nearest_wins(tmp_path: Path) -> None:
    written(tmp_path, "seed = 1")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_file(deep) == tmp_path.resolve() / FILE_NAME
    assert load_settings(deep, environ={}).seed == 1
    written(tmp_path / "a", "seed = 2")
    assert load_settings(deep, environ={}).seed == 2


def test_a_folder_of_that_name_is_not_the_file(tmp_path: Path) -> None:
    written(tmp_path, "seed = 1")
    (tmp_path / "a" / FILE_NAME).mkdir(parents=True)
    assert find_file(tmp_path / "a") == tmp_path.resolve() / FILE_NAME


def test_an_empty_file_gives_every_default(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, ""), environ={})
    home = tmp_path.resolve()
    assert settings == Settings(notes=home, index=home / ".studyrag")


def test_the_environment_overrides_the_file_and_flags_override_both(tmp_path: Path) -> None:
    written(tmp_path, 'seed = 1\npassages = 1\nstrict = true\nretriever = "dense"')
    environ = {"STUDYRAG_PASSAGES": "2", "STUDYRAG_RETRIEVER": "bm25", "OTHER_SEED": "9"}
    settings = load_settings(tmp_path, flags={"retriever": "hybrid", "strict": None}, environ=environ)
    assert (settings.seed, settings.passages, settings.strict, settings.retriever) == (1, 2, True, "hybrid")


def test_a_flag_that_is_false_or_zero_is_given_and_none_is_not(tmp_path: Path) -> None:
    written(tmp_path, "strict = true\nseed = 7\ntemperature = 0.5")
    settings = load_settings(tmp_path, flags={"strict": False, "seed": 0, "temperature": None}, environ={})
    assert (settings.strict, settings.seed, settings.temperature) == (False, 0, 0.5)


def test_paths_of_the_file_and_the_environment_start_at_the_file_and_those_of_flags_where_the_command_runs(
    tmp_path: Path,
) -> None:
    written(tmp_path, 'notes = "my notes"\nindex = "../elsewhere"')
    inside = tmp_path / "inside"
    inside.mkdir()
    home = tmp_path.resolve()
    settings = load_settings(inside, environ={})
    assert (settings.notes, settings.index) == (home / "my notes", home.parent / "elsewhere")
    assert load_settings(inside, environ={"STUDYRAG_NOTES": "n"}).notes == home / "n"
    assert load_settings(inside, flags={"notes": "n"}, environ={}).notes == home / "inside" / "n"
    assert load_settings(inside, environ={"STUDYRAG_INDEX": str(home / "abs")}).index == home / "abs"
    assert load_settings(inside, environ={"STUDYRAG_NOTES": "~/n"}).notes == (Path.home() / "n").resolve()


def test_without_a_file_notes_from_the_environment_or_a_flag_are_enough(tmp_path: Path) -> None:
    assert load_settings(tmp_path, environ={"STUDYRAG_NOTES": "n"}).notes == tmp_path.resolve() / "n"
    assert load_settings(tmp_path, flags={"notes": "n"}, environ={}).index == tmp_path.resolve() / ".studyrag"


def test_no_file_at_all_says_how_to_get_one(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.message == f"no studyrag.toml in {tmp_path.resolve()} or any folder above it"
    assert "studyrag init" in error.fix
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("sead = 1", "did you mean `seed`?"),
        ('retreiver = "bm25"', "did you mean `retriever`?"),
        ('Notes = "x"', "did you mean `notes`?"),
        ("qqqqqqqq = 1", "known: notes, index, exclude"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path, line: str, fix: str) -> None:
    error = refused(written(tmp_path, line))
    assert str(tmp_path.resolve() / FILE_NAME) in error.message + error.fix
    assert fix in error.fix


def test_an_unknown_variable_is_refused_in_its_own_spelling(tmp_path: Path) -> None:
    error = refused(written(tmp_path, ""), STUDYRAG_PASAGES="3")
    assert error.message == "environment: unknown setting `STUDYRAG_PASAGES`"
    assert error.fix == "did you mean `STUDYRAG_PASSAGES`?"


def test_variables_that_are_no_settings_are_no_settings(tmp_path: Path) -> None:
    names = ("STUDYRAG_CACHE", "STUDYRAG_OFFLINE", "STUDYRAG_API_KEY")
    load_settings(written(tmp_path, ""), environ=dict.fromkeys(names, "x"))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("seed = -1", "seed"),
        ("dense_weight = 1.5", "dense_weight"),
        ("min_coverage = 'often'", "min_coverage"),
        ('retriever = "google"', "retriever"),
        ('stale = "ignore"', "stale"),
        ("passages = 0", "passages"),
        ("chunk_tokens = 10", "chunk_tokens"),
        ("exclude = [1]", "exclude"),
        ("strict = 'perhaps'", "strict"),
        ('notes = ["a"]', "notes"),
        ("[notes]\nx = 1", "notes"),
    ],
)
def test_a_bad_value_is_refused_with_what_the_setting_means_and_where_it_stands(
    tmp_path: Path, line: str, key: str
) -> None:
    error = refused(written(tmp_path, line))
    assert error.message.startswith(f"setting `{key}")
    description = Settings.model_fields[key].description
    assert description is not None and error.fix.startswith(description)
    assert str(tmp_path.resolve() / FILE_NAME) in error.fix


def test_a_bad_variable_is_refused_too(tmp_path: Path) -> None:
    error = refused(tmp_path, STUDYRAG_NOTES="x", STUDYRAG_SEED="one")
    assert error.message.startswith("setting `seed` = 'one'")
    assert error.fix.endswith("Change it in STUDYRAG_SEED")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, flags={"notes": "x", "seed": "two"}, environ={"STUDYRAG_SEED": "one"})
    assert caught.value.message.startswith("setting `seed` = 'two'")
    assert caught.value.fix.endswith("Change it in the flag")


def test_a_model_file_is_named_relative_to_the_settings_file(tmp_path: Path) -> None:
    home = written(tmp_path, 'generator = "models/a.gguf"\njudge = "/abs/b.gguf"\nembedder = "models/e"').resolve()
    (tmp_path / "models" / "e").mkdir(parents=True)
    deep = tmp_path / "deep"
    deep.mkdir()
    found = load_settings(deep, environ={})
    assert (found.generator, found.judge, found.embedder) == (
        str(home / "models" / "a.gguf"), "/abs/b.gguf", str(home / "models" / "e"),
    )  # fmt: skip
    assert load_settings(deep, environ={"STUDYRAG_GENERATOR": "x/a.gguf"}).generator == "x/a.gguf"
    assert load_settings(deep, flags={"judge": "b.gguf"}, environ={}).judge == "b.gguf"


def test_an_overlap_of_more_than_half_a_chunk_is_refused(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, "chunk_tokens = 64\nchunk_overlap = 32"), environ={}).chunk_overlap == 32
    error = refused(written(tmp_path, "chunk_tokens = 64\nchunk_overlap = 33"))
    assert "chunk_overlap" in error.message and "half" in error.message


@pytest.mark.parametrize(
    "name", ["qwen2.5-coder-1.5b-instruct", "openai:http://h/v1#m.gguf", "~/m.gguf", "fake", "no/folder"]
)
def test_other_names_of_models_stay_as_they_are(tmp_path: Path, name: str) -> None:
    assert load_settings(written(tmp_path, f'generator = "{name}"'), environ={}).generator == name


def test_the_home_of_nobody_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, STUDYRAG_NOTES="~no-such-user-here/notes")
    assert error.message == "setting `notes` = '~no-such-user-here/notes': there is no such user"


@pytest.mark.parametrize("content", [b"seed = ", b"= 3", b"\xff\xfe", b"seed = 1\nseed = 2"])
def test_a_file_that_is_no_toml_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    error = refused(tmp_path)
    assert error.message.startswith(f"{tmp_path.resolve() / FILE_NAME}: not valid TOML")


def test_lists_come_from_the_file_as_lists_and_from_variables_joined_like_path(tmp_path: Path) -> None:
    written(tmp_path, 'exclude = ["a/**", "b.md"]')
    assert load_settings(tmp_path, environ={}).exclude == ("a/**", "b.md")
    joined = os.pathsep.join(["c", "", "d/*"])
    assert load_settings(tmp_path, environ={"STUDYRAG_EXCLUDE": joined}).exclude == ("c", "d/*")


def test_settings_are_frozen_and_all_described() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.seed = 3
    assert all(field.description for field in Settings.model_fields.values())


def test_making_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDYRAG_SEED", "5")
    assert Settings().seed == 0


def test_the_process_environment_is_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDYRAG_SEED", "5")
    assert load_settings(written(tmp_path, "")).seed == 5
