//! What is wrong with a GPU's driver is told. No machine of ours has such a driver, so its library is a stand-in.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Said, Stand};

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
