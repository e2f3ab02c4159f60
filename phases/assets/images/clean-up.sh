#!/bin/sh
# Removes what clones would share and what only the build needed. Runs as root inside the image, as the very last: what
# would run behind it might make anew what it removes. Given `poweroff`, it turns the machine off without letting any
# service end, since some write down their state then. By environment: BUILD_USER is removed.
set -eu
export LC_ALL=C.UTF-8

if [ "${1-}" = poweroff ]; then
  # They would write down their state after it was removed. Connections stay.
  systemctl stop systemd-random-seed.service NetworkManager.service rsyslog.service 2>/dev/null || true
  journalctl --quiet --relinquish-var || true
fi
if [ -n "${BUILD_USER-}" ] && id "$BUILD_USER" >/dev/null 2>&1; then
  # It complains about the session that started this, and removes the user nevertheless.
  userdel --force --remove "$BUILD_USER" 2>/dev/null || true
  if id "$BUILD_USER" >/dev/null 2>&1; then
    echo "the user $BUILD_USER is still there" >&2
    exit 1
  fi
  rm -rf "/home/${BUILD_USER:?}"
fi
rm -f /etc/sudoers.d/90-cloud-init-users

apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/man/*
cloud-init clean --logs --seed
rm -f /etc/NetworkManager/system-connections/* /etc/netplan/50-cloud-init.yaml /etc/systemd/network/*cloud-init* \
  /etc/network/interfaces.d/50-cloud-init* /etc/udev/rules.d/70-persistent-net.rules
rm -rf /var/lib/NetworkManager/* /var/lib/dhcp/*.leases /var/lib/systemd/network/* /var/lib/systemd/timers/*
rm -rf /root/.ssh /root/.cache /root/.bash_history /tmp/* /tmp/.[!.]* /var/tmp/*
echo localhost >/etc/hostname
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n' >/etc/hosts
rm -rf /var/log/journal/*
find /var/log -type f \( -name '*.gz' -o -name '*.[0-9]' -o -name '*.old' \) -delete
find /var/log -type f -exec truncate -s 0 {} +

# Who the machine is: each clone finds out anew.
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/dbus/machine-id
rm -f /etc/ssh/ssh_host_* /var/lib/dkms/mok.key /var/lib/dkms/mok.pub
truncate -s 0 /etc/machine-id

# What is free is no part of the image.
fstrim / 2>/dev/null || true
sync
if [ "${1-}" = poweroff ]; then exec systemctl --force --no-wall poweroff; fi
