//! Clusters in which something is wrong: it is told at its place, and nothing else is.

use proptest::prelude::*;
use serde_json::{Value, json};
use taskrun_engine::graph::Fault;

use super::super::super::load::parse;
use super::super::ClustersConfig;

/// A very broken file.
const BROKEN: &str = r#"version: 1
name: broken
clusters:
  hpc: {name: Cloud_1, network: {subnet: 192.168.200.128/25, bridge: virbr-much-too-long}}
  cloud:
    name: Cloud_1
    hypervisor_uri: qemu+ssh://other/system
    storage_pool_path: pool
    base_image_path: ./base.qcow2
    image: {size_gib: 64, source: {url: "ftp://x/y"}, packages: [Vim]}
    hardware: {acceleration: {cpu_model: "host; rm"}}
    network:
      subnet: 192.168.200.0/24
      bridge: virbr-much-too-long
      gateway_ip: 192.168.201.1
      dhcp_start: 192.168.200.200
      dhcp_end: 192.168.200.100
      dns_servers: [router]
    control_plane:
      - {cpu_cores: 0, memory_gb: 8, disk_gb: 100, ip_address: DHCP}
      - {cpu_cores: 4, disk_gb: 5, ip_address: 192.168.200.255, auto_start: true}
    worker_nodes:
      - {cpu_cores: 4, memory_gb: 8, disk_gb: 100, ip: 192.168.200.20, ip_address: 192.168.200.20}
      - {cpu_cores: 4, memory_gb: 8, disk_gb: 100, ip: 192.168.200.20}
      - cpu_cores: 4
        memory_gb: 8
        disk_gb: 100
        pcie_passthrough:
          enabled: true
          devices:
            - {pci_address: "65:00", device_type: gpu, vendor_id: "NV", device_id: "26"}
            - {pci_address: "0000:65:00.0"}
            - {pci_address: "65:00.0", device_type: gpu}
      - {host: {address: -oProxyCommand=x, user: "a b", key: id}, cpu_cores: 2}
    kubernetes_config: {cni: calco, ingress: traefik, storage_class: Local, pod_subnet: 192.168.0.0/16, service_subnet: 10.233.0.1/18}
"#;

#[test]
fn all_that_is_wrong_is_told_at_once() {
    crate::testing::snapshot("config-broken-cluster", &parse(BROKEN, "c.yaml").unwrap_err().render());
}

#[test]
fn what_cannot_be_read_is_told_at_once_too() {
    let text = "version: [1]\nname: a\nclusters:\n  cloud:\n    name: a\n    control_plane: [{cpu_cores: many}]\n    \
                worker_nodes: {gpus: [], cpu: [{memory_gb: -1, hots: {adress: b, port: 70000}}]}\n    \
                network: {subnet: 10.0.0.0/24, bridge: 5, mode: nats}\n    kuberntes_config: {}\n    \
                image: {gpu_driver: {flavour: closed}}\n";
    crate::testing::snapshot("config-unreadable-cluster", &parse(text, "c.yaml").unwrap_err().render());
}

/// A cluster with nothing wrong.
fn valid(workers: u8, planes: usize, third: u8, gpus: u8) -> Value {
    let node = |at: u8| {
        json!({"cpu_cores": 1 + u32::from(at), "memory_gb": 2, "disk_gb": 10 + u32::from(at),
               "ip": format!("10.77.{third}.{}", 10 + at)})
    };
    let planes: Vec<Value> = (0..u8::try_from(planes).unwrap()).map(|at| node(100 + at)).collect();
    let workers: Vec<Value> = (0..workers)
        .map(|at| {
            let mut worker = node(at);
            if at < gpus {
                let device = json!({"pci_address": format!("0000:{at:02x}:00.0"), "device_type": "gpu"});
                worker["pcie_passthrough"] = json!({"enabled": true, "devices": [device]});
            }
            worker
        })
        .collect();
    json!({
        "hpc": {"name": "hpc", "network": {"subnet": "10.78.0.0/16", "bridge": "virbr1"}},
        "cloud": {
            "name": "cloud",
            "storage_pool_path": "/pool",
            "hardware": {"acceleration": {}},
            "network": {"subnet": format!("10.77.{third}.0/24"), "bridge": "virbr2",
                        "dhcp_start": format!("10.77.{third}.200"), "dhcp_end": format!("10.77.{third}.250")},
            "control_plane": planes,
            "worker_nodes": workers,
            "kubernetes_config": {"cni": "calico", "ingress": "none", "storage_class": "local-path"},
        },
    })
}

/// What is put where.
struct Break {
    /// A JSON pointer below `cloud`.
    at: &'static str,
    /// What is put there.
    value: Value,
    /// Where it is told, if somewhere else.
    told: Option<&'static str>,
}

/// The rules, each broken once. `third` is the third byte of the subnet's addresses.
fn breaks(third: u8) -> Vec<Break> {
    let put = |at: &'static str, value: Value| Break { at, value, told: None };
    let told = |at: &'static str, value: Value, told: &'static str| Break { at, value, told: Some(told) };
    let ip = |last: u8| json!(format!("10.77.{third}.{last}"));
    vec![
        put("/name", json!("Cloud")),
        put("/name", json!("hpc")),
        put("/name", json!("-cloud")),
        put("/name", json!("c".repeat(50))),
        put("/hypervisor_uri", json!("qemu+ssh://there/system")),
        put("/hypervisor_uri", json!("system")),
        put("/storage_pool_path", json!("pool")),
        put("/base_image_path", json!("image")),
        put("/hardware/acceleration/cpu_model", json!("a b")),
        put("/network/subnet", json!("10.77.0.1/24")),
        put("/network/subnet", json!("10.77.0.0/33")),
        put("/network/bridge", json!("a-name-of-16-byte")),
        put("/network/bridge", json!("virbr1")),
        put("/network/bridge", json!("")),
        put("/network/gateway_ip", json!("10.1.0.1")),
        put("/network/gateway_ip", ip(255)),
        put("/network/gateway_ip", ip(0)),
        put("/network/dhcp_start", json!("10.1.0.1")),
        told("/network/dhcp_start", ip(251), "/network/dhcp_end"),
        told("/network/dhcp_start", Value::Null, "/network/dhcp_end"),
        put("/network/dhcp_end", json!("many")),
        put("/network/dns_servers", json!(["192.0.2.1", "x"])),
        put("/control_plane/0/cpu_cores", json!(0)),
        put("/control_plane/0/memory_gb", json!(0)),
        put("/control_plane/0/disk_gb", json!(9)),
        put("/control_plane/0/disk_gb", Value::Null),
        put("/control_plane/0/ip", json!("dhcp")),
        put("/control_plane/0/ip", ip(1)),
        put("/control_plane/0/auto_start", json!(false)),
        put("/control_plane/0/pcie_passthrough", json!({"enabled": false})),
        put("/worker_nodes/0/ip", ip(0)),
        put("/worker_nodes/0/ip", ip(255)),
        put("/worker_nodes/0/ip", ip(1)),
        put("/worker_nodes/0/ip", json!("10.1.0.1")),
        put("/worker_nodes/0/ip", json!("10.77.0")),
        told("/worker_nodes/0/ip_address", ip(9), "/worker_nodes/0/ip"),
        told("/worker_nodes/0/ip", ip(11), "/worker_nodes/1/ip"),
        put("/worker_nodes/0/host", json!({"address": "a", "port": 1, "user": "u"})),
        told(
            "/worker_nodes/0/pcie_passthrough",
            json!({"enabled": true, "devices": [{"pci_address": "0000:01:00.0", "device_type": "gpu"}]}),
            "/worker_nodes/1/pcie_passthrough/devices/0/pci_address",
        ),
        told(
            "/worker_nodes/0/pcie_passthrough",
            json!({"enabled": true, "devices": [{"pci_address": "01:00.1", "device_type": "audio"}]}),
            "/worker_nodes/1/pcie_passthrough/devices/0/pci_address",
        ),
        told(
            "/worker_nodes/0/pcie_passthrough",
            json!({"enabled": true, "devices": [{"pci_address": "a1:00.8", "device_type": "gpu"}]}),
            "/worker_nodes/0/pcie_passthrough/devices/0/pci_address",
        ),
        told("/worker_nodes/0/pcie_passthrough", json!({"enabled": true}), "/worker_nodes/0/pcie_passthrough/devices"),
        told("/worker_nodes", json!([]), "/worker_nodes"),
        put("/kubernetes_config/cni", json!("weave")),
        put("/kubernetes_config/ingress", json!("")),
        put("/kubernetes_config/storage_class", json!("Local Path")),
        put("/kubernetes_config/pod_subnet", json!("10.78.0.0/18")),
        put("/kubernetes_config/pod_subnet", json!("10.233.64.0/25")),
        put("/kubernetes_config/service_subnet", json!("10.233.0.0/8")),
        told("/kubernetes_config/service_subnet", json!("10.64.0.0/11"), "/kubernetes_config/service_subnet"),
        put("/kubernetes_config", Value::Null),
        put("/image", json!({"size_gib": 11})),
    ]
}

/// Fields that are texts.
const FIELDS: [&str; 15] = [
    "/name",
    "/hypervisor_uri",
    "/network/subnet",
    "/network/bridge",
    "/network/gateway_ip",
    "/network/dhcp_start",
    "/network/dhcp_end",
    "/control_plane/0/ip",
    "/worker_nodes/0/ip",
    "/worker_nodes/0/ip_address",
    "/worker_nodes/1/pcie_passthrough/devices/0/pci_address",
    "/worker_nodes/1/pcie_passthrough/devices/0/vendor_id",
    "/kubernetes_config/pod_subnet",
    "/kubernetes_config/service_subnet",
    "/kubernetes_config/cni",
];

/// Texts, most of them nearly right.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        (any::<u32>(), 0_u8..=32)
            .prop_map(|(address, prefix)| format!("{}/{prefix}", std::net::Ipv4Addr::from(address))),
        (any::<u32>(), 0_u8..=32).prop_map(|(address, prefix)| {
            let net = ipnet::Ipv4Net::new_assert(address.into(), prefix);
            net.trunc().to_string()
        }),
        (0_u8..=255).prop_map(|last| format!("10.77.7.{last}")),
        prop::sample::select(
            &["0.0.0.0", "255.255.255.255", "0.0.0.0/0", "255.255.255.255/32", "DHCP", "", "cloud"][..]
        )
        .prop_map(str::to_owned),
        "[0-9a-f]{2}:[0-9a-f]{2}\\.[0-9]",
        ".{0,20}",
    ]
}

/// The paths of what is wrong, below `cloud`.
fn told(clusters: &Value) -> Result<Vec<String>, TestCaseError> {
    let clusters: ClustersConfig =
        serde_json::from_value(clusters.clone()).map_err(|error| TestCaseError::fail(error.to_string()))?;
    Ok(clusters.faults().iter().map(|Fault { path, .. }| format!("/{}", path[2..].join("/"))).collect())
}

proptest! {
    #[test]
    fn one_broken_rule_is_told_at_its_place(
        workers in 2_u8..20, gpus in 2_u8..5, half in 0_usize..3, third in 0_u8..250, which in any::<prop::sample::Index>()
    ) {
        let mut clusters = valid(workers, 2 * half + 1, third, gpus.min(workers));
        prop_assert_eq!(told(&clusters)?, Vec::<String>::new());
        let cluster: ClustersConfig = serde_json::from_value(clusters.clone()).unwrap();
        let cluster = cluster.cloud.unwrap().cluster().unwrap();
        let macs: std::collections::BTreeSet<_> = cluster.virtual_machines().map(|(_, machine)| machine.mac).collect();
        prop_assert_eq!(macs.len(), cluster.nodes.len());
        let mut rules = breaks(third);
        let Break { at, value, told: place } = rules.swap_remove(which.index(rules.len()));
        let (parent, key) = at.rsplit_once('/').unwrap();
        clusters["cloud"].pointer_mut(parent).unwrap()[key] = value.clone();
        let place = place.unwrap_or(at);
        let told = told(&clusters)?;
        prop_assert!(told.iter().any(|path| path.starts_with(place)), "{at} = {value} is told as {told:?}");
    }

    #[test]
    fn nothing_panics_and_what_is_not_wrong_is_a_cluster(
        changes in proptest::collection::vec((prop::sample::select(&FIELDS[..]), text()), 1..5)
    ) {
        let mut clusters = valid(3, 1, 7, 2);
        for (at, text) in changes {
            let (parent, key) = at.rsplit_once('/').unwrap();
            clusters["cloud"].pointer_mut(parent).unwrap()[key] = json!(text);
        }
        let read: ClustersConfig = serde_json::from_value(clusters.clone()).unwrap();
        let cluster = read.cloud.as_ref().unwrap().cluster();
        prop_assert!(cluster.is_some() || !read.faults().is_empty(), "{clusters}");
    }

    #[test]
    fn an_even_number_of_control_planes_is_told(half in 0_usize..5) {
        let clusters = valid(2, 2 * half, 3, 0);
        prop_assert_eq!(told(&clusters)?, ["/control_plane"]);
    }
}

#[test]
fn every_rule_is_told() {
    for rule in breaks(7) {
        let mut clusters = valid(3, 1, 7, 2);
        let (parent, key) = rule.at.rsplit_once('/').unwrap();
        clusters["cloud"].pointer_mut(parent).unwrap()[key] = rule.value.clone();
        let (place, told) = (rule.told.unwrap_or(rule.at), told(&clusters).unwrap());
        assert!(told.iter().any(|path| path.starts_with(place)), "{} = {} is told as {told:?}", rule.at, rule.value);
    }
}

#[test]
fn a_bridge_of_others_has_their_dhcp() {
    let mut clusters = valid(2, 1, 7, 0);
    clusters["cloud"]["network"]["mode"] = json!("bridge");
    assert_eq!(told(&clusters).unwrap(), [""; 0]);
    clusters["cloud"]["worker_nodes"][1]["ip"] = json!("10.77.7.220");
    assert_eq!(told(&clusters).unwrap(), ["/worker_nodes/1/ip"]);
    clusters["cloud"]["network"]["mode"] = json!("nat");
    assert_eq!(told(&clusters).unwrap(), [""; 0], "libvirt keeps it for that machine");
}

#[test]
fn dhcp_has_enough_for_all() {
    let mut clusters = valid(3, 1, 7, 0);
    for at in 0..3 {
        clusters["cloud"]["worker_nodes"][at]["ip"] = json!("DHCP");
    }
    clusters["cloud"]["network"]["dhcp_end"] = json!("10.77.7.201");
    assert_eq!(told(&clusters).unwrap(), ["/network/dhcp_end"]);
    clusters["cloud"]["network"]["dhcp_end"] = json!("10.77.7.202");
    assert_eq!(told(&clusters).unwrap(), [""; 0]);
}

#[test]
fn two_given_hosts_are_two() {
    let hosts = |second: Value, third: Value| {
        let mut clusters = valid(2, 1, 7, 0);
        clusters["cloud"]["control_plane"] = json!({"host": {"address": "192.0.2.1"}});
        clusters["cloud"]["worker_nodes"] = json!([{"host": second}, {"host": third}]);
        told(&clusters).unwrap()
    };
    assert_eq!(hosts(json!({"address": "192.0.2.2"}), json!({"address": "n3"})), [""; 0]);
    assert_eq!(hosts(json!({"address": "n2"}), json!({"address": "n2", "port": 23})), [""; 0]);
    assert_eq!(hosts(json!({"address": "n2"}), json!({"address": "n2"})), ["/worker_nodes/1/host/address"]);
    let inside = json!({"address": "n2", "internal_address": "192.0.2.1"});
    assert_eq!(hosts(inside, json!({"address": "n3"})), ["/worker_nodes/0/host/internal_address"]);
    assert_eq!(hosts(json!({"address": "10.233.64.9"}), json!({"address": "n3"})), ["/worker_nodes/0/host/address"]);
}
