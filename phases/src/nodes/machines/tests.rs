//! Killed between any two calls to the hypervisor, the next run ends the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use taskrun_engine::testing::view;

use super::*;
use crate::cluster::Cluster;
use crate::config;
use crate::hypervisor::spec::{NetworkSpec, VolumeSpec};
use crate::hypervisor::{HostFacts, Lease, Libvirt, PoolFacts, ShutDown, VolumeFacts};
use crate::passthrough::ledger::Ledger;
use crate::passthrough::sysfs::Sysfs;

/// A hypervisor whose user dies at one of its calls: before that one has an effect, or after it.
struct Mortal {
    inner: Arc<Libvirt>,
    calls: AtomicUsize,
    dies_at: usize,
    with_effect: bool,
}

impl Mortal {
    fn call<T>(&self, call: impl FnOnce() -> Result<T, HypervisorError>) -> Result<T, HypervisorError> {
        let dead = || Err(HypervisorError::refused("go on", "dead"));
        match self.calls.fetch_add(1, Ordering::SeqCst) {
            at if at < self.dies_at => call(),
            at if at == self.dies_at && self.with_effect => call().and(dead()),
            _ => dead(),
        }
    }
}

/// Each call of the trait, passed on while its user lives.
macro_rules! mortal {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl Hypervisor for Mortal {
            $(fn $name(&self, $($arg: $type),*) -> Result<$out, HypervisorError> {
                self.call(|| self.inner.$name($($arg),*))
            })*
        }
    };
}

mortal! {
    host() -> HostFacts;
    network(name: &str) -> Option<NetworkFacts>;
    networks() -> Vec<NetworkFacts>;
    network_drift(spec: &NetworkSpec) -> Vec<Drift>;
    define_network(spec: &NetworkSpec) -> ();
    start_network(name: &str) -> ();
    remove_network(name: &str) -> ();
    leases(network: &str) -> Vec<Lease>;
    pool(name: &str) -> Option<PoolFacts>;
    define_pool(spec: &PoolSpec) -> ();
    remove_pool(name: &str) -> ();
    volumes(pool: &str) -> Vec<VolumeFacts>;
    create_volume(pool: &str, spec: &VolumeSpec) -> ();
    import_volume(pool: &str, name: &str, file: &Path) -> ();
    remove_volume(pool: &str, name: &str) -> ();
    domains() -> Vec<DomainFacts>;
    domain(name: &str) -> Option<DomainFacts>;
    drift(spec: &DomainSpec) -> Vec<Drift>;
    define_domain(spec: &DomainSpec) -> ();
    start_domain(name: &str) -> ();
    shut_down_domain(name: &str, way: ShutDown) -> ();
    turn_off_domain(name: &str) -> ();
    remove_domain(name: &str) -> ();
}

/// A host with libvirt's own test driver, and a state folder.
struct Host {
    libvirt: Arc<Libvirt>,
    folder: tempfile::TempDir,
    cluster: Cluster,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("node.xml");
        std::fs::write(&node, "<node><memory>33554432</memory></node>").unwrap();
        let libvirt = Arc::new(Libvirt::connect(&format!("test://{}", node.display())).unwrap());
        let file = folder.path().join("config.yaml");
        let text = "{version: 1, name: lab, clusters: {cloud: {name: lab, storage_pool_path: /srv/lab,
          network: {subnet: 192.168.200.0/24, bridge: br-lab}, hardware: {acceleration: {enable_kvm: false}},
          control_plane: {cpu_cores: 2, memory_gb: 2, disk_gb: 10, ip: 192.168.200.5},
          worker_nodes: [{cpu_cores: 1, memory_gb: 2, disk_gb: 10, ip: DHCP}],
          kubernetes_config: {cni: calico, ingress: nginx, storage_class: local-path}}}}";
        std::fs::write(&file, text).unwrap();
        let loaded = config::load(&file, true).map_err(|error| error.render()).unwrap();
        Self { libvirt, cluster: loaded.config.cluster().unwrap(), folder }
    }

    /// A user who dies at call number `dies_at`.
    async fn mortal(&self, dies_at: usize, with_effect: bool) -> Result<Machines<'_>, Failure> {
        let (inner, calls) = (Arc::clone(&self.libvirt), AtomicUsize::new(0));
        let hypervisor = Patient::new(Mortal { inner, calls, dies_at, with_effect });
        let devices = Devices::new(Ledger::at(self.folder.path().join("devices")), Sysfs::under(self.folder.path()));
        let layout = Layout::new(&self.cluster, "lab", self.folder.path()).unwrap();
        Machines::on(hypervisor, devices, &view("CLOUD-0.1", self.folder.path()), layout, Path::new("c.yaml")).await
    }

    async fn define(&self, dies_at: usize, with_effect: bool) -> Result<(), Failure> {
        self.mortal(dies_at, with_effect).await?.define(&view("CLOUD-0.1", self.folder.path())).await
    }

    async fn remove(&self, dies_at: usize, with_effect: bool) -> Result<(), Failure> {
        self.mortal(dies_at, with_effect).await?.remove_all(&view("CLOUD-0.1", self.folder.path())).await
    }

    /// All that is there, but for ids that libvirt makes.
    fn there(&self) -> String {
        let networks = self.libvirt.networks().unwrap();
        let networks =
            networks.iter().map(|network| format!("{} {:?} {}", network.name, network.bridge, network.active));
        let domains = self.libvirt.domains().unwrap();
        let domains = domains.iter().map(|domain| format!("{} {} {:?}", domain.name, domain.auto_start, domain.owner));
        let pool = self.libvirt.pool("taskrun-lab").unwrap().map(|pool| (pool.folder, pool.active));
        let mut rows: Vec<String> = networks.chain(domains).chain([format!("{pool:?}")]).collect();
        rows.sort();
        // The owner names the state folder.
        rows.join("\n").replace(&self.folder.path().display().to_string(), "STATE")
    }
}

const LIVES: usize = usize::MAX;

#[tokio::test]
async fn killed_between_any_two_calls_the_machines_are_defined_all_the_same() {
    let undisturbed = Host::new();
    let before = undisturbed.there();
    undisturbed.define(LIVES, true).await.unwrap();
    let expected = undisturbed.there();
    assert!(expected.contains("lab-control-plane") && expected.contains("lab-cpu-worker-01"), "{expected}");
    // Twice changes nothing.
    undisturbed.define(LIVES, true).await.unwrap();
    assert_eq!(undisturbed.there(), expected);

    for with_effect in [false, true] {
        for dies_at in 0.. {
            let host = Host::new();
            let died = host.define(dies_at, with_effect).await.is_err();
            host.define(LIVES, true).await.unwrap();
            assert_eq!(host.there(), expected, "after a death at call {dies_at}");
            if !died {
                assert!(dies_at >= 11, "only {dies_at} calls");
                break;
            }
        }
        for dies_at in 0.. {
            let host = Host::new();
            host.define(LIVES, true).await.unwrap();
            let died = host.remove(dies_at, with_effect).await.is_err();
            host.remove(LIVES, true).await.unwrap();
            assert_eq!(host.there(), before, "after a death at call {dies_at} of the removal");
            if !died {
                assert!(dies_at >= 11, "only {dies_at} calls");
                break;
            }
        }
    }
}

#[tokio::test]
async fn other_files_in_the_folder_of_the_pool_are_left_alone() {
    let host = Host::new();
    host.define(LIVES, true).await.unwrap();
    let layout = Layout::new(&host.cluster, "lab", host.folder.path()).unwrap();
    let key = "0123456789abcdef0123";
    let ours = [Layout::disk("lab-control-plane"), layout.image_volume(key), layout.image_mark(key)];
    let others =
        ["precious.qcow2", "base-0123456789abcdef.qcow2", "lab-base-notes.qcow2", "lab2-base-0123456789abcdef.qcow2"];
    for name in ours.iter().map(String::as_str).chain(others) {
        let spec = VolumeSpec { name: name.to_owned(), capacity: 1 << 20, backing: None };
        host.libvirt.create_volume("taskrun-lab", &spec).unwrap();
    }
    assert!(ours.iter().all(|name| layout.owns_volume(name)) && !others.iter().any(|name| layout.owns_volume(name)));
    // Before the pool itself goes, which the test driver forgets with all that is in it.
    let machines = host.mortal(LIVES, true).await.unwrap();
    let before = host.libvirt.volumes("taskrun-lab").unwrap();
    assert_eq!(before.len(), ours.len() + others.len());
    machines.remove_volumes().await.unwrap();
    let left = host.libvirt.volumes("taskrun-lab").unwrap().into_iter().map(|volume| volume.name);
    let mut left: Vec<String> = left.collect();
    left.sort();
    let mut expected = others.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(left, expected);
}

#[tokio::test]
async fn a_machine_of_somebody_else_is_left_alone() {
    let host = Host::new();
    host.define(LIVES, true).await.unwrap();
    let other = Layout::new(&host.cluster, "other", host.folder.path()).unwrap();
    let devices = Devices::new(Ledger::at(host.folder.path().join("devices")), Sysfs::under(host.folder.path()));
    let hypervisor = Patient::new(Mortal {
        inner: Arc::clone(&host.libvirt),
        calls: AtomicUsize::new(0),
        dies_at: LIVES,
        with_effect: true,
    });
    let view = view("CLOUD-0.1", host.folder.path());
    let machines = Machines::on(hypervisor, devices, &view, other, Path::new("c.yaml")).await.unwrap();
    let before = host.there();
    for refused in [
        machines.define(&view).await,
        machines.stop(&view, "lab-control-plane", StopTimes::default(), true).await.map(drop),
    ] {
        let failure = refused.unwrap_err();
        assert!(failure.to_string().contains("that of lab") && failure.hint.is_some(), "{failure}");
    }
    assert_eq!(host.there(), before);
}
