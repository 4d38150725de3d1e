# The commands of the project. Each does its own set-up: nothing has to run before it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
.DEFAULT_GOAL := help

help: ## Show the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup ## Run the suite: gRPC on 127.0.0.1:50051, images on :8080, metrics on :9090
	@$(BIN)/insta up

apart: setup ## Run the suite as four processes
	@$(BIN)/insta apart

test: setup build/promtool ## Run all tests; with DB=postgresql on a PostgreSQL server that they start
	@INSTA_TEST_DB=$(DB) $(BIN)/pytest --dist worksteal $(if $(filter postgresql,$(DB)),-n 2 --timeout 300,-n 4)

compose-test: setup ## Run the tests of the containers (needs a container engine and some minutes)
	@$(BIN)/pytest tests/compose

soak: setup ## Run the tests that take minutes each: crashes, power, deletion, overload, restarts, timing
	@$(BIN)/pytest -m soak -s

mutants: setup ## Seed defects into copies of the source, one each, and see that a test catches every one
	@$(BIN)/python -m tests.mutants

lint: setup ## Check style, types, contracts and the borders between the parts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint insta/insta.binpb --path insta
	$(BIN)/buf format protos --diff --exit-code
	$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*/*.yaml))

protos: setup ## Generate the Python stubs from the contracts
	@PATH=$(BIN):$$PATH $(BIN)/python protos/generate.py

bench: $(VENV)/bench ## Measure the suite beside a bare server and Django REST framework (needs two idle cores, some minutes)
	@$(BIN)/python -m benchmarks $(PARTS)

clients: setup ## Generate Go and TypeScript stubs into gen/ (needs go and npm)
	@npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/clients/typescript
	@$(BIN)/buf generate insta/insta.binpb --path insta --clean

setup: $(VENV)/installed insta/insta.binpb

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what pyproject.toml names into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/bench: $(VENV)/installed insta/insta.binpb
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@touch $@

insta/insta.binpb: $(VENV)/installed $(shell find protos -name '*.proto') protos/generate.py
	@PATH=$(BIN):$$PATH $(BIN)/python protos/generate.py

# Of Debian's package, without being root. Where there is none, and none in the PATH, the tests that take it are skipped.
APT := apt-get -qq -o APT::Sandbox::User=$(shell id -un) -o Dir::State=$(CURDIR)/build/apt -o Dir::Cache=$(CURDIR)/build/apt
build/promtool:
	@mkdir -p build/apt/lists/partial build/apt/archives/partial
	@command -v promtool >/dev/null || ! command -v apt-get >/dev/null || { \
	  echo "Getting promtool ..." && cd build/apt && $(APT) update && $(APT) download prometheus \
	  && dpkg -x prometheus_*.deb . && mv usr/bin/promtool ..; } || echo "promtool could not be fetched."
	@rm -rf build/apt

.PHONY: help run apart test compose-test soak mutants bench lint protos clients setup
