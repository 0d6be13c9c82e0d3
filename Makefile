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
NAME = $(shell sed -n 's/^name: *//p' "$(SUITE)")
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
SOURCES := pyproject.toml constraints.txt scripts/environment
bootstrap = $(if $(filter no,$(BOOTSTRAP)),,scripts/bootstrap $(1))

.NOTPARALLEL:
.PHONY: help environment demo test test-fast check lint types figures claims papers scaled clean bootstrap-demo bootstrap-test

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

# The figures and the table of the README, from the quickstart's records.
figures: demo  ## docs/quickstart.md and its figures, from the quickstart
	mkdir -p docs/figures
	for name in loss-time where-time-went; do cp report/quickstart/figures/$$name.png docs/figures/quickstart-$$name.png; done
	{ echo '# The quickstart, measured'; echo; echo 'Written by `make figures` from `suites/quickstart.yaml`.'; echo; \
	  cat report/quickstart/tables/methods.md; } > docs/quickstart.md

# The page of reproduced and not reproduced claims, from real training: about half an hour on two cores.
claims: $(RUNTIME)  ## docs/claims.md, from half an hour of training
	$(VENV)/bin/longhaul run suites/claims.yaml
	$(VENV)/bin/longhaul run suites/claims-moe.yaml
	$(VENV)/bin/longhaul report runs/claims runs/claims-moe --claims docs/claims.yaml --out report/claims
	{ echo '# What the papers claim, held against runs'; echo; echo 'Written by `make claims` from `docs/claims.yaml`.'; echo; \
	  cat report/claims/tables/claims.md; } > docs/claims.md

# The page of the papers' comparisons: about 45 minutes on two cores. Of each suite the figures that are its point.
PAPERS := photon photon-clients lordo fomoe
FIGURES_photon := loss-bytes where-time-went
FIGURES_photon-clients := photon-aggregation
FIGURES_lordo := loss-time lordo-rank lordo-omega
FIGURES_fomoe := fomoe-frontier method-metrics
define run-and-report
	$(VENV)/bin/longhaul run suites/$(1).yaml
	$(VENV)/bin/longhaul report runs/$(1) --out report/$(1)

endef
define section
	{ echo; echo '## `suites/$(1).yaml`'; echo; cat report/$(1)/tables/methods.md; } >> docs/papers.md
	for name in $(FIGURES_$(1)); do cp report/$(1)/figures/$$name.png docs/figures/$(1)-$$name.png; echo; \
	  sed "s|($$name.png)|(figures/$(1)-$$name.png)|" report/$(1)/figures/$$name.md; done >> docs/papers.md

endef
papers: $(RUNTIME)  ## docs/papers.md, from 45 minutes of training
	$(foreach suite,$(PAPERS),$(call run-and-report,$(suite)))
	{ echo "# The papers' comparisons, at the size of a laptop"; echo; echo 'Written by `make papers`.'; } > docs/papers.md
	$(foreach suite,$(PAPERS),$(call section,$(suite)))

# The page of the 7B model in miniature: about ten minutes on two cores.
scaled: $(RUNTIME)  ## docs/scaled-7b.md, from ten minutes of training
	$(call run-and-report,scaled-7b)
	{ echo '# A 7B model in miniature, beside its projection'; echo; echo 'Written by `make scaled` from `suites/scaled-7b.yaml`.'; echo; \
	  cat report/scaled-7b/tables/scaled.md; echo; \
	  sed 's|(scaled.png)|(figures/scaled-7b.png)|' report/scaled-7b/figures/scaled.md; } > docs/scaled-7b.md
	cp report/scaled-7b/figures/scaled.png docs/figures/scaled-7b.png

clean:  ## remove what killed runs left behind: namespaces, containers, processes
	$(VENV)/bin/longhaul clean
