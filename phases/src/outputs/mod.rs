//! What the tasks give to each other. The same types on every platform.

mod acceptance;
mod documentation;
mod monitoring;
mod performance;
mod runtimes;
mod serving;
mod training;
mod transfer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taskrun_engine::secret::SecretRef;
use taskrun_engine::task::Output;

pub use self::acceptance::Acceptance;
pub use self::documentation::Documentation;
pub use self::monitoring::{Dashboards, Federation, GrafanaServer, Monitoring, MonitoringPrograms};
pub use self::performance::{Performance, PerformanceFigures};
pub use self::runtimes::{Accelerators, Gpu, PythonEnvironment};
pub use self::serving::{ModelRuntime, ModelServing};
pub use self::training::Training;
pub use self::transfer::{ModelTransfer, TransferredModel};
use crate::config::Ports;

/// CLOUD-0.1: the machine is prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The folder that holds everything of the environment: the state folder.
    pub home: PathBuf,
    /// Who services run as.
    pub service_user: ServiceUser,
    /// The loopback ports of the services.
    pub ports: Ports,
    /// The folder of UNIX sockets; short enough for their 107 bytes.
    pub sockets: PathBuf,
}

/// An operating system user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUser {
    /// The name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Whether it was made for this environment, and goes with it.
    pub made: bool,
}

impl Machine {
    /// The folder of a service's own files, such as its data; below it everything belongs to the service user.
    pub fn service_dir(&self, service: &str) -> PathBuf {
        self.home.join("services").join(service)
    }

    /// The folder of the services' logs.
    pub fn service_logs(&self) -> PathBuf {
        self.home.join("services").join("logs")
    }

    /// The folder of the programs that services run.
    pub fn runtime_dir(&self) -> PathBuf {
        self.home.join("runtime")
    }
}

impl Output for Machine {
    const KIND: &'static str = "machine";
}

/// CLOUD-0.2: the operator's shell is prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCli {
    /// To be sourced by a POSIX shell: the environment's variables and endpoints.
    pub profile: PathBuf,
    /// Completions by shell.
    pub completions: BTreeMap<String, PathBuf>,
    /// The folder of manual pages, for MANPATH.
    pub man: PathBuf,
}

impl Output for OperatorCli {
    const KIND: &'static str = "operator-cli";
}

/// CLOUD-1.1: the programs that services run, pinned and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRuntime {
    /// The Python environment with supervisor and the object store's admin client.
    pub platform_env: PathBuf,
    /// The Python environment of MLflow.
    pub mlflow_env: PathBuf,
    /// The MinIO server.
    pub minio: Program,
    /// PostgreSQL's programs.
    pub postgres: PostgresPrograms,
    /// uv, which makes Python environments.
    pub uv: Program,
    /// The Python that environments are made with.
    pub python: Program,
}

/// A program with its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The executable file.
    pub path: PathBuf,
    /// What it says of itself, or the version of the package or module that it is.
    pub version: String,
}

/// PostgreSQL's programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresPrograms {
    /// The folder of `postgres`, `initdb`, `pg_dump`.
    pub bin: PathBuf,
    /// Folders for LD_LIBRARY_PATH; empty for an installed server.
    pub libraries: Vec<PathBuf>,
    /// The full version, such as `15.18`.
    pub version: String,
}

impl Output for BaseRuntime {
    const KIND: &'static str = "base-runtime";
}

/// CLOUD-2.1: the platform runs services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `local`.
    pub platform: String,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The UNIX socket of the supervisor's API.
    pub supervisor: PathBuf,
}

/// A machine of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its host name.
    pub name: String,
    /// The processors that may be used.
    pub cpus: usize,
    /// The memory, in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The operating system, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
}

impl Output for Platform {
    const KIND: &'static str = "platform";
}

/// CLOUD-3.1: the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStore {
    /// The S3 API, `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// The console.
    pub console: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The buckets.
    pub buckets: Vec<String>,
    /// The applications' keys.
    pub keys: BTreeMap<String, AccessKey>,
}

/// The key of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// The public part.
    pub id: String,
    /// The secret part.
    pub secret: SecretRef,
    /// The buckets that it opens.
    pub buckets: Vec<String>,
}

impl Output for ObjectStore {
    const KIND: &'static str = "object-store";
}

/// CLOUD-3.2: the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The host, an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The folder of the server's UNIX socket.
    pub socket_dir: PathBuf,
    /// The database.
    pub database: String,
    /// Its owner.
    pub user: String,
    /// The owner's password.
    pub password: SecretRef,
    /// The server's version.
    pub version: String,
}

impl Output for Database {
    const KIND: &'static str = "database";
}

/// CLOUD-3.3: the tracking server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    /// Where clients find it: `MLFLOW_TRACKING_URI`.
    pub tracking_url: String,
    /// The version of MLflow.
    pub version: String,
    /// The bucket that artifacts land in.
    pub artifact_bucket: String,
    /// The revision of the database's schema.
    #[serde(default)]
    pub schema: Option<String>,
}

impl Output for Tracking {
    const KIND: &'static str = "tracking";
}

impl PostgresPrograms {
    /// One of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

impl BaseRuntime {
    /// A program of a Python environment.
    pub fn program(environment: &Path, name: &str) -> PathBuf {
        environment.join("bin").join(name)
    }
}
