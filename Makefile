# Two commands for a newcomer: `make demo` (a vision and a language figure, then a page) and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: demo test campaign lint types bench bench-gpu docs package clean help

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# A stamp file per set-up: installing again happens only when what decides it changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lab]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed         ## reproduce a vision and a language figure at the mini budget, and print the page's path
	$(BIN)/decaylab reproduce fig1 fig5 --budget mini

test: $(VENV)/.installed-dev     ## the whole test suite
	$(BIN)/python -m pytest -n $(JOBS)

campaign: $(VENV)/.installed-dev ## kills, suspensions, flipped bits and full disks; every run ends bit for bit
	$(BIN)/python -m tests.campaign.campaign

lint: $(VENV)/.installed-dev     ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev    ## mypy, strict
	$(BIN)/mypy

bench: $(VENV)/.installed-dev    ## every benchmark that needs nothing from outside; each prints one ratio
	@set -e; for script in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

bench-gpu: $(VENV)/.installed-dev    ## on a GPU: what must be right there, and how fast it is
	$(BIN)/python benchmarks/gpu.py

docs: $(VENV)/.installed-docs    ## the docs site in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html -q

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

package: $(VENV)/.installed-dev  ## build the distribution and check its description
	rm -rf dist && $(BIN)/python -m build -q && $(BIN)/python -m twine check --strict dist/*

clean:           ## remove the environment and caches, never results
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
