//! What can go wrong with a journal.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::MAX_PAYLOAD;
use super::header::Identity;

/// Any error of the caller's fold.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file is damaged before its tail. Nothing of it was changed.
    #[error("{} is damaged at byte {offset}: expected {expected}", path.display())]
    Damaged {
        /// The journal's file.
        path: PathBuf,
        /// Where the first part that does not add up begins, in bytes from the start of the file.
        offset: u64,
        /// What should be there.
        expected: String,
    },
    /// The file was written by a newer program.
    #[error("{} has format version {found}, but this program reads versions up to {known}", path.display())]
    TooNew {
        /// The journal's file.
        path: PathBuf,
        /// The version of the file.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The state folder is that of another environment or platform.
    #[error("{} belongs to {found}, not to {wanted}", path.display())]
    Foreign {
        /// The journal's file.
        path: PathBuf,
        /// Whose journal it is.
        found: Identity,
        /// Whose journal was asked for.
        wanted: Identity,
    },
    /// The caller's fold refused an intact frame.
    #[error("frame {seq} at byte {offset} of {} cannot be read", path.display())]
    Record {
        /// The journal's file.
        path: PathBuf,
        /// The frame's sequence number.
        seq: u64,
        /// Where the frame begins, in bytes from the start of the file.
        offset: u64,
        /// What the fold said.
        source: BoxError,
    },
    /// The payload is longer than a frame can hold; nothing was written.
    #[error("a frame holds at most {MAX_PAYLOAD} bytes, not {bytes}")]
    TooLarge {
        /// The payload's length.
        bytes: usize,
    },
    /// The disk refused. After a failed append the writer refuses everything with this first error.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl JournalError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Damaged { .. } | Self::Record { .. } => {
                Some("set the file aside and rebuild the state from what exists: taskrun recover")
            }
            Self::TooNew { .. } => Some("use the newer taskrun that wrote it"),
            Self::Foreign { .. } => Some("give each environment a state folder of its own: --state-dir"),
            Self::Io { .. } => Some("check free space, permissions and health of the disk, then resume"),
            Self::TooLarge { .. } => None,
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { action, path: path.to_owned(), source: Arc::new(error) }
    }

    pub(super) fn damaged(path: &Path, offset: u64, expected: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, expected: expected.into() }
    }
}
