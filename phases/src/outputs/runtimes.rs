//! Environments that programs run in, and the devices that they may use.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

/// A Python environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonEnvironment {
    /// Its folder.
    pub folder: PathBuf,
    /// The version of Python, such as `3.11.2`.
    pub python: String,
}

impl PythonEnvironment {
    /// One of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }
}

impl Output for PythonEnvironment {
    const KIND: &'static str = "python-environment";
}

/// CLOUD-2.2: the GPUs of the platform, divided into slots for services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerators {
    /// The version of the driver, such as `570.86.15`.
    pub driver: String,
    /// The newest CUDA version that the driver supports, such as `12.8`.
    pub cuda: String,
    /// The devices.
    pub devices: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number, as in CUDA_VISIBLE_DEVICES.
    pub index: u32,
    /// Its UUID, which CUDA_VISIBLE_DEVICES takes too: `GPU-…`.
    pub uuid: String,
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Whether it is partitioned by MIG (Multi-Instance GPU).
    pub mig: bool,
    /// How many services may share it (time-slicing); each may use an equal share of the memory.
    pub slots: u32,
}

impl Accelerators {
    /// All slots, as pairs of device and the memory share of a slot in MiB.
    pub fn slots(&self) -> impl Iterator<Item = (&Gpu, u64)> {
        self.devices.iter().flat_map(|gpu| (0..gpu.slots).map(move |_| (gpu, gpu.memory_mib / u64::from(gpu.slots))))
    }
}

impl Output for Accelerators {
    const KIND: &'static str = "accelerators";
}
