//! How QEMU runs a machine: by KVM where that works, which only a boot tells, or emulated.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;

use super::QEMU;
use crate::tools::files;

/// How long a kernel may take by KVM until it says a word.
const BOOT: Duration = Duration::from_secs(90);

/// What a kernel or the system says on the serial console when it runs.
const SIGNS: [&str; 3] = ["Linux version", "systemd[1]:", "login:"];

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

    /// The one that works here. `image` is a disk image to try with; it is not changed. `folder` is for temporary files.
    ///
    /// # Errors
    /// The disk refuses, or the run was asked to stop.
    pub async fn find(view: &View, allowed: bool, image: &Path, folder: &Path) -> Result<Self, Failure> {
        if !allowed {
            view.say("the configuration wants no KVM: machines are emulated");
            return Ok(Self::Tcg);
        }
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if let Err(error) = device {
            view.say(format!("machines are emulated: /dev/kvm cannot be opened: {error}"));
            return Ok(Self::Tcg);
        }
        if boots_by_kvm(view, image, folder).await? {
            return Ok(Self::Kvm);
        }
        view.say(format!("machines are emulated: by KVM no kernel said a word within {BOOT:?}"));
        Ok(Self::Tcg)
    }
}

async fn boots_by_kvm(view: &View, image: &Path, folder: &Path) -> Result<bool, Failure> {
    let console = folder.join("kvm-test.log");
    files::remove(&console)?;
    let boot = Command::new(QEMU)
        .args(["-nodefaults", "-display", "none", "-accel", "kvm", "-cpu", "host", "-m", "512", "-snapshot"])
        .arg("-drive")
        .arg(format!("file={},if=virtio", quote(image)))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .env("TMPDIR", folder)
        .timeout(BOOT)
        .grace(Duration::from_secs(2));
    let spoke = || {
        let said = std::fs::read(&console).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        SIGNS.iter().any(|sign| said.contains(sign))
    };
    let pid = folder.join("kvm-test.pid");
    let boot = boot.arg("-pidfile").arg(&pid);
    let ended = AtomicBool::new(false);
    let machine = async {
        let _ = view.command(boot).await;
        ended.store(true, Ordering::Relaxed);
    };
    // Where nothing is said, the command's time ends the machine.
    let watch = async {
        while !ended.load(Ordering::Relaxed) {
            if spoke() {
                end(&pid);
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::join!(machine, watch);
    view.safe_point()?;
    Ok(spoke())
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
