//! Dashboards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::graph::Fault;

/// Dashboards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DashboardsConfig {
    /// Where Grafana is fetched from if it is neither on PATH nor named as `tools.grafana`; by default its makers' own
    /// archive.
    pub archive: Option<ArchiveConfig>,
}

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// The URL of a `.tar.gz` of Grafana for this machine.
    pub url: String,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl DashboardsConfig {
    /// What is wrong with it.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(ArchiveConfig { url, sha256 }) = &self.archive {
            if !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
                let message = "it is not a URL that begins with http:// or https://";
                faults.push(Fault::new(["dashboards", "archive", "url"], message.to_owned()));
            }
            if sha256.len() != 64 || !sha256.chars().all(|c| c.is_ascii_hexdigit()) {
                let message = "it is not 64 hexadecimal digits";
                faults.push(Fault::new(["dashboards", "archive", "sha256"], message.to_owned()));
            }
        }
        faults
    }
}
