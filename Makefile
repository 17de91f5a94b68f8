# Every target sets up what it needs; a second run installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export TOKENIZERS_PARALLELISM := false
# Threads spin for a moment before they sleep: for long, it makes a busy machine several times slower.
export GOMP_SPINCOUNT := 1000

.PHONY: demo test test-slow test-peers check format bench docs mutants clean

$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(VENV)/.base
	$(BIN)/rewardlab run demo

# A process for every core, a file of tests to one process; each with one thread, or they would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: $(VENV)/.dev
	$(PYTEST)

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/laws

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

PEERS := .venv-peers
PEERS_PIP := $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-peers.txt

$(PEERS)/.ready: pyproject.toml constraints.txt constraints-peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS_PIP) torch
	$(PEERS_PIP) --editable . trl statsmodels scikit-learn datasets pytest pytest-timeout beartype
	touch $@

test-peers: $(PEERS)/.ready
	$(PEERS)/bin/python -m pytest -m peers tests/peers

# TRL has dropped its trainer for PPO: the last version with it has an environment of its own.
PPO := .venv-ppo
PPO_PIP := $(PPO)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-ppo.txt

$(PPO)/.ready: constraints.txt constraints-ppo.txt
	test -x $(PPO)/bin/python || $(PYTHON) -m venv $(PPO)
	$(PPO_PIP) torch
	$(PPO_PIP) trl
	touch $@

bench: $(PEERS)/.ready $(PPO)/.ready
	$(PEERS)/bin/python -m benchmarks $(ARGUMENTS)

$(VENV)/.docs: $(VENV)/.base
	$(PIP) --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

COUNT ?= 300
SEED ?= 0
WORKERS ?= 2

$(VENV)/.mutants: $(VENV)/.dev
	$(PIP) --editable '.[mutants]'
	touch $@

# SINCE=main takes only the files changed since that commit.
mutants: $(VENV)/.mutants
	$(BIN)/python tests/mutants/mutate.py --count $(COUNT) --seed $(SEED) --workers $(WORKERS) $(if $(SINCE),--since $(SINCE))

clean:
	rm -rf $(VENV) $(PEERS) $(PPO) build dist mutants site
