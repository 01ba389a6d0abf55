# Each target installs what it needs into .venv, once. AMPLIFY_NO_VENV=1 uses the active Python instead (Colab).
#
#   make round N=3                        runs rounds/wildcard up to round 3; also: make round 3
#   make round N=3 EXPERIMENT=rounds/mine

EXPERIMENT ?= rounds/wildcard
PYTHON ?= python3

# A mistyped variable would otherwise be ignored, and another experiment be run.
VARIABLES := EXPERIMENT N SEEDS SET AS WITH ROUND ROW QUESTION OUT PHASE INVITE PYTHON AMPLIFY_NO_VENV
UNKNOWN := $(filter-out $(VARIABLES),$(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),$(name))))
ifneq (,$(strip $(UNKNOWN)))
  $(error unknown variable $(firstword $(UNKNOWN)); allowed are $(VARIABLES))
endif

# In `make round 3`, the number becomes a target that does nothing.
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

# AMPLIFY_MAKE: the commands that messages suggest are make's, too.
AMPLIFY := AMPLIFY_MAKE=1 $(RUN_PYTHON) -m amplify
# Quotes any text for the shell.
quoted = '$(subst ','\'',$(1))'

.PHONY: help round rounds compare study ask tree export people serve replay screenshots test test-all lint bench accelerator regression coverage paper notebooks docs data audits clean distclean
.SILENT:

help:
	echo "make round N=3 [EXPERIMENT=rounds/wildcard]   run up to round 3 and print the table"
	echo "make round N=3 SEEDS=0,1,2                    the same with three seeds, and compare them"
	echo "make round N=3 SET=training.steps=500 AS=rounds/mine   with other values (a derived experiment)"
	echo "make rounds                                   run rounds until the gate finds no improvement"
	echo "make compare [WITH=\"rounds/b rounds/c\"]       compare rounds: table, compare.png, compare.html"
	echo "make study EXPERIMENT=rounds/overoptimise     several arms and seeds in one table; resumes"
	echo "make ask [ROUND=3]                            ask a checkpoint questions"
	echo "make tree ROUND=3 ROW=17 [QUESTION=0]         the decomposition tree behind a training row"
	echo "make export OUT=folder [ROUND=3]              write a trained checkpoint that transformers can open"
	echo "make data OUT=x.parquet ROUND=3 [PHASE=name]   export a round's signal with texts, as .parquet or .jsonl"
	echo "make test | lint | bench                      test leaves out the slow tests"
	echo "make test-all                                 all tests: also several processes, browsers, notebooks"
	echo "make people [INVITE=3]                        print everybody's link to the pages; invite 3 more people"
	echo "make serve                                    serve people's pages, also between rounds"
	echo "make replay ROUND=2                           rebuild a round's data set from what was recorded"
	echo "make screenshots OUT=folder                   screenshots of people's pages, desktop and phone"
	echo "make accelerator                              validate and measure a GPU or TPU machine; 8 minutes"
	echo "make regression                               rerun a student's replication beside the reference"
	echo "make coverage                                 simulate the coverage of intervals and the gate's errors"
	echo "make audits                                   simulate the coverage of audits and their alarm"
	echo "make paper                                    run the paper's five tasks and supervised baselines"
	echo "make notebooks                                copy the repository's address into the notebooks"
	echo "make docs                                     build the documentation: docs/_build/index.html"
	echo "make clean                                    delete caches, never a round's results (distclean: .venv too)"

# Other experiments than the named one: SEEDS=0,1,2, or SET="training.steps=500" AS=rounds/mine. (AS has a default in make.)
VARIANTS = $(foreach one,$(SET),--set $(call quoted,$(one))) $(if $(findstring command,$(origin AS)),--as $(call quoted,$(AS))) $(if $(SEEDS),--seeds $(call quoted,$(SEEDS)))

round: $(BASE)
	test -n $(call quoted,$(N)) || { echo "make round: which round? For example: make round N=3" >&2; exit 2; }
	$(AMPLIFY) round $(call quoted,$(EXPERIMENT)) --n $(call quoted,$(N)) $(VARIANTS)

rounds: $(BASE)
	$(AMPLIFY) rounds $(call quoted,$(EXPERIMENT)) $(VARIANTS)

compare: $(BASE)
	$(AMPLIFY) compare $(call quoted,$(EXPERIMENT)) $(foreach one,$(WITH),$(call quoted,$(one))) $(if $(SEEDS),--seeds $(call quoted,$(SEEDS)))

study: $(BASE)
	$(AMPLIFY) study $(call quoted,$(EXPERIMENT)) $(if $(SEEDS),--seeds $(call quoted,$(SEEDS)))

ask: $(BASE)
	$(AMPLIFY) ask $(call quoted,$(EXPERIMENT)) $(if $(ROUND),--round $(call quoted,$(ROUND)))

tree: $(BASE)
	test -n $(call quoted,$(ROUND)) && test -n $(call quoted,$(ROW)) \
	  || { echo "make tree: which round and row? For example: make tree ROUND=3 ROW=17" >&2; exit 2; }
	$(AMPLIFY) tree $(call quoted,$(EXPERIMENT)) --round $(call quoted,$(ROUND)) --row $(call quoted,$(ROW)) $(if $(QUESTION),--question $(call quoted,$(QUESTION)))

export: $(BASE)
	test -n $(call quoted,$(OUT)) || { echo "make export: to which folder? For example: make export OUT=mine" >&2; exit 2; }
	$(AMPLIFY) export $(call quoted,$(EXPERIMENT)) $(call quoted,$(OUT)) $(if $(ROUND),--round $(call quoted,$(ROUND)))

data: $(BASE)
	test -n $(call quoted,$(OUT)) && test -n $(call quoted,$(ROUND)) \
	  || { echo "make data: which round, to which file? For example: make data OUT=data.parquet ROUND=3" >&2; exit 2; }
	$(AMPLIFY) data $(call quoted,$(EXPERIMENT)) $(call quoted,$(OUT)) --round $(call quoted,$(ROUND)) $(if $(PHASE),--phase $(call quoted,$(PHASE)))

people: $(BASE)
	$(AMPLIFY) people $(call quoted,$(EXPERIMENT)) $(if $(INVITE),--invite $(call quoted,$(INVITE)))

serve: $(BASE)
	$(AMPLIFY) serve $(call quoted,$(EXPERIMENT))

replay: $(BASE)
	test -n $(call quoted,$(ROUND)) || { echo "make replay: which round? For example: make replay ROUND=2" >&2; exit 2; }
	$(AMPLIFY) replay $(call quoted,$(EXPERIMENT)) --round $(call quoted,$(ROUND))

screenshots: $(DEV) $(BROWSER)
	test -n $(call quoted,$(OUT)) || { echo "make screenshots: to which folder? For example: make screenshots OUT=shots" >&2; exit 2; }
	$(RUN_PYTHON) -m tests.web.screenshots $(call quoted,$(OUT))
	$(RUN_PYTHON) -m tests.web.admin_screenshots $(call quoted,$(OUT))

test: $(DEV)
	$(RUN_PYTHON) -m pytest -n logical --dist worksteal --durations=25 -m "not slow"

test-all: test $(BROWSER)
	$(RUN_PYTHON) -m pytest -n logical --dist loadgroup --durations=60 -m slow

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

audits: $(DEV)
	$(RUN_PYTHON) -m tests.benchmarks.audits

paper: $(DEV)
	$(RUN_PYTHON) -m tests.benchmarks.paper

notebooks:
	$(PYTHON) colab/address.py

docs: $(DEV)
	$(RUN_PYTHON) -m docs.experiment_file
	$(RUN_PYTHON) -m sphinx -W --keep-going -q -E -b html docs docs/_build
	echo "wrote docs/_build/index.html"

clean:
	rm -rf docs/_build .cache .mypy_cache .ruff_cache .hypothesis .benchmarks dist
	find amplify tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv

# Each stamp file depends on what was installed, so a changed pyproject.toml reinstalls, and an interrupted install leaves
# no stamp.
.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "amplify needs Python 3.11 to 3.13; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv || { echo "python3 -m venv failed; on Debian: apt install python3-venv" >&2; exit 2; }

.venv/base.stamp: .venv/bin/python pyproject.toml constraints.txt
	echo "installing into .venv (once; a minute or two)" >&2
	.venv/bin/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev.stamp: .venv/base.stamp
	echo "installing test dependencies into .venv (once)" >&2
	.venv/bin/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

# Tests of people's pages use a real browser: the system's Chromium or, if it cannot be installed, Playwright's.
.venv/browser.stamp: .venv/dev.stamp
	command -v chromium >/dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || .venv/bin/python -m playwright install chromium \
	  || { echo "no browser could be installed; on Debian: apt install chromium" >&2; exit 2; }
	touch $@
