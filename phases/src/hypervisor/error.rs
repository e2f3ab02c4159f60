//! Why a hypervisor did not do what was asked.

use std::time::Duration;

use taskrun_engine::outcome::{Failure, Persistence};

/// Why a hypervisor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// It cannot be reached.
    #[error("connect to the hypervisor at {uri}: {message}")]
    Connect {
        /// Where.
        uri: String,
        /// What it says.
        message: String,
    },
    /// It refused.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// What it says.
        message: String,
        /// Whether the same may succeed later.
        transient: bool,
    },
    /// It took too long.
    #[error("{what}: no answer after {after:?}")]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// This program cannot talk to it.
    #[error("talk to libvirt: this program was built without it")]
    NotBuilt,
}

impl HypervisorError {
    /// A refusal that stays one.
    pub fn refused(what: impl Into<String>, message: impl ToString) -> Self {
        Self::Refused { what: what.into(), message: message.to_string(), transient: false }
    }

    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => !self.is_denied(),
            Self::Refused { transient, .. } => *transient,
            Self::TimedOut { .. } => true,
            Self::NotBuilt => false,
        }
    }

    /// What mends it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connect { .. } if self.is_denied() => {
                Some("add yourself to the group that may use libvirt, then log in again: adduser \"$USER\" libvirt")
            }
            Self::Connect { .. } => Some(
                "start it: systemctl start libvirtd; where it is not installed: apt-get install \
                 libvirt-daemon-system qemu-system-x86",
            ),
            Self::NotBuilt => Some("build it with libvirt: make build-workstation"),
            Self::TimedOut { .. } => {
                Some("see whether libvirt still answers: virsh list; if not: systemctl restart libvirtd")
            }
            Self::Refused { .. } => None,
        }
    }

    /// It, as the error of a task.
    pub fn into_failure(self) -> Failure {
        let persistence = if self.is_transient() { Persistence::Transient } else { Persistence::Permanent };
        let failure = Failure::new(persistence, self.to_string());
        match self.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }

    fn is_denied(&self) -> bool {
        let Self::Connect { message, .. } = self else { return false };
        ["Permission denied", "authentication", "access denied"].iter().any(|word| message.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_connect_is_told_the_group() {
        let connect =
            |message: &str| HypervisorError::Connect { uri: "qemu:///system".into(), message: message.into() };
        let denied =
            connect("Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied").into_failure();
        assert!(!denied.is_transient() && denied.hint.unwrap().contains("adduser"));
        let down =
            connect("Failed to connect socket to '/run/libvirt/libvirt-sock': Connection refused").into_failure();
        assert!(down.is_transient() && down.hint.unwrap().contains("systemctl start libvirtd"));
    }
}
