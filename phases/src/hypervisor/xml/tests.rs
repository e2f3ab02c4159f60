use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::domain::Domain;
use super::network::Network;
use super::storage::{Pool, Volume};
use super::*;
use crate::cluster::{self, NetworkMode};
use crate::hypervisor::spec::{DomainSpec, NetworkRef, NetworkSpec, PoolSpec, Reservation, VolumeSpec};
use crate::testing::snapshot;

/// Compares a definition with its snapshot, and with libvirt's schema where the program that does so is here.
fn check(name: &str, xml: &str) {
    snapshot(name, xml);
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !there("virt-xml-validate") || !there("xmllint") {
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(xml.as_bytes()).unwrap();
    let said = Command::new("virt-xml-validate").arg(file.path()).stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "{name}: {}{xml}", String::from_utf8_lossy(&said.stderr));
}

fn cpu_worker() -> DomainSpec {
    DomainSpec {
        name: "lab-cpu-worker-01".to_owned(),
        owner: "workstation".to_owned(),
        cpus: 4,
        memory_mib: 8192,
        kvm: true,
        cpu_model: "host-passthrough".to_owned(),
        hugepages: false,
        pinning: Vec::new(),
        uefi: false,
        disk: "/srv/lab/lab-cpu-worker-01.qcow2".into(),
        seed: Some("/srv/lab/lab-cpu-worker-01-seed.iso".into()),
        network: NetworkRef::Network("lab".to_owned()),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        serial_log: Some("/srv/lab/log/lab-cpu-worker-01.log".into()),
        devices: Vec::new(),
        auto_start: true,
    }
}

fn gpu_worker() -> DomainSpec {
    let devices = ["0000:65:00.0", "0000:65:00.1", "0000:17:00.2"];
    DomainSpec {
        name: "lab-gpu-worker-01".to_owned(),
        uefi: true,
        devices: devices.iter().map(|device| device.parse().unwrap()).collect(),
        ..cpu_worker()
    }
}

fn lab() -> NetworkSpec {
    let who = |number: u8, name: &str| Reservation {
        mac: cluster::MacAddress([0x52, 0x54, 0, 0x12, 0x34, number]),
        name: name.to_owned(),
        address: Ipv4Addr::new(192, 168, 200, number),
    };
    NetworkSpec {
        name: "lab".to_owned(),
        network: cluster::Network {
            mode: NetworkMode::Nat,
            bridge: "virbr-lab".to_owned(),
            subnet: "192.168.200.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(192, 168, 200, 1),
            dhcp: Some((Ipv4Addr::new(192, 168, 200, 100), Ipv4Addr::new(192, 168, 200, 199))),
            dns_servers: vec![Ipv4Addr::new(9, 9, 9, 9)],
        },
        reservations: vec![who(10, "lab-control-plane"), who(11, "lab-cpu-worker-01")],
    }
}

fn xml(spec: &DomainSpec) -> String {
    Domain::of(spec, None, true).to_xml().unwrap()
}

#[test]
fn a_domain_with_the_bios() {
    check("libvirt-domain-bios", &xml(&cpu_worker()));
}

#[test]
fn a_domain_with_devices_of_the_host() {
    check("libvirt-domain-gpu", &xml(&gpu_worker()));
}

#[test]
fn a_pinned_domain_of_huge_pages_and_a_named_processor_on_a_bridge() {
    let spec = DomainSpec {
        hugepages: true,
        pinning: vec![2, 3, 10, 11],
        cpu_model: "EPYC-Rome".to_owned(),
        network: NetworkRef::Bridge("br0".to_owned()),
        ..cpu_worker()
    };
    check("libvirt-domain-pinned", &xml(&spec));
}

#[test]
fn an_emulated_domain_without_direct_io() {
    let spec = DomainSpec { kvm: false, serial_log: None, seed: None, uefi: true, ..cpu_worker() };
    let domain = Domain::of(&spec, Some("7b0c1f5e-2f43-4d7e-9a53-5a3c3b1d5c11".to_owned()), false);
    check("libvirt-domain-emulated", &domain.to_xml().unwrap());
}

#[test]
fn networks() {
    check("libvirt-network-nat", &Network::of(&lab(), None).to_xml().unwrap());
    let mut bridged = lab();
    bridged.network.mode = NetworkMode::Bridge;
    bridged.network.bridge = "br0".to_owned();
    check("libvirt-network-bridge", &Network::of(&bridged, None).to_xml().unwrap());
}

#[test]
fn pools_and_volumes() {
    let pool = PoolSpec { name: "lab".to_owned(), folder: "/srv/lab".into() };
    check("libvirt-pool", &Pool::of(&pool, None).to_xml().unwrap());
    let volume = VolumeSpec {
        name: "lab-cpu-worker-01.qcow2".to_owned(),
        capacity: 100 << 30,
        backing: Some(PathBuf::from("/srv/images/cloud-base.qcow2")),
    };
    check("libvirt-volume", &Volume::of(&volume).to_xml().unwrap());
}

#[test]
fn names_are_escaped() {
    let spec = DomainSpec { disk: "/srv/a & \"b\" <c>'.qcow2".into(), ..cpu_worker() };
    let written = xml(&spec);
    let read: Domain = read(&written).unwrap();
    assert_eq!(read, Domain::of(&spec, None, true), "{written}");
}

#[test]
fn each_difference_is_told_by_name() {
    let wanted = cpu_worker();
    let drift = |found: &DomainSpec| {
        let found: Domain = read(&xml(found)).unwrap();
        let drift = domain_drift(&Domain::of(&wanted, None, false), &found);
        drift.into_iter().map(|drift| format!("{}: {} -> {}", drift.field, drift.expected, drift.found)).collect()
    };
    let none: Vec<String> = drift(&wanted);
    assert_eq!(none, Vec::<String>::new());
    let other = DomainSpec {
        owner: "other".to_owned(),
        cpus: 2,
        memory_mib: 4096,
        kvm: false,
        hugepages: true,
        pinning: vec![7],
        uefi: true,
        disk: "/srv/other.qcow2".into(),
        seed: None,
        network: NetworkRef::Bridge("br0".to_owned()),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        serial_log: None,
        devices: vec!["0000:65:00.0".parse().unwrap()],
        ..wanted.clone()
    };
    assert_eq!(
        drift(&other),
        [
            r#"address of network device 1: "52:54:00:12:34:56" -> "52:54:00:00:00:01""#,
            r#"devices of the host: "" -> "0000:65:00.0""#,
            r#"disk vda: "/srv/lab/lab-cpu-worker-01.qcow2" -> "/srv/other.qcow2""#,
            r#"disk vdb: "/srv/lab/lab-cpu-worker-01-seed.iso" -> null"#,
            r#"firmware: "BIOS" -> "UEFI""#,
            "huge pages: false -> true",
            r#"log of the serial console: "/srv/lab/log/lab-cpu-worker-01.log" -> null"#,
            r#"memory: "8192 MiB" -> "4096 MiB""#,
            r#"network device 1: "network lab" -> "bridge br0""#,
            r#"owner: "workstation" -> "other""#,
            r#"pinning of processor 0: null -> "7""#,
            r#"processor model: "host-passthrough" -> "maximum""#,
            "processors: 4 -> 2",
            r#"run by: "kvm" -> "emulation""#,
        ]
    );
}

#[test]
fn a_network_tells_what_differs_and_what_an_update_sets_right() {
    let wanted = Network::of(&lab(), None);
    let mut other = lab();
    other.reservations.pop();
    let found: Network = read(&Network::of(&other, None).to_xml().unwrap()).unwrap();
    let fields = |all| wanted.drift(&found, all).into_iter().map(|drift| drift.field).collect::<Vec<_>>();
    assert_eq!(fields(true), ["reservations", "names"]);
    assert_eq!(fields(false), Vec::<String>::new());
}
