//! Phase 4: monitoring.

mod monitoring;
mod server;
pub mod task_exporter;

pub use monitoring::MonitoringTask;
