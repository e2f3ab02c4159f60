//! The processes of services, found by the mark in their environment: also those that lost their supervisor.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use taskrun_engine::process::ProcessId;

use crate::platform::launch::MARK;

/// A process of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The process.
    pub process: ProcessId,
    /// The service's name.
    pub service: String,
}

/// The value of the mark for a service of the environment in `home`.
pub fn mark(home: &Path, service: &str) -> String {
    format!("{}/{service}", home.display())
}

/// All processes of services of the environment in `home`; of those that this user may look at.
pub fn find(home: &Path) -> Vec<Marked> {
    let prefix = format!("{MARK}={}/", home.display());
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let marked = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let own = environment
            .split(|byte| *byte == 0)
            .find_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix(&prefix).map(str::to_owned));
        let process = ProcessId::of(pid).ok()?;
        Some(Marked { process, service: own? }).filter(|found| found.process.is_alive())
    };
    pids.filter_map(marked).collect()
}

/// Ends the processes of `home` that `which` is true for: TERM, `grace`, then KILL.
///
/// # Errors
/// The ones that are still there.
pub async fn end(home: &Path, which: impl Fn(&Marked) -> bool, grace: Duration) -> Result<usize, Vec<Marked>> {
    let there = || find(home).into_iter().filter(|found| which(found)).collect::<Vec<_>>();
    let count = there().len();
    for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(5))] {
        let deadline = tokio::time::Instant::now() + patience;
        there().iter().for_each(|found| send(found, signal));
        while !there().is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let left = there();
    if left.is_empty() { Ok(count) } else { Err(left) }
}

fn send(found: &Marked, signal: Signal) {
    let Ok(pid) = i32::try_from(found.process.pid) else { return };
    match kill(Pid::from_raw(pid), signal) {
        // It ended by itself in the meantime.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %error, "a process of a service cannot be signalled"),
    }
}
