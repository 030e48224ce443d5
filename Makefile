# Programs, tests and experiments run from $(VENV), which make builds from
# requirements.txt when it is missing or out of date; tests of Flower and PySyft
# likewise from .venv-flower and .venv-syft. Try: make help

# The first of some Pythons that answers.
first = $(shell for python in $(1); do \
    $$python -c '' 2>/dev/null && echo $$python && exit; done)

# Any Python 3.9 to 3.11; for Flower 3.11 to 3.13, for PySyft 3.12 or 3.13: without
# one, their tests are skipped. Of pyenv's, only the chosen ones are in PATH.
PYTHON ?= $(or $(call first,python3.11 python3.10 python3.9),python3)
PYTHON_flower ?= $(call first,python3.11 python3.12 python3.13)
PYTHON_syft ?= $(call first,python3.12 python3.13 \
    $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python3.12))
VENV = .venv

RUN = $(VENV)/bin/python
# Tests of a file stay in one process, which keeps what TensorFlow compiled.
PARALLEL = -n auto --maxprocesses=4 --dist=loadfile
STAMP = $(VENV)/.installed
# What checks and documents the sources; it needs no TensorFlow.
TOOLS = .venv-tools
OTHERS = $(if $(PYTHON_flower),.venv-flower/.torch) \
    $(if $(PYTHON_syft),.venv-syft/.installed)
# Of pip's lines the last ones say too little.
NOT_INSTALLED = { echo "make: pip failed, see above; is the network there, and is\
 $$(df -Ph . | awk 'NR == 2 {print $$4}') of free disk enough? The same command\
 goes on." >&2; exit 1; }
FOLDERS = fedaot fedaot_tff tasks binaries benchmarks tests docs

.PHONY: help demo test test-all coverage lint format docs benchmark clean

help:
	@echo "make demo      compare aggregators in a small attacked federation; report in out/demo/report.html"
	@echo "make test      run the quick tests, make lint and make docs"
	@echo "make test-all  run all tests"
	@echo "make coverage  name the lines of fedaot/ that its own quick tests leave out"
	@echo "make lint      check style and types; make format mends the style"
	@echo "make docs      build the site in out/site"
	@echo "make benchmark time the rounds of some aggregators, small (docs/speed.md)"
	@echo "make clean     remove out/ and caches, but not $(VENV)"
	@echo "The first run installs pinned packages into $(VENV): about 2.7 GB, 2 to 5 minutes."
	@echo "Tests also into .venv-flower and .venv-syft, for Flower and PySyft: about 2.7 GB, 2 to 6 minutes."
	@echo "Choose a Python (3.9 to 3.11) with: make PYTHON=/path/to/python3.11 demo"

demo: $(STAMP)
	@$(RUN) -m binaries.compare --flagfile=binaries/flags/demo.cfg

# $(call tests,options): the tests in each of the environments. CI skips none.
define tests
	@$(RUN) -m pytest tests $(1) $(PARALLEL)
	@$(call others,$(1),flower,3.11 to 3.13)
	@$(call others,$(1),syft,3.12 or 3.13)
endef
others = $(if $(PYTHON_$(2)),.venv-$(2)/bin/python -m pytest tests/$(2) $(1),\
    echo "Skipped tests/$(2): no Python $(3) was found." $(if $(CI),&& false))

test:
	@$(MAKE) --no-print-directory -j2 $(STAMP) $(OTHERS) $(TOOLS)/.installed
	@$(MAKE) --no-print-directory lint docs
	$(call tests,-m "not slow")

test-all: $(STAMP) $(OTHERS)
	$(call tests)

# Of what needs no TensorFlow.
coverage: $(STAMP) $(if $(PYTHON_flower),.venv-flower/.torch)
	@rm -rf out/coverage
	@mkdir -p out/coverage
	@$(RUN) -m coverage run -m pytest tests/core tests/rules -q -m "not slow"
	@$(if $(PYTHON_flower),.venv-flower/bin/python \
	    -m coverage run -m pytest tests/flower -q -m "not slow")
	@$(RUN) -m coverage combine --quiet
	@$(RUN) -m coverage report

lint: $(TOOLS)/.installed
	@$(TOOLS)/bin/ruff check --quiet $(FOLDERS)
	@$(TOOLS)/bin/pyink --check --quiet $(FOLDERS) \
	  || { echo "lint: the style differs somewhere; make format mends it" >&2; exit 1; }
	@$(TOOLS)/bin/mypy --no-error-summary

format: $(TOOLS)/.installed
	@$(TOOLS)/bin/ruff check --fix --quiet $(FOLDERS)
	@$(TOOLS)/bin/pyink --quiet $(FOLDERS)

docs: $(TOOLS)/.installed
	@NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build
	@echo "docs: out/site/index.html; search works from a server: python3 -m http.server -d out/site"

benchmark: $(STAMP)
	@$(RUN) -m pytest benchmarks/bench_aggregators.py --dimension=10000

clean:
	@rm -rf out build dist *.egg-info .pytest_cache
	@find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +

# The stamp is written last: what an interruption left is completed.
$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 9), (3, 10), (3, 11)))' \
	  || { echo "make: TensorFlow Federated needs Python 3.9 to 3.11, not $(PYTHON): make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing pinned packages into $(VENV): about 2.7 GB, 2 to 5 minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --use-pep517 \
	  --no-deps -r requirements.txt </dev/null || $(NOT_INSTALLED)
	@touch $(STAMP)

# The other environments, each from its own requirements.
.venv-%/.installed: requirements-%.txt
	@echo "Installing pinned packages into .venv-$*."
	@$(or $(PYTHON_$*),$(PYTHON)) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps -r requirements-$*.txt </dev/null || $(NOT_INSTALLED)
	@touch .venv-$*/.installed

# Where PyTorch is not the one for CPUs, it needs CUDA's libraries to load.
.venv-flower/.torch: .venv-flower/.installed
	@.venv-flower/bin/python -c 'import torch' 2>/dev/null \
	  || .venv-flower/bin/python -m pip install --quiet torch || $(NOT_INSTALLED)
	@touch $@
