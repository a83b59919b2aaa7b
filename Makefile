# make setup   environment in $(VENV) with everything the other targets need
# make demo    segment the sample scenes with the bundled weights, pictures in output/demo
# make test    tests that take seconds each (add ARGS="-k name" for some of them)
# make check   lint, format, types, layering
# make tiny    rebuild the bundled weights from nothing
# make ablation  the paper's ablations in miniature, three seeds

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.ovseg-installed

.PHONY: setup demo test check tiny ablation

setup: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "ovseg needs Python 3.10 or newer, $(PYTHON) is older; run: make PYTHON=<path> $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python demo/demo.py --output output/demo $(ARGS)

test: setup
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

check: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

tiny: setup
	$(BIN)/python tools/build_tiny.py $(ARGS)

ablation: setup
	$(BIN)/python tools/ablation.py $(ARGS)
