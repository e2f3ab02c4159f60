//! What a cluster asks of the host, on made-up hosts.

use std::path::Path;

use super::super::{HostView, Route, host_problems};
use super::{CPU, GPU, PLAN, read};

struct Host {
    folder: tempfile::TempDir,
    view: HostView,
    text: String,
}

/// A host that has all that the plan's file asks for.
fn host() -> Host {
    let folder = tempfile::tempdir().unwrap();
    let sysfs = folder.path().join("sys");
    for (device, id) in [("0000:65:00.0", "0x2684"), ("0000:65:00.1", "0x22ba")] {
        let at = sysfs.join("bus/pci/devices").join(device);
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join("vendor"), "0x10de\n").unwrap();
        std::fs::write(at.join("device"), format!("{id}\n")).unwrap();
        std::os::unix::fs::symlink("../../../kernel/iommu_groups/17", at.join("iommu_group")).unwrap();
    }
    let image = folder.path().join("base.qcow2");
    std::fs::write(&image, b"QFI\xfb\0\0\0\x03").unwrap();
    let text = PLAN.replace("/images/cloud-base.qcow2", &image.display().to_string());
    let text = text.replace("WORKERS", &format!("[{CPU}, {}]", GPU.replace('\n', " ")));
    let view = HostView { memory_mib: Some(24 * 1024), routes: Vec::new(), sysfs, pool: None };
    Host { folder, view, text }
}

impl Host {
    fn problems(&self) -> Vec<String> {
        let file = self.folder.path().join("c.yaml");
        std::fs::write(&file, &self.text).unwrap();
        let problems = host_problems(&file, &read(&self.text).config, &self.view);
        let folder = format!("{}/", self.folder.path().display());
        assert!(problems.iter().all(|problem| problem.hint.is_some()));
        problems.into_iter().map(|problem| problem.message.replace(&folder, "")).collect()
    }

    fn route(&mut self, device: &str, subnet: &str, through_gateway: bool) {
        let subnet = subnet.parse().unwrap();
        self.view.routes.push(Route { device: device.to_owned(), subnet, through_gateway });
    }
}

#[test]
fn a_fit_host_has_no_problem() {
    let mut host = host();
    host.route("virbr200", "192.168.200.0/24", false);
    host.route("tun0", "10.0.0.0/8", true);
    host.route("eth0", "172.16.0.0/12", false);
    assert_eq!(host.problems(), [""; 0]);
}

#[test]
fn all_that_is_missing_is_told_with_its_place() {
    let mut host = host();
    host.view.memory_mib = Some(12 * 1024);
    host.route("eth0", "192.168.0.0/16", false);
    host.route("tun0", "10.233.10.0/24", true);
    let gpu = host.view.sysfs.join("bus/pci/devices/0000:65:00.0");
    std::fs::write(gpu.join("device"), "0x2204\n").unwrap();
    std::fs::remove_file(gpu.join("iommu_group")).unwrap();
    std::fs::remove_dir_all(host.view.sysfs.join("bus/pci/devices/0000:65:00.1")).unwrap();
    std::fs::write(host.folder.path().join("base.qcow2"), b"raw").unwrap();
    crate::testing::snapshot("config-host-problems", &host.problems().join("\n"));
}

#[test]
fn only_machines_that_start_by_themselves_need_their_memory_together() {
    let mut host = host();
    host.view.memory_mib = Some(24 * 1024);
    assert_eq!(host.problems(), [""; 0], "the third one has 16 GiB, and stays off");
    host.text = host.text.replace("auto_start: false", "auto_start: true");
    let problems = host.problems();
    assert!(problems.len() == 1 && problems[0].contains("cloud-cluster-gpu-worker-01"), "{problems:?}");
}

#[test]
fn an_image_that_is_gone_is_told() {
    let host = host();
    std::fs::remove_file(host.folder.path().join("base.qcow2")).unwrap();
    let problems = host.problems();
    assert!(problems.len() == 1 && problems[0].starts_with("c.yaml:14:22: cannot read"), "{problems:?}");
}

#[test]
fn a_bridge_must_be_there_only_if_none_is_made() {
    let mut host = host();
    host.text = host.text.replace("bridge: virbr200,", "bridge: br0, mode: bridge,");
    let problems = host.problems();
    assert!(problems.len() == 1 && problems[0].contains("there is no bridge br0"), "{problems:?}");
    std::fs::create_dir_all(host.view.sysfs.join("class/net/br0/bridge")).unwrap();
    assert_eq!(host.problems(), [""; 0]);
}

#[test]
fn a_key_that_is_missing_is_told() {
    let mut host = host();
    host.text = format!(
        "version: 1\nname: a\nclusters:\n  cloud:\n    name: a\n    control_plane: {{host: {{address: n1, key: {0}}}}}\n    \
         worker_nodes: [{{host: {{address: n2, key: {0}.gone}}}}]\n    \
         kubernetes_config: {{cni: calico, ingress: none, storage_class: a}}\n",
        host.folder.path().join("base.qcow2").display()
    );
    let problems = host.problems();
    assert!(problems.len() == 1 && problems[0].contains("there is no key base.qcow2.gone"), "{problems:?}");
}

#[test]
fn a_disk_that_is_there_has_its_room_already() {
    let mut host = host();
    let pool = host.folder.path().join("pool");
    let free = nix::sys::statvfs::statvfs(host.folder.path()).unwrap();
    let free = free.blocks_available() * free.fragment_size() / (1 << 30);
    let workers = usize::try_from(free / 4).unwrap() + 1;
    let worker = |at: usize| format!("{{cpu_cores: 1, memory_gb: 2, disk_gb: 10, auto_start: {}}}", at > workers);
    let list: Vec<String> = (0..workers).map(worker).collect();
    host.text =
        PLAN.replace("WORKERS", &format!("[{}]", list.join(", "))).replace("192.168.200.0/24", "192.168.192.0/20");
    host.text = host.text.replace("    base_image_path: /images/cloud-base.qcow2\n", "");
    host.text = host.text.replace("storage_class: local-path", "storage_class: a, pod_subnet: 10.128.0.0/10");
    host.view = host.view.with_pool(&pool);
    let problems = host.problems();
    assert!(problems.len() == 1 && problems[0].contains("GiB free"), "{problems:?}");
    std::fs::create_dir_all(&pool).unwrap();
    for at in 1..=workers {
        std::fs::write(pool.join(format!("cloud-cluster-cpu-worker-{at:02}.qcow2")), "").unwrap();
    }
    assert_eq!(host.problems(), [""; 0]);
}

#[test]
fn this_host_can_be_seen() {
    let view = HostView::of_this_host();
    assert!(view.memory_mib.is_some_and(|memory| memory > 100));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/workstation.yaml");
    let config = super::load(&file, true).map_err(|error| error.render()).unwrap().config;
    let problems = host_problems(&file, &config, &view);
    let place = format!("{}:", file.display());
    assert!(problems.iter().all(|problem| problem.message.starts_with(&place)), "{problems:?}");
    assert!(view.sysfs == Path::new("/sys") && view.routes.iter().all(|route| route.subnet.prefix_len() > 0));
}
