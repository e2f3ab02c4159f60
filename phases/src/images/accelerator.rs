//! How QEMU runs a machine: by KVM where that works, which only a boot tells, or emulated.

use std::path::Path;

use serde::{Deserialize, Serialize};
use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;

use crate::hypervisor::kvm::{Kvm, kvm_works};

/// How QEMU runs a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// On the host's processors.
    Kvm,
    /// Emulated, about 20 times slower.
    Tcg,
}

impl Accelerator {
    /// QEMU's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The model of processor that has all that it can do.
    pub fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }

    /// The one that works here, unless KVM is not `allowed`.
    ///
    /// # Errors
    /// The run was asked to stop.
    pub async fn find(view: &View, allowed: bool) -> Result<Self, Failure> {
        if !allowed {
            view.say("the configuration wants no KVM: machines are emulated");
            return Ok(Self::Tcg);
        }
        let found = kvm_works(view, "host", None).await;
        view.safe_point()?;
        Ok(match found {
            Kvm::Works(_) => Self::Kvm,
            Kvm::Absent(why) | Kvm::Broken(why) => {
                view.say(format!("machines are emulated: {why}"));
                Self::Tcg
            }
        })
    }
}

/// Ends the QEMU that wrote `pid`.
pub(super) fn end(pid: &Path) {
    let pid = std::fs::read_to_string(pid).ok().and_then(|text| text.trim().parse().ok());
    if let Some(pid) = pid {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
}

/// A path as QEMU's options have it: a comma is written twice.
pub(super) fn quote(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
