# shellcheck shell=sh
# Takes a cluster's mark off a host. $1: the mark; another's stays.
folder=/var/lib/taskrun-node
if [ -e "$folder/owner" ] && [ "$(cat "$folder/owner")" = "$1" ]; then
  rm -f "$folder/owner"
fi
rm -f "$folder/owner.new" /run/taskrun-node.lock
rmdir "$folder" 2>/dev/null || true
