#!/bin/sh
# Installs the NVIDIA driver, and neither CUDA's toolkit nor DCGM. Runs as root inside the image: in a machine that
# booted it, or in a chroot. By environment: SOURCE is `debian` or `nvidia`, FLAVOUR is `open` or `proprietary`,
# PACKAGES are more packages, separated by blanks.
# Lists of packages are to be split into words.
# shellcheck disable=SC2086,SC2016
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

get() { apt-get -q -y -o Dpkg::Options::=--force-confold -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 "$@"; }

# shellcheck source=/dev/null
. /etc/os-release
if [ -d /run/systemd/system ]; then cloud-init status --wait >/dev/null || true; fi

policy=/usr/sbin/policy-rc.d
[ ! -e "$policy" ] || cp -a "$policy" "$policy.kept"
trap 'rm -f "$policy"; [ ! -e "$policy.kept" ] || mv "$policy.kept" "$policy"' EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

# The kernel that machines will boot, which is not always the one that runs now.
kernel=$(find /boot -name 'vmlinuz-*' -printf '%f\n' | sed 's/^vmlinuz-//' | sort -V | tail -n 1)

get update
case $SOURCE in
  debian)
    # From where the image has its other packages.
    sites=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $VERSION_CODENAME" 'Origin: Debian' |
      sort -u | tr '\n' ' ')
    cat >/etc/apt/sources.list.d/non-free.sources <<END
Types: deb
URIs: ${sites:-http://deb.debian.org/debian}
Suites: $VERSION_CODENAME $VERSION_CODENAME-updates
Components: contrib non-free non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
    case $FLAVOUR in
      open) modules=nvidia-open-kernel-dkms ;;
      proprietary) modules=nvidia-kernel-dkms ;;
    esac
    driver="$modules nvidia-smi libcuda1 nvidia-persistenced nvidia-modprobe"
    ;;
  nvidia)
    keyring=$(mktemp --suffix=.deb)
    site=https://developer.download.nvidia.com/compute/cuda/repos/debian${VERSION_ID}/x86_64
    wget -q -O "$keyring" "$site/cuda-keyring_1.1-1_all.deb"
    dpkg -i "$keyring"
    rm -f "$keyring"
    case $FLAVOUR in
      open) modules=nvidia-kernel-open-dkms ;;
      proprietary) modules=nvidia-kernel-dkms ;;
    esac
    driver="$modules nvidia-driver-cuda"
    ;;
esac

cat >/etc/modprobe.d/blacklist-nouveau.conf <<'END'
blacklist nouveau
options nouveau modeset=0
END

get update
# The modules are built when all is there, and for that kernel alone.
mkdir -p /etc/dkms
touch /etc/dkms/no-autoinstall
get install --no-install-recommends "linux-headers-$kernel" dkms $driver $PACKAGES
rm /etc/dkms/no-autoinstall
# Kernels of Debian 13 have got an argument here that Debian's driver 550 does not know of. 0 is what it meant.
if grep -A 1 'pci_resize_resource(' "/usr/src/linux-headers-${kernel%%-*}-common/include/linux/pci.h" | grep -q exclude_bars; then
  find /usr/src -name nv-pci.c -exec \
    sed -i 's/\(pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size\))/\1, 0)/' {} +
fi
# Packages that may not build do not even register what they brought.
for tree in /usr/src/*/dkms.conf; do
  dkms add "${tree%/dkms.conf}" || true
done
dkms autoinstall -k "$kernel" || true
if ! dkms status -k "$kernel" | grep -q '^nvidia.*: installed'; then
  echo "dkms built no nvidia module for $kernel:" >&2
  find /var/lib/dkms -name make.log -exec tail -n 40 {} + >&2 || true
  exit 1
fi
update-initramfs -u -k "$kernel"

# A newer kernel would come without the modules.
held=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'linux-image-*' 'linux-headers-*' | sed -n 's/^installed //p')
apt-mark hold $held >/dev/null
