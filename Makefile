# Needs cargo, CPython >= 3.11 with pip and venv, make and a C compiler. Every target does its own set-up;
# what is done already is not done again. `make help` lists the targets.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first Python on the path that is new enough; `make PYTHON=/path/to/python3.13 setup` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	{ command -v "$$python"; break; }; done)

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
TOOLS := $(VENV)/tools-installed
CORE := python/ipc_channel/_core.abi3.so

RUST_SOURCES := Cargo.toml $(wildcard Cargo.lock) \
	$(shell find crates -name '*.rs' -o -name Cargo.toml 2>/dev/null)
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed)

# One interpreter for whatever cargo builds, so that cargo need not build it anew for another.
export PYO3_PYTHON := $(BIN)/python
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport CONDA_PREFIX
unexport PYTHONHOME
unexport PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# An environment that was moved here from elsewhere, or whose Python is gone, is made anew.
ifneq ($(shell "$(BIN)/python" -c 'import sys; print(sys.prefix)' 2>/dev/null),$(CURDIR)/$(VENV))
.PHONY: $(TOOLS)
endif

##@ The two commands
demo: $(CORE)  ## index the standard library with worker processes, one of which is killed
	@$(BIN)/ipc-channel demo

test: $(CORE)  ## all tests but the slow ones: Rust, then Python
	cargo test --locked --workspace --exclude ipc-channel-python
	LOOM_MAX_PREEMPTIONS=2 $(LOOM)
	$(PYTEST)

##@ For contributors
setup: $(CORE)  ## make .venv with the package (release build) and the pinned tools

check: check-lint check-rust check-types check-stub  ## lint, formats, types, and the stub against the extension module

check-lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-rust: $(TOOLS)
	cargo fmt --check --all
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo fmt --check --manifest-path benchmarks/rust-peer/Cargo.toml
	cargo clippy --locked --manifest-path benchmarks/rust-peer/Cargo.toml --target-dir target/rust-peer -- -D warnings
	cargo fmt --check $(PEERS) --manifest-path tests/rust_peers/Cargo.toml
	cargo clippy --locked --workspace --manifest-path tests/rust_peers/Cargo.toml --target-dir target/rust_peers \
		-- -D warnings

# All but the guide's program, whose lines are made for the page.
PEERS := --package encodings --package peer-0-20

check-types: $(CORE)
	$(BIN)/basedpyright
	$(BIN)/mypy

check-stub: $(CORE)
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml \
		--allowlist tests/typing/stubtest-allowlist.txt --ignore-unused-allowlist ipc_channel._core

test-slow: $(CORE)  ## the tests that take minutes
	$(PYTEST) -m slow

test-loom:  ## the models of the lane, deeper than `make test` goes; LOOM_MAX_PREEMPTIONS=4 for still more
	LOOM_MAX_PREEMPTIONS=$${LOOM_MAX_PREEMPTIONS:-3} $(LOOM)

format: $(TOOLS)  ## rewrite the sources as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --all
	cargo fmt --manifest-path benchmarks/rust-peer/Cargo.toml
	cargo fmt $(PEERS) --manifest-path tests/rust_peers/Cargo.toml

bench: $(CORE) target/bench/ready target/rust-peer/release/rust-peer  ## measure, beside other libraries; BENCH= takes the options of `ipc-channel bench`
	PYTHONPATH=$(CURDIR)/python $(BENCH_PYTHON) -m ipc_channel bench --rust-peer target/rust-peer/release/rust-peer \
		--json target/bench/results.json --chart target/bench/chart.svg $(BENCH)

wheel: dist/built  ## the wheel, in dist/

lock: ## choose the newest versions of Python's tools and write them to constraints.txt
	rm -rf target/lock && $(PYTHON) -m venv target/lock
	target/lock/bin/python -m pip install --quiet --upgrade pip
	target/lock/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
		print(*p["project"]["dependencies"], *p["dependency-groups"]["dev"], sep="\n")' >target/lock/wanted.txt
	target/lock/bin/python -m pip install --quiet --requirement target/lock/wanted.txt
	{ echo '# Written by `make lock`: the exact versions of all that .venv holds.'; \
		target/lock/bin/python -m pip freeze --all --exclude setuptools; } >constraints.txt
	rm -rf target/lock

clean:  ## remove everything that was made
	rm -rf $(VENV) target dist $(CORE) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find python tests -name __pycache__ -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ?' '/^##@/ {print "\n" substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  make %-10s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

# The lane under a model checker, which takes the place of atomics and locks: hence a build of its own.
LOOM = RUSTFLAGS='--cfg loom' CARGO_PROFILE_RELEASE_LTO=off cargo test --locked --release --target-dir target/loom \
	--package ipc-channel-transport --lib lane::loom_models
# The other libraries live in an environment of their own. One that cannot be installed here is named in the table.
BENCH_PYTHON := target/bench/venv/bin/python

target/bench/ready: $(TOOLS) constraints.txt benchmarks/constraints.txt
	rm -rf target/bench/venv && $(PYTHON) -m venv target/bench/venv
	$(BENCH_PYTHON) -m pip install --quiet --constraint constraints.txt anyio msgspec numpy rich typing_extensions
	sed '/^#/d' benchmarks/constraints.txt | while read -r rival; do \
		$(BENCH_PYTHON) -m pip install --quiet "$$rival" || echo "could not be installed: $$rival" >&2; done
	@touch $@

target/rust-peer/release/rust-peer: $(wildcard benchmarks/rust-peer/Cargo.* benchmarks/rust-peer/src/*.rs)
	cargo build --release --locked --manifest-path benchmarks/rust-peer/Cargo.toml --target-dir target/rust-peer
	@touch $@

# A test that hangs where no signal reaches it ends the run with a traceback of all its threads.
PYTEST = timeout --foreground --signal=ABRT --kill-after=30 1800 $(BIN)/python -m pytest

$(TOOLS): constraints.txt
	@test -n "$(PYTHON)" || { echo 'no CPython >= 3.11 with the venv module found; set PYTHON=' >&2; exit 1; }
	@test "$$($(BIN)/python -c 'import sys; print(sys.prefix)' 2>/dev/null)" = "$(CURDIR)/$(VENV)" \
		|| $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --requirement constraints.txt
	$(BIN)/python -m pip check
	@touch $@

$(CORE): $(TOOLS) $(RUST_SOURCES) pyproject.toml
	$(BIN)/maturin develop --release --locked
	@touch $@

dist/built: $(TOOLS) $(RUST_SOURCES) $(PYTHON_SOURCES) pyproject.toml README.md LICENSE-MIT LICENSE-APACHE
	rm -rf dist
	$(BIN)/maturin build --release --locked --interpreter $(BIN)/python --out dist
	@touch $@

.PHONY: demo test setup bench check check-lint check-rust check-types check-stub test-slow test-loom format \
	wheel lock clean help
