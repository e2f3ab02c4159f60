//! Backups of what users have put into the cloud: MLflow's database and the objects of all buckets.
//!
//! A backup is a folder:
//!
//! - `manifest.json`: what it consists of, with the SHA-256 of everything; `manifest.json.sha256` has its own.
//! - `database.dump`: `pg_dump`'s custom format.
//! - `objects/ab/cdef…`: the bytes of objects, each once, named by their SHA-256.
//!
//! It is written beside its place and renamed when it is whole, so a folder of that name is a whole backup. The database
//! is dumped first, as of one instant, and the objects are copied afterwards: MLflow writes an artifact before it refers
//! to it, so what the dump refers to is among the objects, unless it was deleted in between, which is told.

mod database;
mod error;
mod guard;
pub mod manifest;
mod objects;
pub mod record;
mod restore;
mod take;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;

use taskrun_engine::secret::{Secret, SecretStore};

pub use self::error::BackupError;
pub use self::guard::guard;
pub use self::manifest::Manifest;
pub use self::restore::{Found, Restored, look, restore};
pub use self::take::{Taken, take};
pub use self::verify::verify;
use crate::outputs::{Database, ObjectStore, PostgresPrograms};
use crate::tools::s3::S3;

/// What is backed up, and restored into.
pub struct Site {
    /// The environment's name.
    pub environment: String,
    /// The database.
    pub database: Database,
    /// Its owner's password.
    pub password: Secret,
    /// `pg_dump`, `pg_restore` and `psql`.
    pub programs: PostgresPrograms,
    /// The buckets, each with a client whose key opens it.
    pub buckets: BTreeMap<String, S3>,
    /// A folder for temporary files.
    pub temporary: PathBuf,
}

impl Site {
    /// What the outputs of CLOUD-1.1, CLOUD-3.1 and CLOUD-3.2 tell.
    ///
    /// # Errors
    /// A secret is missing, or a bucket has no key that opens it.
    pub fn new(
        environment: &str,
        programs: PostgresPrograms,
        store: &ObjectStore,
        database: Database,
        secrets: &SecretStore,
        temporary: PathBuf,
    ) -> Result<Self, BackupError> {
        let password = secrets.get(&database.password)?;
        let mut buckets = BTreeMap::new();
        for bucket in &store.buckets {
            let key = store.keys.values().find(|key| key.buckets.contains(bucket));
            let key = key.ok_or_else(|| BackupError::NoKey { bucket: bucket.clone() })?;
            let secret = secrets.get(&key.secret)?;
            buckets.insert(bucket.clone(), store.client(&key.id, &secret)?);
        }
        Ok(Self { environment: environment.to_owned(), database, password, programs, buckets, temporary })
    }

    /// The client of a bucket.
    fn bucket(&self, name: &str) -> Result<&S3, BackupError> {
        self.buckets.get(name).ok_or_else(|| BackupError::NoBucket { bucket: name.to_owned() })
    }
}
