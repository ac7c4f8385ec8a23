"""The documentation is true: generated pages are fresh, links lead somewhere, and the README's commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, RunCli, load_script

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


PAGES = load_script("docs/generate.py").PAGES


def test_the_readme_names_enough_commands_to_be_worth_running() -> None:
    assert len(COMMANDS) >= 12
    assert all(command.startswith("studyrag ") for command in COMMANDS)


def test_every_command_of_the_readme_runs_in_order(cli: RunCli, notes: Path) -> None:
    (notes / "studyrag.toml").unlink()
    for command in COMMANDS:
        done = cli(*shlex.split(command)[1:], cwd=notes)
        assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
        assert done.out.strip() or done.err.strip(), command


@pytest.mark.parametrize("page", sorted(PAGES))
def test_generated_pages_are_fresh(page: str) -> None:
    assert (REPOSITORY / page).read_text(encoding="utf-8") == PAGES[page](), "run docs/generate.py"


@pytest.mark.parametrize("page", sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("*.md")))
def test_relative_links_lead_to_files(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (REPOSITORY / page).parent.joinpath(target).exists(), f"{page}: {target}"
