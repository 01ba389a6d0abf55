# Each target sets up what it needs, once, in .venv. AMPLIFY_NO_VENV=1 uses the Python that is active instead (Colab).
#
#   make round N=3                        rounds up to 3 of rounds/wildcard; also: make round 3
#   make round N=3 EXPERIMENT=rounds/mine

EXPERIMENT ?= rounds/wildcard
PYTHON ?= python3

# `make round 3`: the number is a goal that does nothing, unless it is the name of a real one.
ifeq (round,$(firstword $(MAKECMDGOALS)))
  NUMBER := $(wordlist 2,2,$(MAKECMDGOALS))
  ifneq (,$(NUMBER))
    N := $(NUMBER)
$(eval $(NUMBER): round ; @:)
  endif
endif

ifeq (1,$(AMPLIFY_NO_VENV))
  BIN :=
  RUN_PYTHON := $(PYTHON)
  BASE :=
  DEV :=
  BROWSER :=
else
  RUN_PYTHON := .venv/bin/python
  BASE := .venv/base.stamp
  DEV := .venv/dev.stamp
  BROWSER := .venv/browser.stamp
endif

AMPLIFY := $(RUN_PYTHON) -m amplify
# Quoted for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'

.PHONY: help round rounds compare ask tree export people serve replay screenshots test test-all lint bench accelerator regression coverage paper clean distclean
.SILENT:

help:
	echo "make round N=3 [EXPERIMENT=rounds/wildcard]   make sure round 3 exists, and print the table"
	echo "make rounds                                   go on until the gate says it no longer improves"
	echo "make compare [WITH=rounds/other]              round over round: table, compare.png, compare.html"
	echo "make ask [ROUND=3]                            ask a checkpoint questions by hand"
	echo "make tree ROUND=3 ROW=17 [QUESTION=0]         the decomposition tree behind a training row"
	echo "make export OUT=folder [ROUND=3]              a trained checkpoint, for transformers to open"
	echo "make test | lint | bench                      what it says; test leaves out what is slow"
	echo "make test-all                                 every test: also several processes, browsers, notebooks"
	echo "make people [INVITE=3]                        everybody's link to the pages; invite so many more"
	echo "make serve                                    keep people's pages up, also between rounds"
	echo "make replay ROUND=2                           make a round's data set again from what was recorded"
	echo "make screenshots OUT=folder                   every page for people, wide and on a phone"
	echo "make accelerator                              does a GPU or TPU do what it should, and how fast? 8 minutes"
	echo "make regression                               a student's replication, run again beside the reference"
	echo "make coverage                                 what intervals cover and what the gate promotes, simulated"
	echo "make paper                                    the paper's five tasks beside their supervised baselines"
	echo "make clean                                    caches; never a round's results (distclean: .venv too)"

round: $(BASE)
	test -n $(call quoted,$(N)) || { echo "make round: which one? Such as: make round N=3" >&2; exit 2; }
	$(AMPLIFY) round $(call quoted,$(EXPERIMENT)) --n $(call quoted,$(N))

rounds: $(BASE)
	$(AMPLIFY) rounds $(call quoted,$(EXPERIMENT))

compare: $(BASE)
	$(AMPLIFY) compare $(call quoted,$(EXPERIMENT)) $(if $(WITH),$(call quoted,$(WITH)))

ask: $(BASE)
	$(AMPLIFY) ask $(call quoted,$(EXPERIMENT)) $(if $(ROUND),--round $(call quoted,$(ROUND)))

tree: $(BASE)
	test -n $(call quoted,$(ROUND)$(ROW)) || { echo "make tree: of what? Such as: make tree ROUND=3 ROW=17" >&2; exit 2; }
	$(AMPLIFY) tree $(call quoted,$(EXPERIMENT)) --round $(call quoted,$(ROUND)) --row $(call quoted,$(ROW)) $(if $(QUESTION),--question $(call quoted,$(QUESTION)))

export: $(BASE)
	test -n $(call quoted,$(OUT)) || { echo "make export: to which folder? Such as: make export OUT=mine" >&2; exit 2; }
	$(AMPLIFY) export $(call quoted,$(EXPERIMENT)) $(call quoted,$(OUT)) $(if $(ROUND),--round $(call quoted,$(ROUND)))

people: $(BASE)
	$(AMPLIFY) people $(call quoted,$(EXPERIMENT)) $(if $(INVITE),--invite $(call quoted,$(INVITE)))

serve: $(BASE)
	$(AMPLIFY) serve $(call quoted,$(EXPERIMENT))

replay: $(BASE)
	test -n $(call quoted,$(ROUND)) || { echo "make replay: which round? Such as: make replay ROUND=2" >&2; exit 2; }
	$(AMPLIFY) replay $(call quoted,$(EXPERIMENT)) --round $(call quoted,$(ROUND))

screenshots: $(DEV) $(BROWSER)
	test -n $(call quoted,$(OUT)) || { echo "make screenshots: to which folder? Such as: make screenshots OUT=shots" >&2; exit 2; }
	$(RUN_PYTHON) -m tests.web.screenshots $(call quoted,$(OUT))
	$(RUN_PYTHON) -m tests.web.admin_screenshots $(call quoted,$(OUT))

test: $(DEV)
	$(RUN_PYTHON) -m pytest -n logical --dist worksteal -m "not slow"

test-all: test $(BROWSER)
	$(RUN_PYTHON) -m pytest -n logical --dist loadgroup -m slow

lint: $(DEV)
	$(RUN_PYTHON) -m ruff check .
	$(RUN_PYTHON) -m ruff format --check .
	$(RUN_PYTHON) -m mypy
	$(RUN_PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()" --no-cache --no-logo

bench: $(DEV)
	$(RUN_PYTHON) -m pytest tests/benchmarks -q -s

accelerator: $(BASE)
	$(RUN_PYTHON) -m tests.benchmarks.accelerator

regression: $(DEV)
	$(RUN_PYTHON) -m tests.benchmarks.regression

coverage: $(DEV)
	$(RUN_PYTHON) -m tests.benchmarks.coverage

paper: $(DEV)
	$(RUN_PYTHON) -m tests.benchmarks.paper

clean:
	rm -rf .cache .mypy_cache .ruff_cache .hypothesis .benchmarks dist
	find amplify tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv

# A stamp is newer than what it was made from, so a changed pyproject.toml installs again, and an interrupted install
# leaves no stamp.
.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "amplify needs Python 3.11 to 3.13; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv || { echo "python3 -m venv failed; on Debian: apt install python3-venv" >&2; exit 2; }

.venv/base.stamp: .venv/bin/python pyproject.toml constraints.txt
	echo "installing into .venv (once; a minute or two)" >&2
	.venv/bin/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev.stamp: .venv/base.stamp
	echo "installing what tests need into .venv (once)" >&2
	.venv/bin/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# People's pages are tested in a real browser: the system's Chromium or, where none can be installed, Playwright's own.
.venv/browser.stamp: .venv/dev.stamp
	command -v chromium >/dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || .venv/bin/python -m playwright install chromium \
	  || { echo "no browser could be installed; on Debian: apt install chromium" >&2; exit 2; }
	touch $@
