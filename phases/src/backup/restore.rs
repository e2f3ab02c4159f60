//! Restoring a backup.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::BackupError;
use super::manifest::{Manifest, dump};
use super::{Site, database, objects};
use crate::transfer::Progress;

/// What an environment has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Runs, models and experiments apart from MLflow's default one, together.
    pub rows: i64,
    /// The objects of all buckets.
    pub objects: usize,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The objects that were sent; the others were there as they should be.
    pub sent: usize,
    /// The objects that the backup does not have, and that were deleted.
    pub deleted: usize,
}

impl Found {
    /// Refuses to restore where there is data.
    ///
    /// # Errors
    /// There is, and what it is.
    pub fn refuse(&self) -> Result<(), BackupError> {
        match self {
            Self { rows: 0, objects: 0 } => Ok(()),
            Self { rows, objects } => {
                let found = format!("{objects} objects, and {rows} runs, models and experiments");
                Err(BackupError::NotEmpty { found })
            }
        }
    }
}

/// What is in an environment.
///
/// # Errors
/// The database or the store does not answer.
pub async fn look(site: &Site) -> Result<Found, BackupError> {
    let rows = database::snapshot(site).await?.rows().await?;
    let count = |table: &str| rows.get(table).copied().unwrap_or_default();
    let own = count("runs") + count("registered_models") + (count("experiments") - 1).max(0);
    Ok(Found { rows: own, objects: objects::list(site).await?.len() })
}

/// Brings an environment to the state of the backup in `folder`, which is [verified](super::verify()) already, whatever
/// is in it. Killed anywhere, it may be done again. Nobody may use MLflow meanwhile.
///
/// Objects come first, so that what the database refers to is there; the database follows in one transaction; what the
/// backup does not have is deleted at last.
///
/// # Errors
/// The database or the store refuses, or what was restored is not what the backup has.
pub async fn restore(
    site: &Site,
    folder: &Path,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<Restored, BackupError> {
    if let Some(bucket) = manifest.objects.iter().map(|object| &object.bucket).find(|name| site.bucket(name).is_err()) {
        return Err(BackupError::NoBucket { bucket: bucket.clone() });
    }
    let present = objects::list(site).await?;
    let is_there = |object: &super::manifest::Object| {
        let listed = present.get(&(object.bucket.clone(), object.key.clone()));
        listed.is_some_and(|listed| listed.etag == object.etag && listed.size == object.size)
    };
    let missing: Vec<_> = manifest.objects.iter().filter(|object| !is_there(object)).cloned().collect();
    objects::put_back(site, folder, &missing, progress).await?;
    database::restore(site, &dump(folder)).await?;
    let kept: BTreeSet<(&str, &str)> = manifest.objects.iter().map(|o| (o.bucket.as_str(), o.key.as_str())).collect();
    let extra: Vec<_> = present.keys().filter(|(bucket, key)| !kept.contains(&(bucket, key))).collect();
    for (bucket, key) in &extra {
        site.bucket(bucket)?.delete(bucket, key).await?;
    }
    prove(site, manifest, progress).await?;
    Ok(Restored { sent: missing.len(), deleted: extra.len() })
}

/// Compares what is there with what the backup has.
async fn prove(site: &Site, manifest: &Manifest, progress: &dyn Progress) -> Result<(), BackupError> {
    let differs = |found: String| Err(BackupError::Differs { found });
    let rows = database::snapshot(site).await?.rows().await?;
    let tables: BTreeSet<&String> = rows.keys().chain(manifest.database.rows.keys()).collect();
    for table in tables {
        let (wanted, found) = (manifest.database.rows.get(table), rows.get(table));
        if wanted != found {
            let say = |rows: Option<&i64>| rows.map_or("none".to_owned(), i64::to_string);
            return differs(format!("the table {table} has {} rows of {}", say(found), say(wanted)));
        }
    }
    let listed = objects::list(site).await?.len();
    if listed != manifest.objects.len() {
        return differs(format!("there are {listed} objects of {}", manifest.objects.len()));
    }
    objects::compare(site, &manifest.objects, progress).await
}
