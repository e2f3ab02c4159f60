//! GPUs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the GPUs of the platform are used, if there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GpuConfig {
    /// How many services may share a GPU by time-slicing, each with an equal share of its memory: 1 to 48, 1 by default.
    pub slots: u32,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self { slots: 1 }
    }
}

impl GpuConfig {
    /// The most services that the driver lets share one GPU.
    pub const MOST_SLOTS: u32 = 48;
}
