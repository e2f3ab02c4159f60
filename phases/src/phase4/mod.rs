//! Phase 4: monitoring.

pub(crate) mod dashboards;
pub(crate) mod exporters;
pub(crate) mod monitoring;
pub(crate) mod panels;
pub(crate) mod server;
pub mod task_exporter;

pub use dashboards::DashboardsTask;
pub use monitoring::MonitoringTask;
