//! Monitoring.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::secret::{Secret, SecretError, SecretRef, SecretStore};
use taskrun_engine::task::Output;

use crate::tools::prometheus::{Alert, Prometheus, PrometheusError, alerts};

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
    /// The login at both, if they want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Credentials>,
}

/// Who logs in somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: SecretRef,
}

impl Monitoring {
    /// A client of Prometheus.
    ///
    /// # Errors
    /// The password is gone, or the HTTP client cannot be made.
    pub fn prometheus(&self, secrets: &SecretStore) -> Result<Prometheus, Failure> {
        let login = self.login(secrets)?;
        let login = login.as_ref().map(|(user, password)| (*user, password));
        Prometheus::with_login(&self.prometheus_url, login).map_err(PrometheusError::into_failure)
    }

    /// The alerts that Alertmanager knows of.
    ///
    /// # Errors
    /// The password is gone, or it does not answer.
    pub async fn alerts(&self, secrets: &SecretStore) -> Result<Vec<Alert>, Failure> {
        let login = self.login(secrets)?;
        let login = login.as_ref().map(|(user, password)| (*user, password));
        alerts(&self.alertmanager_url, login).await.map_err(PrometheusError::into_failure)
    }

    fn login(&self, secrets: &SecretStore) -> Result<Option<(&str, Secret)>, Failure> {
        let found = self.login.as_ref().map(|login| Ok((&*login.user, secrets.get(&login.password)?))).transpose();
        found.map_err(|error: SecretError| {
            Failure::caused(Persistence::Permanent, "find the login of the monitoring", &error)
        })
    }
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
