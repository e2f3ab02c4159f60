//! Machines that are reached by SSH: containers that boot their own systemd, in network namespaces of the test's own.
//!
//! A namespace has a bridge; the program runs there, and each node has a namespace of its own that is joined to it. What
//! a node asks of the package mirrors goes out by slirp4netns. The tree of the nodes is made once by mmdebstrap and kept;
//! each node writes into an overlay above it. Nothing of this machine's network settings is changed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{Said, Stand};

/// The packages of the tree, and its number, to be raised when these change.
const PACKAGES: &str = "systemd-sysv,dbus,openssh-server,python3,sudo,iproute2,nftables";
const TREE: &str = "given-bookworm-1";

/// Who logs in to the nodes; he may use sudo.
pub(crate) const USER: &str = "admin";

/// Nodes, and the network that they share.
pub(crate) struct GivenNodes {
    /// The nodes.
    pub(crate) nodes: Vec<GivenNode>,
    network: Namespace,
    // After the nodes, which have mounts in it.
    folder: tempfile::TempDir,
}

/// A node.
pub(crate) struct GivenNode {
    /// Its host name.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: String,
    folder: PathBuf,
    namespace: Namespace,
    slirp: Option<Child>,
    nspawn: Option<Child>,
}

/// A network namespace; it goes with the value.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        ip(&format!("netns add {name}"));
        let namespace = Self(name);
        ip(&format!("-n {} link set lo up", namespace.0));
        namespace
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

impl Drop for GivenNode {
    fn drop(&mut self) {
        self.cut_power();
        if let Some(mut slirp) = self.slirp.take() {
            let _ = slirp.kill();
            let _ = slirp.wait();
        }
        let _ = Command::new("umount").arg(self.root()).status();
    }
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
}

impl GivenNodes {
    /// Nodes called `one`, `two` and so on, booted, and with a way out if `way_out` is set.
    pub(crate) fn boot(count: usize, way_out: bool) -> Self {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let tree = tree();
        let number = (std::process::id() + 50 * NETWORKS.fetch_add(1, Ordering::Relaxed)) % 250;
        let folder = tempfile::Builder::new().prefix("taskrun-nodes-").tempdir_in("/var/tmp").unwrap();
        let network = Namespace::new(format!("tr-given-{number}"));
        for line in ["link add br0 type bridge", "link set br0 up", "address add 10.77.0.1/24 dev br0"] {
            ip(&format!("-n {} {line}", network.0));
        }
        for name in ["key", "wrong"] {
            let file = folder.path().join(name);
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
            assert!(made.unwrap().success());
        }
        let mut these = Self { nodes: Vec::new(), network, folder };
        for name in ["one", "two", "three"].into_iter().take(count) {
            let node = these.node(name, number, &tree, way_out);
            these.nodes.push(node);
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        for node in &these.nodes {
            while !these.ssh(node, "true").status.success() {
                assert!(Instant::now() < deadline, "{} did not boot: {}", node.name, node.console());
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        these
    }

    fn node(&self, name: &str, number: u32, tree: &Path, way_out: bool) -> GivenNode {
        let index = self.nodes.len() + 1;
        let namespace = Namespace::new(format!("tr-given-{number}-{index}"));
        ip(&format!("-n {} link add v{index} type veth peer name eth0 netns {}", self.network.0, namespace.0));
        ip(&format!("-n {} link set v{index} master br0 up", self.network.0));
        let address = format!("10.77.0.{}", 10 + index);
        ip(&format!("-n {} address add {address}/24 dev eth0", namespace.0));
        ip(&format!("-n {} link set eth0 up", namespace.0));
        let folder = self.folder.path().join(name);
        let mut node = GivenNode { name: name.to_owned(), address, folder, namespace, slirp: None, nspawn: None };
        node.lay_out(tree, &self.folder.path().join("key.pub"));
        if way_out {
            node.slirp = Some(
                Command::new("slirp4netns")
                    .args(["--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"])
                    .args([&node.namespace.path(), "tap0"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
        }
        node.start();
        node
    }

    /// The private key that the nodes know.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// A private key that they do not know.
    pub(crate) fn wrong_key(&self) -> PathBuf {
        self.folder.path().join("wrong")
    }

    /// Starts something beside the nodes, in the network of the program.
    pub(crate) fn beside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network.path())).arg(program).stdin(Stdio::null());
        command
    }

    /// Does something in the network of the program.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = File::open(self.network.path()).unwrap();
        let enter = || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        // A thread of its own, which ends there.
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// Runs a command on a node, as somebody who is not the program.
    pub(crate) fn ssh(&self, node: &GivenNode, script: &str) -> Output {
        let mut ssh = self.beside("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-o", "LogLevel=ERROR"]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i"]);
        ssh.arg(self.key()).arg(format!("root@{}", node.address)).arg(script).output().unwrap()
    }

    /// What a command on a node prints; it must succeed.
    pub(crate) fn on(&self, index: usize, script: &str) -> String {
        let ran = self.ssh(&self.nodes[index], script);
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// The program in the network of the nodes.
    pub(crate) fn program(&self, stand: &Stand, args: &[&str]) -> Command {
        let plain = stand.command(args);
        let mut command = self.beside(plain.get_program().to_str().unwrap());
        command.args(plain.get_args()).current_dir(stand.path());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, stand: &Stand, args: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.program(stand, args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { out: text(stdout), err: text(stderr), code: status.code() }
    }

    /// Runs the program, which must succeed.
    pub(crate) fn ok(&self, stand: &Stand, args: &[&str]) -> Said {
        let said = self.run(stand, args);
        assert_eq!(said.code, Some(0), "{args:?}: {}{}", said.out, said.err);
        said
    }
}

impl GivenNode {
    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn console(&self) -> String {
        fs::read_to_string(self.folder.join("console")).unwrap_or_default()
    }

    fn lay_out(&self, tree: &Path, public_key: &Path) {
        let folder = |name: &str| {
            let folder = self.folder.join(name);
            fs::create_dir_all(&folder).unwrap();
            folder.display().to_string()
        };
        let (upper, work, root) = (folder("upper"), folder("work"), folder("root"));
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", tree.display());
        let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options, &root]).status();
        assert!(mounted.unwrap().success());
        let root = Path::new(&root);
        let write = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("etc/hostname", &self.name);
        write("etc/hosts", &format!("127.0.0.1 localhost {}\n", self.name));
        write("etc/resolv.conf", "nameserver 10.0.2.3\n");
        // Every node is a machine of its own.
        write("etc/machine-id", &format!("{:x}", md5(&self.folder)));
        write(&format!("etc/sudoers.d/{USER}"), &format!("{USER} ALL=(ALL) NOPASSWD: ALL\n"));
        let chroot = |args: &[&str]| assert!(Command::new("chroot").arg(root).args(args).status().unwrap().success());
        self.host_keys().iter().for_each(|file| fs::remove_file(file).unwrap());
        self.make_host_keys();
        chroot(&["useradd", "--create-home", "--shell", "/bin/bash", USER]);
        let key = fs::read_to_string(public_key).unwrap();
        write("root/.ssh/authorized_keys", &key);
        write(&format!("home/{USER}/.ssh/authorized_keys"), &key);
        chroot(&["chown", "-R", USER, &format!("/home/{USER}")]);
        // The way to the package mirrors that this machine has.
        let settings = fs::read_dir("/etc/apt/apt.conf.d").unwrap().flatten().map(|entry| entry.path());
        for file in settings.filter(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("Acquire::http"))) {
            write(file.to_str().unwrap().trim_start_matches('/'), &fs::read_to_string(&file).unwrap());
        }
    }

    /// The files of its host keys.
    pub(crate) fn host_keys(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.root().join("etc/ssh")).unwrap().flatten().map(|entry| entry.path());
        files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with("ssh_host_")).collect()
    }

    /// Makes the host keys that are missing.
    pub(crate) fn make_host_keys(&self) {
        let made = Command::new("chroot").arg(self.root()).args(["ssh-keygen", "-A"]).output().unwrap();
        assert!(made.status.success());
    }

    /// Turns it on.
    pub(crate) fn start(&mut self) {
        let console = File::options().create(true).append(true).open(self.folder.join("console")).unwrap();
        let keep_unit = (!Path::new("/run/systemd/system").is_dir()).then_some("--keep-unit");
        self.nspawn = Some(
            Command::new("setsid")
                .args(["setpriv", "--pdeathsig", "KILL", "systemd-nspawn", "--quiet", "--boot", "--register=no"])
                .args(["--capability=all", "--resolv-conf=off", "--timezone=off", "--console=pipe"])
                .arg(format!("--directory={}", self.root().display()))
                .arg(format!("--machine={}", self.namespace.0))
                .arg(format!("--network-namespace-path={}", self.namespace.path()))
                .args(keep_unit)
                .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
                .stdin(Stdio::null())
                .stdout(console.try_clone().unwrap())
                .stderr(console)
                .spawn()
                .unwrap(),
        );
    }

    /// Kills everything that runs on it.
    pub(crate) fn cut_power(&mut self) {
        let Some(mut nspawn) = self.nspawn.take() else { return };
        // nspawn ends after the last process of its node.
        for child in children(nspawn.id()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while nspawn.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = nspawn.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn children(parent: u32) -> Vec<i32> {
    let file = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// 128 bits that are different for each path.
fn md5(path: &Path) -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = |salt: u8| u128::from(RandomState::new().hash_one((path, salt)));
    // The first digit is never 0, so that there are 32.
    (half(0) << 64 | half(1)) | (1 << 127)
}

/// The tree of the nodes, made if it is not there yet.
fn tree() -> PathBuf {
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from)
        .join("taskrun-e2e");
    let (tree, new) = (cache.join(TREE), cache.join(format!("{TREE}.new")));
    if !tree.is_dir() {
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&cache).unwrap();
        let include = format!("--include={PACKAGES}");
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", &include, "bookworm"])
            .arg(&new)
            .status()
            .expect("mmdebstrap is installed");
        assert!(made.success());
        let _ = fs::remove_file(new.join("usr/sbin/policy-rc.d"));
        fs::rename(&new, &tree).unwrap();
    }
    tree
}
