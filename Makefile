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
INSTALL_LOG = $(VENV)/install.log
# Exists, locked, while make builds $(VENV). An interruption leaves it behind,
# and then the half-made environment is built anew.
UNFINISHED = $(VENV).unfinished

.PHONY: help demo test test-all clean

help:
	@echo "make demo      compare aggregators in a small attacked federation; report in out/demo/report.html"
	@echo "make test      run the quick tests"
	@echo "make test-all  run all tests"
	@echo "make clean     remove out/ and caches, but not $(VENV)"
	@echo "The first run installs pinned packages into $(VENV): about 2.7 GB, 2 to 5 minutes."
	@echo "Choose a Python (3.9 to 3.11) with: make PYTHON=/path/to/python3.11 demo"

demo: $(STAMP)
	@$(RUN) -m binaries.compare --flagfile=binaries/flags/demo.cfg

test: $(STAMP)
	@$(RUN) -m pytest tests -m "not slow" $(PARALLEL)

test-all: $(STAMP)
	@$(RUN) -m pytest tests $(PARALLEL)

clean:
	@rm -rf out build dist *.egg-info .pytest_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamp is written last. An environment that make did not begin (no stamp,
# no $(UNFINISHED)) is completed in place and never removed.
$(STAMP): requirements.txt
	@python="$(PYTHON)"; \
	if [ -e $(VENV)/bin/python ] && [ ! -e $(UNFINISHED) ]; then \
	  python=$(VENV)/bin/python; \
	fi; \
	fail() { echo "make: $$*" >&2; exit 1; }; \
	version=$$($$python -c 'import platform; print(platform.python_version())' \
	  2>/dev/null) || fail "cannot run $$python; name a Python 3.9 to 3.11: make PYTHON=/path/to/python3.11"; \
	case $$version in 3.9.*|3.10.*|3.11.*) ;; \
	  *) fail "$$python is Python $$version, but TensorFlow Federated needs 3.9 to 3.11: make PYTHON=/path/to/python3.11" ;; \
	esac; \
	$$python -c 'import ensurepip, venv' 2>/dev/null \
	  || fail "$$python has no venv module; install it (Debian, Ubuntu: apt install python$${version%.*}-venv)"; \
	if [ -e $(UNFINISHED) ] || [ -e $(STAMP) ] || [ ! -e $(VENV) ]; then \
	  interrupted=$$([ -e $(UNFINISHED) ] && echo yes); \
	  exec 9>$(UNFINISHED); \
	  ! command -v flock >/dev/null || flock -n 9 \
	    || fail "another make is building $(VENV); wait until it is done"; \
	  [ -z "$$interrupted" ] || [ -e $(STAMP) ] || rm -rf $(VENV); \
	  rm -f $(STAMP); \
	fi; \
	echo "Installing pinned packages into $(VENV) (Python $$version): about 2.7 GB, 2 to 5 minutes."; \
	[ -e $(VENV)/bin/python ] || $$python -m venv $(VENV) \
	  || fail "$$python -m venv $(VENV) failed"; \
	$(VENV)/bin/python -m pip install --disable-pip-version-check --use-pep517 \
	  --no-deps -r requirements.txt >$(INSTALL_LOG) 2>&1 </dev/null || { \
	  tail -n 20 $(INSTALL_LOG) >&2; \
	  fail "pip failed; the whole of what it said is in $(INSTALL_LOG)"; \
	}; \
	touch $(STAMP); \
	rm -f $(UNFINISHED)
