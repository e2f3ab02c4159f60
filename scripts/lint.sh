#!/usr/bin/env bash
# Format, lints, and the checks whose tools this machine happens to have (cargo-deny, shellcheck).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/rust-env.sh
. scripts/rust-env.sh

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
if command -v cargo-deny >/dev/null; then
  cargo deny --locked check
else
  echo 'lint: cargo-deny is not installed: licences and advisories are not checked' >&2
fi
if command -v shellcheck >/dev/null; then
  git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck --external-sources
else
  echo 'lint: shellcheck is not installed: the shell scripts are not checked' >&2
fi
