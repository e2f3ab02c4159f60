# shellcheck shell=bash
# Sourced by fresh-machine.sh: one Debian machine ("node") at a time, in a container that boots its own systemd.
#
# The tree is made once by mmdebstrap and kept; each run writes into an overlay above it. The node has a network
# namespace of its own, so its ports are its own; slirp4netns carries what it asks of the package registries through
# this machine's own network. Nothing of this machine's network settings is changed.
#
# The caller sets: release, user, user_home, own_postgres, cache and run (folders; run/log exists).
# Set here: leader (the pid of the node's PID 1, seen from this machine), nspawn and slirp (pids).
# shellcheck disable=SC2154 # the caller's

netns=taskrun-e2e
# Should this script be killed, these go with it; the next run ends what is left of the node.
with_me=(setsid setpriv --pdeathsig KILL)
node_packages=git,make,systemd-sysv,dbus,sudo
if $own_postgres; then node_packages+=,postgresql; fi

# Path of the release's tree, made if it is not there yet.
node_tree() {
  local tree
  tree=$cache/$release-$(cksum <<<"$node_packages" | cut -d' ' -f1)
  if [ ! -d "$tree" ]; then
    rm -rf "$tree.new"
    mmdebstrap --quiet --variant=minbase --include="$node_packages" "$release" "$tree.new" >&2
    rm -f "$tree.new/usr/sbin/policy-rc.d"
    mv "$tree.new" "$tree"
  fi
  printf '%s\n' "$tree"
}

# Lays the node's disk and network out: $run/root is its file system, $run/upper what differs from a fresh machine.
node_make() {
  local tree
  tree=$(node_tree)
  mkdir -p "$run"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$tree,upperdir=$run/upper,workdir=$run/work" "$run/root"
  ip netns add "$netns"
  "${with_me[@]}" slirp4netns --configure --mtu=65520 --disable-host-loopback --netns-type=path "/run/netns/$netns" tap0 \
    >"$run/slirp.log" 2>&1 </dev/null &
  slirp=$!
  echo 'nameserver 10.0.2.3' >"$run/root/etc/resolv.conf"
  echo "$netns" >"$run/root/etc/hostname"
  echo "127.0.0.1 localhost $netns" >"$run/root/etc/hosts"
}

# Boots the node; arguments are further options of systemd-nspawn.
node_boot() {
  local deadline=$((SECONDS + 60)) keep_unit=() state
  [ -d /run/systemd/system ] || keep_unit=(--keep-unit)
  # Debian 13's systemd insists on cgroup v2; the hybrid layout of older hosts has it under this name.
  SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 "${with_me[@]}" systemd-nspawn --quiet --boot --directory="$run/root" \
    --machine="$netns" --register=no "${keep_unit[@]}" --network-namespace-path="/run/netns/$netns" --resolv-conf=off --timezone=off \
    --console=pipe --bind-ro="$run/taskrun.git:/srv/taskrun.git" "$@" >>"$run/log/boot.log" 2>&1 </dev/null &
  nspawn=$!
  while sleep 0.2; do
    leader=$(pgrep --parent "$nspawn" || true)
    state=$([ -z "$leader" ] || node_enter systemctl is-system-running 2>/dev/null || true)
    case $state in
      running) return ;;
      degraded) echo 'a unit of the node failed to start' >&2; node_enter systemctl --failed --no-pager >&2; node_enter journalctl --no-pager --boot --lines=40 >&2; return 1 ;;
    esac
    if [ "$SECONDS" -ge "$deadline" ] || ! kill -0 "$nspawn" 2>/dev/null; then
      echo "the node did not boot; its console:" >&2
      tail -n 20 "$run/log/boot.log" >&2
      return 1
    fi
  done
}

# Pulls the power cord: every process of the node dies at once.
node_cut_power() {
  kill -KILL "$leader"
  wait "$nspawn" || true
  leader='' nspawn=''
}

# Runs a program as the node's root, outside of any session. Waited for, so that a signal to this script acts at once.
node_enter() {
  nsenter --target "$leader" --mount --uts --ipc --net --pid --root \
    env --chdir=/ -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@" </dev/null &
  wait "$!"
}

# Runs a shell command as someone who logged in, in the folder of the clone once there is one. What it leaves running
# stays, as after a log-out.
node_login() {
  local user=$1 command=$2
  node_enter systemd-run --scope --quiet --collect -- \
    runuser --login "$user" --command "if [ -d taskrun ]; then cd taskrun; fi; $command"
}

# Takes down whatever there is of a node, be it this run's or one's that was killed. Safe to call at any moment.
node_remove() {
  local pid
  if [ -e "/run/netns/$netns" ]; then
    for pid in $(ip netns pids "$netns"); do kill -KILL "$pid" || true; done 2>/dev/null
    ip netns del "$netns"
  fi
  # nspawn ends after the last process of its node, or here if it did not come to have one.
  for pid in ${slirp:-} $([ -n "${leader:-}" ] || echo "${nspawn:-}"); do kill -KILL "$pid" || true; done 2>/dev/null
  for pid in ${nspawn:-} ${slirp:-}; do wait "$pid" || true; done 2>/dev/null
  leader='' nspawn='' slirp=''
  if mountpoint --quiet "$run/root"; then umount "$run/root"; fi
  rm -rf "$run"/{upper,work,root,taskrun.git}
  # nspawn leaves its control groups, now empty, where no systemd tidies up.
  find /sys/fs/cgroup/{systemd,unified}/{payload,supervisor} -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# --- what is on the node, seen from outside of it

# The command line of each process; PostgreSQL's come and go workers and systemd's own left out.
node_processes() {
  local pid space
  space=$(readlink "/proc/$leader/ns/pid")
  for pid in $(pgrep .); do
    [ "$(readlink "/proc/$pid/ns/pid" 2>/dev/null)" = "$space" ] || continue
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null && echo
  done | sed --regexp-extended '/^$|^postgres: [0-9]+\/main: |systemd|agetty/d' | sort
}

node_ports() { ip netns exec "$netns" ss --no-header --listening --tcp --udp --numeric | awk '{ print $1, $5 }' | sort; }

# What a fresh Debian has not, but for what building, apt, the system and its PostgreSQL leave; and its accounts (their
# files are written anew also when an account has come and gone).
node_files() {
  local kept postgres
  postgres=$(stat --format=%u "$run/root/var/lib/postgresql" 2>/dev/null || echo 65534)
  kept="^(${user_home#/}/(\.cargo|\.rustup|taskrun/target)|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|var/log|var/lib/(postgresql|systemd|apt|dpkg)|var/cache/(apt|debconf|ldconfig)|tmp|var/tmp/systemd-private)"
  {
    (cd "$run/upper" && find . -mindepth 1 -not -type d -printf '%P\n') | sed --regexp-extended "\\,$kept,d"
    (cd "/proc/$leader/root" && find tmp dev/shm -mindepth 1 -not -path '*systemd-private*' -not -uid "$postgres" -not -name '.*-unix')
    cat "$run/root/etc/passwd" "$run/root/etc/group"
  } | sort
}
