#!/bin/sh
# Tells what is in the image, as lines of a word and a value. Runs as root inside it: in a machine that booted it, or in
# a chroot.
set -eu
export LC_ALL=C.UTF-8

# shellcheck source=/dev/null
. /etc/os-release
echo "os $PRETTY_NAME"
kernel=$(find /boot -name 'vmlinuz-*' -printf '%f\n' | sed 's/^vmlinuz-//' | sort -V | tail -n 1)
echo "kernel $kernel"
if [ -d /run/systemd/system ]; then
  echo "running $(uname -r)"
  echo "state $(systemctl is-system-running || true)"
  echo "cloud-init $(cloud-init status | sed -n 's/^status: //p')"
  systemctl --failed --plain --no-legend | sed 's/^\([^ ]*\).*/failed \1/'
fi
echo "machine-id $(cat /etc/machine-id)"
for key in /etc/ssh/ssh_host_*_key.pub; do
  [ ! -e "$key" ] || echo "host-key $(ssh-keygen -l -f "$key" | cut -d ' ' -f 2)"
done
for unit in prometheus-node-exporter NetworkManager systemd-resolved systemd-networkd ssh; do
  echo "unit $unit $(systemctl is-enabled $unit.service 2>/dev/null || true)"
done
if modprobe --showconfig 2>/dev/null | grep -q '^blacklist nouveau'; then echo 'nouveau blacklisted'; fi
if command -v dkms >/dev/null; then dkms status -k "$kernel" | sed 's/^/dkms /'; fi
apt-mark showhold | sed 's/^/held /'
if file=$(command -v nvidia-smi); then echo "nvidia-smi $file"; fi
# Debian's module has a name of its own, and `nvidia` is its alias.
module=$(find "/lib/modules/$kernel" -regex '.*/nvidia\(-current\(-open\)?\)?\.ko\(\.xz\|\.zst\)?' | head -n 1)
if [ -n "$module" ]; then echo "nvidia-license $(modinfo -F license "$module")"; fi
awk -F: '$3 >= 1000 && $3 < 60000 {print "user " $1}' /etc/passwd
echo "used-kib $(df -k --output=used / | tail -n 1 | tr -d ' ')"
dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' | sed -n 's/^installed /package /p'
