//! CLOUD-7.1: the acceptance tests.

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

use crate::suites::{Counts, Files};

/// What the acceptance tests found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// The results.
    pub files: Files,
    /// How many checks came out how; none failed.
    pub counts: Counts,
}

impl Output for Acceptance {
    const KIND: &'static str = "acceptance";
}
