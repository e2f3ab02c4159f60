#!/usr/bin/env bash
# Checks that rustfmt and clippy do not make, by the tools that this machine happens to have: cargo-deny and shellcheck.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/rust-env.sh
. scripts/rust-env.sh

skip() { echo "lint: $1: $2 not checked" >&2; }

if ! command -v cargo-deny >/dev/null; then
  skip 'cargo-deny is not installed' 'licences, sources and advisories are'
else
  cargo deny --locked check bans licenses sources
  if cargo deny fetch db 2>/dev/null; then
    cargo deny --locked check advisories
  else
    skip 'the advisory database cannot be reached' 'advisories are'
  fi
fi

if command -v shellcheck >/dev/null; then
  git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck --external-sources
else
  skip 'shellcheck is not installed' 'the shell scripts are'
fi
