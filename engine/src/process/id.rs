//! Which process, beyond re-use of its pid.

use std::fmt;
use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::table::Entry;

/// One process of one boot of this machine: a pid alone comes to mean another process sooner or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id, as the kernel numbers it.
    pub pid: u32,
    /// When the process started, in clock ticks after boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The boot that the two others refer to.
    pub boot_id: BootId,
}

/// The kernel's random name for the time between two boots (`/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(u128);

/// A text is no [`BootId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no boot id")]
pub struct BootIdError(String);

impl ProcessId {
    /// This very process.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// The process that has the pid `pid` now, also one that has ended and was not yet waited for.
    ///
    /// # Errors
    /// There is none, or `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_time: Entry::read(pid)?.start_time, boot_id: BootId::current()? })
    }

    /// Whether this very process still runs: same pid, same start time, same boot, and not merely waiting to be reaped.
    pub fn is_alive(&self) -> bool {
        BootId::current().is_ok_and(|boot| boot == self.boot_id)
            && Entry::read(self.pid).is_ok_and(|entry| entry.start_time == self.start_time && entry.is_running())
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

impl BootId {
    /// The boot that is now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        static CURRENT: OnceLock<BootId> = OnceLock::new();
        if let Some(boot) = CURRENT.get() {
            return Ok(*boot);
        }
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = text.trim().parse().map_err(io::Error::other)?;
        Ok(*CURRENT.get_or_init(|| boot))
    }
}

impl std::str::FromStr for BootId {
    type Err = BootIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.replace('-', "");
        match u128::from_str_radix(&digits, 16) {
            Ok(id) if digits.len() == 32 => Ok(Self(id)),
            _ => Err(BootIdError(text.to_owned())),
        }
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for BootId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_a_look_alike_is_not() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_time: me.start_time + 1, ..me }.is_alive(), "the pid was used again");
        assert!(!ProcessId { boot_id: BootId(1), ..me }.is_alive(), "the machine was booted again");
    }

    #[test]
    fn an_ended_process_is_not_alive_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.is_alive());
        child.kill().unwrap();
        let state_is_zombie = || Entry::read(id.pid).is_ok_and(|entry| !entry.is_running());
        while !state_is_zombie() {
            std::thread::yield_now();
        }
        assert!(!id.is_alive());
        child.wait().unwrap();
        assert!(!id.is_alive());
    }

    #[test]
    fn survives_being_written_down() {
        let me = ProcessId::current().unwrap();
        let text = serde_json::to_string(&me).unwrap();
        assert_eq!(serde_json::from_str::<ProcessId>(&text).unwrap(), me);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(me.boot_id.to_string(), boot.trim());
        assert!("12-34".parse::<BootId>().is_err());
    }
}
