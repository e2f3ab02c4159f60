//! A cluster of virtual machines, from a configuration to logged-in nodes and back to nothing, attacked on the way.
//!
//! Emulated machines in a host of the test's own: network, libvirt, disks and ledger are the test's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::program::{Said, wait_for};
use crate::virtual_host::{VirtualHost, image};

const CONTROL: &str = "cloud-control-plane";
const WORKER: &str = "cloud-cpu-worker-01";
/// Not started with the cluster.
const SPARE: &str = "cloud-cpu-worker-02";

/// The program in a host with libvirt.
struct Workstation {
    host: VirtualHost,
    folder: PathBuf,
}

impl Workstation {
    fn new(config: &str) -> Self {
        let host = VirtualHost::new();
        let folder = host.path().join("stand");
        std::fs::create_dir(&folder).unwrap();
        let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graph.yaml");
        std::fs::copy(graph, folder.join("graph.yaml")).unwrap();
        std::fs::write(folder.join("config.yaml"), config).unwrap();
        Self { host, folder }
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state/e2e")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.host.command_in(&self.folder, env!("CARGO_BIN_EXE_taskrun"));
        command.args(["--config", "config.yaml", "--state-dir"]).arg(self.folder.join("state")).args(args);
        command.env("TASKRUN_CACHE_DIR", self.folder.join("cache"));
        command.env("TASKRUN_DEVICES_DIR", self.folder.join("devices"));
        command.env("NO_COLOR", "1");
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let said = Said { out: text(stdout), err: text(stderr), code: status.code() };
        assert!(!said.err.contains("panicked"), "{args:?}: {}", said.err);
        said
    }

    fn ok(&self, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, Some(0), "{args:?}: {}{}", said.out, said.err);
        said
    }

    /// Starts a run and kills it once `now` says so, unless it has succeeded by then.
    fn killed(&self, args: &[&str], mut now: impl FnMut() -> bool) {
        let told = self.folder.join("told");
        let log = std::fs::File::create(&told).unwrap();
        let mut child: Child = self.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(600);
        while !now() {
            assert!(Instant::now() < deadline, "{args:?} was not killed");
            if let Some(ended) = child.try_wait().unwrap() {
                assert!(ended.success(), "{args:?}: {}", std::fs::read_to_string(&told).unwrap());
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        VirtualHost::kill(&child, Signal::SIGKILL);
        child.wait().unwrap();
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["cloud", "status", "--json"]).out).unwrap()
    }

    /// What a node's state is called.
    fn node(&self, name: &str) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}")).clone()
    }

    fn ssh(&self, node: &str, command: &str) -> String {
        self.ok(&["vm", "ssh", node, command]).out.trim().to_owned()
    }

    fn machine(&self, node: &str) -> Vec<u32> {
        self.host.processes(&format!("qemu-system-x86_64 -name guest={node},"))
    }
}

fn config() -> String {
    let image = image().display();
    format!(
        "version: 1
name: e2e
clusters:
  cloud:
    name: cloud
    image: {{source: {{path: {image}}}}}
    network: {{subnet: 192.168.230.0/24, bridge: trbr0}}
    control_plane: {{cpu_cores: 1, memory_gb: 1, disk_gb: 10, ip_address: 192.168.230.10}}
    worker_nodes:
      - {{cpu_cores: 1, memory_gb: 1, disk_gb: 10, ip: DHCP}}
      - {{cpu_cores: 1, memory_gb: 1, disk_gb: 10, ip: 192.168.230.12, auto_start: false}}
    kubernetes_config: {{cni: calico, ingress: nginx, storage_class: local-path}}
"
    )
}

#[test]
#[ignore = "builds an image and boots virtual machines: make e2e"]
fn a_cluster_comes_up_is_mended_and_goes() {
    let stand = Workstation::new(&config());
    stand.host.open_a_way_out();

    // Killed again and again while network, pool and machines are defined, it ends the same.
    for milliseconds in [400, 700, 1000, 1500, 2000] {
        let begun = Instant::now();
        stand.killed(&["run", "--until", "CLOUD-0.1"], || begun.elapsed() > Duration::from_millis(milliseconds));
    }
    stand.ok(&["run", "--until", "CLOUD-0.2"]);
    let mut defined = stand.host.defined();
    defined.sort();
    assert_eq!(defined, [CONTROL, WORKER, SPARE, "taskrun-cloud", "taskrun-cloud"]);
    assert!(stand.ok(&["run", "--until", "CLOUD-0.2"]).err.contains("nothing to do"));
    let completions = std::fs::read_to_string(stand.state().join("share/completions/taskrun.bash")).unwrap();
    assert!(completions.contains(SPARE), "completions know the machines");

    // Killed in the middle of building the image.
    let log = stand.state().join("logs/CLOUD-1.1/1.log");
    let mut begun = None;
    stand.killed(&["run", "--until", "CLOUD-1.1"], || {
        if begun.is_none()
            && std::fs::read_to_string(&log).unwrap_or_default().contains("NEW packages will be installed")
        {
            begun = Some(Instant::now());
        }
        begun.is_some_and(|begun| begun.elapsed() > Duration::from_secs(5))
    });
    assert_eq!(stand.run(&["vm", "start", CONTROL]).code, Some(1), "there is no image yet");
    stand.ok(&["resume"]);
    assert!(stand.ok(&["resume"]).err.contains("nothing to do"));

    // Killed while a machine gets its disk and starts, it is started all the same.
    for milliseconds in [300, 800, 1500, 3000] {
        let begun = Instant::now();
        stand.killed(&["vm", "start", CONTROL], || begun.elapsed() > Duration::from_millis(milliseconds));
    }

    // The machines that start with the cluster do, and let us in; the spare one has not even a disk.
    stand.ok(&["cloud", "start"]);
    let status = stand.status();
    assert_eq!(status["healthy"], true, "{status:#}");
    assert_eq!((stand.ssh(CONTROL, "hostname"), stand.ssh(WORKER, "hostname")), (CONTROL.into(), WORKER.into()));
    let own = "cat /etc/machine-id; cat /etc/ssh/ssh_host_ed25519_key.pub";
    assert_ne!(stand.ssh(CONTROL, own), stand.ssh(WORKER, own));
    let spare = stand.node(SPARE);
    assert_eq!((&spare["state"], &spare["wanted"]), (&"shut-off".into(), &false.into()));
    let disks = stand.host.virsh(&["vol-list", "taskrun-cloud"]);
    assert!(disks.contains(WORKER) && !disks.contains(SPARE), "{disks}");
    assert!(stand.ok(&["vm", "console", CONTROL, "--log"]).out.contains("Linux version"));
    assert!(stand.ok(&["cloud", "status", "--dot"]).out.starts_with("graph cluster {"));
    assert!(stand.ok(&["cloud", "start"]).err.contains(&format!("{WORKER}: runs")));

    // A machine that is asked to ends by itself and starts again.
    let before = stand.ssh(WORKER, "cat /proc/sys/kernel/random/boot_id");
    let restarted = stand.ok(&["vm", "restart", WORKER]);
    assert!(restarted.err.contains(&format!("{WORKER}: has ended")), "{}", restarted.err);
    assert_ne!(stand.ssh(WORKER, "cat /proc/sys/kernel/random/boot_id"), before);

    // One that dies is noticed, and resume starts it again.
    let [process] = stand.machine(CONTROL)[..] else { panic!("one process a machine") };
    assert!(stand.host.command("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
    wait_for(|| stand.node(CONTROL)["state"] != "running");
    assert_eq!(stand.run(&["cloud", "status"]).code, Some(1));
    let why = stand.ok(&["why", "CLOUD-0.1"]).out;
    assert!(why.contains(CONTROL) && why.contains("meant to run"), "{why}");
    stand.ok(&["resume"]);
    assert_eq!(stand.machine(CONTROL).len(), 1);
    stand.ok(&["vm", "start", CONTROL]);
    assert_eq!(stand.ssh(CONTROL, "hostname"), CONTROL);

    // What was changed by hand is told field by field, and set right.
    stand.host.virsh(&["setmaxmem", SPARE, "2G", "--config"]);
    let why = stand.ok(&["why", "CLOUD-0.1"]).out;
    assert!(why.contains(SPARE) && why.contains("memory"), "{why}");
    stand.ok(&["run", "CLOUD-0.1"]);
    assert!(stand.host.virsh(&["dominfo", SPARE]).contains("1048576 KiB"));

    // Stopped is stopped, also for a resume.
    stand.ok(&["cloud", "stop"]);
    assert!([CONTROL, WORKER, SPARE].iter().all(|node| stand.machine(node).is_empty()));
    stand.ok(&["resume"]);
    assert_eq!(stand.node(WORKER)["state"], "shut-off");

    // Nothing is left but the logs.
    assert_eq!(stand.run(&["cloud", "destroy"]).code, Some(2), "nobody can be asked");
    let gone = stand.ok(&["cloud", "destroy", "--yes"]);
    assert!(gone.err.contains("the logs are kept"), "{}", gone.err);
    assert_eq!(stand.host.defined(), Vec::<String>::new());
    for left in ["pool", "nodes", "ssh", "images"] {
        assert!(!stand.state().join(left).exists(), "{left} is left");
    }
    let links = stand.host.command("ip").args(["-o", "link"]).output().unwrap().stdout;
    assert!(!String::from_utf8_lossy(&links).contains("trbr0"));
    let kept = std::fs::read_dir(stand.folder.join("state")).unwrap().flatten();
    assert_eq!(kept.filter(|file| file.file_name().to_string_lossy().ends_with(".tar.gz")).count(), 1);
}
