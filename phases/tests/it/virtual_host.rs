//! A host for virtual machines: a libvirt of the test's own, in namespaces of its own.
//!
//! Its network, mounts and processes are its own, so nothing of this machine is touched: what libvirt keeps on the disk
//! is in a temporary folder, its bridges and rules are in a network namespace, and all processes end with the value.
//! There is no way out of its network. Virtual machines are emulated there unless KVM works on this machine.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs as PID 1 of the host; `$1` is its folder.
const INIT: &str = r#"
set -e
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/user
for there in etc lib log cache; do
  case $there in etc) at=/etc/libvirt ;; *) at=/var/$there/libvirt ;; esac
  mount --bind "$1/libvirt/$there" "$at"
done
ip link set lo up
# It also reaps what libvirt leaves to PID 1, and starts libvirt again should a test kill it.
while :; do
  libvirtd >>"$1/libvirtd.log" 2>&1 || true
  sleep 0.2
done
"#;

const QEMU_CONF: &str = r#"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"#;

const LIBVIRTD_CONF: &str = r#"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_filters = "3:qemu 3:util 3:network 3:storage 4:object 4:json 4:event"
"#;

/// A host with libvirt and nothing defined.
pub(crate) struct VirtualHost {
    folder: tempfile::TempDir,
    /// `unshare`, which takes PID 1 and so everything with it.
    outer: Child,
    /// PID 1, seen from this machine.
    init: u32,
    /// What carries packets to and from other networks, if something does.
    way_out: OnceLock<Ending>,
}

/// A process that ends with the value.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for VirtualHost {
    fn drop(&mut self) {
        // All its processes end with PID 1, and `unshare` ends when they are gone.
        let _ = kill(Pid::from_raw(self.init.cast_signed()), Signal::SIGKILL);
        let _ = self.outer.wait();
    }
}

impl VirtualHost {
    /// A host whose libvirt answers.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("taskrun-host-").tempdir().unwrap();
        // QEMU and dnsmasq may give up root.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        lay_out(&folder.path().join("libvirt"));
        let log = File::create(folder.path().join("init.log")).unwrap();
        let mut outer = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "bash", "-c", INIT])
            .arg("init")
            .arg(folder.path())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("unshare is to be had");
        let deadline = Instant::now() + Duration::from_secs(90);
        let init = loop {
            if let Some(init) = child_of(outer.id()) {
                break init;
            }
            assert!(outer.try_wait().unwrap().is_none() && Instant::now() < deadline, "unshare ended");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut host = Self { folder, outer, init, way_out: OnceLock::new() };
        while !host.answers() {
            let ended = host.outer.try_wait().unwrap();
            let late = Instant::now() > deadline;
            assert!(ended.is_none() && !late, "libvirt did not start ({ended:?}): {}", host.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
        host
    }

    /// Lets programs there reach the package registries, through this machine's own network.
    pub(crate) fn open_a_way_out(&self) {
        let resolver = self.path().join("resolv.conf");
        fs::write(&resolver, "nameserver 10.0.2.3\n").unwrap();
        let mount = self.command("mount").arg("--bind").arg(&resolver).arg("/etc/resolv.conf").status().unwrap();
        assert!(mount.success());
        let log = File::create(self.path().join("slirp.log")).unwrap();
        let slirp = Command::new("slirp4netns")
            .args(["--configure", "--mtu=65520", "--disable-host-loopback"])
            .args([&self.init.to_string(), "tap0"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("slirp4netns is to be had");
        assert!(self.way_out.set(Ending(slirp)).is_ok(), "there is a way out already");
        super::program::wait_for(|| {
            let links = self.command("ip").args(["-o", "address", "show", "tap0"]).output().unwrap().stdout;
            String::from_utf8_lossy(&links).contains("10.0.2.")
        });
    }

    /// A folder that is the same inside and outside.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its root folder, seen from this machine: its libvirt's socket is below it, in `run/libvirt/libvirt-sock`.
    #[cfg(feature = "libvirt")]
    pub(crate) fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.init).into()
    }

    /// A program that is to run there, in the folder `/`.
    ///
    /// Its exit code comes through. Killing the [`Child`] kills what enters the host, not the program: see
    /// [`kill`](Self::kill).
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_in(Path::new("/"), program)
    }

    /// As [`command`](Self::command), in `folder`.
    pub(crate) fn command_in(&self, folder: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--mount", "--net", "--pid", "--", "env", "-C"]);
        command.arg(folder).arg(program).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    /// Sends a signal to the program that was started by [`command`](Self::command) as `child`.
    pub(crate) fn kill(child: &Child, signal: Signal) {
        // It may not have been started yet, or just have ended.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(program) = child_of(child.id()) {
                let _ = kill(Pid::from_raw(program.cast_signed()), signal);
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process ids, as the host sees them, of processes whose command line has `pattern` (see pgrep(1)).
    pub(crate) fn processes(&self, pattern: &str) -> Vec<u32> {
        let found = self.command("pgrep").args(["-f", "--", pattern]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// What `virsh` says, which must succeed.
    pub(crate) fn virsh(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.try_virsh(args);
        assert!(status.success(), "virsh {args:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    fn try_virsh(&self, args: &[&str]) -> Output {
        self.command("virsh").args(["-q", "-c", "qemu:///system"]).args(args).output().unwrap()
    }

    /// What is defined there: domains, networks and pools, by name; empty after everything was removed.
    pub(crate) fn defined(&self) -> Vec<String> {
        let lists = [&["list", "--all", "--name"], &["net-list", "--all", "--name"], &["pool-list", "--all", "--name"]];
        let said: Vec<String> = lists.iter().map(|list| self.virsh(*list)).collect();
        said.iter().flat_map(|said| said.lines()).map(|name| name.trim().to_owned()).collect()
    }

    fn answers(&self) -> bool {
        self.try_virsh(&["version"]).status.success()
    }

    fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.path().join(name)).unwrap_or_default();
        read("init.log") + &read("libvirtd.log")
    }
}

/// What libvirt needs to begin with, in `folder`.
fn lay_out(folder: &Path) {
    for there in ["etc/qemu/networks", "etc/storage", "etc/nwfilter", "etc/hooks", "lib", "log/qemu", "cache/qemu"] {
        fs::create_dir_all(folder.join(there)).unwrap();
    }
    fs::write(folder.join("etc/qemu.conf"), QEMU_CONF).unwrap();
    fs::write(folder.join("etc/libvirtd.conf"), LIBVIRTD_CONF).unwrap();
    fs::write(folder.join("etc/libvirt.conf"), "").unwrap();
}

/// The first child of a process, both seen from this machine.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A bootable disk image of Debian 13 (qcow2) with cloud-init, made once by `tests/e2e/debian-image.sh` and kept.
///
/// Never write to it: put a volume on top of it.
pub(crate) fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/debian-image.sh");
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache"))).expect("there is a home folder");
        let cache = cache.join("taskrun-e2e");
        fs::create_dir_all(&cache).unwrap();
        // Another script makes another image; tests at the same time make one.
        let mut text = Vec::new();
        File::open(&script).unwrap().read_to_end(&mut text).unwrap();
        let image = cache.join(format!("debian-13-{:08x}.qcow2", crc32c::crc32c(&text)));
        let lock = File::create(cache.join("image.lock")).unwrap();
        lock.lock().unwrap();
        if !image.exists() {
            let made = Command::new(&script).arg(&image).stdin(Stdio::null()).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        image
    })
}

/// Somebody who can log in to virtual machines: `ssh` with a key of the test's own.
pub(crate) struct Login {
    folder: PathBuf,
}

impl Login {
    /// Makes the key in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let key = folder.join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder: folder.to_owned() }
    }

    /// The line for `authorized_keys`.
    pub(crate) fn public_key(&self) -> String {
        fs::read_to_string(self.folder.join("key.pub")).unwrap().trim().to_owned()
    }

    /// An ISO image by which a virtual machine called `name` lets this person in as `debian`, who may use sudo.
    pub(crate) fn seed(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(format!("seed-{name}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("meta-data"), format!("instance-id: {name}\nlocal-hostname: {name}\n")).unwrap();
        let user = format!("#cloud-config\nssh_authorized_keys: ['{}']\n", self.public_key());
        fs::write(folder.join("user-data"), user).unwrap();
        let seed = self.folder.join(format!("seed-{name}.iso"));
        let mut make = Command::new("xorriso");
        make.args(["-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rational-rock", "-output"]).arg(&seed);
        let made = make.arg(&folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        seed
    }

    /// What a command says on the machine at `address`, which `host` reaches; nothing while it does not answer.
    pub(crate) fn run(&self, host: &VirtualHost, address: &str, command: &str) -> Option<String> {
        let mut ssh = host.command("ssh");
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=5", "BatchMode=yes"]
        {
            ssh.args(["-o", option]);
        }
        ssh.args(["-o", "LogLevel=ERROR", "-i"]).arg(self.folder.join("key"));
        let said = ssh.arg(format!("debian@{address}")).arg(command).output().unwrap();
        said.status.success().then(|| String::from_utf8(said.stdout).unwrap().trim().to_owned())
    }
}

#[test]
#[ignore = "needs libvirt, QEMU and root: make e2e"]
fn a_host_has_nothing_defined_and_leaves_nothing() {
    let networks = |command: &mut Command| command.args(["-o", "link"]).output().unwrap().stdout;
    let before = networks(&mut Command::new("ip"));
    let host = VirtualHost::new();
    assert_eq!(host.defined(), Vec::<String>::new());
    assert_eq!(host.virsh(&["uri"]), "qemu:///system");
    let inside = networks(&mut host.command("ip"));
    assert_ne!(inside, before, "its network is its own");

    let mut program = host.command_in(host.path(), "sleep").arg("600").spawn().unwrap();
    super::program::wait_for(|| host.processes("^sleep 600").len() == 1);
    VirtualHost::kill(&program, Signal::SIGKILL);
    assert!(!program.wait().unwrap().success());
    let mut program = host.command("sleep").arg("600").spawn().unwrap();
    super::program::wait_for(|| host.processes("^sleep 600").len() == 1);

    let (folder, init) = (host.path().to_owned(), host.init);
    drop(host);
    program.wait().unwrap();
    assert!(!folder.exists() && !Path::new(&format!("/proc/{init}")).exists());
    assert_eq!(networks(&mut Command::new("ip")), before);
}

const NETWORK: &str = "<network><name>lan</name><forward mode='nat'/><bridge name='lan0'/>
<ip address='192.168.210.1' netmask='255.255.255.0'><dhcp><range start='192.168.210.10' end='192.168.210.99'/>
<host mac='52:54:00:00:00:05' name='machine' ip='192.168.210.5'/></dhcp></ip></network>";

fn machine(disk: &Path, seed: &Path, log: &Path) -> String {
    format!(
        "<domain type='qemu'><name>machine</name><memory unit='MiB'>768</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><cpu mode='maximum'/><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/><target dev='vda'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vdb'/><readonly/></disk>
<interface type='network'><mac address='52:54:00:00:00:05'/><source network='lan'/><model type='virtio'/></interface>
<serial type='pty'><log file='{}'/></serial></devices></domain>",
        disk.display(),
        seed.display(),
        log.display()
    )
}

#[test]
#[ignore = "needs libvirt, QEMU and root: make e2e"]
fn the_image_boots_to_ssh_with_a_seed_and_grows_to_its_disk() {
    let host = VirtualHost::new();
    let login = Login::new(host.path());
    let (disk, log) = (host.path().join("disk.qcow2"), host.path().join("serial.log"));
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(image()).arg(&disk).arg("6G");
    assert!(make.status().unwrap().success());
    let file = |name: &str, text: &str| {
        let path = host.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    host.virsh(&["net-define", &file("network.xml", NETWORK)]);
    host.virsh(&["net-start", "lan"]);
    host.virsh(&["define", &file("machine.xml", &machine(&disk, &login.seed("machine"), &log))]);
    host.virsh(&["start", "machine"]);
    assert_eq!(host.defined(), ["machine", "lan"]);
    assert_eq!(host.processes("^/usr/bin/qemu-system-x86_64 -name guest=machine").len(), 1);

    let deadline = Instant::now() + Duration::from_secs(600);
    let said = loop {
        let ask = "hostname; . /etc/os-release; echo $VERSION_CODENAME; df --output=size -BG / | tail -1; sudo id -un";
        if let Some(said) = login.run(&host, "192.168.210.5", ask) {
            break said;
        }
        let serial = fs::read_to_string(&log).unwrap_or_default();
        assert!(Instant::now() < deadline, "no SSH: {serial}");
        std::thread::sleep(Duration::from_secs(2));
    };
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["machine", "trixie", "6G", "root"]);
    assert!(fs::read_to_string(&log).unwrap().contains("Linux version"));
}
