//! Phase 4: monitoring.

mod dashboards;
mod monitoring;
mod panels;
mod server;
pub mod task_exporter;

pub use dashboards::DashboardsTask;
pub use monitoring::MonitoringTask;
