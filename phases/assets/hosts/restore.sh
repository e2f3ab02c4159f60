# shellcheck shell=sh
# Takes away what prepare.sh added. What something else needs by now stays, and is told.
exec 3>&1 >&2
folder=/var/lib/taskrun-node
# What an attempt that was killed had begun here goes on, and is waited for.
exec 9>/run/taskrun-node.lock
flock --timeout 900 9 || { echo 'an earlier attempt is still at work here' >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt() { apt-get --option DPkg::Lock::Timeout=300 --quiet --yes "$@"; }
known() { status=$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) && [ "$status" != not-installed ]; }

if [ -e "$folder/installing" ]; then
  # Not all that was to come has come: what is half there is made whole, so that it can be removed.
  apt install --fix-broken --no-install-recommends || {
    dpkg --configure -a || true
    apt install --fix-broken --no-install-recommends || true
  }
fi
if [ -e "$folder/exporter-is-ours" ]; then
  systemctl --quiet unmask prometheus-node-exporter.service prometheus-node-exporter-apt.timer 2>/dev/null || true
fi
if [ -e "$folder/installed" ]; then
  ours=
  # shellcheck disable=SC2013 # a line is a package
  for package in $(cat "$folder/installed"); do
    if known "$package"; then ours="$ours $package"; fi
  done
  # To remove one of ours must not remove what is not ours.
  removable=
  for package in $ours; do
    others=
    for gone in $(apt-get --simulate purge "$package" 2>/dev/null | sed -n 's/^\(Remv\|Purg\) \([^ ]*\).*/\2/p'); do
      case " $ours " in *" $gone "*) ;; *) others="$others $gone" ;; esac
    done
    if [ -z "$others" ]; then
      removable="$removable $package"
    else
      echo "$package stays:$others need it"
      echo "$package" >&3
    fi
  done
  if [ -n "$removable" ]; then
    echo "removing$removable"
    # shellcheck disable=SC2086 # words
    apt purge $removable
  fi
fi
rm -f "$folder/installed" "$folder/installed.new" "$folder/plan" "$folder/installing" "$folder/exporter-is-ours"
rmdir "$folder" 2>/dev/null || true
