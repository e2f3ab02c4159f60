//! Model serving: the environment that models run in, and where clients find them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

/// CLOUD-1.2: what a model worker runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRuntime {
    /// The Python environment of models in MLflow's pyfunc format.
    pub environment: PathBuf,
    /// The folder of the model server's own files.
    pub server: PathBuf,
    /// The version of KServe's model server.
    pub kserve: String,
    /// The version of MLflow that loads the models.
    pub mlflow: String,
}

impl Output for ModelRuntime {
    const KIND: &'static str = "model-runtime";
}

/// CLOUD-3.4: models are served here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelServing {
    /// The proxy in front of all models: `http://127.0.0.1:8080`. A model answers V2 below `/v2/models/NAME`, and
    /// OpenAI's protocol below `/models/NAME/openai/v1`.
    pub inference_url: String,
    /// Where the proxy tells its metrics.
    pub proxy_metrics_url: String,
    /// Where the controller tells its metrics.
    pub controller_metrics_url: String,
    /// The folder of what is wanted (`models/NAME.json`) and of what is (`status/NAME.json`).
    pub folder: PathBuf,
    /// The version of the proxy, HAProxy.
    pub proxy_version: String,
    /// How many GPU slots there are for replicas.
    pub gpu_slots: usize,
}

impl Output for ModelServing {
    const KIND: &'static str = "model-serving";
}
