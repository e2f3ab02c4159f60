//! CLOUD-5.1: a trained model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

/// A model that was trained, measured, registered and is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The folder of Oumi's configuration files: `train.yaml`, `evaluate.yaml`, `infer.yaml`, `launch.yaml`.
    pub configs: PathBuf,
    /// The folder of the trained model, in Hugging Face's format.
    pub model_dir: PathBuf,
    /// The conversations that it was trained on.
    pub dataset: PathBuf,
    /// The experiment in MLflow.
    pub experiment: String,
    /// The run in MLflow.
    pub run_id: String,
    /// The name that it is registered and served by.
    pub model_name: String,
    /// The registered version.
    pub model_version: String,
    /// Where it is: `models:/NAME/VERSION`.
    pub model_uri: String,
    /// The loss at the first and at the last step.
    pub loss: (f64, f64),
    /// What `oumi evaluate` measured.
    pub baseline: BTreeMap<String, f64>,
    /// The base URL for clients of OpenAI's protocol.
    pub openai_url: String,
}

impl Output for Training {
    const KIND: &'static str = "training";
}
