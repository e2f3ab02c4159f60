# GNU make 4.2+. `make` alone prints what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Puts a new enough Rust on PATH for the rest of a recipe line; `make bootstrap` has seen to it that there is one.
RUST := . scripts/rust-env.sh;

define rust_lints
@$(RUST) cargo fmt --all --check
@$(RUST) cargo clippy --workspace --all-targets --locked -- -D warnings
endef

.PHONY: help run test e2e bench lint bootstrap clean

help: ## Print this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: bootstrap ## Build taskrun and bring the cloud up (ARGS="..." goes to `taskrun run`)
	@$(RUST) cargo build --release --locked
	@exec "$${CARGO_TARGET_DIR:-target}/release/taskrun" run $(ARGS)

test: ## Format check, lints and all tests
	@scripts/bootstrap.sh --lint
	$(rust_lints)
	@scripts/test.sh

e2e: bootstrap ## Real servers here, then the README on fresh Debian 12 and 13 machines (root; ARGS="--help" tells more)
	@$(RUST) cargo test --locked -p taskrun-phases --test it -- --ignored
	@tests/e2e/fresh-machine.sh $(ARGS)

bench: bootstrap ## Measure the engine, and model transfer on a MinIO of its own
	@$(RUST) cargo bench --locked -p taskrun-engine --bench overhead
	@$(RUST) cargo bench --locked -p taskrun-phases --bench ninja
	@$(RUST) cargo bench --locked -p taskrun-phases --bench transfer

lint: ## Format check and lints; licences and shell scripts where cargo-deny and shellcheck are installed
	@scripts/bootstrap.sh --lint
	$(rust_lints)
	@scripts/lint.sh

bootstrap: ## Install what building needs and this machine lacks
	@scripts/bootstrap.sh

clean: ## Remove what was built (the cloud stays: see `taskrun destroy`)
	@rm -rf "$${CARGO_TARGET_DIR:-target}"
