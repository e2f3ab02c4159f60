//! The store of secrets.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::SecretError;
use super::file::{Contents, Entry, Previous};
use super::policy::Policy;
use super::source::SecretSource;
use super::value::{Secret, SecretRef};
use crate::redact::Redactor;

/// The secrets of one environment, kept in one file of mode 0600 outside the journal.
///
/// Every value that is read or made is known to the [`Redactor`] before anyone can get it. A change is on disk before a
/// method returns; one that cannot be written is not made. Threads may share the store; that one process at a time uses
/// the file is seen to by the lock of the state folder.
#[derive(Debug)]
pub struct SecretStore {
    path: PathBuf,
    redactor: Redactor,
    contents: Mutex<Contents>,
}

impl SecretStore {
    /// Opens the store in the file `path`, which is made when the first secret is.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or may be used by others than its owner. It is never changed here.
    pub fn open(path: impl Into<PathBuf>, redactor: Redactor) -> Result<Self, SecretError> {
        let path = path.into();
        let contents = Contents::read(&path)?;
        for (name, entry) in &contents.secrets {
            redactor.add(name, &entry.value)?;
            if let Some(previous) = &entry.previous {
                redactor.add(name, &previous.value)?;
            }
        }
        Ok(Self { path, redactor, contents: Mutex::new(contents) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all secrets, in order.
    pub fn names(&self) -> Vec<String> {
        self.contents().secrets.keys().cloned().collect()
    }

    /// The present version of the secret `name`.
    pub fn present(&self, name: &str) -> Option<(SecretRef, Secret)> {
        self.contents().secrets.get(name).map(|entry| entry.present(name))
    }

    /// The value of a version: the present one or the one before.
    ///
    /// # Errors
    /// [`SecretError::Unknown`] or [`SecretError::NoSuchVersion`].
    pub fn get(&self, reference: &SecretRef) -> Result<Secret, SecretError> {
        let contents = self.contents();
        let name = &reference.name;
        let entry = contents.secrets.get(name).ok_or_else(|| SecretError::Unknown(name.clone()))?;
        let previous = entry.previous.as_ref().filter(|previous| previous.version == reference.version);
        if entry.version == reference.version {
            return Ok(entry.value.clone());
        }
        previous.map(|previous| previous.value.clone()).ok_or_else(|| SecretError::NoSuchVersion {
            name: name.clone(),
            asked: reference.version,
            present: entry.version,
        })
    }

    /// The present version of the secret `name`, which is generated if there is none.
    ///
    /// # Errors
    /// The name is none, or the new secret could not be made or written.
    pub fn get_or_generate(&self, name: &str, policy: &Policy) -> Result<(SecretRef, Secret), SecretError> {
        let mut contents = self.contents();
        if let Some(entry) = contents.secrets.get(name) {
            return Ok(entry.present(name));
        }
        let value = generate(name, policy)?;
        self.put(&mut contents, name, value, Some(policy.clone()))
    }

    /// Gives the secret `name` a value. The version rises unless that is the value it has.
    ///
    /// # Errors
    /// The name is none, the value is shorter than 6 bytes, or the file could not be written.
    pub fn set(&self, name: &str, value: Secret) -> Result<SecretRef, SecretError> {
        let mut contents = self.contents();
        if let Some(entry) = contents.secrets.get(name).filter(|entry| entry.value.expose() == value.expose()) {
            return Ok(entry.present(name).0);
        }
        self.put(&mut contents, name, value, None).map(|(reference, _)| reference)
    }

    /// Fetches a user's own secret and keeps it under `name`. The version rises when the value has changed.
    ///
    /// # Errors
    /// The source has no usable value, or as [`SecretStore::set`].
    pub fn resolve(&self, name: &str, source: &SecretSource) -> Result<(SecretRef, Secret), SecretError> {
        let value = source.fetch(name)?;
        self.set(name, value.clone()).map(|reference| (reference, value))
    }

    /// The present version of the secret `name`; where there is none, the one that it will be made as.
    pub(crate) fn expected(&self, name: &str) -> u32 {
        let contents = self.contents();
        contents.secrets.get(name).map_or_else(|| next_version(&contents, name), |entry| entry.version)
    }

    /// The version that [`SecretStore::resolve`] would give, without writing anything: for a dry run.
    ///
    /// # Errors
    /// As [`SecretStore::resolve`], but for the writing.
    pub fn preview(&self, name: &str, source: &SecretSource) -> Result<SecretRef, SecretError> {
        let value = source.fetch(name)?;
        self.admit(name, &value)?;
        let contents = self.contents();
        let version = match contents.secrets.get(name) {
            Some(entry) if entry.value.expose() == value.expose() => entry.version,
            _ => next_version(&contents, name),
        };
        Ok(SecretRef { name: name.to_owned(), version })
    }

    /// Generates a new value for the secret `name` in the way the present one was. The value before stays to be had by
    /// [`SecretStore::get`] until the next change.
    ///
    /// # Errors
    /// There is no such secret, the user gave it, or the file could not be written.
    pub fn rotate(&self, name: &str) -> Result<SecretRef, SecretError> {
        let mut contents = self.contents();
        let entry = contents.secrets.get(name).ok_or_else(|| SecretError::Unknown(name.to_owned()))?;
        let policy = entry.policy.clone().ok_or_else(|| SecretError::NotGenerated(name.to_owned()))?;
        let value = generate(name, &policy)?;
        self.put(&mut contents, name, value, Some(policy)).map(|(reference, _)| reference)
    }

    /// Forgets the secret `name`; whether there was one. Its versions are not used again.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn remove(&self, name: &str) -> Result<bool, SecretError> {
        let mut contents = self.contents();
        let mut changed = contents.clone();
        let Some(entry) = changed.secrets.remove(name) else { return Ok(false) };
        changed.retired.insert(name.to_owned(), entry.version);
        changed.write(&self.path)?;
        *contents = changed;
        Ok(true)
    }

    fn put(
        &self,
        contents: &mut Contents,
        name: &str,
        value: Secret,
        policy: Option<Policy>,
    ) -> Result<(SecretRef, Secret), SecretError> {
        self.admit(name, &value)?;
        let version = next_version(contents, name);
        let mut changed = contents.clone();
        let before = changed.secrets.remove(name).map(|entry| Previous { version: entry.version, value: entry.value });
        let created = jiff::Timestamp::now().to_string();
        let entry = Entry { version, value, created, policy, previous: before };
        let present = entry.present(name);
        changed.secrets.insert(name.to_owned(), entry);
        changed.retired.remove(name);
        changed.write(&self.path)?;
        *contents = changed;
        Ok(present)
    }

    /// Checks name and value, and makes the value known to the redactor.
    fn admit(&self, name: &str, value: &Secret) -> Result<(), SecretError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if !(1..=128).contains(&name.len()) || !name.chars().all(is_allowed) {
            return Err(SecretError::Name(name.to_owned()));
        }
        Ok(self.redactor.add(name, value)?)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // It is replaced as a whole, so a panic leaves it sound.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn present(&self, name: &str) -> (SecretRef, Secret) {
        (SecretRef { name: name.to_owned(), version: self.version }, self.value.clone())
    }
}

fn next_version(contents: &Contents, name: &str) -> u32 {
    let present = contents.secrets.get(name).map(|entry| entry.version);
    present.or_else(|| contents.retired.get(name).copied()).unwrap_or(0) + 1
}

fn generate(name: &str, policy: &Policy) -> Result<Secret, SecretError> {
    policy.generate().map_err(|source| SecretError::Random { name: name.to_owned(), source })
}
