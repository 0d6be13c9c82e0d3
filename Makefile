# `make help` lists the targets. Variables, given as in `make demo SUITE=suites/lordo.yaml`:
#   SUITE        the suite that demo runs
#   PYTHON       the interpreter of the environment, 3.11 or later
#   TORCH_INDEX  where torch comes from; empty for pip's own indexes, which have CUDA builds
#   BOOTSTRAP    no: install no system packages
SUITE ?= suites/quickstart.yaml
PYTHON ?= python3
BOOTSTRAP ?= yes
export PYTHON
ifdef TORCH_INDEX
export TORCH_INDEX
endif

VENV := .venv
# Of the records and the report: the name that the suite gives itself.
NAME = $(shell sed -n 's/^name: *//p' "$(SUITE)" 2>/dev/null)
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
SOURCES := pyproject.toml constraints.txt scripts/environment
bootstrap = $(if $(filter no,$(BOOTSTRAP)),,scripts/bootstrap $(1))

.NOTPARALLEL:
.PHONY: help environment demo test test-fast check lint types docs figures claims papers scaled clean bootstrap-demo bootstrap-test

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name what; \
	  do printf '  %-11s  %s\n' "$$name" "$$what"; done

bootstrap-demo bootstrap-test:
	@$(call bootstrap,$(@:bootstrap-%=%))

# The environment, in two parts: what runs Longhaul, and what tests it. Each is brought up to date when its sources change.
$(RUNTIME): $(SOURCES)
	@$(call bootstrap,python)
	@scripts/environment
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	@scripts/environment dev,dask,tensorboard
	@touch $@

environment: $(RUNTIME)  ## build the Python environment in .venv, or bring it up to date

demo: bootstrap-demo $(RUNTIME)  ## train the methods of SUITE across the emulated network and write the report
	$(VENV)/bin/longhaul run "$(SUITE)"
	$(VENV)/bin/longhaul report "runs/$(NAME)" --out "report/$(NAME)"

test: bootstrap-test test-fast  ## run every test that this machine can run: the fast ones first, the others if those pass
	$(VENV)/bin/python -m pytest -m "not fast"

# On every core, each with one thread: the models are too small for two to help.
test-fast: $(DEVELOPMENT)  ## run the tests without root, containers or emulated networks: under three minutes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m fast --numprocesses auto

lint: $(DEVELOPMENT)  ## check style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(DEVELOPMENT)  ## check types
	$(VENV)/bin/mypy

check: lint types test  ## lint, types and test

# Pages of the documentation that are written from runs; the others need only `longhaul docs`. Suites that are complete
# are not run again.
page = for suite in $(2); do $(VENV)/bin/longhaul run $$suite || exit; done; $(VENV)/bin/longhaul docs $(1) --runs runs

figures: bootstrap-demo $(RUNTIME)  ## docs/quickstart.md and its figures, from the quickstart
	$(call page,quickstart,quickstart)

claims: bootstrap-demo $(RUNTIME)  ## docs/claims.md, from up to three hours of training
	$(call page,claims,claims claims-moe claims-skip)

papers: bootstrap-demo $(RUNTIME)  ## docs/papers.md, from 45 minutes of training
	$(call page,papers,photon photon-clients lordo fomoe)

scaled: bootstrap-demo $(RUNTIME)  ## docs/scaled-7b.md, from ten minutes of training
	$(call page,scaled-7b,scaled-7b)

docs: $(RUNTIME)  ## the pages that are written from stored measurements
	$(VENV)/bin/longhaul docs

clean:  ## remove what killed runs left behind: namespaces, containers, processes
	$(VENV)/bin/longhaul clean
