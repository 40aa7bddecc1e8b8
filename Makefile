# Every command runs in .venv, which the first one makes from requirements.lock.
#   make train                       train a memory agent from nothing to success, on a CPU
#   make test PYTHON=python3.12      choose the interpreter (3.11 to 3.14)
#   make install EXTRAS=vizdoom,wandb    add optional parts of pyproject.toml (environments: all)
#   make doctor                      say which environments run here, and what is missing
#   make train ARGS="--help"         hand options to the command
#   make mutants ARGS="--count 20 --seed 1"

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?=
ARGS ?=
# One test process per core, and no more than 8: each of them loads PyTorch.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2); \
	if [ "$$n" -gt 8 ]; then n=8; fi; echo "$$n")

RUN := $(VENV)/bin/python
BOOTSTRAP = $(PYTHON) -I scripts/bootstrap.py --venv "$(VENV)"
PACKAGES := rate datamodules trainers scripts
# Also read by Pythons that are too old for this project: keep it plain.
CHECK_VERSION := import sys; v = sys.version_info; \
	sys.exit(0 if (3, 11) <= v[:2] <= (3, 14) else "error: this project needs Python 3.11 to 3.14, \
	and $(PYTHON) is %d.%d. Name another: make test PYTHON=python3.12" % v[:2])

# A variable that is not one of these would change nothing, and `make` itself says nothing of it.
VARIABLES := ARGS EXTRAS PYTHON VENV WORKERS
UNKNOWN := $(strip $(foreach name,$(filter-out $(VARIABLES) MAKEFLAGS SHELL,$(.VARIABLES)),\
	$(if $(findstring command line,$(origin $(name))),$(name))))
NEAREST := import difflib, sys; name, *known = sys.argv[1:]; \
	near = difflib.get_close_matches(name.upper(), known, 1, 0.5); \
	print(" Did you mean {0}?".format(near[0]) if near else "")
ifneq ($(UNKNOWN),)
$(error There is no variable $(firstword $(UNKNOWN)).$(shell "$(PYTHON)" -c '$(NEAREST)' \
	$(firstword $(UNKNOWN)) $(VARIABLES)) There are: $(VARIABLES))
endif

.DEFAULT_GOAL := help
.PHONY: help install train doctor test test-full mutants studies docs lint format lock clean \
	python env-test env-dev

help:  ## List the commands
	@echo "usage: make <command> [PYTHON=python3.12] [VENV=.venv] [EXTRAS=wandb] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: python  ## Make the environment, with the extras named in EXTRAS
	@$(BOOTSTRAP) --extras "$(EXTRAS)"

train: install  ## Train and evaluate a memory agent, as a first taste (minutes on a CPU)
	@$(RUN) scripts/study.py quickstart $(ARGS)

doctor: install  ## Say what runs on this machine and what is missing (ARGS=vizdoom: that alone)
	@$(RUN) scripts/doctor.py $(ARGS)

test: lint  ## Check style and types, then run every test that takes seconds
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

# One after the other: a study takes every core itself.
test-full: test  ## Also run the tests that take minutes or more: one seed of every study, an hour
	@$(RUN) -m pytest -m long --timeout 7200 $(ARGS)

mutants: env-test  ## Change the code in small ways and print what no test notices (minutes each)
	@$(RUN) scripts/mutants.py $(ARGS)

studies: python  ## Train and score everything in trainers/studies (hours; go on with the same command)
	@$(BOOTSTRAP) --extras "environments,$(EXTRAS)"
	@for study in trainers/studies/*.yaml; do \
		$(RUN) scripts/study.py "$$study" $(ARGS) || exit; \
	done

docs: python  ## Build the documentation site into build/site
	@$(BOOTSTRAP) --extras "docs,$(EXTRAS)"
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "The documentation is in build/site/index.html"

lint: env-test  ## Check style (ruff) and types (mypy)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

format: env-test  ## Rewrite the code in the house style
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

lock: env-dev  ## Pin what pyproject.toml needs in requirements.lock (ARGS=--upgrade: the newest)
	@cp requirements.lock requirements.lock.all
	@sed -n '/^#/p' requirements.lock > requirements.lock.new
	@$(RUN) -m uv pip compile pyproject.toml --extra test --extra lint --extra ray --universal \
		--python-version 3.11 --no-header --no-annotate --quiet --output-file requirements.lock.all $(ARGS)
	@sed -E '/^(cuda|nvidia)-|^triton=/d' requirements.lock.all >> requirements.lock.new
	@rm requirements.lock.all && mv requirements.lock.new requirements.lock
	@echo "Wrote requirements.lock. Next: make test, with the oldest and the newest Python."

clean:  ## Remove caches and build leftovers (not the environment, the data or the runs)
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache requirements.lock.*
	@find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

env-test: python
	@$(BOOTSTRAP) --extras "test,lint,$(EXTRAS)"

env-dev: python
	@$(BOOTSTRAP) --extras "dev,test,lint,$(EXTRAS)"

python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "error: there is no $(PYTHON) here. Install Python 3.11 to 3.14, or name one:" \
			"make test PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(CHECK_VERSION)'

.DEFAULT:
	@echo "error: there is no command $@; make alone lists them." >&2; exit 2
