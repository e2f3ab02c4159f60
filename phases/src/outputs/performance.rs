//! CLOUD-6.3: the performance test.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

use crate::load::{Judged, Times};

/// What the performance test measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// The report as a page.
    pub report: PathBuf,
    /// The report as JSON.
    pub json: PathBuf,
    /// All samples, as CSV compressed by gzip.
    pub samples: PathBuf,
    /// The main figures.
    pub figures: PerformanceFigures,
    /// Each target with its verdict.
    pub targets: Vec<Judged>,
}

/// The main figures of the performance test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PerformanceFigures {
    /// The latency, in milliseconds.
    pub latency: Times,
    /// The requests that were sent.
    pub requests: u64,
    /// Those that were answered as they should be.
    pub successes: u64,
    /// Successes a second.
    pub throughput: f64,
    /// From asking for the model until its first answer, in seconds.
    pub cold_start_seconds: f64,
}

impl Output for Performance {
    const KIND: &'static str = "performance";
}
