//! A model in the store, looked at and taken away.

use super::manifest::Manifest;
use super::plan::{Action, Object, Plan};
use super::scan::{ScanError, scan};
use super::state::State;
use super::{Store, TransferError, check_name};
use crate::tools::s3::{S3Error, Upload};

/// A model as it is in the store.
#[derive(Debug)]
pub struct Found {
    /// What it consists of.
    pub manifest: Manifest,
    /// The paths whose objects are missing, or others than those that were sent.
    pub broken: Vec<String>,
}

/// Looks at a model in the store; nothing if there is none, or one that is being written.
///
/// # Errors
/// The store does not answer or refuses, or the manifest cannot be read.
pub async fn inspect(store: &Store, model: &str) -> Result<Option<Found>, TransferError> {
    let Store { s3, bucket } = store;
    let (key, prefix) = (Manifest::key(model), format!("{model}/"));
    let json = match s3.get(bucket, &key).await {
        Err(error) if error.code() == "NoSuchKey" => return Ok(None),
        other => other?,
    };
    let manifest = Manifest::from_json(&json).map_err(|source| TransferError::Manifest { key, source })?;
    let objects = s3.list_all(bucket, &prefix).await?;
    let broken = manifest.files.iter().filter(|(path, entry)| {
        let object = objects.get(&format!("{prefix}{path}"));
        object.is_none_or(|object| (object.size, &object.etag) != (entry.size, &entry.etag))
    });
    let broken = broken.map(|(path, _)| path.clone()).collect();
    Ok(Some(Found { manifest, broken }))
}

/// The paths of files that are not as the manifest says, judged by size and time.
///
/// # Errors
/// The source cannot be read.
pub fn changed(source: &std::path::Path, follow_links: bool, manifest: &Manifest) -> Result<Vec<String>, ScanError> {
    let files = scan(source, follow_links, manifest.model.len() + 1)?.files;
    let objects = manifest
        .files
        .iter()
        .map(|(path, entry)| (path.clone(), Object { size: entry.size, etag: entry.etag.clone() }));
    let plan = Plan::new(files, &[&manifest.files], &objects.collect());
    let changed = plan.files.into_iter().filter(|(_, action)| !matches!(action, Action::Keep(_)));
    Ok(changed.map(|(file, _)| file.path).chain(plan.extra).collect())
}

/// Takes a model out of the store: first its manifest, then its objects and the uploads that were begun. There may be
/// none.
///
/// # Errors
/// A sync of it is under way, or the store does not answer or refuses.
pub async fn remove(store: &Store, model: &str, state: &std::path::Path) -> Result<(), TransferError> {
    check_name(model)?;
    let Store { s3, bucket } = store;
    let state = State::open(state, model)?;
    s3.delete(bucket, &Manifest::key(model)).await?;
    for (path, ids) in state.uploads() {
        for id in ids {
            s3.abort_upload(&Upload { bucket: bucket.clone(), key: format!("{model}/{path}"), id }).await?;
        }
    }
    let delete = |key: String| async move { s3.delete(bucket, &key).await.map_err(|error: S3Error| error.into()) };
    let keys = s3.list_all(bucket, &format!("{model}/")).await?.into_keys();
    super::pass::for_all(keys, super::sync::DELETIONS, delete).await?;
    state.forget()
}
