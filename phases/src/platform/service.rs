//! The description of a service.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::secret::SecretRef;

/// A program that runs until it is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name: lower-case letters, digits and `-`.
    pub name: String,
    /// The program, a path, and its arguments. Every user of the machine can read them.
    pub command: Vec<String>,
    /// Its environment, on top of a minimal one.
    pub env: BTreeMap<String, String>,
    /// Variables of its environment that hold secrets.
    pub secret_env: BTreeMap<String, SecretEnv>,
    /// Secrets that it reads as files, at the paths that [`SecretFiles`] tells.
    #[serde(default, skip_serializing_if = "SecretFiles::is_empty")]
    pub secret_files: SecretFiles,
    /// The folder that it runs in.
    pub dir: PathBuf,
    /// Where clients find it, by what they find there: `api`, `console`.
    pub endpoints: BTreeMap<String, String>,
    /// How to see that it serves.
    pub health: Health,
    /// Where it tells its metrics; the platform makes Prometheus scrape them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metrics>,
    /// Who may log in, where it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// The signal that asks it to stop: `TERM`, `INT`.
    pub stop_signal: String,
    /// How long it may take to stop, in seconds.
    pub stop_seconds: u32,
}

/// An environment variable that holds secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretEnv {
    /// The secret.
    pub secret: SecretRef,
    /// The text around it, with `{}` in its place; the secret alone by default. It is percent-encoded there if the
    /// template is that of a URL, which has `://`.
    pub template: Option<String>,
}

/// Secrets for a program that takes them from files only. They are open files in memory, which only it can see, and
/// which are on no disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFiles(Vec<SecretRef>);

impl SecretFiles {
    /// The number of the first open file; those below may be taken.
    const FIRST: i32 = 100;

    /// Adds a secret and tells the path at which the service finds it.
    pub fn add(&mut self, secret: SecretRef) -> PathBuf {
        self.0.push(secret);
        let last = self.numbered().last().map_or(Self::FIRST, |(number, _)| number);
        PathBuf::from(format!("/proc/self/fd/{last}"))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secrets, each with the number of its open file.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (i32, &SecretRef)> {
        (Self::FIRST..).zip(&self.0)
    }
}

/// How to see that a service serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Health {
    /// It answers a GET of this URL with a status below 400.
    Http(String),
    /// It takes connections at this UNIX socket.
    Socket(PathBuf),
}

/// Who may log in to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The name of the secret that is the password.
    pub secret: String,
}

/// An endpoint with metrics in Prometheus's text format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The value of the label `job`: `minio`, `postgres`.
    pub job: String,
    /// Host and port.
    pub address: String,
    /// The path, such as `/metrics`.
    pub path: String,
    /// Further labels of all its series.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Metrics {
    /// The endpoint `/metrics` of a loopback port.
    pub fn of_port(job: &str, port: u16) -> Self {
        let (job, address) = (job.to_owned(), format!("127.0.0.1:{port}"));
        Self { job, address, path: "/metrics".to_owned(), labels: BTreeMap::new() }
    }

    /// The endpoint with another path.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }
}

/// What a service does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct ServiceState {
    /// The supervisor's word for it: `RUNNING`, `STOPPED`, `BACKOFF`, `FATAL`, …
    pub state: String,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// For how long it has run, in seconds.
    pub uptime: Option<u64>,
    /// What the supervisor has to say about it.
    pub detail: String,
}

impl ServiceState {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == "RUNNING"
    }
}

impl From<SecretRef> for SecretEnv {
    fn from(secret: SecretRef) -> Self {
        Self { secret, template: None }
    }
}
