//! How a command ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::command::Command;
use super::error::CommandError;
use super::id::ProcessId;

/// A command ran to its own end, well or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code or the signal that ended it.
    pub status: Status,
    /// From before its start to its end.
    pub duration: Duration,
    /// The last lines of its output: at most 20 and at most 8 KiB, without secrets.
    pub tail: String,
    /// Background processes that it left behind and that were noticed ([`Command::run`] says which are). They were
    /// ended, unless the command may [leave them](Command::leave_background).
    pub leftovers: Vec<ProcessId>,
}

/// The end of a process, as its parent is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ended by itself with this code; 0 means success.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Takes anything but exit code 0 as an error. `command` is the one that was run.
    ///
    /// # Errors
    /// [`CommandError::Failed`].
    pub fn check(self, command: &Command) -> Result<Self, CommandError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(CommandError::Failed { command: command.to_string(), status: self.status, tail: self.tail })
    }
}

impl Status {
    /// Whether it is exit code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Code(code),
            None => Self::Signal(status.signal().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_well() {
        assert_eq!(Status::from(ExitStatus::from_raw(3 << 8)).to_string(), "exit code 3");
        assert_eq!(Status::from(ExitStatus::from_raw(9)).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(Status::Signal(40).to_string(), "signal 40");
        assert!(Status::Code(0).is_success() && !Status::Signal(0).is_success());
    }
}
