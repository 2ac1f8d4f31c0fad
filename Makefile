# Needs only Python 3.11+ and make. `make up` and `make test` set themselves up.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that a set-up that was interrupted is done again, and one whose lock changed too.
DEPENDENCIES := $(VENV)/.dependencies-installed
PROJECT := $(VENV)/.project-installed
BENCH := $(VENV)/.bench-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The newest Python that runs and can make an environment; `make setup PYTHON=...` takes another.
PYTHON ?= $(shell for candidate in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$candidate && break; done)

.PHONY: help setup up test test-faults check bench bench-check format lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(PROJECT)  ## make .venv/ with everything the lock names

up: setup  ## start the whole stack; ARGS="--data-dir DIR --command-port N --query-port N"
	@$(BIN)/orders up $(ARGS)

# Whole files go to a worker: what a module's tests share is then set up once.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

test: setup  ## run the tests but those of faults; ARGS are pytest's
	$(BIN)/python -m pytest $(WORKERS) $(ARGS) -m "not faults"

test-faults: setup  ## break servers, networks and processes under load: some minutes
	$(BIN)/python -m pytest tests/faults $(ARGS)

check: setup  ## lint, formatting, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BENCH)  ## measure everything, ten minutes; ARGS="--quick"; one row alone: python -m bench.place_order
	$(BIN)/python -m bench $(ARGS)

bench-check: setup  ## a minute: fails where something has become slow
	$(BIN)/python -m bench.check

format: setup  ## put the code in its standard form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

UV_COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

lock:  ## choose versions anew (needs uv)
	$(UV_COMPILE) --upgrade pyproject.toml --output-file requirements/runtime.lock
	$(UV_COMPILE) --upgrade pyproject.toml --extra dev --extra embedded --output-file requirements/dev.lock
	$(UV_COMPILE) --upgrade pyproject.toml --extra bench --extra embedded --constraint requirements/dev.lock \
		--output-file requirements/bench.lock

clean:  ## remove what setup and the tools made; the data in .orders/ stays
	rm -rf $(VENV) build *.egg-info .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# umask: under a stricter one PostgreSQL, which never runs as root, could not read its own files.
$(DEPENDENCIES): requirements/dev.lock
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module found." >&2; exit 1; }
	@echo "Making $(VENV)/ with $(PYTHON); this takes a minute"
	@umask 022 && $(PYTHON) -m venv --clear $(VENV) && $(PIP) install --require-hashes -r requirements/dev.lock
	@touch $@

$(PROJECT): pyproject.toml $(DEPENDENCIES)
	@umask 022 && $(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

# What the benchmarks compare with; what the tests need has the same versions in both locks.
$(BENCH): requirements/bench.lock $(PROJECT)
	@$(PIP) install --require-hashes -r requirements/bench.lock
	@touch $@
