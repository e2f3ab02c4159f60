//! Disk images of virtual machines, and what tells a machine who it is when it first boots from one.
//!
//! An image is known by the key of what it is made from: the same source, scripts and settings are built once. Packer
//! boots the source and installs inside it where KVM works; where processors are emulated, the slow part is done
//! natively, in a chroot, and Packer boots the result.

pub mod accelerator;
pub mod build;
pub mod check;
pub mod description;
pub mod native;
pub mod packer;
pub mod recipe;
pub mod record;
pub mod seed;
pub mod settings;
pub mod source;

use std::path::{Path, PathBuf};

use taskrun_engine::task::Problem;

use crate::phase0;

/// QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";

/// The folder of an environment's images.
pub fn folder(state: &Path) -> PathBuf {
    state.join("images")
}

/// What this machine lacks to build images and to boot them.
pub fn missing_programs() -> Vec<Problem> {
    let programs = [
        ("packer", "packer"),
        ("qemu-img", "qemu-utils"),
        (QEMU, "qemu-system-x86"),
        ("ssh", "openssh-client"),
        ("ssh-keygen", "openssh-client"),
    ];
    phase0::missing_programs(&programs).into_iter().chain(seed::missing_program()).collect()
}
