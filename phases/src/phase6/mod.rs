//! Phase 6: the platform in use.

mod performance;

pub use performance::PerformanceTask;
