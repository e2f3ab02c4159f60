#!/bin/sh
# Runs scripts in the root file system of a raw disk image, in a chroot. Started by `unshare --mount --pid --fork
# --kill-child`: however it ends, the kernel ends what it started and takes the mounts away.
# Arguments: DISK START SIZE (of the partition, in bytes) ROOT (an empty folder) SCRIPTS (a folder) REPORT (a file), then
# the scripts in order. What the one called `describe.sh` says becomes the report.
set -eu
disk=$1 start=$2 size=$3 root=$4 scripts=$5 report=$6
shift 6

# The loop device goes away by itself with its last user, also if this is killed.
mount -t ext4 -o "loop,offset=$start,sizelimit=$size" "$disk" "$root"
device=$(awk -v root="$root" '$2 == root {print $1}' /proc/self/mounts | tail -n 1)
# The file system may be smaller than its partition has become. Not every root may grow a mounted one.
exec 9<"$device"
umount "$root"
e2fsck -f -p "$device" || [ $? -le 1 ]
resize2fs "$device"
mount -t ext4 -o discard "$device" "$root"
exec 9<&-

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# Only what programs need: none can reach the disks of this machine.
mount -t tmpfs -o mode=755,dev tmpfs "$root/dev"
for node in null zero full random urandom tty; do cp -a "/dev/$node" "$root/dev/$node"; done
mkdir -m 1777 "$root/dev/shm"
mkdir -p "$root/dev/pts" "$root/dev/disk/by-uuid"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
# By these a boot loader's configuration finds the file system that it is to name.
cp -a "$device" "$root/dev/"
ln -s "../../${device##*/}" "$root/dev/disk/by-uuid/$(blkid -p -s UUID -o value "$device")"

# The resolver's file is where systemd-resolved will have it, so the image's own link leads there.
mkdir -p "$root/run/systemd/resolve"
cat /etc/resolv.conf >"$root/run/systemd/resolve/stub-resolv.conf"
cp "$root/run/systemd/resolve/stub-resolv.conf" "$root/run/systemd/resolve/resolv.conf"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

mkdir "$root/run/build"
mount --bind "$scripts" "$root/run/build"
for script in "$@"; do
  echo "== $script"
  if [ "$script" = describe.sh ]; then
    chroot "$root" /bin/sh "/run/build/$script" >"$report"
  else
    chroot "$root" /bin/sh "/run/build/$script"
  fi
done

fstrim "$root" || true
for mounted in run/build dev/pts dev tmp run sys proc; do umount "$root/$mounted"; done
umount "$root"
