# The set-up and the two things a newcomer wants to see. Everything else is `python -m ...`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests at a time; each computes with one thread.
WORKERS ?= 2
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; PYTHON=/path/to/python3.12 make ... names one" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing into $(VENV); PyTorch is large, this takes some minutes"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m bench.sweep grid=window_ablation scale=quick
	$(BIN)/python -m analysis.plot figure=5 scale=quick

test: setup
	$(BIN)/python -m pytest -q --numprocesses=$(WORKERS) --dist=worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
