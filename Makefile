# Davit: images, builds, containers and their supervision, as four small programs.
# `make` alone lists what can be made.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

HOST   := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET ?= $(HOST)
export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN    := $(CARGO_TARGET_DIR)/$(TARGET)/release
CRATES := -p runtime -p imgtool -p buildtool -p shim

PREFIX         ?= /usr/local
PROGRAM_PREFIX ?=

# Only what is built here leaves the unwind tables out: tests unwind.
LINK   := target."cfg(target_env=\"gnu\")".rustflags=["-Clink-arg=-Wl,-T,$(CURDIR)/.cargo/no-unwind-tables.ld"]

export DAVIT_COMMIT ?= $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the four programs, static, into target/<machine>/release
	cargo build --release --locked --target $(TARGET) --config '$(LINK)' $(CRATES)

.PHONY: packages
packages: ## Install the Debian packages that the tests and the demo use (root only)
	@spec-tests/packages

.PHONY: test
test: build packages ## Run every test: units, specification, clients, pipelines
	DAVIT_BIN=$(BIN) spec-tests/tally cargo test --locked --workspace --no-fail-fast

.PHONY: vm-test
vm-test: build ## Run the specification's tests in a Debian virtual machine (cgroup v2, systemd)
	@spec-tests/packages vm
	spec-tests/tally --in "in the virtual machine" spec-tests/vm/run $(BIN)

.PHONY: soak
soak: build ## Spoil the runtime's system calls, one by one, on both kinds of cgroups: SEED=n SOAK_SECONDS=n
	cargo build --release --locked --target $(TARGET) -p spec-tests --bin soak
	@DAVIT_BIN=$(BIN) spec-tests/soak $(BIN)/soak $(or $(SEED),1) $(or $(SOAK_SECONDS),900)

.PHONY: demo
demo: build packages ## Build an image from this machine's busybox, run it, build it again
	@PATH="$(BIN):$$PATH" spec-tests/demo/run

.PHONY: lint
lint: ## Check the format, the lints, and that the code compiles for aarch64
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if rustup target list --installed 2>/dev/null | grep -qx aarch64-unknown-linux-gnu; then \
	    echo "cargo check for aarch64"; \
	    cargo check --locked --workspace --target aarch64-unknown-linux-gnu; \
	else \
	    echo "aarch64: target not installed, not checked (rustup target add aarch64-unknown-linux-gnu)"; \
	fi

.PHONY: bench
bench: build packages ## Time the runtime beside crun and runc, and write docs/benchmarks
	spec-tests/bench/run $(BIN)

.PHONY: conformance
conformance: build ## Run the programs of a built runtime-tools checkout: RUNTIME_TOOLS=DIR [PEERS="runc crun"]
	@spec-tests/v1-view spec-tests/conformance "$(RUNTIME_TOOLS)" "$(BIN)/runtime" $(PEERS)

.PHONY: vm-conformance
vm-conformance: build ## The same in the Debian virtual machine
	@RUNTIME_TOOLS="$(realpath $(RUNTIME_TOOLS))" spec-tests/vm/run $(BIN)

.PHONY: features
features: ## Write the feature table in docs/conformance.md from spec-tests/features
	@cargo run -q --locked -p spec-tests --bin feature-table -- write
	@cargo run -q --locked -p spec-tests --bin feature-table -- check

.PHONY: mutate
mutate: ## Break COUNT rows of the feature table, drawn by SEED, and see their tests red
	@spec-tests/mutate "$(or $(SEED),$(shell date +%s))" "$(or $(COUNT),40)"

.PHONY: install
install: build ## Install below PREFIX; honours DESTDIR and PROGRAM_PREFIX
	@BIN=$(BIN) DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' PROGRAM_PREFIX='$(PROGRAM_PREFIX)' \
	    docs/packaging/install install

.PHONY: uninstall
uninstall: ## Remove what install has put below PREFIX
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' docs/packaging/install uninstall

.PHONY: clean
clean: ## Remove what has been built
	cargo clean
