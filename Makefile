# Each target sets up what it needs: .venv (once, and again when the requirements change) and Scipion's
# configuration in .scipion. Needed beforehand: Python 3.11 with tkinter, git and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

ROOT := $(CURDIR)
VENV := $(ROOT)/.venv
INSTALLED := .venv/.installed
CONFIGURED := .scipion/config/hosts.conf
# Only tests need these.
TOPAZ := .topaz-venv/.installed
PLUGINS := .plugins/.installed

# A CPU build is enough; say TORCH=... for another one.
TORCH ?= torch==2.13.0
PYTEST_FLAGS ?=

# Scipion reads these when it is imported, and starts its protocols as `python3`: the one of .venv.
export PATH := $(VENV)/bin:$(PATH)
export SCIPION_HOME := $(ROOT)/.scipion
export SCIPION_USER_DATA := $(SCIPION_HOME)/data
export SCIPION_CONFIG := $(SCIPION_HOME)/config/scipion.conf
export SCIPION_LOCAL_CONFIG := $(SCIPION_CONFIG)
export SCIPION_HOSTS := $(SCIPION_HOME)/config/hosts.conf
export SCIPION_PYTHON := $(VENV)/bin/python
export SCIPION_DOMAIN := pwem
export SCIPION_PRIORITY_PACKAGE_LIST := pwem
export SCIPION_NOTIFY := False
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-all evaluate lint bench bench-judgement system-programs

help:
	@echo 'make demo      a Scipion project from import to generated micrographs, and demo/gallery.png'
	@echo 'make test      the tests, without the slow ones'
	@echo 'make test-all  all tests; brings Topaz and plugins; as root on Debian it also installs Relion, Xvfb, Chromium'
	@echo 'make evaluate  the full evaluation on the real data sets in DATA (hours); writes docs/results.md'
	@echo 'make lint      ruff and mypy'
	@echo 'make bench     the benchmarks, but for the judge'
	@echo 'make bench-judgement   time and memory of evaluate on 20 + 20 micrographs of 1024² (a quarter of an hour or more)'

setup: $(INSTALLED) $(CONFIGURED)

$(INSTALLED): setup.py requirements.txt constraints.txt
	@rm -f $@
	@is_right='import sys, tkinter; sys.exit(sys.version_info[:2] != (3, 11))'; \
	if .venv/bin/python -c "$$is_right" 2>/dev/null; then exit 0; fi; \
	for python in python3.11 python3; do \
	    if $$python -c "$$is_right" 2>/dev/null; then $$python -m venv --clear .venv; exit 0; fi; \
	done; \
	echo 'no Python 3.11 with tkinter is on the PATH; install it (Debian: python3-tk python3-venv)' >&2; exit 1
	.venv/bin/python -m pip install --quiet $(TORCH)
	.venv/bin/python -m pip install --quiet -c constraints.txt setuptools
	.venv/bin/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	.venv/bin/python -m pip check
	@touch $@

$(CONFIGURED): $(INSTALLED)
	@mkdir -p $(SCIPION_HOME)
	python -m scipion config --unattended </dev/null >.scipion/config.log 2>&1 || { cat .scipion/config.log; exit 1; }
	@touch $@

demo: setup
	python examples/demo.py

test: setup
	python -m pytest -m 'not slow' $(PYTEST_FLAGS)

test-all: setup system-programs $(TOPAZ) $(PLUGINS)
	python -m pytest $(PYTEST_FLAGS)

# Where the real data sets lie, and what is passed on, as EVALUATE_FLAGS='--train-minutes 30'.
DATA ?= $(ROOT)/../shared/data
EVALUATE_FLAGS ?=

evaluate: setup system-programs $(TOPAZ)
	python examples/evaluation.py --data $(DATA) $(EVALUATE_FLAGS)

lint: $(INSTALLED)
	ruff check .
	mypy cryogem cryogem_scipion setup.py $(wildcard benchmarks/*.py examples/*.py)

bench: setup
	@for script in $(filter-out benchmarks/judgement.py,$(wildcard benchmarks/[a-z]*.py)); do \
	    echo "== $$script"; python "$$script"; done

bench-judgement: setup $(TOPAZ)
	python benchmarks/judgement.py --topaz-weights .topaz-venv

# Topaz learns and picks on what we make: `.topaz-venv/bin/topaz`. An environment of its own that sees the torch, numpy,
# scipy and pandas of .venv; its requirement torchvision, which would bring another torch, is stood in for.
$(TOPAZ): $(INSTALLED) $(wildcard tests/stand_ins/torchvision/*.py tests/stand_ins/torchvision/transforms/*.py)
	@python -m venv --clear .topaz-venv
	@site=$$(.topaz-venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$$site/venv.pth"; \
	cp -r tests/stand_ins/torchvision "$$site"; \
	if .topaz-venv/bin/python -m pip install --quiet -c constraints.txt scikit-learn h5py tqdm future psutil \
	    && .topaz-venv/bin/python -m pip install --quiet --no-deps topaz-em==0.3.20; then touch $@; \
	else echo 'not installed: topaz-em; the tests that need it will be skipped'; fi

# Scipion's plugins for Relion and Topaz, apart from .venv: Scipion finds them where PYTHONPATH names this folder.
$(PLUGINS): $(INSTALLED)
	@rm -rf .plugins
	@if python -m pip install --quiet --no-deps --target .plugins scipion-em-relion==5.0.2 scipion-em-topaz==3.1.2 \
	    emtools==0.1.3 xmltodict==1.0.4; then touch $@; \
	else echo 'not installed: the plugins for Relion and Topaz; the tests that need them will be skipped'; fi

# Relion is the independent judge of poses, Xvfb the display for pictures of forms, Chromium opens the report; without
# them those tests are skipped.
system-programs:
	@missing=''; \
	command -v relion_project >/dev/null || missing="$$missing relion"; \
	command -v xvfb-run >/dev/null || missing="$$missing xvfb xauth"; \
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$$missing chromium"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing \
	    >/dev/null; then exit 0; fi; \
	echo "not installed:$$missing; the tests that need them will be skipped"
