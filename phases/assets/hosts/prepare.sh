# shellcheck shell=sh
# Installs what is missing of some packages. $@: the packages.
#
# What this adds is written down before it is added, so that restore.sh takes away exactly that, also after a run that
# was killed. Nothing that was there is upgraded, removed or reconfigured.
exec 3>&1 >&2
folder=/var/lib/taskrun-node
# What an attempt that was killed had begun here goes on, and is waited for.
exec 9>/run/taskrun-node.lock
flock --timeout 900 9 || { echo 'an earlier attempt is still at work here' >&2; exit 1; }
exporter=prometheus-node-exporter
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt() { apt-get --option DPkg::Lock::Timeout=300 --option Dpkg::Options::=--force-confold --quiet --yes "$@"; }
installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing() { for package in "$@"; do installed "$package" || printf '%s ' "$package"; done; }

# What installing "$@" would add: "Inst NAME (VERSION ...". "Inst NAME [OLD] (..." is an upgrade, not ours to take back.
plan() { apt-get --simulate --no-install-recommends install "$@"; }
new_ones() { sed -n 's/^Inst \([^ ]*\) (.*/\1/p' "$folder/plan" | sort -u; }

add() {
  plan "$@" >"$folder/plan" || return 1
  if grep '^Remv ' "$folder/plan"; then
    echo "installing $* would remove packages that are there" >&2
    return 1
  fi
  { cat "$folder/installed" 2>/dev/null || true; new_ones; } | sort -u >"$folder/installed.new"
  sync "$folder/installed.new"
  mv -f "$folder/installed.new" "$folder/installed"
  echo "new on this host: $(new_ones | tr '\n' ' ')"
  : >"$folder/installing"
  apt install --no-install-recommends "$@" || return 1
}

mkdir -p "$folder"
# An attempt that was killed may have left dpkg in the middle of something, or still at work: its lock is waited for.
if [ -e "$folder/installing" ]; then
  echo 'an earlier attempt was interrupted: finishing what it began'
  apt install --fix-broken --no-install-recommends || {
    dpkg --configure -a
    apt install --fix-broken --no-install-recommends
  }
fi

wanted=$(missing "$@")
if [ -n "$wanted" ]; then
  echo "installing $wanted"
  # Its package would start it at once.
  case " $wanted " in *" $exporter "*)
    : >"$folder/exporter-is-ours"
    systemctl --quiet mask "$exporter.service" "$exporter-apt.timer" 2>/dev/null || true
    ;;
  esac
  # The package lists may be missing, or older than the mirror.
  # shellcheck disable=SC2086 # words
  add $wanted || { apt update && add $wanted; }
fi
rm -f "$folder/installing" "$folder/plan"
if [ -e "$folder/exporter-is-ours" ]; then
  systemctl --quiet unmask "$exporter.service" "$exporter-apt.timer" 2>/dev/null || true
  systemctl --quiet disable --now "$exporter.service" 2>/dev/null || true
fi

wanted=$(missing "$@")
if [ -n "$wanted" ]; then
  echo "still missing: $wanted" >&2
  exit 1
fi
cat "$folder/installed" >&3 2>/dev/null || true
