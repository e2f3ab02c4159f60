//! What the tasks give to each other. The same types on every platform.

mod acceptance;
mod documentation;
mod images;
mod monitoring;
mod nodes;
mod performance;
mod runtimes;
mod serving;
mod training;
mod transfer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taskrun_engine::process::Command;
use taskrun_engine::secret::{Secret, SecretRef};
use taskrun_engine::task::Output;

pub use self::acceptance::Acceptance;
pub use self::documentation::Documentation;
pub use self::images::DiskImage;
pub use self::monitoring::{Credentials, Dashboards, Federation, GrafanaServer, Monitoring, MonitoringPrograms};
pub use self::nodes::{GpuBase, HostIdentity, NodeBase, NodeEndpoint, Nodes};
pub use self::performance::{Performance, PerformanceFigures};
pub use self::runtimes::{Accelerators, Gpu, PythonEnvironment};
pub use self::serving::{ModelRuntime, ModelServing};
pub use self::training::Training;
pub use self::transfer::{ModelTransfer, TransferredModel};
use crate::config::Ports;
use crate::tools::postgres::Login;
use crate::tools::s3::{S3, S3Error};

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
    /// The console, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The buckets.
    pub buckets: Vec<String>,
    /// The applications' keys.
    pub keys: BTreeMap<String, AccessKey>,
    /// The certificates of the authorities that vouch for it, a PEM file, where they are not the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl ObjectStore {
    /// A client with one of its keys.
    ///
    /// # Errors
    /// The endpoint makes no sense, or the certificates cannot be read.
    pub fn client(&self, id: &str, secret: &Secret) -> Result<S3, S3Error> {
        S3::trusting(self.ca.as_deref(), &self.endpoint, &self.region, id, secret.expose())
    }

    /// The variables by which programs in Python find it, but for the secret part of the key.
    pub fn environment(&self, key: &AccessKey) -> BTreeMap<String, String> {
        let variables = [
            ("AWS_ACCESS_KEY_ID", key.id.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("MLFLOW_S3_ENDPOINT_URL", self.endpoint.clone()),
        ];
        let ca = self.ca.iter().map(|ca| ("AWS_CA_BUNDLE", ca.display().to_string()));
        variables.into_iter().chain(ca).map(|(name, value)| (name.to_owned(), value)).collect()
    }
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
    /// The folder of the server's UNIX socket, where the server is one of this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_dir: Option<PathBuf>,
    /// The database.
    pub database: String,
    /// Its owner.
    pub user: String,
    /// The owner's password.
    pub password: SecretRef,
    /// The server's version.
    pub version: String,
    /// The certificates of the authorities that vouch for the server, a PEM file; without it nothing is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl Database {
    /// The owner's login.
    pub fn login<'a>(&'a self, password: &'a Secret) -> Login<'a> {
        let Self { host, port, database, user, ca, .. } = self;
        Login { host, port: *port, user, password: password.expose(), database, ca: ca.as_deref() }
    }

    /// One of PostgreSQL's own programs that logs in as the owner.
    pub fn command(&self, programs: &PostgresPrograms, name: &str, password: &Secret) -> Command {
        let command = Command::new(programs.program(name))
            .args(["--host", &self.host, "--port", &self.port.to_string(), "--username", &self.user])
            .args(["--no-password", "--dbname", &self.database])
            .env("PGPASSWORD", password.expose())
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGOPTIONS", "--client-min-messages=warning");
        let command = match &self.ca {
            None => command.env("PGSSLMODE", "disable"),
            Some(ca) => command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", ca),
        };
        programs.with_libraries(command).dir("/")
    }
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

    /// The variables that they need.
    pub fn environment(&self) -> BTreeMap<String, String> {
        if self.libraries.is_empty() {
            return BTreeMap::new();
        }
        let path = self.libraries.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
        [("LD_LIBRARY_PATH".to_owned(), path)].into()
    }

    /// One of them, with the variables that it needs.
    pub fn with_libraries(&self, command: Command) -> Command {
        self.environment().into_iter().fold(command, |command, (name, value)| command.env(name, value))
    }
}

impl BaseRuntime {
    /// A program of a Python environment.
    pub fn program(environment: &Path, name: &str) -> PathBuf {
        environment.join("bin").join(name)
    }
}
