//! What CLOUD-6.1 gives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

/// CLOUD-6.1: models are in the object store and in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTransfer {
    /// The models by name.
    pub models: BTreeMap<String, TransferredModel>,
}

/// A model that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferredModel {
    /// Where it is: `s3://BUCKET/NAME`.
    pub uri: String,
    /// What it consists of: the SHA-256 over the SHA-256s of its files.
    pub digest: String,
    /// How many files it has.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Its version in MLflow's registry.
    pub version: String,
}

impl Output for ModelTransfer {
    const KIND: &'static str = "model-transfer";
}
