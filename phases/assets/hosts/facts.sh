# shellcheck shell=sh
# What a host is, one `name=value` a line; a name may come more than once. Changes nothing.
# $1: the ports of which is asked who listens there, separated by blanks.
PATH=$PATH:/usr/sbin:/sbin
set +e
say() { printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n\r\t' '   ')"; }
has() { command -v "$1" >/dev/null 2>&1; }
# Files of one line need not end it.
first_line() { line=; IFS= read -r line <"$1"; printf '%s' "$line"; }

began=$(date +%s.%N)
say facts 1

if [ "$(id -u)" = 0 ]; then
  sudo=root; as_root() { "$@"; }
elif ! has sudo; then
  sudo=missing; as_root() { false; }
elif sudo -n true 2>/dev/null; then
  sudo=yes; as_root() { sudo -n "$@"; }
else
  sudo=no; as_root() { false; }
fi
say sudo "$sudo"

os=$(. /etc/os-release 2>/dev/null; printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-}")
say os "$os"
say kernel "$(uname -r)"
say architecture "$(uname -m)"
say host_name "$(uname -n)"
say machine_id "$(first_line /etc/machine-id 2>/dev/null)"
say reached_at "$(printf '%s' "${SSH_CONNECTION:-}" | cut -d' ' -f3)"
for address in $(hostname -I 2>/dev/null); do say address "$address"; done

say cpus "$(getconf _NPROCESSORS_ONLN)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
for folder in / /var; do
  say free_kib "$folder $(df -Pk "$folder" | sed -n '2s/  */ /gp' | cut -d' ' -f4)"
done
sed 1d /proc/swaps | while read -r device _; do say swap "$device"; done

has python3 && say python "$(timeout 5 python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
has apt-get && say apt yes
say cgroup "$(stat -fc %T /sys/fs/cgroup)"
[ -d /run/systemd/system ] && say systemd "$(timeout 5 systemctl is-system-running 2>/dev/null)"
container=$(systemd-detect-virt --container 2>/dev/null)
[ -n "$container" ] && [ "$container" != none ] && say container "$container"

if has ss; then
  { as_root ss -Hltnp || ss -Hltn; } 2>/dev/null | awk -v wanted=" $1 " '{
    count = split($4, parts, ":"); port = parts[count]
    if (!index(wanted, " " port " ")) next
    who = match($0, /"[^"]*"/) ? substr($0, RSTART + 1, RLENGTH - 2) : ""
    print "listening=" port " " who
  }' | sort -u
else
  for port in $1; do
    hex=$(printf '%04X' "$port")
    if grep -q "^ *[0-9]*: [0-9A-F]*:$hex [0-9A-F:]* 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
      say listening "$port "
    fi
  done
fi

for program in kubelet kubeadm k3s rke2 microk8s containerd dockerd crio; do
  has "$program" && say present "$program"
done
for unit in chrony chronyd systemd-timesyncd ntpsec ntp ntpd openntpd; do
  [ "$(systemctl is-active "$unit" 2>/dev/null)" = active ] && say time_sync "$unit"
done

for device in /sys/bus/pci/devices/*; do
  [ "$(first_line "$device/vendor" 2>/dev/null)" = 0x10de ] || continue
  case $(first_line "$device/class") in
    0x0300* | 0x0302*) ;;
    *) continue ;;
  esac
  driver=$(readlink "$device/driver")
  say gpu "${device##*/} $(first_line "$device/device") ${driver##*/}"
done
[ -r /proc/driver/nvidia/version ] && say nvidia_module "$(first_line /proc/driver/nvidia/version)"
if has nvidia-smi; then
  if answer=$(timeout 10 nvidia-smi --query-gpu=driver_version,uuid,name --format=csv,noheader 2>&1); then
    printf '%s\n' "$answer" | while IFS= read -r line; do say nvidia_smi "$line"; done
  else
    say nvidia_smi_error "$answer"
  fi
fi
grep -q '^nouveau ' /proc/modules 2>/dev/null && say nouveau yes
has dkms && as_root dkms status 2>/dev/null | grep -i nvidia | while IFS= read -r line; do say dkms "$line"; done

[ -r /var/lib/taskrun-node/owner ] && say owner "$(first_line /var/lib/taskrun-node/owner)"
say clock "$began $(date +%s.%N)"
say end yes
