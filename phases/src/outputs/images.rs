//! Disk images.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
