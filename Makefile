# Needs only Python 3.11+ and make. `make up` and `make test` set themselves up.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Each of the many processes would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# Each is written when its step is complete; a changed lock, or an interrupted step, makes all of them anew.
ENVIRONMENT := $(VENV)/.made
RUNTIME := $(VENV)/.runtime-installed
PROJECT := $(VENV)/.project-installed
DEVELOPMENT := $(VENV)/.development-installed
BENCH := $(VENV)/.bench-installed
BROWSER := $(VENV)/.browser-installed
# What reads the OpenAPI documents has packages of its own: Python's and npm's.
OPENAPI := $(VENV)/openapi
NPM_BIN := $(OPENAPI)/node_modules/.bin
DOCUMENTS := docs/openapi/command.json docs/openapi/query.json
LOCKS := $(patsubst %,requirements/%.lock,installer embedded dev bench browser)

# The newest Python that runs and can make an environment, searched for once, when it is needed first; `make setup
# PYTHON=...` takes another.
ifndef PYTHON
PYTHON = $(eval PYTHON := $(shell for candidate in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$candidate && break; done))$(PYTHON)
endif

.PHONY: help setup up env test test-fast test-thorough test-faults simulate fuzz browser picture openapi lint-openapi test-openapi check bench bench-check format errors guarantees access lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(DEVELOPMENT)  ## make .venv/ with everything that `make test` and `make check` need

up: $(PROJECT)  ## start the whole stack; ARGS="--data-dir DIR --command-port N --query-port N"
	@$(BIN)/orders up $(ARGS)

env:  ## write .env with random passwords, for docker compose
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module found." >&2; exit 1; }
	@$(PYTHON) tools/make_env.py

# Whole files go to a worker: what a module's tests share is then set up once.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

test: setup  ## run the tests but those of faults and of test-openapi; ARGS are pytest's
	$(BIN)/python -m pytest $(WORKERS) --ignore tests/faults $(ARGS) -m "not faults and not openapi"

test-fast: setup  ## the tests that start no server or other program; properties with fewer examples
	$(BIN)/python -m pytest $(WORKERS) -m "not subprocess and not faults and not openapi" \
		--ignore tests/faults --ignore tests/browser --ignore tests/test_contract.py \
		--hypothesis-profile fast $(ARGS)

test-thorough: setup  ## the properties alone, each with all its examples
	$(BIN)/python -m pytest $(WORKERS) -m "hypothesis and not faults and not openapi" --hypothesis-profile thorough $(ARGS)

test-faults: setup  ## break servers, networks and processes under load: some minutes
	$(BIN)/python -m pytest tests/faults $(ARGS)

simulate: setup  ## each form of fulfilment in 100,000 simulated runs, two hours; ARGS="--runs 1000"
	$(BIN)/python -m tests.simulation orchestrated $(ARGS)
	$(BIN)/python -m tests.simulation choreographed $(ARGS)

browser: $(BROWSER)  ## install what tests/browser need: Playwright, and Chromium where apt-get can; then make test
	@command -v chromium chromium-browser google-chrome >/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
		|| echo "Chromium cannot be installed here: tests/browser will be skipped"

picture: browser  ## take the pictures of the example page and of the reference pages, in docs/images/
	PICTURE=1 $(BIN)/python -m pytest tests/browser/test_shop.py -k picture $(ARGS)
	$(BIN)/python -m tests.browser.pictures

openapi: $(OPENAPI)/.python-installed $(OPENAPI)/.npm-installed  ## install what lints the OpenAPI documents and makes clients

lint-openapi: openapi  ## lint both OpenAPI documents with Redocly and Spectral: no error, no warning
	@if test -e $(OPENAPI)/.npm-installed; then \
		REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true $(NPM_BIN)/redocly lint --extends recommended-strict $(DOCUMENTS) \
		&& $(NPM_BIN)/spectral lint --ruleset requirements/openapi/spectral.yaml --fail-severity warn $(DOCUMENTS); \
	else echo "npm or its packages cannot be installed here: the OpenAPI documents are not linted"; fi

test-openapi: browser  ## press every example of the reference pages in Chromium: some minutes
	$(BIN)/python -m pytest -m openapi tests/browser $(ARGS)

fuzz: setup  ## ten minutes of hostile bytes; FUZZ_SECONDS=60 for one
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(BIN)/python -m pytest tests/hostile/test_fuzz.py -s $(ARGS)

check: setup  ## lint, formatting, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BENCH)  ## measure everything, ten minutes; ARGS="--quick"; one row alone: python -m bench.place_order
	$(BIN)/python -m bench $(ARGS)

bench-check: setup  ## two minutes: fails where something has become slow
	$(BIN)/python -m bench.check

format: setup  ## put the code in its standard form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

errors: setup  ## write docs/errors.md from the OpenAPI documents
	$(BIN)/python -m tests.error_page

guarantees: setup  ## write docs/guarantees.md from the markers on the tests
	$(BIN)/python -m tests.guarantees

access: setup  ## write the table of routes and roles in docs/security.md
	$(BIN)/python -m tests.access_table

UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# A package has one version in all of them.
UV_COMPILE_LIKE_DEV = $(UV_COMPILE) --upgrade --constraint requirements/dev.lock

lock: $(ENVIRONMENT)  ## choose versions anew
	echo uv | $(UV_COMPILE) --upgrade - --output-file requirements/installer.lock
	$(UV_COMPILE) --upgrade pyproject.toml --extra dev --extra embedded --output-file requirements/dev.lock
	$(UV_COMPILE_LIKE_DEV) pyproject.toml --output-file requirements/runtime.lock
	$(UV_COMPILE_LIKE_DEV) pyproject.toml --extra build --extra embedded --output-file requirements/embedded.lock
	$(UV_COMPILE_LIKE_DEV) pyproject.toml --extra bench --extra embedded --output-file requirements/bench.lock
	$(UV_COMPILE_LIKE_DEV) pyproject.toml --extra browser --extra dev --extra embedded --output-file requirements/browser.lock
	echo openapi-python-client | $(UV_COMPILE) --upgrade - --output-file requirements/openapi/python.lock
	cd requirements/openapi && npm update --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts

clean:  ## remove what setup and the tools made; the data in .orders/ stays
	rm -rf $(VENV) build *.egg-info .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

UV := UV_HTTP_RETRIES=1 UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$PIP_INDEX_URL}" $(BIN)/uv pip
# A pip that $(PYTHON) has takes no time to install.
PIP = $(eval PIP := $(shell $(PYTHON) -c 'import pip' 2>/dev/null && echo $(PYTHON) -m pip --python $(BIN)/python \
	|| echo $(BIN)/python -m pip) --disable-pip-version-check --quiet)$(PIP)

# umask: under a stricter one PostgreSQL, which never runs as root, could not read its own files.
$(ENVIRONMENT): $(LOCKS)
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module found." >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@umask 022 && $(PYTHON) -m venv --clear $(if $(findstring --python,$(PIP)),--without-pip) $(VENV)
	@echo "fetching uv"
	@umask 022 && $(PIP) install $(call locked,installer) || echo "uv cannot be fetched"
	@touch $@

# $(call install,WHAT,ARGUMENTS): with uv, or, where that is missing or fails, with pip.
# The environment counts as not made meanwhile: a step that is interrupted could leave half a package.
define install
@echo "installing $(1)"
@mv $(ENVIRONMENT) $(ENVIRONMENT).incomplete
@umask 022 && { { test -x $(BIN)/uv && $(UV) install --quiet --compile-bytecode --python $(BIN)/python $(2); } \
	|| { echo "uv does not do it; pip takes a few minutes" && $(PIP) install $(2); }; }
@mv $(ENVIRONMENT).incomplete $(ENVIRONMENT)
@touch $@
endef

locked = --require-hashes -r requirements/$(1).lock
packages = $(shell grep -c '==' requirements/$(1).lock) packages of requirements/$(1).lock

$(RUNTIME): $(ENVIRONMENT)
	$(call install,$(call packages,embedded),$(call locked,embedded))

$(PROJECT): pyproject.toml $(RUNTIME)
	$(call install,the orders command,--no-build-isolation --no-deps -e .)

$(DEVELOPMENT): $(PROJECT)
	$(call install,$(call packages,dev),$(call locked,dev))

$(BROWSER): $(DEVELOPMENT)
	$(call install,$(call packages,browser),$(call locked,browser))

$(OPENAPI)/.python-installed: requirements/openapi/python.lock $(DEVELOPMENT)
	@echo "installing openapi-python-client"
	@umask 022 && $(BIN)/python -m venv --clear --without-pip $(OPENAPI)
	@umask 022 && $(UV) install --quiet --python $(OPENAPI)/bin/python --require-hashes -r $< \
		|| $(PYTHON) -m pip --python $(OPENAPI)/bin/python install --quiet --require-hashes -r $<
	@touch $@

# Where npm or a package cannot be installed, the next run tries again. No script of a package runs.
$(OPENAPI)/.npm-installed: requirements/openapi/package-lock.json $(OPENAPI)/.python-installed
	@command -v npm >/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends npm >/dev/null; } \
		|| echo "npm cannot be installed here"
	@cp requirements/openapi/package.json requirements/openapi/package-lock.json $(OPENAPI)
	@if command -v npm >/dev/null; then \
		echo "installing the npm packages of requirements/openapi"; \
		npm ci --prefix $(OPENAPI) --ignore-scripts --no-audit --no-fund --silent --fetch-retries=1 \
		--fetch-timeout=60000 && touch $@ \
		|| echo "the npm packages cannot be installed here"; fi

# What the benchmarks compare with.
$(BENCH): $(DEVELOPMENT)
	$(call install,$(call packages,bench),$(call locked,bench))
