# What a newcomer types. Every target makes or updates .venv first.

PYTHON ?= python3
BIN := .venv/bin
DATA ?=
EMBEDDER ?=

.PHONY: demo test lint format proto docs install clean help

help:  ## Say what can be typed
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | expand -t 12

demo: install  ## Run a real campaign to its end: handwritten digits, or DATA=labelled texts [EMBEDDER=encoder]
	@$(BIN)/sealpool demo $(if $(DATA),--data "$(DATA)") $(if $(EMBEDDER),--embedder "$(EMBEDDER)")

test: install  ## Run the whole test suite
	$(BIN)/python -m pytest

lint: install  ## Check style, types, imports between rooms, and that the stubs are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate.py --check

format: install  ## Put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: install  ## Write sealpool/v1 from proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py

docs: install  ## Write docs/settings.md and docs/metrics.md from the code
	$(BIN)/python docs/generate.py

install: .venv/installed  ## Make or update .venv

# pip, not uv: see docs/development.md. The stamp is written last, so an interrupted install is done again.
.venv/installed: pyproject.toml constraints.txt
	.ci/venv.sh "$(PYTHON)" .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:  ## Remove what the other targets made
	rm -rf .venv .sealpool build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
