//! On libvirt's own test driver, which keeps all in its memory and touches nothing of the machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::*;
use crate::cluster::{MacAddress, Network, NetworkMode};
use crate::hypervisor::DomainState;
use crate::hypervisor::spec::{NetworkRef, Reservation};

/// A host of its own, with nothing defined; each connection to `test:///default` would share one.
fn libvirt() -> (tempfile::NamedTempFile, Libvirt) {
    let node = "<node><cpu><nodes>1</nodes><sockets>1</sockets><cores>8</cores><threads>1</threads></cpu>
        <memory>8388608</memory></node>";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), node).unwrap();
    let libvirt = Libvirt::connect(&format!("test://{}", file.path().display())).unwrap();
    (file, libvirt)
}

fn lab(names: &[&str]) -> NetworkSpec {
    let reservation = |(name, number): (&&str, u8)| Reservation {
        mac: MacAddress([0x52, 0x54, 0, 0, 0, number]),
        name: (*name).to_owned(),
        address: Ipv4Addr::new(192, 168, 200, number),
    };
    NetworkSpec {
        name: "lab".to_owned(),
        network: Network {
            mode: NetworkMode::Nat,
            bridge: "virbr-lab".to_owned(),
            subnet: "192.168.200.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(192, 168, 200, 1),
            dhcp: Some((Ipv4Addr::new(192, 168, 200, 100), Ipv4Addr::new(192, 168, 200, 199))),
            dns_servers: Vec::new(),
        },
        reservations: names.iter().zip(10..).map(reservation).collect(),
    }
}

fn worker() -> DomainSpec {
    DomainSpec {
        name: "lab-cpu-worker-01".to_owned(),
        owner: "workstation".to_owned(),
        cpus: 2,
        memory_mib: 1024,
        kvm: false,
        cpu_model: "host-passthrough".to_owned(),
        hugepages: false,
        pinning: Vec::new(),
        uefi: false,
        disk: "/srv/lab/worker.qcow2".into(),
        seed: Some("/srv/lab/worker.iso".into()),
        network: NetworkRef::Network("lab".to_owned()),
        mac: "52:54:00:00:00:0a".parse().unwrap(),
        serial_log: Some("/srv/lab/worker.log".into()),
        devices: Vec::new(),
        auto_start: true,
    }
}

fn fields(drift: Vec<Drift>) -> Vec<String> {
    drift.into_iter().map(|drift| drift.field).collect()
}

#[test]
fn nobody_at_the_other_end_is_an_error_with_a_hint() {
    let Err(error) = Libvirt::connect("qemu+unix:///system?socket=/nonexistent") else { panic!("nobody is there") };
    assert!(error.to_string().starts_with("connect to the hypervisor at qemu+unix:"), "{error}");
    assert!(error.hint().unwrap().contains("systemctl start libvirtd"), "{error}");
}

#[test]
fn a_host_says_what_it_has() {
    let (_file, libvirt) = libvirt();
    let host = libvirt.host().unwrap();
    assert_eq!((host.cpus, host.memory_mib, host.kvm_offered), (8, 8192, false));
    assert!(host.hypervisor.starts_with("TEST ") && host.libvirt.split('.').count() == 3, "{host:?}");
}

#[test]
fn a_network_is_defined_changed_and_removed_each_twice() {
    let (_file, libvirt) = libvirt();
    libvirt.define_network(&lab(&["a"])).unwrap();
    let first = libvirt.network("lab").unwrap().unwrap();
    assert_eq!((first.bridge.as_deref(), first.active, first.auto_start), (Some("virbr-lab"), false, true));
    libvirt.define_network(&lab(&["a"])).unwrap();
    assert_eq!(libvirt.network("lab").unwrap().unwrap(), first);
    assert_eq!(fields(libvirt.network_drift(&lab(&["a"])).unwrap()), Vec::<String>::new());

    assert_eq!(fields(libvirt.network_drift(&lab(&["a", "b"])).unwrap()), ["reservations", "names"]);
    libvirt.define_network(&lab(&["a", "b"])).unwrap();
    assert_eq!(fields(libvirt.network_drift(&lab(&["a", "b"])).unwrap()), Vec::<String>::new());
    let uuid = |xml: &str| xml.lines().find(|line| line.contains("<uuid>")).map(str::to_owned);
    assert_eq!(uuid(&libvirt.network("lab").unwrap().unwrap().xml), uuid(&first.xml));

    libvirt.start_network("lab").unwrap();
    libvirt.start_network("lab").unwrap();
    assert!(libvirt.networks().unwrap().iter().any(|network| network.name == "lab" && network.active));
    libvirt.remove_network("lab").unwrap();
    libvirt.remove_network("lab").unwrap();
    assert_eq!(libvirt.network("lab").unwrap(), None);
    assert_eq!(libvirt.networks().unwrap(), []);
    assert_eq!(libvirt.leases("lab").unwrap(), []);
}

#[test]
fn a_pool_and_a_volume_are_made_grown_and_removed_each_twice() {
    let (_file, libvirt) = libvirt();
    let pool = PoolSpec { name: "lab".to_owned(), folder: "/nonexistent/lab".into() };
    assert_eq!(libvirt.volumes("lab").unwrap(), []);
    libvirt.define_pool(&pool).unwrap();
    libvirt.define_pool(&pool).unwrap();
    let there = libvirt.pool("lab").unwrap().unwrap();
    assert_eq!((there.folder, there.active), (pool.folder.clone(), true));

    let mut volume = VolumeSpec { name: "disk.qcow2".to_owned(), capacity: 1 << 30, backing: None };
    libvirt.create_volume("lab", &volume).unwrap();
    libvirt.create_volume("lab", &volume).unwrap();
    let made = libvirt.volumes("lab").unwrap();
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].name.as_str(), made[0].capacity), ("disk.qcow2", 1 << 30));
    assert_eq!(made[0].path, PathBuf::from("/nonexistent/lab/disk.qcow2"));
    volume.capacity = 1 << 29;
    libvirt.create_volume("lab", &volume).unwrap();
    assert_eq!(libvirt.volumes("lab").unwrap(), made, "it never shrinks");

    libvirt.remove_volume("lab", "disk.qcow2").unwrap();
    libvirt.remove_volume("lab", "disk.qcow2").unwrap();
    assert_eq!(libvirt.volumes("lab").unwrap(), []);
    libvirt.remove_pool("lab").unwrap();
    libvirt.remove_pool("lab").unwrap();
    assert_eq!(libvirt.pool("lab").unwrap(), None);
    libvirt.remove_volume("lab", "disk.qcow2").unwrap();
}

#[test]
fn a_domain_is_defined_changed_and_removed_each_twice() {
    let (_file, libvirt) = libvirt();
    let spec = DomainSpec { auto_start: false, ..worker() };
    assert_eq!(libvirt.domain(&spec.name).unwrap(), None);
    assert!(libvirt.drift(&spec).is_err(), "there is none yet");
    libvirt.define_domain(&spec).unwrap();
    let first = libvirt.domain(&spec.name).unwrap().unwrap();
    assert_eq!((first.state, first.owner.as_deref()), (DomainState::ShutOff, Some("workstation")));
    assert_eq!(fields(libvirt.drift(&spec).unwrap()), Vec::<String>::new());
    libvirt.define_domain(&spec).unwrap();
    assert_eq!(libvirt.domain(&spec.name).unwrap().unwrap(), first);

    let bigger = DomainSpec { cpus: 4, memory_mib: 2048, auto_start: spec.auto_start, ..worker() };
    assert_eq!(fields(libvirt.drift(&bigger).unwrap()), ["memory", "processors"]);
    libvirt.define_domain(&bigger).unwrap();
    assert_eq!(fields(libvirt.drift(&bigger).unwrap()), Vec::<String>::new());
    assert_eq!(libvirt.domain(&spec.name).unwrap().unwrap(), first, "it is the same one");

    libvirt.start_domain(&spec.name).unwrap();
    libvirt.start_domain(&spec.name).unwrap();
    assert_eq!(libvirt.domain(&spec.name).unwrap().unwrap().state, DomainState::Running);
    libvirt.turn_off_domain(&spec.name).unwrap();
    libvirt.turn_off_domain(&spec.name).unwrap();
    assert_eq!(libvirt.domains().unwrap(), [first]);
    libvirt.start_domain(&spec.name).unwrap();
    libvirt.remove_domain(&spec.name).unwrap();
    libvirt.remove_domain(&spec.name).unwrap();
    assert_eq!(libvirt.domains().unwrap(), []);
    libvirt.turn_off_domain(&spec.name).unwrap();
    let error = libvirt.start_domain(&spec.name).unwrap_err();
    assert_eq!(error.to_string(), "look for lab-cpu-worker-01: no domain is called so");
    assert!(!error.is_transient());
}
