# make setup | demo [TILES=folder] | test | check | fix | bench | docs
# PYTHON chooses the interpreter (3.11 or newer) that the environment is made with.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.geodino-installed
WORKERS ?= auto

.PHONY: setup demo test check lint fix bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/setup.sh
	touch $(STAMP)

demo: setup
	$(BIN)/geodino demo --out demo-run $(if $(TILES),--tiles "$(TILES)")

test: setup
	$(BIN)/python -m pytest -n $(WORKERS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

fix: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	for bench in benchmarks/bench_*.py; do $(BIN)/python $$bench || exit 1; done

docs: setup
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist demo-run site
