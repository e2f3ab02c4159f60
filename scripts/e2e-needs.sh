#!/usr/bin/env bash
# Says what the end-to-end tests need that this machine lacks, and fails if something is missing. Installs nothing.
set -euo pipefail

[ "$(id -u)" -eq 0 ] || { echo 'error: the end-to-end tests make namespaces, accounts and machines: run them as root' >&2; exit 2; }

# Program and the Debian package that has it.
needs='
mmdebstrap mmdebstrap
systemd-nspawn systemd-container
slirp4netns slirp4netns
ip iproute2
extlinux extlinux
libvirtd libvirt-daemon-system
virsh libvirt-clients
dnsmasq dnsmasq-base
qemu-system-x86_64 qemu-system-x86
qemu-img qemu-utils
packer packer
xorriso xorriso
sfdisk fdisk
ssh openssh-client
tar tar
'
missing=()
while read -r program package; do
  [ -z "$program" ] || command -v "$program" >/dev/null || missing+=("$package")
done <<<"$needs"
[ -e /usr/share/OVMF/OVMF_CODE.fd ] || [ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || missing+=(ovmf)
[ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ] || missing+=(debian-archive-keyring)
[ ${#missing[@]} -eq 0 ] && exit
echo "error: missing for the end-to-end tests: ${missing[*]}" >&2
echo "hint: apt-get install --no-install-recommends ${missing[*]}" >&2
exit 2
