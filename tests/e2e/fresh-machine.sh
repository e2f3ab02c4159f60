#!/usr/bin/env bash
# The README on a fresh machine: clone, `make test`, `make run`, a power cut, `resume`, `destroy`. Beside a PostgreSQL of
# the machine's own, which must come out of it untouched.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)

usage() {
  cat <<'USAGE'
usage: tests/e2e/fresh-machine.sh [OPTION...]
  --release NAME     bookworm or trixie; may be repeated (default: both, as root on bookworm, with sudo on trixie)
  --rust borrow      the node uses this machine's Rust, read-only: for places without rustup's host (default)
  --rust fetch       the node gets Rust as the README says: the whole route
  --without-postgres the node has no PostgreSQL of its own, so that ours is unpacked from Debian's packages
  --keep             keep the logs of a run that went well, too
  --test, --run, --resume, --destroy, --workload COMMAND
                     a command in place of the real one, to try this harness itself

Needs root, about 25 GB of disk and 8 GB of memory, and the Debian packages
mmdebstrap systemd-container slirp4netns iproute2 debian-archive-keyring.
Takes about 30 minutes for each release on two cores. Trees are kept in ~/.cache/taskrun-e2e.
USAGE
}

releases=() rust=borrow keep=false own_postgres=true
test_command='make test'
run_command='make run'
resume_command='target/release/taskrun resume'
destroy_command='target/release/taskrun destroy --yes --purge'
workload_command='python3 tests/e2e/workload.py'
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage; exit ;;
    --keep) keep=true; shift; continue ;;
    --without-postgres) own_postgres=false; shift; continue ;;
  esac
  [ $# -ge 2 ] || { usage >&2; exit 2; }
  case $1 in
    --release) releases+=("$2") ;;
    --rust) rust=$2 ;;
    --test) test_command=$2 ;;
    --run) run_command=$2 ;;
    --resume) resume_command=$2 ;;
    --destroy) destroy_command=$2 ;;
    --workload) workload_command=$2 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift 2
done
[ ${#releases[@]} -gt 0 ] || releases=(bookworm trixie)

# shellcheck source=tests/e2e/node.sh
. "$here/node.sh"
# shellcheck source=tests/e2e/client-config.sh
. "$here/client-config.sh"

check_needs() {
  local tool missing=()
  [ "$(id -u)" -eq 0 ] || { echo 'error: a node takes root' >&2; exit 2; }
  for tool in mmdebstrap:mmdebstrap systemd-nspawn:systemd-container slirp4netns:slirp4netns ip:iproute2; do
    command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
  done
  [ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ] || missing+=(debian-archive-keyring)
  if [ ${#missing[@]} -gt 0 ]; then
    echo "error: missing: ${missing[*]}" >&2
    echo "hint: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 2
  fi
}

# --- steps

# step NAME LIMIT_SECONDS COMMAND...: runs it with its output in a log, says how long it took, and ends the test if it
# fails or takes longer. It is not run as a condition, so `set -e` holds inside; finish() tells of a failure.
step() {
  local limit=$2 started=$EPOCHREALTIME took
  step=$1
  steps=$((steps + 1))
  log=$run/log/$release-$(printf '%02d' "$steps")-${step//[^a-zA-Z0-9]/-}.log
  shift 2
  "$@" >"$log" 2>&1
  took=$(awk -v a="$started" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  if awk -v took="$took" -v limit="$limit" 'BEGIN { exit took <= limit }'; then
    echo "took $took s, more than the $limit s allowed" >>"$log"
    exit 1
  fi
  printf 'ok     %8s s  %s: %s\n' "$took" "$release" "$step"
  step=
}

# as USER COMMAND: a log-in that is ended when it hangs. `timeout` can only call programs, so the limit is set inside.
as() { node_login "$1" "timeout --kill-after=10 3000 bash -c $(printf '%q' "$2")"; }

start_node() {
  local binds=()
  node_make
  if [ "$user" != root ]; then
    chroot "$run/root" useradd --create-home --shell /bin/bash "$user"
    echo "$user ALL=(ALL) NOPASSWD: ALL" >"$run/root/etc/sudoers.d/$user"
  fi
  git clone --quiet --bare "$repository" "$run/taskrun.git"
  chown -R "$(chroot "$run/root" id -u "$user")" "$run/taskrun.git" # git clones only from a folder of one's own
  copy_client_config "$run/root" "$user_home" "$user"
  if [ "$rust" = borrow ]; then
    binds=(--bind-ro="$(cd "$repository" && rustc --print sysroot):/opt/rust")
    # shellcheck disable=SC2016 # for the node's shell
    echo 'PATH=/opt/rust/bin:$PATH' >"$run/root/etc/profile.d/rust.sh"
  fi
  boot_options=("${binds[@]}")
  node_boot "${boot_options[@]}"
}

psql() { node_enter runuser -u postgres -- psql --quiet --no-align --tuples-only --command "$1"; }

# What must not change: the server's pid, data folder, start and port, its databases and roles, and the row.
postgres_state() {
  node_enter sh -c 'sed -n 1,4p /var/lib/postgresql/*/main/postmaster.pid; pg_lsclusters --no-header'
  psql 'SELECT datname FROM pg_database ORDER BY 1; SELECT rolname FROM pg_roles ORDER BY 1; SELECT note FROM mine'
}

postgres_data_is_there() { [ "$(psql 'SELECT note FROM mine')" = 'not yours' ]; }

remember() { "node_$1" >"$run/$1.before"; }

# Fails, showing what, if there is more now than was remembered.
nothing_new() {
  local new
  "node_$1" >"$run/$1.after"
  new=$(comm -13 "$run/$1.before" "$run/$1.after")
  [ -z "$new" ] || { printf 'new %s:\n%s\n' "$1" "$new"; return 1; }
}

# --- the story

postgres_is_untouched() { diff "$run/postgres.before" <(postgres_state); }

reboot_by_power_cut() {
  node_cut_power
  node_boot "${boot_options[@]}"
}

# Whether systemd is to bring the platform up: the machine's own, with the real program. A user's needs a login session.
at_boot() { [ "$user" = root ] && [ "$run_command" = 'make run' ]; }

unit_is_active() {
  node_enter sh -c 'until systemctl is-active --quiet taskrun-local; do ! systemctl is-failed --quiet taskrun-local || exit 1; sleep 1; done'
}

test_release() {
  echo "$release: a fresh machine, $user's"
  [ "$rust" = fetch ] || echo "$release: with this machine's Rust: its way by rustup is not tried (see --rust fetch)"
  step 'boot' 600 start_node
  if $own_postgres; then
    step 'a PostgreSQL of its own' 30 psql "CREATE TABLE mine AS SELECT 'not yours' AS note"
    postgres_state >"$run/postgres.before"
  fi
  step 'clone' 60 as "$user" 'git clone --quiet /srv/taskrun.git taskrun'
  step 'bootstrap' 300 as "$user" 'make bootstrap'
  step 'bootstrap again' 1 as "$user" 'make bootstrap'
  step 'test' 1800 as "$user" "$test_command"
  remember processes
  remember ports
  remember files
  step 'run' 1800 as "$user" "$run_command"
  step 'run again, nothing to do' 15 as "$user" "$run_command"
  if at_boot; then step 'cloud enable' 30 as "$user" 'target/release/taskrun cloud enable'; fi
  step 'workload' 60 as "$user" "$workload_command write"
  if $own_postgres; then step 'its PostgreSQL is untouched' 10 postgres_is_untouched; fi
  step 'power cut and boot' 90 reboot_by_power_cut
  if $own_postgres; then
    step "its PostgreSQL's data is there" 10 postgres_data_is_there
    postgres_state >"$run/postgres.before"
  fi
  if at_boot; then step 'it is up, and nobody did anything' 300 unit_is_active; fi
  step 'resume' 300 as "$user" "$resume_command"
  step 'the workload is intact' 60 as "$user" "$workload_command check"
  step 'resume again, nothing to do' 1.5 as "$user" "$resume_command"
  step 'destroy' 400 as "$user" "$destroy_command"
  step 'no process is left' 5 nothing_new processes
  step 'no port is left' 5 nothing_new ports
  step 'no file is left' 30 nothing_new files
  if $own_postgres; then step 'its PostgreSQL is untouched by it all' 10 postgres_is_untouched; fi
}

finish() {
  local status=$?
  set +e
  trap '' INT TERM
  exec >&"$terminal" 2>&1
  if [ "$status" -ge 128 ]; then
    echo "stopped during: $step"
  elif [ "$status" -ne 0 ] && [ -n "$step" ]; then
    printf 'FAILED             %s: %s; the end of its log:\n' "$release" "$step"
    tail -n 30 "$log"
  fi
  node_remove
  if [ "$status" -ne 0 ] || $keep; then
    rm -rf "$cache/logs"
    mv "$run/log" "$cache/logs"
    echo "all logs: $cache/logs"
  fi
  rm -rf "$run"
}

check_needs
cache=${XDG_CACHE_HOME:-$HOME/.cache}/taskrun-e2e
run=$cache/run
mkdir -p "$cache"
exec {lock}>"$cache/lock"
flock --nonblock "$lock" || { echo 'error: another fresh-machine test is running' >&2; exit 3; }
[ -z "$(git -C "$repository" status --porcelain)" ] || echo 'note: what is not committed is not tested' >&2
node_remove # of a run that was killed
mkdir -p "$run/log"
step='' log=''
exec {terminal}>&1
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for release in "${releases[@]}"; do
  steps=0 user=root user_home=/root
  if [ "$release" != bookworm ]; then user=newcomer user_home=/home/newcomer; fi
  test_release
  node_remove
done
