# The first command typed here may be any of these: what is missing is set up on the way.

PYTHON ?=
CELLSHELL_KERNEL_ENVIRONMENT ?= $(CURDIR)/.kernel/python
export PYTHON CELLSHELL_KERNEL_ENVIRONMENT
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup serve test check format bench stress soak test-frontends demo clean

help:
	@echo 'make serve    set up and start the service on http://127.0.0.1:8000'
	@echo 'make test     set up and run the tests        (ARGS="-k name")'
	@echo 'make check    lint, look at the format, type-check'
	@echo 'make format   format, and fix what can be fixed'
	@echo 'make bench    run the benchmarks              (ARGS="--only shell")'
	@echo 'make stress   long fuzzing, soak and kill runs'
	@echo 'make soak     everything again and again      (MINUTES=60)'
	@echo 'make test-frontends   install JupyterLab and others, and drive them'
	@echo 'make demo     run the example notebooks'
	@echo 'make setup    set up, and no more'
	@echo 'make clean    remove what set-up and runs have made'

setup:
	@scripts/setup

serve: setup
	@exec .venv/bin/cellshell serve $(ARGS)

test:
	@scripts/test $(ARGS)

check:
	@scripts/check

format:
	@scripts/setup dev
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

bench: setup
	@.venv/bin/python -m bench $(ARGS)

stress:
	@scripts/test -m stress --timeout 3600 $(ARGS)

soak: export CELLSHELL_SOAK_MINUTES = $(or $(MINUTES),10)
soak:
	@scripts/test -m stress -k nothing_grows -s --timeout 0 $(ARGS)

test-frontends:
	@scripts/frontends $(ARGS)

demo: setup
	@.venv/bin/python -m notebooks.examples $(ARGS)

clean:
	rm -rf .venv .kernel .frontends .pytest_cache .ruff_cache .mypy_cache demo-output bench-results dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
