# Every target makes what it needs, from a plain python3 on.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Test processes side by side.
WORKERS ?= 2

# Tests start a hundred processes; where Python may write no bytecode, each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup quickstart test test-all lint clean

# The stamp files say which lock the environment was made from; a changed lock updates it.
$(VENV)/.core: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.parity: $(VENV)/.core
	$(PIP) --no-build-isolation -e '.[parity]'
	touch $@

setup: $(VENV)/.core

quickstart: setup
	$(BIN)/lstm-research train --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/lstm-research predict --workdir=runs/quickstart --prompt="ROMEO:" --length=300 --temperature=0.8
	$(BIN)/lstm-research export --workdir=runs/quickstart

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint $(VENV)/.parity
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# All of what `test` runs a sample of.
test-all: lint $(VENV)/.parity
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --whole

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
