# GNU make 4.2+. `make` alone prints what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Puts a new enough Rust on PATH for the rest of a recipe line; `make bootstrap` has seen to it that there is one.
RUST := . scripts/rust-env.sh;

# Virtual machines by libvirt: not in the plain build, which links no C library of others.
WITH_LIBVIRT := --features taskrun-phases/libvirt

define rust_lints
@$(RUST) cargo fmt --all --check
@$(RUST) cargo clippy --workspace --all-targets --locked -- -D warnings
@$(RUST) cargo clippy --workspace --all-targets --locked $(WITH_LIBVIRT) -- -D warnings
endef

.PHONY: help run build-workstation test e2e bench lint bootstrap clean

help: ## Print this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: bootstrap ## Build taskrun and bring the cloud up (ARGS="..." goes to `taskrun run`)
	@$(RUST) cargo build --release --locked
	@exec "$${CARGO_TARGET_DIR:-target}/release/taskrun" run $(ARGS)

build-workstation: ## Build taskrun with virtual machines by libvirt (docs/workstation.md)
	@scripts/bootstrap.sh --libvirt
	@$(RUST) cargo build --release --locked $(WITH_LIBVIRT)
	@echo "built: $${CARGO_TARGET_DIR:-target}/release/taskrun; next: edit config/workstation.yaml, then see docs/workstation.md"

test: ## Format check, lints and all tests
	@scripts/bootstrap.sh --lint --libvirt
	$(rust_lints)
	@scripts/test.sh $(WITH_LIBVIRT)

e2e: ## Real servers here, then the README on fresh Debian 12 and 13 machines (root; ARGS="--help" tells more)
	@scripts/e2e-needs.sh
	@scripts/bootstrap.sh --libvirt
	@$(RUST) cargo test --locked -p taskrun-phases --features libvirt --test it -- --ignored
	@tests/e2e/fresh-machine.sh $(ARGS)

bench: bootstrap ## Measure the engine, and model transfer on a MinIO of its own
	@$(RUST) cargo bench --locked -p taskrun-engine --bench overhead
	@$(RUST) cargo bench --locked -p taskrun-phases --bench ninja
	@$(RUST) cargo bench --locked -p taskrun-phases --bench transfer

lint: ## Format check and lints; licences and shell scripts where cargo-deny and shellcheck are installed
	@scripts/bootstrap.sh --lint --libvirt
	$(rust_lints)
	@scripts/lint.sh

bootstrap: ## Install what building needs and this machine lacks
	@scripts/bootstrap.sh

clean: ## Remove what was built (the cloud stays: see `taskrun destroy`)
	@rm -rf "$${CARGO_TARGET_DIR:-target}"
