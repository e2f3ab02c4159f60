//! What a backup consists of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::{BackupError, disk};

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The file of the manifest.
const FILE: &str = "manifest.json";

/// The file of its SHA-256, as `sha256sum` writes and checks it.
const SUM: &str = "manifest.json.sha256";

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// As of when the database is.
    pub taken: jiff::Timestamp,
    /// The environment that was backed up.
    pub environment: String,
    /// The version of the program that made it.
    pub taskrun: String,
    /// The database.
    pub database: Dump,
    /// The objects, by bucket and key.
    pub objects: Vec<Object>,
    /// What the database refers to and no object was found for; it was so already or was deleted meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// A dump of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The version of the server that it was made by.
    pub server: String,
    /// The revision of MLflow's schema; none where there is no schema yet.
    pub schema: Option<String>,
    /// The number of rows, by table.
    pub rows: BTreeMap<String, i64>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Its entity tag: what tells the next backup that it is still the same.
    pub etag: String,
}

impl Manifest {
    /// Writes the manifest of the backup in `folder`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), BackupError> {
        let (file, sum) = (folder.join(FILE), folder.join(SUM));
        let json = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).map_err(disk("write", &file))?;
        fs::write(&sum, format!("{}  {FILE}\n", hex(&Sha256::digest(&json)))).map_err(disk("write", &sum))?;
        fs::write(&file, json).map_err(disk("write", &file))
    }

    /// Reads the manifest of the backup in `folder`.
    ///
    /// # Errors
    /// There is no backup, it is damaged, or from a newer program.
    pub fn read(folder: &Path) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let (file, sum) = (folder.join(FILE), folder.join(SUM));
        let json = match fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BackupError::NoBackup { folder: folder.to_owned() });
            }
            read => read.map_err(disk("read", &file))?,
        };
        let damaged = |found: String| BackupError::Damaged { path: file.clone(), found };
        let wanted = fs::read_to_string(&sum).map_err(disk("read", &sum))?;
        if wanted.split_whitespace().next() != Some(&*hex(&Sha256::digest(&json))) {
            return Err(damaged("it has another SHA-256 than it was written with".to_owned()));
        }
        let Format { format } = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if format > FORMAT {
            return Err(BackupError::Newer { found: format, known: FORMAT });
        }
        serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))
    }

    /// The bytes of all objects together.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }
}

impl Object {
    /// The file of its bytes in the backup in `folder`.
    pub fn file(&self, folder: &Path) -> PathBuf {
        blob(folder, &self.sha256)
    }
}

/// The file of the bytes with this SHA-256, in the backup in `folder`.
pub(super) fn blob(folder: &Path, sha256: &str) -> PathBuf {
    let (head, tail) = sha256.split_at_checked(2).unwrap_or((sha256, ""));
    folder.join("objects").join(head).join(tail)
}

/// The dump of the backup in `folder`.
pub(super) fn dump(folder: &Path) -> PathBuf {
    folder.join("database.dump")
}

/// The folders in `folder` that hold backups of an environment, the oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path, environment: &str) -> Result<Vec<PathBuf>, BackupError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(disk("read", folder))?,
    };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let ours = name.strip_prefix(environment).is_some_and(|rest| rest.starts_with('-'));
        ours && path.join(FILE).is_file()
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_ours).collect();
    found.sort();
    Ok(found)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn example() -> Manifest {
        Manifest {
            format: FORMAT,
            taken: "2026-11-24T09:00:00Z".parse().unwrap(),
            environment: "local".to_owned(),
            taskrun: "0.1.0".to_owned(),
            database: Dump {
                size: 5,
                sha256: hex(&Sha256::digest(b"dump\n")),
                server: "15.18".to_owned(),
                schema: Some("1bd49d398cd23".to_owned()),
                rows: [("runs".to_owned(), 2)].into(),
            },
            objects: vec![Object {
                bucket: "models".to_owned(),
                key: "assistant/config.json".to_owned(),
                size: 2,
                sha256: hex(&Sha256::digest(b"{}")),
                etag: "99914b932bd37a50b983c5e7c90ae93b".to_owned(),
            }],
            lacking: Vec::new(),
        }
    }

    /// The backup of [`example`].
    pub(crate) fn write_example(folder: &Path) -> Manifest {
        let manifest = example();
        let file = manifest.objects[0].file(folder);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "{}").unwrap();
        fs::write(dump(folder), "dump\n").unwrap();
        manifest.write(folder).unwrap();
        manifest
    }

    #[test]
    fn a_manifest_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = write_example(folder.path());
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
        crate::testing::snapshot("backup-manifest", &fs::read_to_string(folder.path().join(FILE)).unwrap());
    }

    #[test]
    fn a_folder_that_is_no_backup_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::read(folder.path()), Err(BackupError::NoBackup { .. })));
    }

    #[test]
    fn a_flipped_or_cut_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        write_example(folder.path());
        let file = folder.path().join(FILE);
        let json = fs::read(&file).unwrap();
        for at in 0..json.len() {
            let mut flipped = json.clone();
            flipped[at] ^= 1;
            fs::write(&file, flipped).unwrap();
            assert!(matches!(Manifest::read(folder.path()), Err(BackupError::Damaged { .. })), "flipped at {at}");
            fs::write(&file, &json[..at]).unwrap();
            assert!(matches!(Manifest::read(folder.path()), Err(BackupError::Damaged { .. })), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        Manifest { format: FORMAT + 1, ..example() }.write(folder.path()).unwrap();
        assert!(matches!(Manifest::read(folder.path()), Err(BackupError::Newer { found: 2, known: 1 })));
    }

    #[test]
    fn only_whole_backups_of_the_environment_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["local-2", "local-1", ".local-3.partial", "localized-1"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            write_example(&folder.path().join(name));
        }
        fs::create_dir(folder.path().join("local-4")).unwrap();
        let found = list(folder.path(), "local").unwrap();
        assert_eq!(found, ["local-1", "local-2"].map(|name| folder.path().join(name)));
        assert!(list(&folder.path().join("none"), "local").unwrap().is_empty());
    }
}
