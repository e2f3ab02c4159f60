//! A real build: Debian from its packages, installed natively, booted by Packer, and two clones of the result.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{CPU_WORKER, images, record, stand};
use crate::program::Stand;
use crate::virtual_host::image;

const GPU_WORKER: &str = "[{cpu_cores: 2, memory_gb: 4, disk_gb: 20, ip: DHCP, pcie_passthrough: \
     {enabled: true, devices: [{pci_address: '0000:65:00.0', device_type: gpu}]}}]";

fn mounts_below(folder: &Path) -> usize {
    let folder = folder.to_str().unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("mountinfo"));
    all.filter_map(|file| std::fs::read_to_string(file).ok()).filter(|mounts| mounts.contains(folder)).count()
}

/// Waits for minutes.
fn wait_long(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(900);
    while !there() {
        assert!(Instant::now() < deadline, "{what}: it never came");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn build(stand: &Stand, verb: &str) {
    let mut command = stand.command(&["--config", "c.yaml", verb]);
    let status = command.status().unwrap();
    assert!(status.success(), "{verb}: {status}");
}

#[test]
#[ignore = "builds and boots an image: make e2e"]
fn debian_becomes_the_image_of_every_node() {
    let stand = stand(&format!("{{path: {}}}", image().display()), CPU_WORKER);
    let work = stand.state().join("images/.cloud-base.work");
    // Killed while packages are installed.
    let mut run = stand.command(&["--config", "c.yaml", "run"]);
    let mut run = run.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_long("an installation", || mounts_below(&work) > 0);
    std::thread::sleep(Duration::from_secs(3));
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(images(&stand).iter().all(|path| path == &work));

    build(&stand, "resume");
    assert_eq!(mounts_below(&work), 0);
    let [folder] = &images(&stand)[..] else { panic!("{:?}", images(&stand)) };
    let record = record(folder);
    assert_eq!((record["way"].as_str(), record["accelerator"].as_str()), (Some("native"), Some("tcg")));
    assert!(record["size_bytes"].as_u64().unwrap() < 3_000_000_000);
    assert_eq!(record["description"]["running"], record["description"]["kernel"]);

    // Packer is not asked again.
    let start = Instant::now();
    let said = stand.ok(&["--config", "c.yaml", "run"]);
    assert!(start.elapsed() < Duration::from_secs(30), "{}{}", said.out, said.err);
    stand.ok(&["--config", "c.yaml", "destroy", "--yes"]);
    assert!(!stand.state().join("images").exists());
}

#[test]
#[ignore = "builds the NVIDIA driver and boots an image: make e2e"]
fn the_image_of_gpu_workers_has_the_driver_for_its_kernel() {
    let stand = stand(&format!("{{path: {}}}", image().display()), GPU_WORKER);
    build(&stand, "run");
    let folders = images(&stand);
    let gpu = folders.iter().find(|folder| folder.join("cloud-gpu-worker.qcow2").exists()).unwrap();
    let record = record(gpu);
    let (kernel, held) = (record["description"]["kernel"].as_str().unwrap(), &record["description"]["held"]);
    assert!(held.as_array().unwrap().iter().any(|package| package == &format!("linux-image-{kernel}")), "{held}");
    stand.ok(&["--config", "c.yaml", "destroy", "--yes"]);
}
