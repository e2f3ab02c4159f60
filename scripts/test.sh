#!/usr/bin/env bash
# Runs all tests; options go to cargo. Closes with their count over all test binaries, whose own summaries stand above it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/rust-env.sh
. scripts/rust-env.sh

results=$(mktemp)
trap 'rm -f "$results"' EXIT
status=0
cargo test --workspace --locked --no-fail-fast "$@" | tee "$results" || status=$?

# One line of libtest: "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s"
count() {
  awk -v what="$1;" '/^test result: / { for (i = 2; i <= NF; i++) if ($i == what) n += $(i - 1) } END { print n + 0 }' \
    "$results"
}
failed=$(count failed)
# A binary that did not build or that died has no result line, so a count would hide it.
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
  echo 'error: cargo test failed before all tests had run' >&2
  exit "$status"
fi
echo "$(count passed) passed, $failed failed, $(count ignored) skipped"
exit "$status"
