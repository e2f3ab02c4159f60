//! A GPU is seen as it is, and what is wrong with its driver is told. A broken driver is a stand-in for its library.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use taskrun_phases::phase2::gpu::VERB;
use taskrun_phases::tools::nvml;
use taskrun_phases::tools::ports::any_free;

use crate::program::{Said, Stand, wait_for};

/// The library of a driver: initialising gives the status in `NVML_INIT`, and there are `NVML_COUNT` devices.
const LIBRARY: &str = r#"
#include <stdlib.h>
static int number(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
int nvmlInit_v2(void) { return number("NVML_INIT"); }
int nvmlInitWithFlags(unsigned flags) { return number("NVML_INIT"); }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("NVML_COUNT"); return 0; }
"#;

struct Driver {
    stand: Stand,
    folder: PathBuf,
}

impl Driver {
    fn new() -> Self {
        let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graph.yaml");
        let stand = Stand::new(&std::fs::read_to_string(graph).unwrap());
        std::fs::write(stand.path().join("c.yaml"), "version: 1\nname: local\n").unwrap();
        let folder = stand.path().join("driver");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("nvml.c"), LIBRARY).unwrap();
        let library = folder.join("libnvidia-ml.so.1");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(folder.join("nvml.c")).status();
        assert!(built.unwrap().success());
        std::os::unix::fs::symlink(&library, folder.join("libnvidia-ml.so")).unwrap();
        Self { stand, folder }
    }

    fn run(&self, init: u32, count: u32, args: &[&str]) -> Said {
        let mut command = self.stand.command(&[&["--config", "c.yaml"], args].concat());
        command.env("LD_LIBRARY_PATH", &self.folder);
        let ran = command.env("NVML_INIT", init.to_string()).env("NVML_COUNT", count.to_string()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { out: text(ran.stdout), err: text(ran.stderr), code: ran.status.code() }
    }
}

#[test]
fn a_driver_without_device_files_is_told_with_its_remedy_before_anything_starts() {
    // Where there is a driver, there are device files.
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let driver = Driver::new();
    let said = driver.run(0, 1, &["run", "--until", "CLOUD-2.2"]);
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(said.err.contains("CLOUD-2.2") && said.err.contains("has no device files"), "{}", said.err);
    assert!(said.err.contains("nvidia-modprobe"), "{}", said.err);
    assert!(!driver.stand.state().join("services").exists());
}

#[test]
fn without_a_usable_gpu_the_plan_says_why() {
    let driver = Driver::new();
    for (init, count, why) in [
        (9, 1, "its module is not loaded"),
        (18, 1, "the NVIDIA driver does not answer"),
        (0, 0, "no NVIDIA GPU is in this machine"),
    ] {
        let said = driver.run(init, count, &["plan", "--until", "CLOUD-2.2"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains(why), "{why}: {}", said.out);
    }
}

/// Where there is a GPU, `nvidia-smi` says the same of it as the program does.
#[test]
fn a_real_gpu_is_seen_as_nvidia_smi_sees_it() {
    const FIELDS: &str = "index,uuid,name,driver_version,memory.total,mig.mode.current,temperature.gpu,memory.used";
    let ask = ["--format=csv,noheader,nounits", &format!("--query-gpu={FIELDS}")];
    let Ok(told) = Command::new("nvidia-smi").args(ask).output() else { return };
    if !told.status.success() {
        return;
    }
    let told = String::from_utf8(told.stdout).unwrap();
    let found = nvml::accelerators(&nvml::open().unwrap(), 4).unwrap();

    let port = any_free().unwrap();
    let exporter = Command::new(env!("CARGO_BIN_EXE_taskrun")).args([VERB, &port.to_string()]).spawn().unwrap();
    let exporter = Ending(exporter);
    wait_for(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
    let metrics = get(port, "/metrics");
    drop(exporter);

    assert!(!told.trim().is_empty());
    for row in told.lines() {
        let row: Vec<&str> = row.split(", ").collect();
        let &[index, uuid, name, driver, memory_mib, mig, celsius, used_mib] = row.as_slice() else {
            panic!("{row:?}")
        };
        assert_eq!(found.driver, driver);
        let mut devices = found.devices.iter().filter(|gpu| gpu.index.to_string() == index);
        if mig == "Enabled" {
            assert!(devices.all(|gpu| gpu.mig && gpu.uuid.starts_with("MIG-")), "{found:?}");
        } else {
            let gpu = devices.next().unwrap();
            assert_eq!((&*gpu.uuid, &*gpu.name, gpu.mig, gpu.slots), (uuid, name, false, 4));
            // What the driver keeps for itself is told apart by newer versions.
            assert!(gpu.memory_mib.abs_diff(memory_mib.parse().unwrap()) <= 1024, "{gpu:?}: {memory_mib}");
        }
        let figure = |metric: &str| -> f64 {
            let series = format!("{metric}{{gpu=\"{index}\",UUID=\"{uuid}\",modelName=\"{name}\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
            line.unwrap_or_else(|| panic!("no {series}in {metrics}")).parse().unwrap()
        };
        let near = |metric: &str, told: &str, by: f64| {
            let (ours, theirs) = (figure(metric), told.parse::<f64>().unwrap());
            assert!((ours - theirs).abs() <= by, "{metric}: {ours}, nvidia-smi: {theirs}");
        };
        near("DCGM_FI_DEV_GPU_TEMP", celsius, 10.0);
        near("DCGM_FI_DEV_FB_USED", used_mib, 1024.0);
        assert!((0.0..=100.0).contains(&figure("DCGM_FI_DEV_GPU_UTIL")));
        assert!((0.0..=100.0).contains(&figure("DCGM_FI_DEV_MEM_COPY_UTIL")));
        assert!((1.0..=2000.0).contains(&figure("DCGM_FI_DEV_POWER_USAGE")));
        assert!(figure("DCGM_FI_DEV_FB_FREE") > 0.0);
    }
    // The two ways to say how many there are.
    let indices: BTreeSet<u32> = found.devices.iter().map(|gpu| gpu.index).collect();
    assert_eq!(indices.len(), told.lines().count());
}

/// Ends with the value.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
