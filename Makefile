# make tour: train, compare and draw; leaves out/index.html
# make lessons: run all lessons of examples/ and renew their pictures there
# make test: everything that CI runs
# make bench: how fast it is beside others (Python 3.11 or newer); writes benchmarks/results/speed.*
PYTHON ?= python3
BIN := .venv/bin

.PHONY: tour lessons test bench clean

tour: .venv/installed-tour
	$(BIN)/python -m tinygrad_bn tour

lessons: .venv/installed-tour
	rm -rf out/lessons
	$(BIN)/python examples/all.py
	mkdir -p examples/pictures
	cp out/lessons/*.svg examples/pictures/

test: .venv/installed-test
	$(BIN)/python tests/everything.py

bench: .venv-bench/installed
	.venv-bench/bin/python -m benchmarks.speed

.venv/installed-tour: setup.cfg pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable ".[viz,train]"
	touch $@

.venv/installed-test: setup.cfg pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev,nvrtc]"
	touch $@

.venv-bench/installed: setup.cfg pyproject.toml | .venv-bench
	.venv-bench/bin/python -m pip install --quiet --editable ".[bench]"
	touch $@

.venv .venv-bench:
	$(PYTHON) -m venv $@

clean:
	rm -rf .venv .venv-bench out build dist
