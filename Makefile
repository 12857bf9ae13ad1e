# What a developer or user types; each target only calls the command that does the work.
# `make` alone prints the menu.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
WORKERS ?=
export NUM_JOBS WORKERS SEED OUTPUT_DIR API_PORT LOG_LEVEL LOG_FORMAT
# An empty variable would count as a wrong value; only those that were given are passed on.
$(foreach name,NUM_JOBS WORKERS SEED OUTPUT_DIR API_PORT LOG_LEVEL LOG_FORMAT,$(if $(value $(name)),,$(eval unexport $(name))))

# The containers run as you, so that the files are yours; as 1000:1000 if you are root, or as .env says.
CONTAINER_USER = $(shell sed -n 's/^RUN_AS=//p' .env 2>/dev/null | grep . || { [ "$$(id -u)" = 0 ] || echo "$$(id -u):$$(id -g)"; })

# What the containers run, and how it is named in batch.json: as a registry knows it, else by its id here.
COMPOSE_IMAGE = $(or $(IMAGE),$(shell sed -n 's/^IMAGE=//p' .env 2>/dev/null | tail -n 1),hpc-batch-sim:latest)
DIGEST = {{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}

PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet
READY := .venv/.ready
TEST_READY := .venv/.test-ready
PLOT_READY := .venv/.plot-ready

.PHONY: help setup run serve examples doctor test chaos check lint types unit containers bench up down logs ps lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): requirements/run.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.13")'
	@echo "Setting up .venv (once) ..."
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(PIP) --require-hashes -r requirements/build.txt -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(TEST_READY): requirements/test.txt $(READY)
	@echo "Adding the test tools (once) ..."
	@$(PIP) --require-hashes -r requirements/test.txt
	@touch $@

setup: $(READY)  ## make .venv with the pinned, hashed requirements

run: $(READY)  ## run NUM_JOBS jobs here, then exit [NUM_JOBS=5 WORKERS=cores SEED=random OUTPUT_DIR=outputs RESUME=]
	@.venv/bin/batchsim run $(if $(RESUME),--resume)

serve: $(READY)  ## API, page, workers and Flower here, until Ctrl-C [API_PORT=8080]
	@.venv/bin/batchsim serve

$(PLOT_READY): requirements/plot.txt $(READY)
	@echo "Adding what draws the figures (once) ..."
	@$(PIP) --require-hashes -r requirements/plot.txt
	@touch $@

examples: $(PLOT_READY)  ## run the three worked examples, with their figures, in examples/
	@for example in python shell c; do echo "== $$example"; PATH="$(CURDIR)/.venv/bin:$$PATH" examples/$$example/run.sh || exit 1; done

doctor: $(READY)  ## look for violated promises in outputs/ [REDIS_URL= for the ledger, too]
	@.venv/bin/batchsim doctor

test: $(TEST_READY)  ## all tests that this machine can run, a process for each core [ARGS="-k archive"]
	@.venv/bin/python -m pytest --numprocesses auto --dist loadgroup $(ARGS)

chaos: $(TEST_READY)  ## every way to die in every phase, then SECONDS=30 of random ones
	@CHAOS_SECONDS=$(or $(SECONDS),30) .venv/bin/python -m pytest -m "chaos or slow" tests/chaos $(ARGS)

unit: $(TEST_READY)  ## the tests that need no server
	@.venv/bin/python -m pytest tests/unit

containers: $(TEST_READY)  ## the tests on a real Docker engine
	@.venv/bin/python -m pytest tests/containers

lint: $(TEST_READY)
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

types: $(TEST_READY)
	@.venv/bin/mypy

check: lint types test  ## lint, types and tests: what CI runs

bench: $(TEST_READY)  ## speed beside two bare processes, in one run [JOBS=100000]
	@.venv/bin/python -m benchmarks.throughput $(if $(JOBS),--jobs $(JOBS))

up:  ## start the containers [WORKERS=4]
	@test -f .env || cp .env.example .env
	RUN_AS="$${RUN_AS:-$(CONTAINER_USER)}" docker compose build
	RUN_AS="$${RUN_AS:-$(CONTAINER_USER)}" IMAGE_DIGEST="$$(docker image inspect --format '$(DIGEST)' "$(COMPOSE_IMAGE)")" \
		docker compose up --detach --scale worker=$(or $(WORKERS),4)

down:  ## stop and remove the containers; outputs/ and the volumes stay
	docker compose down

logs:  ## follow the containers' logs
	docker compose logs --follow

ps:  ## list the containers with their health
	docker compose ps

lock: ## write requirements/*.txt anew from pyproject.toml (needs uv)
	@requirements/lock.sh

clean:  ## remove .venv and caches; outputs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
