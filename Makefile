# `make demo` and `make test` need Python >= 3.10 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FRAMES ?= examples/frames
PROCESSES ?= 2 # of the suite, each with one thread

.PHONY: install demo docs test test-slow check lint types clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

demo: install
	$(BIN)/python -m serank detect $(FRAMES) --output demo

docs: install
	$(BIN)/python docs/make_gallery.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: install
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo

types: install
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) demo site docs/gallery
