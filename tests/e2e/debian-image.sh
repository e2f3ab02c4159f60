#!/usr/bin/env bash
# Makes a small disk image (qcow2) of Debian 13 from packages, as the official cloud images are: BIOS, cloud-init, SSH.
# The tests begin with it; nobody needs it else.
set -euo pipefail

usage() {
  cat <<'END'
Usage: tests/e2e/debian-image.sh OUTPUT.qcow2

Needs root and mmdebstrap, extlinux, qemu-utils, e2fsprogs, debian-archive-keyring.
The image listens on ttyS0, takes its network from DHCP and its users from a NoCloud seed (volume label `cidata`), and
grows to the size of its disk. Nobody can log in without a seed.
END
}

case ${1-} in
  -h | --help) usage; exit ;;
  '' | -*) usage >&2; exit 2 ;;
esac
output=$(realpath -m "$1")

# Mounts are seen by this script only, and go with it however it ends.
if [ -z "${IMAGE_MOUNTS-}" ]; then
  exec env IMAGE_MOUNTS=own unshare --mount "$BASH" "$0" "$output"
fi

for tool in mmdebstrap:mmdebstrap extlinux:extlinux qemu-img:qemu-utils mkfs.ext4:e2fsprogs; do
  command -v "${tool%:*}" >/dev/null || { echo "there is no ${tool%:*}: apt-get install ${tool#*:}" >&2; exit 1; }
done
mbr=
for file in /usr/lib/EXTLINUX/mbr.bin /usr/lib/syslinux/mbr/mbr.bin; do [ ! -e "$file" ] || mbr=$file; done
[ -n "$mbr" ] || { echo 'there is no mbr.bin: apt-get install syslinux-common' >&2; exit 1; }

packages=(
  linux-image-cloud-amd64 initramfs-tools systemd-sysv systemd-resolved dbus udev
  cloud-init cloud-guest-utils fdisk openssh-server qemu-guest-agent
  python3 sudo iproute2 iputils-ping ca-certificates apt
)
include=$(IFS=,; echo "${packages[*]}")

mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$output.XXXXXX")
trap 'umount "$work/root" 2>/dev/null || true; rm -rf "$work"' EXIT
disk=$work/disk root=$work/root

# One partition, from the first MiB to the end. extlinux reads neither checksums of metadata nor 64-bit block numbers.
mib=4096
truncate --size=${mib}M "$disk"
partition_table() {
  local start=2048 count=$(((mib - 1) * 2048)) number
  # Active, of type Linux (0x83), its place by sector number only.
  printf '\x80\xfe\xff\xff\x83\xfe\xff\xff'
  for number in $start $count; do
    printf %b "$(printf '\\x%02x' $((number & 255)) $((number >> 8 & 255)) $((number >> 16 & 255)) $((number >> 24)))"
  done
  head -c 48 /dev/zero
  printf '\x55\xaa'
}
dd if="$mbr" of="$disk" bs=440 count=1 conv=notrunc status=none
partition_table | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
mkfs.ext4 -q -O '^64bit,^metadata_csum' -L root -E offset=$((1024 * 1024)) "$disk" $((mib - 1))M
mkdir "$root"
mount -o loop,offset=$((1024 * 1024)) "$disk" "$root"

# Before its packages are set up: the initramfs holds what finds the root file system on any virtual disk, no more.
cat >"$work/initramfs" <<'SCRIPT'
#!/bin/sh -e
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
echo 'MODULES=list' >"$1/etc/initramfs-tools/conf.d/virtual-disk"
cat >"$1/etc/initramfs-tools/hooks/virtual-disk" <<'END'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk virtio_scsi sd_mod ext4
END
chmod +x "$1/etc/initramfs-tools/hooks/virtual-disk"
SCRIPT
chmod +x "$work/initramfs"

mmdebstrap --quiet --variant=minbase --include="$include" \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --essential-hook="$work/initramfs" \
  trixie "$root"

echo 'LABEL=root / ext4 defaults,discard 0 0' >"$root/etc/fstab"
echo debian >"$root/etc/hostname"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
echo 'datasource_list: [NoCloud, None]' >"$root/etc/cloud/cloud.cfg.d/90-datasources.cfg"
systemctl --quiet --root="$root" enable systemd-networkd.service systemd-resolved.service ssh.service
systemctl --quiet --root="$root" mask apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# What every clone must make for itself.
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"

mkdir -p "$root/boot/extlinux"
cat >"$root/boot/extlinux/extlinux.conf" <<'END'
SERIAL 0 115200
DEFAULT linux
PROMPT 0
LABEL linux
  LINUX /vmlinuz
  INITRD /initrd.img
  APPEND root=LABEL=root ro console=ttyS0,115200
END
extlinux --install "$root/boot/extlinux" >/dev/null 2>&1

umount "$root"
qemu-img convert -O qcow2 "$disk" "$work/image"
mv "$work/image" "$output"
