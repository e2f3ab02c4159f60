//! A replica: a service of the platform that serves one revision of a model.
//!
//! What the controller must know of it stands in the service's own description, which the platform keeps on disk: so a
//! controller that was killed finds everything again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::setup::Setup;
use super::spec::InferenceService;
use crate::platform::{Health, Metrics, Service};

/// The variable of a replica's environment that holds its [`Replica`] as JSON.
const VARIABLE: &str = "TASKRUN_REPLICA";

/// How long a replica may take for its last requests, in seconds: what its server waits, and a little more.
const STOP_SECONDS: u32 = 65;

/// A replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replica {
    /// The model.
    pub(super) model: String,
    /// The revision, from 1.
    pub(super) revision: u32,
    /// Its number within the revision, from 1, never used again.
    pub(super) number: u32,
    /// Its slot in the proxy's backend.
    pub(super) slot: usize,
    /// The loopback port that it listens on.
    pub(super) port: u16,
    /// When it was made.
    pub(super) made: Timestamp,
    /// The GPU slots that it holds: the UUID of the device, for each.
    pub(super) gpus: Vec<String>,
}

impl Replica {
    /// The name of its service.
    pub(super) fn name(&self) -> String {
        format!("model-{}-{}-{}", self.model, self.revision, self.number)
    }

    /// The replica that a service is, if it is one.
    pub(super) fn of(service: &Service) -> Option<Self> {
        serde_json::from_str(service.env.get(VARIABLE)?).ok()
    }

    /// Where the model of its revision is kept.
    pub(super) fn folder(&self, setup: &Setup) -> PathBuf {
        setup.models().join(format!("{}-{}", self.model, self.revision))
    }

    /// Answers below 400 once it serves.
    pub(super) fn health(&self) -> String {
        format!("http://127.0.0.1:{}/v2/health/ready", self.port)
    }

    /// The service that it is.
    pub(super) fn service(&self, setup: &Setup, wanted: &InferenceService) -> Service {
        let labels = [("model", self.model.clone()), ("replica", self.name())];
        let labels = labels.map(|(name, value)| (name.to_owned(), value)).into();
        Service {
            name: self.name(),
            command: self.command(setup, wanted),
            env: self.environment(setup, wanted),
            secret_env: [("AWS_SECRET_ACCESS_KEY".to_owned(), setup.key.secret.clone().into())].into(),
            secret_files: crate::platform::SecretFiles::default(),
            dir: setup.machine.service_dir(super::SERVICE),
            endpoints: [("replica".to_owned(), format!("http://127.0.0.1:{}", self.port))].into(),
            health: Health::Http(self.health()),
            metrics: vec![Metrics { labels, ..Metrics::of_port("model", self.port) }],
            login: None,
            stop_signal: "TERM".to_owned(),
            stop_seconds: STOP_SECONDS,
        }
    }

    fn command(&self, setup: &Setup, wanted: &InferenceService) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let python = path(&setup.runtime.environment.join("bin").join("python"));
        // Without the user's own modules and variables; `-I` would hide the server's modules from each other too.
        let mut command = vec![python, "-s".to_owned(), "-E".to_owned(), path(&setup.runtime.server.join("serve.py"))];
        let resources = wanted.resources;
        let options = [
            ("name", self.model.clone()),
            ("uri", wanted.model_uri.clone()),
            ("folder", path(&self.folder(setup))),
            ("port", self.port.to_string()),
            ("runtime", wanted.runtime.as_str().to_owned()),
            ("threads", resources.cpus.to_string()),
            ("memory-mib", resources.memory_mib.to_string()),
            ("gpu-memory", format!("{:.3}", setup.gpu_share(&self.gpus))),
            ("causal-lm-python", path(&setup.causal_lm_python)),
        ];
        command.extend(options.map(|(name, value)| format!("--{name}={value}")));
        command
    }

    fn environment(&self, setup: &Setup, wanted: &InferenceService) -> BTreeMap<String, String> {
        let mut devices = self.gpus.clone();
        devices.dedup();
        let threads = wanted.resources.cpus.to_string();
        // A struct of texts and numbers has a JSON form.
        let own = serde_json::to_string(self).unwrap_or_default();
        let variables = [
            (VARIABLE, own),
            ("CUDA_VISIBLE_DEVICES", devices.join(",")),
            ("DO_NOT_TRACK", "1".to_owned()),
            ("HF_HUB_OFFLINE", "1".to_owned()),
            ("MKL_NUM_THREADS", threads.clone()),
            ("MLFLOW_DISABLE_TELEMETRY", "true".to_owned()),
            ("MLFLOW_TRACKING_URI", setup.tracking_url.clone()),
            ("OMP_NUM_THREADS", threads.clone()),
            ("OPENBLAS_NUM_THREADS", threads),
            ("PYTHONUNBUFFERED", "1".to_owned()),
        ];
        let objects = setup.store.environment(&setup.key);
        variables.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(objects).collect()
    }
}
