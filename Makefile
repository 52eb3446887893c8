# make tour: train, compare and draw; leaves out/index.html
# make test: everything that CI runs
PYTHON ?= python3
BIN := .venv/bin

.PHONY: tour test clean

tour: .venv/installed-tour
	$(BIN)/python -m tinygrad_bn tour

test: .venv/installed-test
	$(BIN)/python tests/everything.py

.venv/installed-tour: setup.cfg pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable ".[viz,train]"
	touch $@

.venv/installed-test: setup.cfg pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

.venv:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv out build dist
