# Programs, tests and experiments run from $(VENV), which make builds from
# requirements.txt when it is missing or out of date. Try: make help

# Any Python 3.9 to 3.11; by default the first of these that answers.
PYTHON ?= $(shell for python in python3.11 python3.10 python3.9; do \
    $$python -c '' 2>/dev/null && echo $$python && exit; done; echo python3)
VENV = .venv

RUN = $(VENV)/bin/python
# Tests of a file stay in one process, which keeps what TensorFlow compiled.
PARALLEL = -n auto --maxprocesses=4 --dist=loadfile
STAMP = $(VENV)/.installed
# What checks and documents the sources; it needs no TensorFlow.
TOOLS = .venv-tools
FOLDERS = fedaot fedaot_tff tasks binaries benchmarks tests docs

.PHONY: help demo test test-all lint format docs benchmark clean

help:
	@echo "make demo      compare aggregators in a small attacked federation; report in out/demo/report.html"
	@echo "make test      run the quick tests, make lint and make docs"
	@echo "make test-all  run all tests"
	@echo "make lint      check style and types; make format mends the style"
	@echo "make docs      build the site in out/site"
	@echo "make benchmark time the rounds of some aggregators, small (docs/speed.md)"
	@echo "make clean     remove out/ and caches, but not $(VENV)"
	@echo "The first run installs pinned packages into $(VENV): about 2.7 GB, 2 to 5 minutes."
	@echo "Choose a Python (3.9 to 3.11) with: make PYTHON=/path/to/python3.11 demo"

demo: $(STAMP)
	@$(RUN) -m binaries.compare --flagfile=binaries/flags/demo.cfg

test: $(STAMP) lint docs
	@$(RUN) -m pytest tests -m "not slow" $(PARALLEL)

test-all: $(STAMP)
	@$(RUN) -m pytest tests $(PARALLEL)

lint: $(TOOLS)/.installed
	@$(TOOLS)/bin/ruff check --quiet $(FOLDERS)
	@$(TOOLS)/bin/pyink --check --quiet $(FOLDERS) \
	  || { echo "lint: the style differs somewhere; make format mends it" >&2; exit 1; }
	@$(TOOLS)/bin/mypy --no-error-summary

format: $(TOOLS)/.installed
	@$(TOOLS)/bin/ruff check --fix --quiet $(FOLDERS)
	@$(TOOLS)/bin/pyink --quiet $(FOLDERS)

docs: $(TOOLS)/.installed
	@NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --quiet
	@echo "docs: out/site/index.html"

benchmark: $(STAMP)
	@$(RUN) -m pytest benchmarks/bench_aggregators.py --dimension=10000

clean:
	@rm -rf out build dist *.egg-info .pytest_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamp is written last: what an interruption left is completed.
$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 9), (3, 10), (3, 11)))' \
	  || { echo "make: TensorFlow Federated needs Python 3.9 to 3.11, not $(PYTHON): make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing pinned packages into $(VENV): about 2.7 GB, 2 to 5 minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --use-pep517 \
	  --no-deps -r requirements.txt </dev/null
	@touch $(STAMP)

# The other environments, each from its own requirements.
.venv-%/.installed: requirements-%.txt
	@echo "Installing pinned packages into .venv-$*."
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps -r requirements-$*.txt </dev/null
	@touch .venv-$*/.installed
