//! What an environment remembers of its backups: which one stands for its data, and which restore goes on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{BackupError, disk};

/// A backup, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its folder.
    pub folder: PathBuf,
    /// As of when it is.
    pub taken: jiff::Timestamp,
}

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The newest backup of what is there.
    Newest,
    /// The backup that is being restored.
    Restoring,
}

impl What {
    fn file(self, state: &Path) -> PathBuf {
        state.join(match self {
            Self::Newest => "backup.json",
            Self::Restoring => "restore.json",
        })
    }

    /// What is remembered in the state folder `state`; nothing also where it cannot be read.
    pub fn read(self, state: &Path) -> Option<Remembered> {
        serde_json::from_slice(&fs::read(self.file(state)).ok()?).ok()
    }

    /// Remembers a backup.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(self, state: &Path, backup: &Remembered) -> Result<(), BackupError> {
        let file = self.file(state);
        let new = file.with_extension("new");
        let json = serde_json::to_vec_pretty(backup).map_err(std::io::Error::from).map_err(disk("write", &file))?;
        fs::write(&new, json).and_then(|()| fs::rename(&new, &file)).map_err(disk("write", &file))
    }

    /// Forgets it; that there is nothing is fine.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget(self, state: &Path) -> Result<(), BackupError> {
        let file = self.file(state);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(disk("remove", &file)(error)),
            _ => Ok(()),
        }
    }
}
