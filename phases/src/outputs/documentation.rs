//! CLOUD-5.2: the documents.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

/// The documents of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documentation {
    /// The page to begin with, as HTML.
    pub index: PathBuf,
    /// The pages as Markdown, in reading order.
    pub pages: Vec<PathBuf>,
    /// The digest of all pages together.
    pub digest: String,
}

impl Output for Documentation {
    const KIND: &'static str = "documentation";
}
