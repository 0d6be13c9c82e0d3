# The environment is built once per constraints.txt and pyproject.toml; everything else uses it.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.built

.PHONY: demo figures claims papers scaled test check lint types clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,dask,tensorboard]"
	touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/longhaul run suites/quickstart.yaml
	$(VENV)/bin/longhaul report runs/quickstart --out report/quickstart

# The figures and the table of the README, from the quickstart's records.
figures: demo
	mkdir -p docs/figures
	for name in loss-time where-time-went; do cp report/quickstart/figures/$$name.png docs/figures/quickstart-$$name.png; done
	{ echo '# The quickstart, measured'; echo; echo 'Written by `make figures` from `suites/quickstart.yaml`.'; echo; \
	  cat report/quickstart/tables/methods.md; } > docs/quickstart.md

# The page of reproduced and not reproduced claims, from real training: about half an hour on two cores.
claims: $(STAMP)
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
papers: $(STAMP)
	$(foreach suite,$(PAPERS),$(call run-and-report,$(suite)))
	{ echo "# The papers' comparisons, at the size of a laptop"; echo; echo 'Written by `make papers`.'; } > docs/papers.md
	$(foreach suite,$(PAPERS),$(call section,$(suite)))

# The page of the 7B model in miniature: about ten minutes on two cores.
scaled: $(STAMP)
	$(call run-and-report,scaled-7b)
	{ echo '# A 7B model in miniature, beside its projection'; echo; echo 'Written by `make scaled` from `suites/scaled-7b.yaml`.'; echo; \
	  cat report/scaled-7b/tables/scaled.md; echo; \
	  sed 's|(scaled.png)|(figures/scaled-7b.png)|' report/scaled-7b/figures/scaled.md; } > docs/scaled-7b.md
	cp report/scaled-7b/figures/scaled.png docs/figures/scaled-7b.png

test: $(STAMP)
	$(VENV)/bin/python -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	$(VENV)/bin/mypy

check: lint types test

clean: $(STAMP)
	$(VENV)/bin/longhaul clean
