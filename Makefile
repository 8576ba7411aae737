# Set-up, demo, checks. Everything lives in .venv; nothing is installed outside of it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=
TEST_ARGS ?=
# So many processes run tests at a time; most tests wait more than they compute.
TEST_PROCESSES ?= 4
BENCH_ARGS ?=
ATTACKS ?= 10000
ROUNDS ?= 500
SEED ?= 1
FUZZ_ARGS ?=
SAME_ARGS ?=
# With it every process of a test compiles p2pd anew, and every one that runs tests all of them.
unexport PYTHONDONTWRITEBYTECODE

# $(call room,directory,MB,what for): says so and fails where less is free.
define room
@free=$$(df -Pm "$(1)" | awk 'NR == 2 { print $$4 }'); \
test "$$free" -ge $(2) || { \
  echo "$(3) takes up to $(2) MB in $(1), and only $$free MB are free there." >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check lint fix bench docs fuzz same attack chaos clean

help: ## Show what there is
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make .venv with p2pd, training and the development tools

demo: $(STAMP) ## Rendezvous and three peers on this machine learn digits together (DEMO_ARGS="--task mnist")
	$(BIN)/p2pd demo $(DEMO_ARGS)

test: $(STAMP) ## Run the tests (TEST_ARGS="tests/cli -x")
	$(call room,$(or $(TMPDIR),/tmp),6000,Testing)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

quick: $(STAMP) ## Run the tests that need no network, processes or training: half of all
	$(BIN)/python -m pytest -q @tests/quick.txt

check: lint test ## What CI runs: format, lint, types, import arrows, tests

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(STAMP) ## Format, and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Measure, as CONTRIBUTING.md says (BENCH=status_latency BENCH_ARGS="--samples 10")
	@test -n "$(BENCH)" || { echo "Which one? make bench BENCH=status_latency" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks.$(BENCH) $(BENCH_ARGS)

docs: $(STAMP) ## Build the manual as web pages, in build/manual
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict

same: $(STAMP) ## Whether seeded swarms end as at the last release (SAME_ARGS="--only gossip")
	$(BIN)/python -m benchmarks.same $(SAME_ARGS)

fuzz: $(STAMP) ## Fuzz every decoder of foreign bytes, guided by coverage (FUZZ_ARGS="--inputs 100000 hello")
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz.campaign $(FUZZ_ARGS)

attack: $(STAMP) ## Search for what lying members could do to rounds (ATTACKS=100000 SEED=7)
	P2PD_ATTACKS=$(ATTACKS) P2PD_ATTACK_SEED=$(SEED) $(BIN)/python -m pytest -q \
	  tests/rounds/agreement/test_byzantine_agreement.py tests/rounds/liars/test_byzantine_search.py

chaos: $(STAMP) ## Eight peers and two liars in namespaces, and all that happens to them; root (ROUNDS=50 SEED=7)
	$(BIN)/python -m tests.chaos.campaign --rounds $(ROUNDS) --seed $(SEED)

clean: ## Remove .venv and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "p2pd needs Python 3.11 or newer. Install it: apt-get install python3 python3-venv" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "p2pd needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. Install Debian's package:" \
	       "apt-get install python3-venv" >&2; \
	  exit 1; }
	$(call room,.,7000,Setting up)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[train,dev]'
	@touch $@
