//! Virtual machines of a real libvirt, emulated, on a host of the test's own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use taskrun_phases::cluster::{MacAddress, Network, NetworkMode};
use taskrun_phases::hypervisor::spec::{DomainSpec, NetworkRef, NetworkSpec, PoolSpec, Reservation, VolumeSpec};
use taskrun_phases::hypervisor::{DomainState, Hypervisor, Libvirt, ShutDown};

use super::virtual_host::{Login, VirtualHost, image};

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 5]);
const ADDRESS: &str = "192.168.210.5";

/// A connection from here to the libvirt there.
fn connect(host: &VirtualHost) -> Libvirt {
    let root = host.root();
    let uri = format!("qemu+unix:///system?socket={}/run/libvirt/libvirt-sock", root.display());
    Libvirt::connect(&uri).unwrap()
}

fn network(reservations: &[(MacAddress, &str, u8)]) -> NetworkSpec {
    let reservation = |(mac, name, number): &(MacAddress, &str, u8)| Reservation {
        mac: *mac,
        name: (*name).to_owned(),
        address: Ipv4Addr::new(192, 168, 210, *number),
    };
    NetworkSpec {
        name: "lab".to_owned(),
        network: Network {
            mode: NetworkMode::Nat,
            bridge: "lab0".to_owned(),
            subnet: "192.168.210.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(192, 168, 210, 1),
            dhcp: Some((Ipv4Addr::new(192, 168, 210, 100), Ipv4Addr::new(192, 168, 210, 199))),
            dns_servers: Vec::new(),
        },
        reservations: reservations.iter().map(reservation).collect(),
    }
}

fn worker(host: &VirtualHost, disk: PathBuf, seed: Option<PathBuf>) -> DomainSpec {
    DomainSpec {
        name: "lab-cpu-worker-01".to_owned(),
        owner: "test".to_owned(),
        cpus: 2,
        memory_mib: 768,
        kvm: false,
        cpu_model: "host-passthrough".to_owned(),
        hugepages: false,
        pinning: Vec::new(),
        uefi: false,
        disk,
        seed,
        network: NetworkRef::Network("lab".to_owned()),
        mac: MAC,
        serial_log: Some(host.path().join("serial.log")),
        devices: Vec::new(),
        auto_start: false,
    }
}

fn wait(what: &str, most: Duration, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + most;
    while !there() {
        assert!(Instant::now() < deadline, "{what}: it never came");
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn fields(drift: Vec<taskrun_engine::task::Drift>) -> Vec<String> {
    drift.into_iter().map(|drift| drift.field).collect()
}

#[test]
#[ignore = "needs libvirt, QEMU and root: make e2e"]
fn a_machine_boots_answers_ends_as_it_is_asked_and_leaves_nothing() {
    let host = VirtualHost::new();
    let libvirt = connect(&host);
    let login = Login::new(host.path());
    let pool = PoolSpec { name: "lab".to_owned(), folder: host.path().join("pool") };
    let volume = |gib: u64| VolumeSpec {
        name: "worker.qcow2".to_owned(),
        capacity: gib << 30,
        backing: Some(image().to_owned()),
    };
    libvirt.define_network(&network(&[(MAC, "lab-cpu-worker-01", 5)])).unwrap();
    libvirt.start_network("lab").unwrap();
    libvirt.define_pool(&pool).unwrap();
    libvirt.create_volume("lab", &volume(5)).unwrap();
    libvirt.create_volume("lab", &volume(6)).unwrap();
    let volumes = libvirt.volumes("lab").unwrap();
    assert_eq!((volumes.len(), volumes[0].capacity), (1, 6 << 30));
    assert_eq!(volumes[0].backing.as_deref(), Some(image()));

    let spec = worker(&host, volumes[0].path.clone(), Some(login.seed("lab-cpu-worker-01")));
    libvirt.define_domain(&spec).unwrap();
    assert_eq!(fields(libvirt.drift(&spec).unwrap()), Vec::<String>::new(), "what libvirt added is no drift");
    let defined = host.virsh(&["dumpxml", "--inactive", &spec.name]);
    libvirt.define_domain(&spec).unwrap();
    assert_eq!(host.virsh(&["dumpxml", "--inactive", &spec.name]), defined);
    assert_eq!(libvirt.domain(&spec.name).unwrap().unwrap().state, DomainState::ShutOff);

    libvirt.start_domain(&spec.name).unwrap();
    let minutes = |count: u64| Duration::from_secs(60 * count);
    wait("SSH", minutes(10), || login.run(&host, ADDRESS, "hostname").as_deref() == Some("lab-cpu-worker-01"));
    let leases = libvirt.leases("lab").unwrap();
    let address = ADDRESS.parse::<Ipv4Addr>().unwrap();
    assert!(leases.iter().any(|lease| lease.mac == MAC && lease.address == address), "{leases:?}");
    assert_eq!(login.run(&host, ADDRESS, "df --output=size -BG / | tail -1").as_deref(), Some("6G"));
    assert!(fs::read_to_string(host.path().join("serial.log")).unwrap().contains("Linux version"));
    assert_eq!(fields(libvirt.drift(&spec).unwrap()), Vec::<String>::new(), "running, it is the same");

    // A reservation is taken over at once, and nobody is disturbed.
    let other = (MacAddress([0x52, 0x54, 0, 0, 0, 6]), "another", 6);
    let both = network(&[(MAC, "lab-cpu-worker-01", 5), other]);
    assert_eq!(fields(libvirt.network_drift(&both).unwrap()), ["reservations", "names"]);
    libvirt.define_network(&both).unwrap();
    assert_eq!(fields(libvirt.network_drift(&both).unwrap()), Vec::<String>::new());
    assert!(host.virsh(&["net-dumpxml", "lab"]).contains("52:54:00:00:00:06"));
    assert!(host.virsh(&["net-dumpxml", "--inactive", "lab"]).contains("52:54:00:00:00:06"));

    let off = || libvirt.domain(&spec.name).unwrap().unwrap().state == DomainState::ShutOff;
    wait("the guest agent", minutes(5), || libvirt.shut_down_domain(&spec.name, ShutDown::Agent).is_ok());
    wait("the end by the guest agent", minutes(5), off);
    libvirt.start_domain(&spec.name).unwrap();
    wait("SSH again", minutes(10), || login.run(&host, ADDRESS, "true").is_some());
    libvirt.shut_down_domain(&spec.name, ShutDown::Acpi).unwrap();
    wait("the end by the power button", minutes(5), off);

    libvirt.start_domain(&spec.name).unwrap();
    libvirt.turn_off_domain(&spec.name).unwrap();
    assert!(off());
    libvirt.remove_domain(&spec.name).unwrap();
    libvirt.remove_volume("lab", "worker.qcow2").unwrap();
    libvirt.remove_pool("lab").unwrap();
    libvirt.remove_network("lab").unwrap();
    assert_eq!(host.defined(), Vec::<String>::new());
    assert_eq!(fs::read_dir(&pool.folder).unwrap().count(), 0);
    assert_eq!(host.processes("^/usr/sbin/dnsmasq|^/usr/bin/qemu-system"), Vec::<u32>::new());
}

#[test]
#[ignore = "needs libvirt, QEMU and root: make e2e"]
fn a_machine_changed_by_hand_tells_each_difference_and_a_new_libvirtd_is_found_again() {
    let host = VirtualHost::new();
    let libvirt = connect(&host);
    libvirt.define_network(&network(&[])).unwrap();
    libvirt.define_pool(&PoolSpec { name: "lab".to_owned(), folder: host.path().join("pool") }).unwrap();
    let disk = VolumeSpec { name: "disk.qcow2".to_owned(), capacity: 1 << 30, backing: None };
    libvirt.create_volume("lab", &disk).unwrap();
    let pinned = DomainSpec {
        uefi: true,
        pinning: vec![0, 1],
        auto_start: true,
        ..worker(&host, host.path().join("pool/disk.qcow2"), None)
    };
    libvirt.define_domain(&pinned).unwrap();
    assert_eq!(fields(libvirt.drift(&pinned).unwrap()), Vec::<String>::new());
    let uuid = libvirt.domain(&pinned.name).unwrap().unwrap().uuid;

    host.virsh(&["setvcpus", &pinned.name, "1", "--config"]);
    host.virsh(&["vcpupin", &pinned.name, "1", "0", "--config"]);
    host.virsh(&["autostart", "--disable", &pinned.name]);
    host.virsh(&["detach-interface", &pinned.name, "network", "--config"]);
    let found = fields(libvirt.drift(&pinned).unwrap());
    let expected = ["network device 1", "pinning of processor 1", "started with the host"];
    assert!(expected.iter().all(|field| found.iter().any(|found| found == field)), "{found:?}");
    libvirt.define_domain(&pinned).unwrap();
    assert_eq!(fields(libvirt.drift(&pinned).unwrap()), Vec::<String>::new());
    assert_eq!(libvirt.domain(&pinned.name).unwrap().unwrap().uuid, uuid);

    // OVMF starts, and its variables go with the machine.
    libvirt.start_network("lab").unwrap();
    libvirt.start_domain(&pinned.name).unwrap();
    assert_eq!(fields(libvirt.drift(&pinned).unwrap()), Vec::<String>::new());
    assert!(host.path().join("libvirt/lib/qemu/nvram").read_dir().unwrap().count() == 1);

    for pid in host.processes("^libvirtd") {
        host.command("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    }
    wait("libvirt again", Duration::from_secs(60), || libvirt.domains().is_ok_and(|domains| domains.len() == 1));
    assert_eq!(libvirt.domain(&pinned.name).unwrap().unwrap().state, DomainState::Running, "it was not disturbed");

    let qemu = host.processes("^/usr/bin/qemu-system-x86_64 -name guest=lab");
    host.command("kill").args(["-KILL", &qemu[0].to_string()]).status().unwrap();
    let state = || libvirt.domain(&pinned.name).unwrap().unwrap().state;
    wait("its end to be noticed", Duration::from_secs(30), || state() == DomainState::ShutOff);
    libvirt.start_domain(&pinned.name).unwrap();
    libvirt.remove_domain(&pinned.name).unwrap();
    assert_eq!(host.path().join("libvirt/lib/qemu/nvram").read_dir().unwrap().count(), 0);
    assert_eq!(libvirt.domains().unwrap(), []);
}
