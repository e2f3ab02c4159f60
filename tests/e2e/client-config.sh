# shellcheck shell=bash
# Sourced by fresh-machine.sh: gives a node the way to the package registries that this machine has. Only settings are
# copied (proxies, mirrors, certificates), when the test runs; nothing of them is in this repository.

client_variables='^(https?_proxy|no_proxy|all_proxy|HTTPS?_PROXY|NO_PROXY|ALL_PROXY|PIP_(INDEX_URL|EXTRA_INDEX_URL|CERT|DEFAULT_TIMEOUT)|UV_(DEFAULT_INDEX|INDEX_URL)|GO(PROXY|SUMDB|NOSUMDB|FLAGS)|RUSTUP_(DIST_SERVER|UPDATE_ROOT)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)='

copy_client_config() {
  local root=$1 user_home=$2 user=$3 file name
  # update-ca-certificates, which the bootstrap's ca-certificates runs, adds these to its bundle.
  if [ -d /usr/local/share/ca-certificates ]; then
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp /usr/local/share/ca-certificates/* "$root/usr/local/share/ca-certificates/"
  fi
  for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
    if grep --quiet --no-messages '^ *Acquire::' "$file"; then cp "$file" "$root$file"; fi
  done
  [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"
  copy_to_home .config/pip/pip.conf "$HOME/.config/pip/pip.conf"
  copy_to_home .config/go/env "$HOME/.config/go/env"
  copy_to_home .cargo/config.toml "${CARGO_HOME:-$HOME/.cargo}/config.toml"
  # A login shell reads these.
  while IFS='=' read -r name _; do
    printf 'export %s=%q\n' "$name" "${!name}"
  done < <(env | grep --extended-regexp "$client_variables") >"$root/etc/profile.d/client-config.sh"
  chroot "$root" chown -R "$user:" "$user_home"
}

copy_to_home() {
  [ -e "$2" ] || return 0
  mkdir -p "$root$user_home/$(dirname "$1")"
  cp "$2" "$root$user_home/$1"
}
