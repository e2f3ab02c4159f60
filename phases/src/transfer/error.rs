//! Why a transfer failed, and what to try.

use std::io;
use std::path::PathBuf;

use super::manifest::ManifestError;
use super::scan::ScanError;
use crate::tools::mlflow::MlflowError;
use crate::tools::s3::S3Error;

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The name cannot be that of a model.
    #[error(
        "`{name}` is not the name of a model: it takes 1 to 64 letters, digits, `.`, `-` and `_`, a letter or digit first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The source cannot be sent.
    #[error(transparent)]
    Source(#[from] ScanError),
    /// A file of the source cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Files never stayed as they were for long enough to be sent.
    #[error("{path} and {others} more keep changing while they are sent")]
    Restless {
        /// One of them.
        path: String,
        /// How many others there are.
        others: usize,
    },
    /// The store lists another object than the one that it was sent, again and again.
    #[error("the store does not keep {path} as it was sent")]
    Unkept {
        /// The file.
        path: String,
    },
    /// Objects stand where files are to be sent.
    #[error("the store has a file where the source has a folder, or the other way round: {path}")]
    InTheWay {
        /// One of them.
        path: String,
    },
    /// Another sync of the model is under way.
    #[error("another sync of {model} is under way")]
    Locked {
        /// The model.
        model: String,
    },
    /// What is remembered cannot be read or written.
    #[error("remember the sync in {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest in the store was not made by this program.
    #[error("read the manifest {key} in the store")]
    Manifest {
        /// Its key.
        key: String,
        /// Why.
        source: ManifestError,
    },
    /// The object store does not do what it should.
    #[error(transparent)]
    Store(#[from] S3Error),
    /// The registry does not do what it should.
    #[error(transparent)]
    Registry(#[from] MlflowError),
    /// The run was asked to stop.
    #[error("the transfer was stopped; what was sent stays, and the next sync goes on from there")]
    Stopped,
}

impl TransferError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Registry(error) => error.is_transient(),
            Self::Restless { .. } | Self::Locked { .. } => true,
            _ => false,
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Name { .. } => "give another one: --name NAME",
            Self::Source(error) => error.hint(),
            Self::Read { .. } => "let this user read it, or look at the disk",
            Self::Restless { .. } => "wait until the training has ended, then sync again",
            Self::Unkept { .. } => "see whether something else writes there, such as a sync from another machine",
            Self::InTheWay { .. } => "delete what has no file here any more: --delete",
            Self::Locked { .. } => "wait until it has ended",
            Self::State { .. } => "make room on the disk, or let this user write there",
            Self::Manifest { source: ManifestError::Version { .. }, .. } => "use the newer taskrun that wrote it",
            Self::Store(error) if error.is_full() => "make room in the object store; what was sent stays",
            Self::Store(error) if error.is_forbidden() => "let the key be made anew: taskrun run CLOUD-3.1",
            Self::Store(error) if error.is_transient() => "see whether the object store runs: taskrun cloud status",
            Self::Registry(error) if error.is_transient() => "see whether MLflow runs: taskrun cloud status",
            _ => return None,
        })
    }
}
