# make setup   environment in $(VENV) with everything the other targets need; with CPU=1 a new one
#              gets a torch without CUDA (docs/start.md)
# make demo    segment the sample scenes with the bundled weights, pictures in output/demo
# make test    tests that take seconds each (add ARGS="-k name" for some of them)
# make test-detectron2 DETECTRON2=<checkout>   the same with the real Detectron2, compiled in an
#              environment of its own, $(DETECTRON2_VENV) (docs/detectron2.md)
# make check   lint, format, types, layering, and the site without a warning
# make docs    the site, in output/site
# make faults  fill the disk, lose processes, and kill runs of every kind, 150 times in all; compare
#              what they leave
# make soak    2,000 pictures through one model; memory, handles and threads stay flat
# make coverage  lines and branches that the tests reach; what they do not, in output/coverage
# make audit   ask the advisory database about what is installed (needs the network)
# make fuzz    2,000 damaged files through every reader and the commands (ARGS="--seed 1")
# make tiny    rebuild the bundled weights from nothing; with QUICK=1 in a fraction of the time
# make ablation  the paper's ablations in miniature, three seeds

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Two processes, a test file in one of them; JOBS= for one.
JOBS ?= -n 2 --dist loadfile
QUICK ?=
CPU ?=
# torch and torchvision without CUDA; both from one index, or they do not fit each other.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.ovseg-installed

AUDIT_VENV ?= .venv-audit
DETECTRON2 ?=
DETECTRON2_VENV ?= .venv-detectron2
DETECTRON2_INSTALLED := $(DETECTRON2_VENV)/.detectron2-installed

.PHONY: setup demo test test-detectron2 check docs faults soak fuzz coverage audit tiny ablation

setup: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "ovseg needs Python 3.10 or newer, $(PYTHON) is older; run: make PYTHON=<path> $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(CPU),$(BIN)/python -m pip install --disable-pip-version-check torch torchvision --index-url $(CPU_INDEX))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python demo/demo.py --output output/demo $(ARGS)

test: setup
	$(BIN)/python -m pytest -m 'not slow' $(JOBS) $(ARGS)

test-detectron2: $(DETECTRON2_INSTALLED)
	OVSEG_D2=real $(DETECTRON2_VENV)/bin/python -m pytest -m 'not slow' $(JOBS) $(ARGS)

# Detectron2 looks at the installed torch while it is built, hence no isolation.
$(DETECTRON2_INSTALLED): setup.py pyproject.toml
	@test -d '$(DETECTRON2)/detectron2' || \
	  { echo "expected a checkout of Detectron2; run: make test-detectron2 DETECTRON2=<checkout>"; exit 1; }
	test -x $(DETECTRON2_VENV)/bin/python || $(PYTHON) -m venv $(DETECTRON2_VENV)
	$(DETECTRON2_VENV)/bin/python -m pip install --quiet --disable-pip-version-check setuptools wheel ninja
	$(DETECTRON2_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(DETECTRON2_VENV)/bin/python -m pip install --disable-pip-version-check --no-build-isolation '$(DETECTRON2)'
	@touch $@

check: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy projects
	$(BIN)/python -m pytest -q tests/test_layering.py
	$(BUILD_DOCS)

# Built anew each time: pages that Sphinx has read before do not repeat their warnings.
BUILD_DOCS = $(BIN)/python -m sphinx -q -E -W --keep-going -c docs . output/site

docs: setup
	$(BUILD_DOCS)

faults: setup
	$(BIN)/python -m pytest -q tests/faults -m slow -k 'full or lost'
	$(BIN)/python -m tests.faults.kills $(ARGS)

# In an environment of its own: it brings thirty packages that are none of ours.
audit: setup
	test -x $(AUDIT_VENV)/bin/pip-audit || \
	  { $(PYTHON) -m venv $(AUDIT_VENV) && $(AUDIT_VENV)/bin/python -m pip install --quiet pip-audit; }
	$(AUDIT_VENV)/bin/pip-audit --skip-editable --path \
	  "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" $(ARGS)

soak: setup
	$(BIN)/python -m tests.faults.soak $(ARGS)

coverage: setup
	$(BIN)/python -m coverage erase
	-$(BIN)/python -m coverage run -m pytest -q -m 'not slow' $(JOBS) $(ARGS)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage html -q -d output/coverage
	$(BIN)/python -m coverage report

fuzz: setup
	$(BIN)/python -m tests.fuzz.run $(ARGS)

tiny: setup
	$(BIN)/python tools/build_tiny.py $(if $(QUICK),--quick) $(ARGS)

ablation: setup
	$(BIN)/python tools/ablation.py $(ARGS)
