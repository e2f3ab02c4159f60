# Installs what is missing of some packages. $@: the packages.
#
# What this adds is written down before it is added, so that restore.sh takes away exactly that, also after a run that
# was killed. Nothing that was there is upgraded, removed or reconfigured.
exec 3>&1 >&2
folder=/var/lib/taskrun-node
exporter=prometheus-node-exporter
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt() { apt-get --option DPkg::Lock::Timeout=300 --option Dpkg::Options::=--force-confold --quiet --yes "$@"; }
installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing() { for package in "$@"; do installed "$package" || printf '%s ' "$package"; done; }

mkdir -p "$folder"
# An attempt that was killed may have left dpkg in the middle of something, or still at work: its lock is waited for.
if [ -e "$folder/installing" ]; then
  echo 'an earlier attempt was interrupted: finishing what it began'
  apt install --fix-broken --no-install-recommends
  dpkg --configure -a
fi

wanted=$(missing "$@")
if [ -n "$wanted" ]; then
  echo "installing $wanted"
  # shellcheck disable=SC2086 # words
  if ! plan=$(apt-get --simulate --no-install-recommends install $wanted 2>&1); then
    apt update
    # shellcheck disable=SC2086
    plan=$(apt-get --simulate --no-install-recommends install $wanted)
  fi
  if printf '%s\n' "$plan" | grep '^Remv '; then
    echo "installing $wanted would remove packages that are there" >&2
    exit 1
  fi
  # "Inst NAME (VERSION ...": new; "Inst NAME [OLD] (VERSION ...": an upgrade, which is not ours to take back.
  printf '%s\n' "$plan" | sed -n 's/^Inst \([^ ]*\) (.*/\1/p' |
    cat "$folder/installed" - 2>/dev/null | sort -u >"$folder/installed.new" || true
  printf '%s\n' "$plan" | sed -n 's/^Inst \([^ ]*\) (.*/\1/p' | sort -u >"$folder/added"
  sync "$folder/installed.new"
  mv -f "$folder/installed.new" "$folder/installed"
  echo "new on this host: $(tr '\n' ' ' <"$folder/added")"
  rm -f "$folder/added"
  : >"$folder/installing"
  # Its package would start it at once.
  case " $wanted " in *" $exporter "*)
    systemctl --quiet mask "$exporter.service" "$exporter-apt.timer" 2>/dev/null || true
    : >"$folder/exporter-is-ours"
    ;;
  esac
  # shellcheck disable=SC2086
  apt install --no-install-recommends $wanted || { apt update && apt install --no-install-recommends $wanted; }
  rm -f "$folder/installing"
fi
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
