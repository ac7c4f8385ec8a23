"""The rules that no single module can keep: the map, the direction of imports, what is imported when, sizes."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import studyrag
from tests.conftest import cli_environment

SOURCE = Path(studyrag.__file__ or "").parent
FILES = sorted(SOURCE.rglob("*.py"))
STAGES = (
    "reading",
    "splitting",
    "embedding",
    "lexical",
    "dense",
    "fusing",
    "evidence",
    "packing",
    "prompting",
    "generating",
    "quoting",
    "attributing",
)
TORCH = ("torch", "transformers", "sentence_transformers")
LATE = (
    *TORCH,
    "faiss",
    "onnxruntime",
    "tokenizers",
    "llama_cpp",
    "huggingface_hub",
    "langchain_text_splitters",
    "yaml",
    "ir_measures",
    "matplotlib",
    "scipy",
)
"""Imported when they are needed, never by importing a module of the package."""
RUNS_CODE = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
LONGEST_FUNCTION = 60


def name_of(file: Path) -> str:
    """What the map calls the module that a file is or belongs to: ``terms.py``, or ``cli/`` for all in a package."""
    relative = file.relative_to(SOURCE)
    return f"{relative.parts[0]}/" if len(relative.parts) > 1 else relative.name


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(["studyrag", *(part for part in parts if part != "__init__")])


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def the_map() -> list[str]:
    """Names in the order of the package's docstring: lines ``    name.py  what it does``."""
    return re.findall(r"^    (\w+(?:\.py|/))  +\S", studyrag.__doc__ or "", re.MULTILINE)


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it is imported inside a function) of every import, type-checking ones included."""
    inside = {
        id(node)
        for function in ast.walk(tree(file))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from ((str(arg.value), id(node) in inside) for arg in node.args if isinstance(arg, ast.Constant))


def own_imports(file: Path) -> set[str]:
    """Names, as the map has them, of the package's modules that a file imports."""
    found = set()
    for dotted, _ in imports(file):
        parts = dotted.split(".")
        if parts[0] == "studyrag" and len(parts) > 1:
            found.add(f"{parts[1]}/" if (SOURCE / parts[1]).is_dir() else f"{parts[1]}.py")
    return found


def test_every_module_is_in_the_map_once_and_nothing_else_is() -> None:
    listed = the_map()
    assert sorted(listed) == sorted({name_of(file) for file in FILES} - {"__init__.py"})


def test_imports_point_only_upwards_in_the_map() -> None:
    place = {name: at for at, name in enumerate(the_map())}
    downwards = [
        f"{file.relative_to(SOURCE)} imports {name}"
        for file in FILES
        for name in own_imports(file)
        if name != name_of(file) and place[name] >= place.get(name_of(file), -1)
    ]
    assert downwards == []


def test_the_package_itself_imports_none_of_its_modules() -> None:
    assert own_imports(SOURCE / "__init__.py") == set()


def test_stages_never_import_each_other() -> None:
    files = {f"{stage}.py": SOURCE / f"{stage}.py" for stage in STAGES}
    assert all(file.is_file() for file in files.values())
    crossing = {name: own_imports(file) & files.keys() for name, file in files.items()}
    assert {name: found for name, found in crossing.items() if found} == {}


def test_only_the_command_line_knows_the_command_line() -> None:
    users = {name_of(file) for file in FILES if "cli/" in own_imports(file)}
    assert users <= {"cli/", "__main__.py"}
    printing = [
        file.name
        for file in FILES
        if name_of(file) != "cli/"
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input")
    ]
    assert printing == []


def test_torch_is_imported_in_two_modules_and_only_inside_functions() -> None:
    found = {(file.name, inside) for file in FILES for dotted, inside in imports(file) if dotted.split(".")[0] in TORCH}
    assert {name for name, _ in found} == {"exporting.py", "embedding.py"}
    assert all(inside for _, inside in found)


def test_nothing_that_runs_code_from_a_file_is_imported() -> None:
    found = [
        f"{file.name}: {dotted}" for file in FILES for dotted, _ in imports(file) if dotted.split(".")[0] in RUNS_CODE
    ]
    assert found == []


def test_numpy_never_loads_a_pickle() -> None:
    loads = [
        node
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load", "np.save", "numpy.save")
    ]
    assert loads
    for node in loads:
        assert "allow_pickle=False" in ast.unparse(node)


def test_no_function_is_too_long_to_read_at_once() -> None:
    long = {
        f"{file.relative_to(SOURCE)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION} == {}


def test_every_module_says_what_it_is_for() -> None:
    assert [file.name for file in FILES if not ast.get_docstring(tree(file))] == []


_IMPORTER = """
import importlib, json, logging, os, sys, threading
import numpy  # sets a variable for its own sake, and is not ours

done = []

def watch(event, arguments):
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & writes:
        done.append([event, str(arguments[0])])
    elif event.split(".")[0] in ("socket", "subprocess") or event in (
        "os.putenv", "os.unsetenv", "os.mkdir", "os.remove", "os.rename", "os.chdir", "os.system", "os.kill",
        "signal.signal",
    ):
        if event not in ("socket.__new__", "socket.gethostname"):
            done.append([event, str(arguments)])

before = dict(os.environ)
names = json.loads(sys.argv[1])
sys.argv = ["studyrag"]
sys.addaudithook(watch)
for name in names:
    importlib.import_module(name)
print(json.dumps({
    "done": done,
    "environment": dict(os.environ) == before,
    "threads": [thread.name for thread in threading.enumerate()],
    "handlers": len(logging.root.handlers),
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
}))
"""


def test_importing_every_module_changes_nothing_and_loads_nothing_heavy() -> None:
    names = [module_of(file) for file in FILES if file.name != "__main__.py"]
    assert len(names) > 30
    ran = subprocess.run(
        [sys.executable, "-B", "-c", _IMPORTER, json.dumps(names)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    seen = json.loads(ran.stdout)  # so nothing else was printed
    assert seen["done"] == []
    assert seen["environment"]
    assert seen["threads"] == ["MainThread"]
    assert seen["handlers"] == 0
    assert set(seen["modules"]) & set(LATE) == set()


_COMMAND = """
import sys

from studyrag.cli import main

try:
    main()
except SystemExit as err:
    code = err.code
print("loaded:", *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def loaded_by(notes: Path, *arguments: str) -> set[str]:
    """Top-level packages in the process of a real command, with the real embedder."""
    ran = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments],
        cwd=notes,
        env=cli_environment({"STUDYRAG_EMBEDDER": "all-MiniLM-L6-v2"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "tea.md" in ran.stdout
    return set(ran.stderr.rpartition("loaded:")[2].split())


@pytest.mark.usefixtures("minilm_folder")
def test_indexing_searching_and_extracting_with_the_real_model_never_load_torch(notes: Path) -> None:
    first = loaded_by(notes, "search", "how hot is green tea", "--json")
    assert first & set(TORCH) == set()
    assert {"onnxruntime", "tokenizers", "faiss"} <= first
    second = loaded_by(notes, "search", "how hot is green tea", "--json")
    assert second & {*TORCH, "llama_cpp", "huggingface_hub", "langchain_text_splitters", "markdown_it", "yaml"} == set()
    answer = loaded_by(notes, "ask", "--extract", "--json", "how hot is green tea")
    assert answer & {*TORCH, "llama_cpp"} == set()
