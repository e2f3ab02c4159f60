#!/bin/sh
# Installs what every node has. Runs as root inside the image: in a machine that booted it, or in a chroot.
# By environment: KERNEL is the kernel's package, PACKAGES are more packages, separated by blanks.
# Lists of packages are to be split into words.
# shellcheck disable=SC2086,SC2016
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

booted() { [ -d /run/systemd/system ]; }
get() { apt-get -q -y -o Dpkg::Options::=--force-confold -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 "$@"; }

# shellcheck source=/dev/null
. /etc/os-release
if [ "$ID" != debian ] || [ "${VERSION_ID:-0}" -lt 13 ]; then
  echo "the source is $PRETTY_NAME: an image of Debian 13 is needed" >&2
  exit 1
fi
if booted && command -v cloud-init >/dev/null; then cloud-init status --wait >/dev/null || true; fi

# Nothing is started by being installed: the image is the same wherever it is built.
policy=/usr/sbin/policy-rc.d
[ ! -e "$policy" ] || cp -a "$policy" "$policy.kept"
trap 'rm -f "$policy"; [ ! -e "$policy.kept" ] || mv "$policy.kept" "$policy"' EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

get update
# The boot loader was put on the disk by who made the source; in a chroot it would look for the wrong disk.
loaders=
if ! booted; then
  loaders=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'grub-*' 'shim-*' 2>/dev/null | sed -n 's/^installed //p')
  [ -z "$loaders" ] || apt-mark hold $loaders >/dev/null
fi
echo 'linux-base linux-base/removing-running-kernel boolean false' | debconf-set-selections
get dist-upgrade
get install --no-install-recommends \
  "$KERNEL" cloud-init cloud-guest-utils fdisk openssh-server python3 sudo network-manager systemd-resolved \
  prometheus-node-exporter qemu-guest-agent curl wget vim htop zstd ca-certificates iproute2 dbus $PACKAGES

# One kernel: the newest that the wanted package stands for.
newest=$(dpkg-query -W -f '${Depends}\n' "$KERNEL" | tr ',' '\n' | sed -n 's/^ *\(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1)
if [ -z "$newest" ]; then newest=$KERNEL; fi
others=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'linux-image-*' |
  sed -n 's/^installed //p' | grep -vxF -e "$KERNEL" -e "$newest" || true)
[ -z "$others" ] || get purge $others
get autoremove --purge
[ -z "$loaders" ] || apt-mark unhold $loaders >/dev/null

# The network is NetworkManager's alone; cloud-init writes its connections.
mkdir -p /etc/cloud/cloud.cfg.d
cat >/etc/cloud/cloud.cfg.d/50-network-manager.cfg <<'END'
system_info:
  network:
    renderers: [network-manager, netplan, networkd, eni]
    activators: [network-manager, netplan, networkd, eni]
END
rm -f /etc/netplan/*.yaml /etc/systemd/network/*.network /etc/network/interfaces.d/*
[ ! -e /etc/network/interfaces ] || printf 'auto lo\niface lo inet loopback\n' >/etc/network/interfaces
systemctl --quiet disable systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service
systemctl --quiet enable NetworkManager.service NetworkManager-wait-online.service systemd-resolved.service ssh.service
systemctl --quiet disable prometheus-node-exporter.service
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
if booted; then systemctl start systemd-resolved.service; fi

# Where no seed makes cloud-init do it, each machine still makes host keys of its own.
cat >/etc/systemd/system/ssh-host-keys.service <<'END'
[Unit]
Description=SSH host keys of this machine
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
After=cloud-init.service cloud-init-network.service
Before=ssh.service ssh.socket

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
END
systemctl --quiet enable ssh-host-keys.service
