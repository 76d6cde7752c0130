# make book   set up, run a profile (quick), build its book, say what each step took
# make test   set up, run all tests
# make read   build and open the published book: 300 MB of packages, nothing is computed
# make pdf    the published book as one PDF, by Chromium
# See README.md for the rest.

PROFILE ?= quick
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
READER := .venv-read
HTML := runs/$(notdir $(PROFILE))/book/_build/html/index.html
export PATH := $(CURDIR)/$(BIN):$(PATH)

# A misspelt PROFLE=cpu would be the quick profile without a word.
UNKNOWN := $(filter-out PROFILE PYTHON,$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name))))
$(if $(UNKNOWN),$(error unknown variable $(UNKNOWN); allowed: PROFILE, PYTHON))

.PHONY: book test read pdf setup notebooks publish published-book lint lock

book: $(SETUP)
	snakemake --cores all --rerun-incomplete --config profile="$(PROFILE)"
	@python workflow/times.py "$(notdir $(PROFILE))"
	@echo "The book is at $(CURDIR)/$(HTML)"

test: $(SETUP)
	pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

read: $(READER)/.installed
	$(READER)/bin/jupyter-book build book
	$(READER)/bin/python -m webbrowser "file://$(CURDIR)/book/_build/html/index.html"

$(READER)/.installed: requirements.lock
	$(PYTHON) -m venv $(READER)
	$(READER)/bin/python -m pip install --quiet --constraint requirements.lock jupyter-book sphinx-exercise sphinx-proof sphinxext-opengraph django-static-mathjax
	@touch $@

pdf: $(SETUP)
	jupyter-book build book --all --builder singlehtml
	python workflow/print_book.py book/_build/singlehtml/index.html book/_build/iterative-retraining.pdf

setup: $(SETUP)

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# notebooks/*.py are the sources to edit; this writes the paired .ipynb.
notebooks: $(SETUP)
	jupytext --update --to ipynb notebooks/*.py

# Runs a profile and puts its small results and its pages where git keeps them.
publish: $(SETUP)
	snakemake published --cores all --rerun-incomplete --config profile="$(PROFILE)"

published-book: $(SETUP)
	jupyter-book build book --all -n -W  # --all: Sphinx does not look again at pages that it has cached

lint: $(SETUP)
	ruff check .
	ruff format --check .

# Exact versions of what is installed. NVIDIA's libraries exist for Linux alone.
lock: $(SETUP)
	$(BIN)/python -m pip freeze --exclude-editable | sed -E '/^(nvidia|cuda|triton)/ s/$$/ ; sys_platform == "linux"/' > requirements.lock
