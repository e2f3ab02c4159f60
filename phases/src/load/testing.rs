//! What the tests of this module share.

use super::figures::{Figures, Times};

/// Figures of one minute with this 95th percentile in milliseconds and throughput, and so many percent of errors.
pub(super) fn figures(p95: f64, throughput: f64, errors: u64) -> Figures {
    let latency = Times { count: 100, mean: p95 / 2.0, p50: p95 / 2.0, p95, p99: p95 * 1.5, max: p95 * 2.0 };
    Figures {
        requests: 100,
        successes: 100 - errors,
        errors: if errors > 0 { [("status 503".to_owned(), errors)].into() } else { [].into() },
        rate: throughput,
        throughput,
        latency,
        first_answer: latency,
        delay: Times::default(),
        tokens: None,
        bytes: 1000,
        curve: Vec::new(),
        course: Vec::new(),
    }
}
