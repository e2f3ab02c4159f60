//! Models on their way to the object store.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which models are sent to the object store, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransferConfig {
    /// The folder that models are sent from, such as a mount of the training side's file system; a relative one is
    /// looked for beside the graph. By default, what CLOUD-5.1 has trained.
    pub source: Option<PathBuf>,
    /// The folders in it, each a model of that name. With none, the source itself is one model.
    pub models: Vec<String>,
    /// The most that is sent each second, from 16KiB, such as `50MiB`; by default as much as the network takes.
    pub bandwidth: Option<String>,
    /// Whether objects whose files are gone are deleted. By default they stay.
    pub delete: bool,
    /// Whether links that lead out of the source are followed. By default they are an error.
    pub follow_links: bool,
}
