# Set-up, demo, tests, lint. Every other command is `python -m ...`; see README.md.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests that run at the same time; each computes with one thread. More than two cores: some tests wait.
WORKERS ?= 3
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow reliability lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; select one with: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing into $(VENV); PyTorch is large, so this takes some minutes"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m bench.sweep grid=window_ablation scale=quick
	$(BIN)/python -m analysis.plot figure=5 scale=quick

# Ten minutes on two cores. The slow tests, and those that start a SLURM of their own, take as long again.
test: setup
	$(BIN)/python -m pytest -q --numprocesses=$(WORKERS) --dist=worksteal -m "not slow and not slurm"

test-slow: setup
	$(BIN)/python -m pytest -q --numprocesses=$(WORKERS) --dist=worksteal -m "slow or slurm"

# Hundreds of kills, ten thousand bad inputs: the tables of tests/reliability/README.md.
reliability: setup
	BENCH_RELIABILITY=full $(BIN)/python -m pytest -q --numprocesses=$(WORKERS) --dist=worksteal tests/reliability

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
