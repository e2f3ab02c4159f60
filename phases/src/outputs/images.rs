//! What the tasks that build disk images give.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

/// A disk image that virtual machines begin with. It is never changed: their disks are made on top of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Its format: `qcow2`.
    pub format: String,
    /// Its size as a machine sees it, in bytes: disks are at least as large.
    pub virtual_size_bytes: u64,
    /// The size of the file, in bytes.
    pub size_bytes: u64,
    /// The kernel that it boots: `6.12.57+deb13-amd64`.
    pub kernel: String,
    /// The operating system: `Debian GNU/Linux 13 (trixie)`.
    pub os: String,
    /// What is written down of its build.
    pub record: PathBuf,
    /// The key of what it was made from.
    pub key: String,
}

/// CLOUD-1.1: the image of every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// The image.
    pub image: DiskImage,
}

impl Output for BaseImage {
    const KIND: &'static str = "base-image";
}

/// CLOUD-1.2: the image of GPU workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerImage {
    /// The image.
    pub image: DiskImage,
    /// The version of the NVIDIA driver.
    pub driver: String,
}

impl Output for WorkerImage {
    const KIND: &'static str = "worker-image";
}
