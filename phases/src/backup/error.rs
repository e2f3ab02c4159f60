//! Why a backup or a restore failed, and what to try.

use std::io;
use std::path::{Path, PathBuf};

use taskrun_engine::process::CommandError;
use taskrun_engine::secret::SecretError;

use crate::tools::postgres::PostgresError;
use crate::tools::s3::S3Error;

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder is no backup.
    #[error("{} is no backup: it has no manifest.json", folder.display())]
    NoBackup {
        /// The folder.
        folder: PathBuf,
    },
    /// A part of the backup is not as it was written.
    #[error("the backup is damaged: {}: {found}", path.display())]
    Damaged {
        /// The part.
        path: PathBuf,
        /// How it is not.
        found: String,
    },
    /// The backup is from a newer program.
    #[error("the backup has format {found}, and this program reads up to {known}")]
    Newer {
        /// Its format.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// Another backup goes to the same folder.
    #[error("another backup into {} goes on", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// A bucket that no application may use.
    #[error("find a key that opens the bucket {bucket}")]
    NoKey {
        /// The bucket.
        bucket: String,
    },
    /// The backup has a bucket that this environment does not.
    #[error("restore into the bucket {bucket}: this environment has none of that name")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// The environment has data of its own.
    #[error("restore into an environment that is not empty: {found}")]
    NotEmpty {
        /// What is in it.
        found: String,
    },
    /// What was restored is not what the backup has.
    #[error("what was restored differs from the backup: {found}")]
    Differs {
        /// How.
        found: String,
    },
    /// A secret is missing.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The object store says no.
    #[error(transparent)]
    Store(#[from] S3Error),
    /// The database says no.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// PostgreSQL's program failed.
    #[error("{what}: {tail}")]
    Program {
        /// What was tried.
        what: &'static str,
        /// The last lines that it wrote.
        tail: String,
        /// How it ended.
        source: CommandError,
    },
}

impl BackupError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room, or name another folder; what was begun is not taken for a backup".to_owned()
            }
            Self::Disk { .. } => return None,
            Self::NoBackup { .. } => "name the folder that `taskrun backup` told".to_owned(),
            Self::Damaged { .. } => "nothing was changed; take another backup".to_owned(),
            Self::Newer { .. } => "use the program that made it".to_owned(),
            Self::Busy { .. } => "wait for its end".to_owned(),
            Self::NoKey { .. } => "give an application a key for it: `object_store.applications`".to_owned(),
            Self::NoBucket { .. } => "add it to `object_store.buckets`, then: taskrun run --until CLOUD-3.1".to_owned(),
            Self::NotEmpty { .. } => "see what is lost, take a backup of it, then: --replace".to_owned(),
            Self::Differs { .. } => "let nobody use MLflow meanwhile, and restore again with --replace".to_owned(),
            Self::Secret(error) => return error.hint(),
            Self::Store(error) if error.is_full() => "make room on the object store's disk, then again".to_owned(),
            Self::Store(_) | Self::Database(_) => "see whether it serves: taskrun cloud status".to_owned(),
            Self::Program { .. } => "see whether the database serves: taskrun cloud status".to_owned(),
        })
    }
}

/// Says what the disk said no to.
pub(super) fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Disk { what, path, source }
}
