//! The configuration: what is wanted. See `config/local.yaml` for the one that is used by default.

mod clusters;
mod dashboards;
mod expose;
mod external;
mod gpu;
mod hpc;
mod image;
mod load;
mod monitoring;
mod performance;
mod ports;
mod training;
mod transfer;
mod version;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::secret::SecretSource;

use crate::cluster::Cluster;

pub use clusters::{
    AccelerationConfig, CloudClusterConfig, ClustersConfig, ControlPlanes, HardwareConfig, HostConfig, HostView,
    HpcClusterConfig, KubernetesConfig, MetadataConfig, NetworkConfig, NodeConfig, PassthroughConfig,
    PassthroughDeviceConfig, Route, TuningConfig, WorkerNodes, host_problems,
};
pub use dashboards::{ArchiveConfig, DashboardsConfig};
pub use expose::{AuthConfig, ExposeConfig, TlsConfig};
pub(crate) use external::database_url;
pub use external::{ExternalConfig, ExternalDatabaseConfig, ExternalObjectStoreConfig, ExternalPrometheusConfig};
pub use gpu::GpuConfig;
pub use hpc::{HpcConfig, HpcPrometheusConfig};
pub use image::{Checksum, DriverFlavour, DriverSource, GpuDriverConfig, ImageConfig, ImageSource, ImageSourceConfig};
pub use load::{Loaded, load};
pub use monitoring::{AlertsConfig, EmailConfig, LoginConfig, MonitoringConfig, ReceiversConfig};
pub use performance::PerformanceConfig;
pub use ports::Ports;
pub use training::TrainingConfig;
pub use transfer::TransferConfig;

/// A configuration file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of the format: 1, also written "1.0".
    #[serde(deserialize_with = "version::read")]
    #[schemars(schema_with = "version::schema")]
    pub version: u32,
    /// The environment's name: states of different environments are kept apart. 1 to 32 letters, digits, `-` and `_`;
    /// by default `metadata.name`.
    #[serde(default)]
    pub name: Option<String>,
    /// What it is about.
    #[serde(default)]
    pub metadata: Option<MetadataConfig>,
    /// Where everything runs; by default `kubernetes` if there are `clusters`, else `local`.
    #[serde(default)]
    pub platform: Option<PlatformKind>,
    /// The clusters of real nodes, if there are any.
    #[serde(default)]
    pub clusters: Option<ClustersConfig>,
    /// Whatever other programs want; it is not used.
    #[serde(default)]
    pub global: Option<BTreeMap<String, serde_json::Value>>,
    /// The user that services run as when the program runs as root; it is made if it does not exist.
    #[serde(default = "service_user")]
    pub service_user: String,
    /// Programs to use instead of those that the runtime task brings.
    #[serde(default)]
    pub tools: Tools,
    /// The loopback ports of the services.
    #[serde(default)]
    pub ports: Ports,
    /// The object store.
    #[serde(default)]
    pub object_store: ObjectStoreConfig,
    /// The database.
    #[serde(default)]
    pub database: DatabaseConfig,
    /// The tracking server.
    #[serde(default)]
    pub tracking: TrackingConfig,
    /// GPUs, if there are any.
    #[serde(default)]
    pub gpu: GpuConfig,
    /// Monitoring.
    #[serde(default)]
    pub monitoring: MonitoringConfig,
    /// Training.
    #[serde(default)]
    pub training: TrainingConfig,
    /// Models on their way to the object store.
    #[serde(default)]
    pub transfer: TransferConfig,
    /// Dashboards.
    #[serde(default)]
    pub dashboards: DashboardsConfig,
    /// The HPC side.
    #[serde(default)]
    pub hpc: HpcConfig,
    /// The performance test.
    #[serde(default)]
    pub performance: PerformanceConfig,
    /// What is reached from other machines; by default nothing is.
    #[serde(default)]
    pub expose: Option<ExposeConfig>,
    /// Servers that are there already, to be used in place of those that tasks start.
    #[serde(default)]
    pub external: ExternalConfig,
    /// The user's own secrets, by name, for `env: {NAME: {secret: …}}` in the graph.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, BTreeMap<String, String>>")]
    #[serde(skip_serializing)]
    pub secrets: BTreeMap<String, SecretSource>,
}

/// Where everything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlatformKind {
    /// On this machine: real servers under a supervisor, in one folder, on loopback ports.
    Local,
    /// On the nodes that `clusters` describes, under Kubernetes.
    Kubernetes,
}

impl PlatformKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// Programs to use instead of those that the runtime task brings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// The MinIO server; by default `minio` on PATH, else it is built.
    pub minio: Option<PathBuf>,
    /// The folder of PostgreSQL's programs; by default that of an installed server package, else one is unpacked.
    pub postgres: Option<PathBuf>,
    /// A folder with programs of Prometheus (`prometheus`, `promtool`, `alertmanager`, `amtool`, `node_exporter`,
    /// `postgres_exporter`, or as Debian calls them); by default those on PATH, and what is missing is unpacked.
    pub prometheus: Option<PathBuf>,
    /// The folder of an unpacked Grafana; by default `grafana` on PATH, else one is fetched.
    pub grafana: Option<PathBuf>,
    /// The Python that environments are made with, 3.10 to 3.13; by default `python3` on PATH.
    pub python: Option<PathBuf>,
}

/// The object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectStoreConfig {
    /// The buckets.
    pub buckets: Vec<String>,
    /// The applications, each with an access key of its own, and the buckets that each may use.
    pub applications: BTreeMap<String, Vec<String>>,
}

impl Default for ObjectStoreConfig {
    fn default() -> Self {
        let buckets = ["mlflow-artifacts", "models", "datasets", "experiments"].map(str::to_owned);
        let applications = [("mlflow", &buckets[..1]), ("training", &buckets[1..]), ("serving", &buckets[..2])];
        let applications = applications.map(|(name, buckets)| (name.to_owned(), buckets.to_vec()));
        Self { applications: applications.into(), buckets: buckets.to_vec() }
    }
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// The database of the tracking server, and the user that owns it.
    pub name: String,
    /// The extensions in it.
    pub extensions: Vec<String>,
    /// Settings of the server, as `postgresql.conf` has them.
    pub settings: BTreeMap<String, String>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        let settings = [("max_connections", "100"), ("shared_buffers", "256MB")];
        Self {
            name: "mlflow".to_owned(),
            extensions: ["uuid-ossp", "pg_stat_statements"].map(str::to_owned).to_vec(),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }
}

/// The tracking server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrackingConfig {
    /// The worker processes.
    pub workers: u16,
    /// Host names by which clients may call it besides the loopback ones, with port.
    pub allowed_hosts: Vec<String>,
}

impl Default for TrackingConfig {
    fn default() -> Self {
        Self { workers: 2, allowed_hosts: Vec::new() }
    }
}

fn service_user() -> String {
    "taskrun".to_owned()
}

impl Config {
    /// The environment's name.
    pub fn name(&self) -> &str {
        let of_metadata = || self.metadata.as_ref()?.name.as_deref();
        self.name.as_deref().or_else(of_metadata).unwrap_or_default()
    }

    /// Where everything runs.
    pub fn platform(&self) -> PlatformKind {
        self.platform.unwrap_or(match &self.clusters {
            Some(_) => PlatformKind::Kubernetes,
            None => PlatformKind::Local,
        })
    }

    /// The cluster that is made here; there is one on the platform `kubernetes`, and only there.
    pub fn cluster(&self) -> Option<Cluster> {
        self.clusters.as_ref()?.cloud.as_ref()?.cluster()
    }

    /// How images of virtual machines are built.
    pub fn image(&self) -> ImageConfig {
        let said = || self.clusters.as_ref()?.cloud.as_ref()?.image.clone();
        said().unwrap_or_default()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 1,
            name: Some("local".to_owned()),
            metadata: None,
            platform: Some(PlatformKind::Local),
            clusters: None,
            global: None,
            service_user: service_user(),
            tools: Tools::default(),
            ports: Ports::default(),
            object_store: ObjectStoreConfig::default(),
            database: DatabaseConfig::default(),
            tracking: TrackingConfig::default(),
            gpu: GpuConfig::default(),
            monitoring: MonitoringConfig::default(),
            training: TrainingConfig::default(),
            transfer: TransferConfig::default(),
            dashboards: DashboardsConfig::default(),
            hpc: HpcConfig::default(),
            performance: PerformanceConfig::default(),
            expose: None,
            external: ExternalConfig::default(),
            secrets: BTreeMap::new(),
        }
    }
}
