# Programs, tests and experiments run from $(VENV), which make builds from
# requirements.txt when it is missing or out of date; tests of Flower and PySyft
# likewise from $(FLOWER_VENV) and $(SYFT_VENV). Try: make help

# The first of some Pythons that answers.
first = $(shell for python in $(1); do \
    $$python -c '' 2>/dev/null && echo $$python && exit; done)

# Any Python 3.9 to 3.11; for Flower 3.11 to 3.13, for PySyft 3.12 or 3.13: without
# one, their tests are skipped. Of pyenv's, only the chosen ones are in PATH.
PYTHON ?= $(or $(call first,python3.11 python3.10 python3.9),python3)
FLOWER_PYTHON ?= $(call first,python3.11 python3.12 python3.13)
SYFT_PYTHON ?= $(call first,python3.12 python3.13 \
    $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python3.12))
VENV = .venv
FLOWER_VENV = .venv-flower
SYFT_VENV = .venv-syft

RUN = $(VENV)/bin/python
RUN_FLOWER = $(FLOWER_VENV)/bin/python
RUN_SYFT = $(SYFT_VENV)/bin/python
# Tests of a file stay in one process, which keeps what TensorFlow compiled.
PARALLEL = -n auto --maxprocesses=4 --dist=loadfile
STAMP = $(VENV)/.installed
FLOWER_STAMP = $(if $(FLOWER_PYTHON),$(FLOWER_VENV)/.installed)
SYFT_STAMP = $(if $(SYFT_PYTHON),$(SYFT_VENV)/.installed)

.PHONY: help demo test test-all benchmark clean

help:
	@echo "make demo      compare aggregators in a small attacked federation; report in out/demo/report.html"
	@echo "make test      run the quick tests"
	@echo "make test-all  run all tests"
	@echo "make benchmark time the rounds of some aggregators, small (docs/speed.md)"
	@echo "make clean     remove out/ and caches, but not $(VENV)"
	@echo "The first run installs pinned packages into $(VENV): about 2.7 GB and 2 to 5 minutes."
	@echo "Tests also into $(FLOWER_VENV) and $(SYFT_VENV), for Flower and PySyft: about 2.7 GB and 2 to 6 minutes."
	@echo "Choose a Python (3.9 to 3.11) with: make PYTHON=/path/to/python3.11 demo"

demo: $(STAMP)
	@$(RUN) -m binaries.compare --flagfile=binaries/flags/demo.cfg

# $(call skip,what,the Pythons that it needs): says so, and fails where nothing
# may be skipped.
skip = echo "Skipped the tests of $(1): no Python $(2) was found."$(if $(CI),; false)

# $(call tests,options): the tests in each of the environments.
define tests
	@$(RUN) -m pytest tests $(1) $(PARALLEL)
	@$(if $(FLOWER_PYTHON),$(RUN_FLOWER) -m pytest tests/flower $(1),\
	  $(call skip,Flower,3.11 to 3.13))
	@$(if $(SYFT_PYTHON),$(RUN_SYFT) -m pytest tests/syft $(1),\
	  $(call skip,PySyft,3.12 or 3.13))
endef

test: $(STAMP) $(FLOWER_STAMP) $(SYFT_STAMP)
	$(call tests,-m "not slow")

test-all: $(STAMP) $(FLOWER_STAMP) $(SYFT_STAMP)
	$(call tests)

benchmark: $(STAMP)
	@$(RUN) -m pytest benchmarks/bench_aggregators.py --dimension=10000

clean:
	@rm -rf out build dist *.egg-info .pytest_cache
	@find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +

# $(call install,folder,requirements,python,its minor versions,what is needed,
# size and time,variable that names the Python) builds an environment. The caller
# writes its stamp last, so that what an interruption left is completed.
define install
	@$(3) -c 'import sys; sys.exit(str(sys.version_info[1]) not in "$(4)".split())' \
	  || { echo "make: $(5), not $(3): choose one with make $(7)=/path/to/python" >&2; exit 1; }
	@echo "Installing pinned packages into $(1): about $(6)."
	@$(3) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --use-pep517 --no-deps -r $(2) </dev/null
endef

$(VENV)/.installed: requirements.txt
	$(call install,$(VENV),$<,$(PYTHON),9 10 11,TensorFlow Federated needs \
	  Python 3.9 to 3.11,2.7 GB and 2 to 5 minutes,PYTHON)
	@touch $@

# Where PyTorch is not the one for CPUs, it needs CUDA's libraries to load.
$(FLOWER_VENV)/.installed: requirements-flower.txt
	$(call install,$(FLOWER_VENV),$<,$(FLOWER_PYTHON),11 12 13,Flower needs \
	  Python 3.11 to 3.13,1.5 GB and 1 to 3 minutes,FLOWER_PYTHON)
	@$(RUN_FLOWER) -c 'import torch' 2>/dev/null \
	  || $(RUN_FLOWER) -m pip install --quiet --disable-pip-version-check torch
	@touch $@

$(SYFT_VENV)/.installed: requirements-syft.txt
	$(call install,$(SYFT_VENV),$<,$(SYFT_PYTHON),12 13,PySyft needs \
	  Python 3.12 or 3.13,1.2 GB and 1 to 3 minutes,SYFT_PYTHON)
	@touch $@
