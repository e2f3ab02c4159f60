//! Monitoring.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

/// CLOUD-4.1: Prometheus and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitoring {
    /// Prometheus.
    pub prometheus_url: String,
    /// Alertmanager.
    pub alertmanager_url: String,
    /// The version of Prometheus.
    pub version: String,
    /// The programs.
    pub programs: MonitoringPrograms,
}

/// The programs of Prometheus and its exporters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitoringPrograms {
    /// Prometheus.
    pub prometheus: PathBuf,
    /// Its tool that checks rules and configurations.
    pub promtool: PathBuf,
    /// Alertmanager.
    pub alertmanager: PathBuf,
    /// Its tool that checks configurations.
    pub amtool: PathBuf,
    /// The exporter of the machine's figures.
    pub node_exporter: PathBuf,
    /// The exporter of PostgreSQL's figures.
    pub postgres_exporter: PathBuf,
    /// The folder of the pages that Debian's Prometheus serves, where it is unpacked and not installed.
    pub web_assets: Option<PathBuf>,
}

impl Output for Monitoring {
    const KIND: &'static str = "monitoring";
}
