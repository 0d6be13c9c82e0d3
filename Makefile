# `make help` lists the targets. Variables, given as in `make demo SUITE=suites/lordo.yaml`:
#   SUITE        the suite that demo runs
#   PYTHON       the interpreter, 3.11 or later; one other than python3 has an environment of its own, .venv-<its name>
#   TORCH_INDEX  where torch comes from; empty for pip's own indexes, which have CUDA builds
#   BOOTSTRAP    no: install no system packages
#   EXAMPLES     how many inputs fuzz tries of each kind
SUITE ?= suites/quickstart.yaml
PYTHON ?= python3
BOOTSTRAP ?= yes
EXAMPLES ?= 5000
VENV := .venv$(if $(filter-out python3,$(notdir $(PYTHON))),-$(notdir $(PYTHON)))
export PYTHON VENV
ifdef TORCH_INDEX
export TORCH_INDEX
endif

# Of the records and the report: the name that the suite gives itself.
NAME = $(shell sed -n 's/^name: *//p' "$(SUITE)" 2>/dev/null)
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
SOURCES := pyproject.toml constraints.txt scripts/environment
bootstrap = $(if $(filter no,$(BOOTSTRAP)),,scripts/bootstrap $(1))

.NOTPARALLEL:
.PHONY: help environment demo test test-fast fuzz check lint types docs accuracy collectives figures claims papers conditions methods scaled clean bootstrap-demo bootstrap-test

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name what; \
	  do printf '  %-11s  %s\n' "$$name" "$$what"; done
	@printf '%s\n' 'Variables, as in "make demo SUITE=suites/lordo.yaml":'
	@sed -n '2,/^[^#]/s/^#   /  /p' $(firstword $(MAKEFILE_LIST))

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

environment: $(RUNTIME)  ## build the Python environment, or bring it up to date

demo: bootstrap-demo $(RUNTIME)  ## train the methods of SUITE across the emulated network and write the report
	$(VENV)/bin/longhaul run "$(SUITE)"
	$(VENV)/bin/longhaul report "runs/$(NAME)" --out "report/$(NAME)"

# Then those beside which others may run, one emulated network at a time; last, alone, those that measure or time.
test: bootstrap-test test-fast  ## run every test that this machine can run: the fast ones first, the others if those pass
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m "not fast and not timing" --numprocesses auto --dist loadgroup --no-loadscope-reorder --durations 60
	$(VENV)/bin/python -m pytest -m "not fast and timing" --durations 30

# On every core, each with one thread: the models are too small for two to help.
test-fast: $(DEVELOPMENT)  ## run the tests without root, containers or emulated networks: about three minutes
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m fast --numprocesses auto --dist loadgroup

fuzz: $(DEVELOPMENT)  ## mutate documents, records and frames for longer than the tests do: EXAMPLES of each kind
	FUZZ_EXAMPLES=$(EXAMPLES) OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/fuzz --numprocesses auto --timeout 3600

lint: $(DEVELOPMENT)  ## check style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(DEVELOPMENT)  ## check types
	$(VENV)/bin/mypy

check: lint types test  ## lint, types and test

# Pages of the documentation that show runs of suites, which docs/runs keeps. Suites that are complete are not run again.
define page
	for suite in $(2); do \
	  $(VENV)/bin/longhaul run $$suite && rm -f docs/runs/$$suite.tar.xz && \
	  $(VENV)/bin/longhaul archive runs/$$suite --no-report -o docs/runs/$$suite.tar.xz || exit; \
	done
	$(VENV)/bin/longhaul docs $(1)
endef

figures: bootstrap-demo $(RUNTIME)  ## docs/quickstart.md and its figures, from the quickstart
	$(call page,quickstart,quickstart)

papers: bootstrap-demo $(RUNTIME)  ## docs/papers.md, from 75 minutes of training
	$(call page,papers,photon photon-clients lordo fomoe)

conditions: bootstrap-demo $(RUNTIME)  ## docs/conditions.md, from 35 minutes of training on many networks
	$(call page,conditions,wan-sweep heterogeneous)

methods: bootstrap-demo $(RUNTIME)  ## docs/all-methods.md, from six minutes of training
	$(call page,all-methods,all-methods)

scaled: bootstrap-demo $(RUNTIME)  ## docs/scaled-7b.md, from ten minutes of training
	$(call page,scaled-7b,scaled-7b)

accuracy: bootstrap-test $(DEVELOPMENT)  ## docs/accuracy.md: links of both engines, under load, networks of many sites
	$(VENV)/bin/longhaul bench wan --substrate netns --substrate docker --results docs/accuracy.jsonl
	$(VENV)/bin/python -m tests.qemu.accuracy_rows --results docs/accuracy.jsonl
	$(VENV)/bin/longhaul docs accuracy

collectives: bootstrap-demo $(RUNTIME)  ## docs/collectives.md: our all-reduce and gloo against the bound
	$(VENV)/bin/longhaul bench collectives --results docs/collectives.jsonl --out docs

claims: bootstrap-demo $(RUNTIME)  ## docs/claims.md, from up to three hours of training
	for suite in claims-short claims claims-moe claims-rounds claims-narrow claims-placement claims-skip; do $(VENV)/bin/longhaul run $$suite || exit; done
	$(VENV)/bin/longhaul docs claims --runs runs

docs: $(RUNTIME)  ## the pages that are written from stored measurements
	$(VENV)/bin/longhaul docs

clean:  ## remove what killed runs left behind: namespaces, containers, processes
	$(VENV)/bin/longhaul clean
