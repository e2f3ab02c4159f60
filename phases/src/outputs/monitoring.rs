//! Monitoring.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::secret::SecretRef;
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

/// CLOUD-4.2: the dashboards, and Grafana where it could be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dashboards {
    /// The folder of the dashboards; Grafana, where it runs, shows every file in it.
    pub folder: PathBuf,
    /// Their ids.
    pub uids: Vec<String>,
    /// Grafana, where it runs.
    pub grafana: Option<GrafanaServer>,
}

/// Grafana.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrafanaServer {
    /// Where it is.
    pub url: String,
    /// The administrator.
    pub user: String,
    /// The administrator's password.
    pub password: SecretRef,
    /// Its program.
    pub program: PathBuf,
    /// The folder of what it shows.
    pub home: PathBuf,
}

impl Output for Dashboards {
    const KIND: &'static str = "dashboards";
}

/// CLOUD-6.2: both sides are seen in one place, the cloud side's Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federation {
    /// The Prometheus of the HPC side.
    pub hpc_prometheus_url: String,
    /// The values of the label `cluster`.
    pub clusters: Vec<String>,
}

impl Output for Federation {
    const KIND: &'static str = "federation";
}
