# shellcheck shell=bash
# Sourced, from the workspace root: makes `cargo` in this shell one that is new enough for the workspace.
# Fails, and changes nothing, where the machine has none.

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml; }

# Whether `rustc` and `cargo`, as this shell finds them, are at least as new as the workspace asks for.
rust_is_new_enough() {
  local wanted found
  command -v cargo >/dev/null || return 1
  wanted=$(rust_wanted)
  found=$(rustc --version 2>/dev/null) || return 1
  found=${found#rustc }
  printf '%s\n' "$wanted" "${found%% *}" | sort --version-sort --check=quiet
}

use_rust() {
  rust_is_new_enough && return
  local path=$PATH toolchain
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  rust_is_new_enough && return
  # The toolchain that scripts/bootstrap.sh adds beside the user's own, whose default stays as it is.
  toolchain=$(rust_wanted)
  if rustup toolchain list 2>/dev/null | grep "^$toolchain-" >/dev/null; then
    export RUSTUP_TOOLCHAIN=$toolchain
    return
  fi
  PATH=$path
  return 1
}

use_rust
