//! The files of serving: what is wanted in `models/NAME.json`, what is in `status/NAME.json`. Each is replaced as a
//! whole, so that a reader sees the old one or the new one, and never a part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec::InferenceService;
use super::status::Status;
use crate::tools::files;

/// The files of one environment.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Counts the deployments of this name.
    pub(super) generation: u64,
    /// The description.
    pub(super) service: InferenceService,
}

/// What the disk said no to.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub struct StoreError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Store {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// What is wanted of `name`, if anything.
    pub(super) fn wanted(&self, name: &str) -> Result<Option<Wanted>, StoreError> {
        read(&self.models().join(format!("{name}.json")))
    }

    pub(super) fn want(&self, wanted: &Wanted) -> Result<(), StoreError> {
        write(&self.models().join(format!("{}.json", wanted.service.name)), wanted)
    }

    pub(super) fn unwant(&self, name: &str) -> Result<(), StoreError> {
        remove(&self.models().join(format!("{name}.json")))
    }

    /// The state of `name`, if it has one.
    pub(super) fn status(&self, name: &str) -> Result<Option<Status>, StoreError> {
        read(&self.statuses().join(format!("{name}.json")))
    }

    pub(super) fn tell(&self, status: &Status) -> Result<(), StoreError> {
        write(&self.statuses().join(format!("{}.json", status.service.name)), status)
    }

    pub(super) fn forget(&self, name: &str) -> Result<(), StoreError> {
        remove(&self.statuses().join(format!("{name}.json")))
    }

    /// The names of all models that are wanted, or have a state; sorted.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for folder in [self.models(), self.statuses()] {
            match fs::read_dir(&folder) {
                Ok(files) => names.extend(
                    files
                        .flatten()
                        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned())),
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError { what: "read", path: folder, source }),
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn models(&self) -> PathBuf {
        self.folder.join("models")
    }

    fn statuses(&self) -> PathBuf {
        self.folder.join("status")
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let parsed = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    parsed.map_err(|source| StoreError { what: "read", path: path.to_owned(), source })
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let text = serde_json::to_value(value).map(|value| format!("{value:#}\n")).map_err(io::Error::from);
    let written = text.and_then(|text| files::replace(path, text.as_bytes()));
    written.map_err(|source| StoreError { what: "write", path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StoreError { what: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_comes_back_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert_eq!(store.names().unwrap(), Vec::<String>::new());
        let wanted = Wanted { generation: 3, service: InferenceService::new("iris", "models:/iris/1") };
        store.want(&wanted).unwrap();
        assert_eq!(store.wanted("iris").unwrap(), Some(wanted));
        assert_eq!(store.names().unwrap(), ["iris"]);
        let file = folder.path().join("models/iris.json");
        fs::write(&file, "{").unwrap();
        let told = store.wanted("iris").unwrap_err();
        assert!(told.to_string().contains(&file.display().to_string()), "{told}");
        store.unwant("iris").unwrap();
        store.unwant("iris").unwrap();
        assert_eq!(store.wanted("iris").unwrap(), None);
    }
}
