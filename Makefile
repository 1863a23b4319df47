# Everything runs in $(VENV), which is made on first use. `make VENV=/tmp/venv test` uses another one.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
CAPTURE ?= captures/samples/split-6.12.dat
BATCH_CAPTURE ?= tests/data/truth/6.12_s11-victims_truth-tiny.dat
TIME ?= 60
PACKAGES := replay schemas captures reports

.PHONY: demo test lint bench fuzz lab

demo: $(VENV)/installed
	$(BIN)/replay analyze $(CAPTURE) --output demo.replay --force

test: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed-test
	$(BIN)/python tests/bench.py $(CAPTURE)
	$(BIN)/python -m tests.bench_tracedat
	$(BIN)/python -m tests.bench_formats
	$(BIN)/python -m tests.bench_model
	$(BIN)/python -m tests.bench_scale
	$(BIN)/python tests/bench_batch.py $(BATCH_CAPTURE)

# Changes captures of every format at random for TIME seconds; what breaks the readers is kept.
fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz_captures --seconds $(TIME)

# Boots real kernels under QEMU; as root, for minutes: KERNELS="6.12 7.3", or paths of packages or vmlinuz files.
lab: $(VENV)/installed
	$(BIN)/python -m tests.lab $(KERNELS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@
