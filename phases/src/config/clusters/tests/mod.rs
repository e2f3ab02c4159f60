//! Clusters as they are written, checked, and made one of.

mod broken;
mod host;

use std::path::Path;

use super::super::load::parse;
use super::super::{Config, Loaded, PlatformKind, load};
use crate::cluster::{Cluster, DeviceKind, Machine, NetworkMode, Role};

/// A file of the plan that this program comes from, as it is.
const PLAN: &str = r#"
version: "1.0"
metadata: {name: hyperscaler, description: "Two clusters, one GPU"}
clusters:
  hpc:
    name: hpc-cluster
    network: {subnet: 192.168.100.0/24, bridge: virbr100}
    controller: {cpu_cores: 4, memory_gb: 8, disk_gb: 100, ip_address: 192.168.100.10}
    compute_nodes:
      - ip: 192.168.100.11
        pcie_passthrough: {enabled: true, devices: [{pci_address: "0000:65:00.0", device_type: gpu}]}
  cloud:
    name: cloud-cluster
    base_image_path: /images/cloud-base.qcow2
    hardware: {acceleration: {enable_kvm: true, cpu_model: host-passthrough, performance: {enable_hugepages: true, cpu_pinning: true}}}
    network: {subnet: 192.168.200.0/24, bridge: virbr200, dns_servers: [192.0.2.53]}
    control_plane: {cpu_cores: 4, memory_gb: 8, disk_gb: 100, ip_address: 192.168.200.10}
    worker_nodes: WORKERS
    kubernetes_config: {cni: calico, ingress: nginx, storage_class: local-path}
global: {timezone: UTC, anything: [1, {deep: true}]}
"#;

const CPU: &str = "{cpu_cores: 4, memory_gb: 16, disk_gb: 150, ip: 192.168.200.11}";
const GPU: &str = r#"{cpu_cores: 8, memory_gb: 16, disk_gb: 200, ip: DHCP, auto_start: false, pcie_passthrough: {enabled: true,
    devices: [{pci_address: "0000:65:00.0", device_type: gpu, vendor_id: "10DE", device_id: "0x2684", iommu_group: 17},
    {pci_address: "65:00.1", device_type: audio}]}}"#;

fn read(text: &str) -> Loaded {
    parse(text, "c.yaml").map_err(|error| error.render()).unwrap()
}

fn plan(workers: &str) -> Loaded {
    read(&PLAN.replace("WORKERS", workers))
}

fn cluster(config: &Config) -> Cluster {
    config.cluster().unwrap()
}

#[test]
fn the_plans_file_is_taken_as_it_is() {
    let loaded = plan(&format!("[{CPU}, {GPU}]"));
    assert_eq!(loaded.warnings, [""; 0]);
    let config = &loaded.config;
    assert_eq!((config.name(), config.platform()), ("hyperscaler", PlatformKind::Kubernetes));
    let cluster = cluster(config);
    let names: Vec<(&str, Role)> = cluster.nodes.iter().map(|node| (&*node.name, node.role)).collect();
    assert_eq!(
        names,
        [
            ("cloud-cluster-control-plane", Role::ControlPlane),
            ("cloud-cluster-cpu-worker-01", Role::CpuWorker),
            ("cloud-cluster-gpu-worker-01", Role::GpuWorker),
        ]
    );
    let Machine::Virtual(machine) = &cluster.nodes[2].machine else { panic!("it is virtual") };
    assert_eq!((machine.cpus, machine.memory_mib, machine.disk_gib), (8, 16 * 1024, 200));
    assert_eq!((machine.address, machine.auto_start), (None, false));
    let devices: Vec<(String, DeviceKind)> =
        machine.devices.iter().map(|device| (device.address.to_string(), device.kind)).collect();
    assert_eq!(devices, [("0000:65:00.0".to_owned(), DeviceKind::Gpu), ("0000:65:00.1".to_owned(), DeviceKind::Audio)]);
    let gpu = &machine.devices[0];
    assert_eq!((gpu.vendor_id.as_deref(), gpu.device_id.as_deref()), (Some("10de"), Some("2684")));
    let virtualization = cluster.virtualization.unwrap();
    let network = virtualization.network;
    assert_eq!((network.mode, network.gateway.to_string()), (NetworkMode::Nat, "192.168.200.1".to_owned()));
    assert_eq!(network.dhcp.map(|(first, last)| format!("{first} {last}")).unwrap(), "192.168.200.2 192.168.200.254");
    assert_eq!(virtualization.uri, "qemu:///system");
    assert!(virtualization.hardware.hugepages && virtualization.hardware.cpu_pinning && virtualization.hardware.kvm);
    assert_eq!(cluster.kubernetes.pod_subnet.to_string(), "10.233.64.0/18");
    assert_eq!(cluster.kubernetes.service_subnet.to_string(), "10.233.0.0/18");
}

#[test]
fn both_spellings_of_workers_are_one_cluster() {
    let (list, kinds) = (plan(&format!("[{CPU}, {GPU}]")), plan(&format!("{{gpu: [{GPU}], cpu: [{CPU}]}}")));
    assert_eq!(cluster(&list.config), cluster(&kinds.config));
    assert_eq!(kinds.warnings.len(), 1);
    assert!(kinds.warnings[0].starts_with("c.yaml:18:19: "), "{}", kinds.warnings[0]);
    let spelled = PLAN.replace("ip_address: 192.168.200.10", "ip: 192.168.200.10").replace("\"1.0\"", "1");
    let spelled = read(&spelled.replace("WORKERS", &format!("[{CPU}, {GPU}]").replace("ip:", "ip_address:")));
    assert_eq!(cluster(&list.config), cluster(&spelled.config));
}

#[test]
fn what_is_written_again_reads_the_same() {
    let workers = [format!("[{CPU}, {GPU}]"), format!("{{cpu: [{CPU}], gpu: [{GPU}]}}")];
    for config in workers.map(|workers| plan(&workers).config) {
        let text = serde_json::to_string(&config.clusters).unwrap();
        let again: super::ClustersConfig = serde_json::from_str(&text).unwrap();
        assert_eq!(Some(again), config.clusters);
    }
}

#[test]
fn several_control_planes_are_numbered() {
    let node = |last: u8| format!("{{cpu_cores: 4, memory_gb: 8, disk_gb: 100, ip: 192.168.200.{last}}}");
    let planes = format!("control_plane: [{}, {}, {}]", node(20), node(21), node(22));
    let text =
        PLAN.replace("control_plane: {cpu_cores: 4, memory_gb: 8, disk_gb: 100, ip_address: 192.168.200.10}", &planes);
    let cluster =
        cluster(&read(&text.replace("WORKERS", &format!("[{CPU}, {CPU2}]", CPU2 = CPU.replace(".11", ".12")))).config);
    let names: Vec<&str> = cluster.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(
        names,
        [
            "cloud-cluster-control-plane-01",
            "cloud-cluster-control-plane-02",
            "cloud-cluster-control-plane-03",
            "cloud-cluster-cpu-worker-01",
            "cloud-cluster-cpu-worker-02",
        ]
    );
}

#[test]
fn given_hosts_make_a_cluster_without_a_hypervisor() {
    let text =
        "{version: 1, name: own, clusters: {cloud: {name: cloud, control_plane: {host: {address: n1.example.org}},
        worker_nodes: [{host: {address: 192.0.2.2, port: 2222, user: debian, key: /k, internal_address: 10.1.0.2}},
        {host: {address: 192.0.2.3, gpu: true}}],
        kubernetes_config: {cni: flannel, ingress: none, storage_class: local-path}}}}";
    let loaded = read(text);
    assert_eq!(loaded.warnings, [""; 0]);
    let cluster = cluster(&loaded.config);
    assert_eq!(cluster.virtualization, None);
    let hosts: Vec<_> = cluster.given_hosts().map(|(node, host)| (&*node.name, host)).collect();
    assert_eq!(
        hosts.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["cloud-control-plane", "cloud-cpu-worker-01", "cloud-gpu-worker-01"]
    );
    assert_eq!((&*hosts[0].1.address, hosts[0].1.port, &*hosts[0].1.user), ("n1.example.org", 22, "root"));
    assert_eq!(hosts[1].1.internal_address, Some("10.1.0.2".parse().unwrap()));
    let network = "network: {subnet: 10.9.0.0/24, bridge: br0, dns_mode: shared}, kubernetes_config";
    let loaded = read(&text.replace("kubernetes_config", network));
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings.iter().all(|warning| warning.contains("no effect")), "{:?}", loaded.warnings);
}

#[test]
fn the_worked_example_is_valid_and_so_is_its_other_half() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/workstation.yaml");
    let loaded = load(&file, true).map_err(|error| error.render()).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let cluster = cluster(&loaded.config);
    let roles: Vec<Role> = cluster.nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::ControlPlane, Role::CpuWorker, Role::GpuWorker]);
    let (_, gpu) = cluster.virtual_machines().last().unwrap();
    assert!(gpu.has_gpu() && gpu.devices.len() == 2 && !gpu.auto_start);
    // Comments that are settings too.
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, given) = text.split_once("    # control_plane:\n").unwrap();
    let (given, rest) = given.split_once("\n\n").unwrap();
    let given = format!("    # control_plane:\n{given}\n").replace("    # ", "    ");
    let kubernetes = &rest[rest.find("    kubernetes_config:").unwrap()..];
    let head = &head[..head.find("    hardware:").unwrap()];
    let loaded = read(&format!("{head}{given}{kubernetes}"));
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(loaded.config.cluster().unwrap().given_hosts().count(), 3);
    for optional in ["hypervisor_uri: ", "storage_pool_path: ", "base_image_path: ", "dns_servers: ", "source: {"] {
        let commented = format!("# {optional}");
        assert!(text.contains(&commented), "{optional}");
        read(&text.replace(&commented, optional));
    }
}

#[test]
fn versions_are_read_in_all_spellings() {
    for (spelled, good) in [
        ("1", true),
        ("1.0", true),
        ("\"1\"", true),
        ("\"1.0\"", true),
        ("\"2.0\"", false),
        ("1.5", false),
        ("one", false),
    ] {
        assert_eq!(parse(&format!("version: {spelled}\nname: local\n"), "c.yaml").is_ok(), good, "{spelled}");
    }
}

#[test]
fn platform_and_clusters_fit() {
    let config = Config::default();
    assert!(config.platform() == PlatformKind::Local && config.cluster().is_none());
    let error = |text: &str| parse(text, "c.yaml").unwrap_err().render();
    assert!(error("{version: 1, name: a, platform: kubernetes}").contains("needs nodes"));
    assert!(error("{version: 1, name: a, clusters: {}}").contains("no cluster in it"));
    assert!(error("{version: 1, name: a, clusters: {hpc: {name: b}}}").contains("not made by this program"));
    let local = PLAN.replace("WORKERS", &format!("[{CPU}]")).replace("global:", "platform: local\nglobal:");
    assert!(error(&local).contains("contradict"));
    let spaces = PLAN.replace("WORKERS", &format!("[{CPU}]")).replace("name: hyperscaler", "name: My workstation");
    assert!(error(&spaces).contains("set `name` besides"));
    assert_eq!(read(&format!("name: mine\n{spaces}")).config.name(), "mine");
}

#[test]
fn the_schema_knows_clusters() {
    let schema = schemars::schema_for!(Config).to_value();
    let text = schema.to_string();
    for word in ["pcie_passthrough", "internal_address", "gpu_driver", "service_subnet", "kubernetes", "by default"] {
        assert!(text.contains(word), "{word}");
    }
    let cloud = &schema["$defs"]["CloudClusterConfig"];
    assert_eq!(cloud["required"], serde_json::json!(["name", "control_plane", "worker_nodes", "kubernetes_config"]));
    assert_eq!(cloud["additionalProperties"], false);
    assert_eq!(schema["$defs"]["NodeConfig"]["properties"]["disk_gb"]["minimum"], 10);
}

#[test]
fn the_files_in_the_documentation_are_valid() {
    let page = include_str!("../../../../../docs/workstation.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let whole: Vec<&&str> = blocks.iter().filter(|block| block.starts_with("version: ")).collect();
    assert!(whole.len() >= 2);
    for text in whole {
        let loaded = read(text);
        assert!(loaded.warnings.is_empty() && loaded.config.cluster().is_some(), "{text}");
    }
}

#[test]
fn the_documentation_has_every_setting() {
    let page = include_str!("../../../../../docs/workstation.md");
    let schema = schemars::schema_for!(super::ClustersConfig).to_value();
    let kinds = schema["$defs"].as_object().unwrap();
    let fields = kinds.values().filter_map(|kind| kind["properties"].as_object()).flat_map(|fields| fields.keys());
    let missing: Vec<&String> = fields.filter(|field| !page.contains(&***field)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
