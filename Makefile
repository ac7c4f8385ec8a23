# Two commands do everything on a fresh machine:
#   make ask Q="Why is attention scaled by the square root of d_k?"
#   make test
# Both set up what they need, say so, and cost nothing when that is done.

PYTHON ?= python3
VENV := .venv
REPORT := build/report
BIN := $(VENV)/bin
# The question reaches the command through the environment, so that quotes and dollar signs survive.
export QUESTION := $(value Q)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# llama.cpp without server, tools, vision, examples and tests: 2 minutes 15 seconds on two cores instead of 5 minutes.
LLAMA_OPTIONS := -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF \
  '-DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/packaging/llama-cpp.cmake'

.PHONY: ask setup setup-test test check format bench eval eval-smoke eval-nightly clean help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -4
	@echo 'also: make check | bench | eval | eval-smoke | eval-nightly | format | setup | setup-test | clean'

ask: $(BIN)/.ready
	@$(if $(value Q),,echo 'error: no question'; echo '  fix: make ask Q="What is a KV cache?"'; exit 2)
	@$(BIN)/studyrag ask --yes -- "$$QUESTION"

setup: $(BIN)/.ready

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "\n  fix: make PYTHON=python3.12 ask Q=…" if sys.version_info < (3, 11) else 0)'
	@echo '== making $(VENV)'
	$(PYTHON) -m venv $(VENV)

$(BIN)/.ready: pyproject.toml packaging/llama-cpp.cmake | $(BIN)/python
	@echo '== installing packages; llama.cpp is compiled, which takes 2 to 5 minutes on two cores, once'
	CMAKE_ARGS="$(LLAMA_OPTIONS) $(CMAKE_ARGS)" $(BIN)/python -m pip install -e .
	@touch $@

$(BIN)/.ready-dev: $(BIN)/.ready
	@echo '== installing what the tests need, RAGAS included'
	$(BIN)/python -m pip install -e '.[dev,evals]'
	@touch $@

setup-test: $(BIN)/.ready-dev
	@echo '== models for the tests (nothing is fetched that is there already)'
	@$(BIN)/studyrag models pull all-MiniLM-L6-v2 --yes
	@$(BIN)/studyrag models pull smollm2-135m-instruct --yes

test: setup-test
	$(BIN)/python -m pytest

check: setup-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest
	$(BIN)/python evals/shipped_notes.py

format: $(BIN)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup-test
	@$(BIN)/studyrag models pull qwen2.5-coder-1.5b-instruct --yes
	$(BIN)/python benchmarks/speed.py

$(BIN)/.ready-evals: $(BIN)/.ready
	@echo '== installing what the evaluations need'
	$(BIN)/python -m pip install -e '.[evals]'
	@touch $@

eval: $(BIN)/.ready-evals
	@$(BIN)/studyrag models pull all-MiniLM-L6-v2 --yes
	@$(BIN)/studyrag models pull qwen2.5-coder-1.5b-instruct --yes
	@$(BIN)/studyrag eval retrieval --baseline evals/baselines/retrieval.json --report $(REPORT)
	@$(BIN)/studyrag eval answers --held-back --sample 35 --metrics core $(addprefix --baseline ,$(wildcard evals/baselines/answers.json)) --report $(REPORT)

# The judge on all labelled items, then every held-back question: hours on two cores, and it goes on where it was stopped.
eval-nightly: $(BIN)/.ready-evals
	@$(BIN)/studyrag models pull all-MiniLM-L6-v2 --yes
	@$(BIN)/studyrag models pull qwen2.5-coder-1.5b-instruct --yes
	@$(BIN)/studyrag eval judge --report $(REPORT)
	@$(BIN)/studyrag eval answers --all --held-back --report $(REPORT)

eval-smoke: $(BIN)/.ready-evals
	@$(BIN)/studyrag models pull all-MiniLM-L6-v2 --yes
	@$(BIN)/studyrag models pull smollm2-135m-instruct --yes
	@echo '== five questions, a generator and a judge of 135 million parameters: the plumbing is tested, the scores mean nothing'
	@STUDYRAG_GENERATOR=smollm2-135m-instruct $(BIN)/studyrag eval answers --sample 5 --judge smollm2-135m-instruct \
	  --worst 0 --cache build/smoke/cache --report build/smoke
	@echo '== that was the plumbing alone: the scores mean nothing'

clean:
	rm -rf $(VENV) indexes/corpus
