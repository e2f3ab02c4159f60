//! The cluster that trains, as far as it matters to the one that serves.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The cluster that trains, in the terms of those who make it. Of it only `name`, `network.subnet` and `network.bridge`
/// are read, since they must differ from those of the other cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HpcClusterConfig(BTreeMap<String, Value>);

impl HpcClusterConfig {
    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.0.get("name")?.as_str()
    }

    /// The subnet of its machines, as it is written.
    pub fn subnet_text(&self) -> Option<&str> {
        self.0.get("network")?.get("subnet")?.as_str()
    }

    /// The subnet of its machines.
    pub fn subnet(&self) -> Option<Ipv4Net> {
        self.subnet_text()?.parse().ok()
    }

    /// The bridge of its machines on this host.
    pub fn bridge(&self) -> Option<&str> {
        self.0.get("network")?.get("bridge")?.as_str()
    }
}
