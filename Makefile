# Every task of the project. `make demo` and `make test` do all the set-up they need.

PYTHON ?= python3
# The CPU build. README, "Install", says how to get CUDA instead.
TORCH ?= torch==2.13.0
VENV := .venv
# pip compiles on one core; compileall on all of them. Some packages hold files for other Pythons, which stay as they are.
PIP := --quiet --no-compile
COMPILE := -m compileall -qq -j 0 $(VENV)/lib || true
BIN := $(VENV)/bin
# What `make evaluate` measures on (see docs/evaluation.md for the layout), and where its figures go.
DATA ?= ../shared/data/dev
EVALUATION := experiments/results/evaluation

.DEFAULT_GOAL := help
.PHONY: help setup check test test-slow demo gateway bench bench-train bench-gpu bench-serve evaluate advisories clean

help:  ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(VENV)/.dev  ## make .venv with everything for development

check: $(VENV)/.dev  ## format, lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A worker a core, files apart; each worker's torch has one thread, or they would wait for one another.
test: $(VENV)/.dev  ## all tests but the slow ones
	@tests/servers.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/.dev $(VENV)/.ready  ## the tests that need minutes, or the real model
	$(BIN)/python -m pytest -m slow

demo: $(VENV)/.ready  ## turn a real language model into an encoder and search with it
	@$(BIN)/python examples/search_stdlib.py

gateway: $(VENV)/.hosted  ## the hosted API on this machine: site, accounts, keys, credit; says where to look
	@$(BIN)/unmask gateway

bench: $(VENV)/.dev $(VENV)/.ready  ## this machine: Unmask, sentence-transformers, llm2vec, the ceiling
	$(BIN)/python benchmarks/cpu.py

bench-train: $(VENV)/.dev $(VENV)/.ready  ## this machine: training steps of Unmask and llm2vec, their floor
	$(BIN)/python benchmarks/train.py

bench-gpu: $(VENV)/.dev $(VENV)/.ready  ## a CUDA device: encoding and training, their floor and their peers; under 10 minutes (GPU='--shape smollm2-135m')
	$(BIN)/python benchmarks/gpu.py $(GPU)

bench-serve: $(VENV)/.dev $(VENV)/.ready  ## this machine: the server under load, and other servers; 20 minutes (SERVE='--only fake')
	$(BIN)/python benchmarks/serve.py $(SERVE)

evaluate: $(VENV)/.dev $(VENV)/.ready  ## our encoders on the development sets (DATA=FOLDER), README's table, the catalogue
	for model in smollm2-135m-mntp smollm2-135m-unsup smollm2-135m-sup; do \
	  $(BIN)/unmask eval --suite $(DATA) --model $$model --limit 400 --max-length 48 --replace --output $(EVALUATION) || exit 1; \
	done
	$(BIN)/unmask eval compare $(EVALUATION)/* --output docs/evaluation.html --replace
	$(BIN)/python -m experiments.readme_table
	$(BIN)/python -m unmask.gateway.catalogue.measuring $(EVALUATION)

advisories:  ## every version of constraints.txt against the published advisories; needs PyPI itself
	@$(PYTHON) deploy/advisories.py

clean:  ## remove .venv and everything made by tools
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .bench

$(VENV)/.pip:
	@echo "Making $(VENV) with the CPU build of PyTorch (a few minutes, once) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Unmask needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install $(PIP) --constraint constraints.txt '$(TORCH)'
	@touch $@

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/.pip
	@$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable .
	@$(BIN)/python $(COMPILE)
	@touch $@

$(VENV)/.hosted: pyproject.toml constraints.txt | $(VENV)/.pip
	@echo "Installing what the gateway needs …"
	@$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable '.[gateway]'
	@$(BIN)/python $(COMPILE)
	@touch $@ $(VENV)/.ready

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.pip
	@echo "Installing what development needs …"
	@$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --group dev --editable .
	@$(BIN)/python $(COMPILE)
	@touch $@ $(VENV)/.ready
