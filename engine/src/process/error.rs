//! How a command fails.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::exit::Status;
use super::fence::FenceError;

/// Why a command did not end well. Each variant names the command as a shell would write it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("start `{command}`")]
    Spawn {
        /// The command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
        /// What to try.
        hint: Option<String>,
    },
    /// It ended, but not with exit code 0 ([`Exit::check`](super::Exit::check)).
    #[error("run `{command}`: it ended with {status}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: Status,
        /// The last lines of its output.
        tail: String,
    },
    /// It did not end in time, and was ended.
    #[error("run `{command}` within {after:?}")]
    TimedOut {
        /// The command line.
        command: String,
        /// The time that it had.
        after: Duration,
        /// The last lines of its output.
        tail: String,
    },
    /// The [`Cancel`](super::Cancel) token asked to end it, or not to start it at all.
    #[error("run `{command}`: it was cancelled")]
    Cancelled {
        /// The command line.
        command: String,
        /// The last lines of its output.
        tail: String,
    },
    /// Processes that it started could not be ended.
    #[error("end what `{command}` started")]
    Fence {
        /// The command line.
        command: String,
        /// Which processes, and why.
        #[source]
        source: FenceError,
    },
    /// A file that its output was to go to could not be opened.
    #[error("open {path} for the output of `{command}`")]
    Output {
        /// The command line.
        command: String,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Reading its output or waiting for it failed; it was killed.
    #[error("watch `{command}`")]
    Watch {
        /// The command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl CommandError {
    /// What to try, where there is something better than reading the output.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Spawn { hint, .. } => hint.clone(),
            Self::TimedOut { .. } => Some("give it a longer `timeout` if it was only slow".to_owned()),
            Self::Fence { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// The last lines of the command's output, where it had the chance to write any.
    pub fn tail(&self) -> Option<&str> {
        match self {
            Self::Failed { tail, .. } | Self::TimedOut { tail, .. } | Self::Cancelled { tail, .. } => Some(tail),
            _ => None,
        }
    }
}
