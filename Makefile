# make demo | make test | make check: each sets itself up in .venv (needs Python 3.11+, make and git).
PYTHON ?= python3
BIN := .venv/bin
RECIPE ?= recipes/sales/demo.toml

.PHONY: demo test test-newest check setup lint types clean

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

setup: .venv/.ready

demo: setup  ## SFT, reward model, GRPO and evaluation of a small sales assistant, offline, in minutes
	$(BIN)/trimtab run $(RECIPE) $(ARGS)

check: setup  ## what `trimtab check` says of a recipe: make check RECIPE=recipes/sales/demo.toml
	$(BIN)/trimtab check $(RECIPE)

lint: setup
	$(BIN)/ruff check src tests examples scripts benchmarks
	$(BIN)/ruff format --check src tests examples scripts benchmarks

types: setup
	$(BIN)/mypy

test: lint types  ## ruff, mypy and pytest
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 $(ARGS)  # one thread for each of two workers

# The other end of the supported range; the tests that meet transformers.
NEWEST := .venv-newest
.venv-newest/.ready: pyproject.toml constraints-newest.txt
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST)/bin/python -m pip install --quiet --constraint constraints-newest.txt "torch==2.13.0"
	$(NEWEST)/bin/python -m pip install --quiet --constraint constraints-newest.txt --editable ".[dev]"
	@touch $@

test-newest: .venv-newest/.ready  ## models, rollout and trainers with the newest dependencies
	OMP_NUM_THREADS=1 $(NEWEST)/bin/pytest -n 2 tests/unit/models tests/unit/rollout tests/unit/trainers $(ARGS)

clean:
	rm -rf .venv .venv-newest .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
