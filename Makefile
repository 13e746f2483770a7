# Everything runs in .venv, which is made when first needed.  PYTHON=... chooses the interpreter.

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODEL := smollm2-135m
WORKERS ?= auto
# The WebSocket conformance suite exists for Python 2.7 only; without one its tests are skipped.
PYTHON2 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/2.7*/bin/python) $(shell command -v python2.7))
AUTOBAHN := $(VENV)/autobahn27
export PYTHON2

# Clarifai's own runner and SDK, for the tests of the link to them, have an environment of their own, with a Python
# that there are wheels for; where it cannot be had those tests are skipped.
CLARIFAI := .venv-clarifai
CLARIFAI_PYTHON ?= $(shell for version in 3.11 3.12 3.10; do \
	python$$version -c "" 2>/dev/null && command -v python$$version && break; done)
PENSTOCK_CLARIFAI_PYTHON ?= $(CURDIR)/$(CLARIFAI)/bin/python
export PENSTOCK_CLARIFAI_PYTHON

TYPESCRIPT := clients/typescript
CONTRACTS := tests/contracts

# Clients that others make for OpenAI's API, for the tests of ours; litellm would hold back what else is installed, and
# imports mcp for tools.
NODE_SDK := tests/openai_api/node
LITELLM := .venv-litellm
PENSTOCK_LITELLM_PYTHON ?= $(CURDIR)/$(LITELLM)/bin/python
export PENSTOCK_LITELLM_PYTHON

# Where `make test-transformers` runs, and the torch it is tried with; TORCH_WHEEL=torch takes any.
TORCH ?= .venv-torch
TORCH_WHEEL ?= torch==2.13.0

# Where `make test-formats` runs.
LOADERS ?= .venv-formats

# What `make test-all` runs on, and for how long `make fuzz` tries each parser.
PYTHONS ?= 3.10 3.11 3.12 3.13
FUZZ_S ?= 60
# Which other servers `make bench` measures as well: names in benchmarks/peers, `all` or `none`.
PEERS ?= starlette,aiohttp

.PHONY: help demo test test-all restarts cancels test-transformers test-formats wheel-test fuzz fuzz-media lint docs run bench model autobahn clarifai typescript node-sdk litellm contracts playground clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        serve the storyteller, stream a story, cancel another, show what was measured"
	@echo "make test        run all tests"
	@echo "make test-all    ... on every Python from 3.10 on that is here"
	@echo "make restarts    a gateway killed and stopped ten times under load, a server stopped fifty times"
	@echo "make test-transformers  the engine transformers, on torch (a large download)"
	@echo "make test-formats  annotations as other tools read them (a large download)"
	@echo "make cancels     cancel 10,000 calls on one SGLang server"
	@echo "make wheel-test  ... against the wheel"
	@echo "make fuzz        try every parser for a minute (FUZZ_S=60)"
	@echo "make fuzz-media  annotate files broken at random for a minute (FUZZ_S=60)"
	@echo "make lint        check style, types and who imports whom"
	@echo "make docs        the papers as a site, in build/site"
	@echo "make run         serve the storyteller in the foreground"
	@echo "make playground  compile the page at /"
	@echo "make bench       measure, and write the report (PEERS=all: with all other servers)"
	@echo "make clean       remove what was made here"

$(READY): pyproject.toml scripts/venv.sh
	@scripts/venv.sh $(VENV) $(PYTHON)
	@echo "installing penstock into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

model: $(READY)
	@$(BIN)/penstock pull $(MODEL) >/dev/null

demo: model
	@$(BIN)/python examples/demo.py

autobahn: $(READY)
	@if [ -n "$(PYTHON2)" ] && [ ! -d $(AUTOBAHN) ]; then \
		echo "installing the Autobahn suite for $(PYTHON2)"; \
		$(PYTHON2) -m pip install --quiet --disable-pip-version-check --target $(AUTOBAHN).new autobahntestsuite \
			>/dev/null 2>&1 && mv $(AUTOBAHN).new $(AUTOBAHN) || echo "it cannot be had; its tests are skipped"; \
	fi

clarifai:
	@if [ ! -x "$(PENSTOCK_CLARIFAI_PYTHON)" ] || [ -d $(CLARIFAI) -a ! -e $(CLARIFAI)/.ready ]; then \
		echo "installing Clarifai's packages into $(CLARIFAI)"; \
		scripts/venv.sh $(CLARIFAI) "$(CLARIFAI_PYTHON)" && \
		$(CLARIFAI)/bin/python -m pip install --quiet --disable-pip-version-check clarifai 'clarifai-protocol[auto-annotation]' \
			>/dev/null 2>&1 && touch $(CLARIFAI)/.ready || \
			{ rm -rf $(CLARIFAI); echo "they cannot be had; their tests are skipped"; }; \
	fi

# The compiler of the TypeScript client, which stands on nothing else.
typescript:
	@if [ ! -d $(TYPESCRIPT)/node_modules ] && command -v npm >/dev/null; then \
		echo "installing the TypeScript compiler into $(TYPESCRIPT)"; \
		npm ci --prefix $(TYPESCRIPT) --no-audit --no-fund >/dev/null 2>&1 || \
			{ rm -rf $(TYPESCRIPT)/node_modules; echo "it cannot be had; its tests are skipped"; }; \
	fi

node-sdk:
	@if [ ! -d $(NODE_SDK)/node_modules ] && command -v npm >/dev/null; then \
		echo "installing OpenAI's SDK for Node into $(NODE_SDK)"; \
		npm ci --prefix $(NODE_SDK) --no-audit --no-fund >/dev/null 2>&1 || \
			{ rm -rf $(NODE_SDK)/node_modules; echo "it cannot be had; its tests are skipped"; }; \
	fi

litellm:
	@if [ ! -x "$(PENSTOCK_LITELLM_PYTHON)" ] || [ -d $(LITELLM) -a ! -e $(LITELLM)/.ready ]; then \
		echo "installing litellm into $(LITELLM)"; \
		scripts/venv.sh $(LITELLM) $(PYTHON) && \
		$(LITELLM)/bin/python -m pip install --quiet --disable-pip-version-check litellm mcp >/dev/null 2>&1 && \
			touch $(LITELLM)/.ready || \
			{ rm -rf $(LITELLM); echo "it cannot be had; its tests are skipped"; }; \
	fi

# What reads our contracts elsewhere: AsyncAPI's own parser.
contracts:
	@if [ ! -d $(CONTRACTS)/node_modules ] && command -v npm >/dev/null; then \
		echo "installing AsyncAPI's parser into $(CONTRACTS)"; \
		npm ci --prefix $(CONTRACTS) --no-audit --no-fund --ignore-scripts >/dev/null 2>&1 || \
			{ rm -rf $(CONTRACTS)/node_modules; echo "it cannot be had; its tests are skipped"; }; \
	fi

# What of the page at / is compiled; the package has it, so that nobody who installs it needs a compiler.
PAGE := src/penstock/server/playground/static
playground: typescript
	@rm -rf $(PAGE)/page $(PAGE)/src
	@$(TYPESCRIPT)/node_modules/.bin/tsc --project $(TYPESCRIPT)/tsconfig.page.json

test: model autobahn clarifai typescript node-sdk litellm contracts
	@$(BIN)/python -m pytest --numprocesses $(WORKERS)

test-all:
	@scripts/test_all.sh $(PYTHONS)

# torch is large, so what needs it has an environment of its own.
$(TORCH)/.ready: pyproject.toml scripts/venv.sh
	@scripts/venv.sh $(TORCH) $(PYTHON)
	@echo "installing penstock with torch into $(TORCH)"
	@$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,transformers]' '$(TORCH_WHEEL)'
	@touch $@

test-transformers: $(TORCH)/.ready
	@OMP_NUM_THREADS=2 $(TORCH)/bin/python -m pytest tests/transformers_engine

# Other tools' readers are large, and hold back numpy.
$(LOADERS)/.ready: pyproject.toml scripts/venv.sh tests/format_loaders/requirements.txt
	@scripts/venv.sh $(LOADERS) $(PYTHON)
	@echo "installing penstock with readers of annotations into $(LOADERS)"
	@$(LOADERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[auto-annotation]' \
		--requirement tests/format_loaders/requirements.txt
	@touch $@

test-formats: $(LOADERS)/.ready
	@$(LOADERS)/bin/python -m pytest tests/format_loaders

restarts: $(READY)
	@PENSTOCK_RESTARTS=10 PENSTOCK_STOPS=50 $(BIN)/python -m pytest --timeout 600 \
		tests/behaviour/test_gateway_processes.py tests/behaviour/test_server_process.py

cancels: $(READY)
	@PENSTOCK_CANCELS=10000 $(BIN)/python -m pytest --timeout 900 tests/engines/test_sglang_many.py

wheel-test:
	@PYTHON="$(PYTHON)" scripts/wheel_test.sh --numprocesses $(WORKERS)

fuzz: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary atheris --editable '.[fuzz]' || \
		{ echo "atheris cannot be had for this Python; it has wheels for 3.10 to 3.13 on Linux" >&2; exit 1; }
	@$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_S)

fuzz-media: $(READY)
	@PENSTOCK_FUZZ_MEDIA_S=$(FUZZ_S) $(BIN)/python -m pytest --timeout 0 -s tests/annotate/test_fuzz.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "built build/site: python3 -m http.server --directory build/site"

run: model
	@$(BIN)/penstock run examples/storyteller

bench: $(READY)
	@$(BIN)/python benchmarks/run.py --peers "$(PEERS)"
	@$(BIN)/python benchmarks/report.py

clean:
	rm -rf $(VENV) .venv-* build dist $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/dist $(CONTRACTS)/node_modules $(NODE_SDK)/node_modules benchmarks/peers/.venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
