//! A synced model in MLflow's registry: a version with its `s3://` source and where it comes from.
//!
//! The objects of a model are overwritten in place. A version whose objects were replaced by those of a newer one is
//! tagged as superseded, so that nobody takes it for what it was.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{Manifest, Store, Summary};
use crate::tools::mlflow::{Mlflow, MlflowError, ModelVersion};

/// The digest of the manifest: what the version consists of.
pub const DIGEST: &str = "taskrun.manifest_sha256";

/// The version whose objects are now where this one's were.
pub const SUPERSEDED: &str = "taskrun.superseded_by";

/// Where a model comes from.
#[derive(Debug, Clone)]
pub struct Lineage {
    /// The folder or file that was sent.
    pub source: PathBuf,
    /// The host that it was sent from.
    pub host: String,
    /// The MLflow run that made it.
    pub run: Option<String>,
}

/// A version in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its number.
    pub version: String,
    /// Whether it was made just now.
    pub new: bool,
}

/// Registers what was synced; nothing is done if the newest version is already this one.
///
/// # Errors
/// MLflow refuses or does not answer.
pub async fn register(
    mlflow: &Mlflow,
    store: &Store,
    model: &str,
    summary: &Summary,
    lineage: &Lineage,
) -> Result<Registered, MlflowError> {
    mlflow.ensure_model(model).await?;
    let versions = mlflow.versions(model).await?;
    let ours: Vec<&ModelVersion> = versions.iter().filter(|version| version.source == summary.uri).collect();
    let same_run = |version: &ModelVersion| lineage.run.as_ref().is_none_or(|run| version.run_id == *run);
    let same = |version: &&ModelVersion| version.tag(DIGEST) == Some(&summary.digest) && same_run(version);
    let registered = match ours.first().copied().filter(same) {
        Some(newest) => Registered { version: newest.version.clone(), new: false },
        None => {
            let tags = [
                (DIGEST, summary.digest.clone()),
                ("taskrun.manifest", format!("s3://{}/{}", store.bucket, Manifest::key(model))),
                ("taskrun.host", lineage.host.clone()),
                ("taskrun.source", lineage.source.display().to_string()),
                ("taskrun.files", summary.files.to_string()),
                ("taskrun.bytes", summary.bytes.to_string()),
                ("taskrun.synced_at", Timestamp::now().to_string()),
            ];
            let run = lineage.run.as_deref();
            Registered { version: mlflow.create_version(model, &summary.uri, run, &tags).await?, new: true }
        }
    };
    for older in ours.iter().filter(|older| older.version != registered.version && older.tag(SUPERSEDED).is_none()) {
        if older.tag(DIGEST) != Some(&summary.digest) {
            mlflow.tag_version(model, &older.version, SUPERSEDED, &registered.version).await?;
        }
    }
    Ok(registered)
}

/// The name of this machine.
pub fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}
