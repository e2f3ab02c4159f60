//! MLflow's REST API (<https://mlflow.org/docs/latest/rest-api.html>), as much of it as the proofs need.

mod registry;

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

pub use self::registry::{ModelVersion, Tag};

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client of one tracking server.
#[derive(Debug, Clone)]
pub struct Mlflow {
    url: String,
    http: reqwest::Client,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum MlflowError {
    /// The request did not come through.
    #[error("{what}")]
    Transport {
        /// What was tried.
        what: String,
        /// What the transport said.
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{what}: the server answers {status}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// Its answer.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// The answer lacks something.
    #[error("{what}: the answer has no {field}")]
    Incomplete {
        /// What was tried.
        what: String,
        /// What it lacks.
        field: &'static str,
    },
}

impl MlflowError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Incomplete { .. } => false,
        }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl Mlflow {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(url: &str) -> Result<Self, MlflowError> {
        let http = super::http::client(url).timeout(TIMEOUT).build();
        let http = http.map_err(|source| MlflowError::Transport { what: "reach MLflow".to_owned(), source })?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), http })
    }

    /// The server's version.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn version(&self) -> Result<String, MlflowError> {
        let what = "ask for the version";
        let answer = self.send(self.http.get(format!("{}/version", self.url)), what).await?;
        answer.text().await.map_err(|source| MlflowError::Transport { what: what.to_owned(), source })
    }

    /// Looks for experiments as a client would that knows the server by the name `host`.
    ///
    /// # Errors
    /// The server refuses, for instance the name.
    pub async fn search_as(&self, host: &str) -> Result<Value, MlflowError> {
        let url = format!("{}/api/2.0/mlflow/experiments/search", self.url);
        let request = self.http.post(url).header(reqwest::header::HOST, host).json(&json!({"max_results": 1}));
        self.json(request, "look for experiments").await
    }

    /// Makes an experiment and returns its id.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_experiment(&self, name: &str) -> Result<String, MlflowError> {
        let answer = self.call(Method::POST, "experiments/create", json!({"name": name})).await?;
        field(&answer, "/experiment_id", "make an experiment", "experiment_id")
    }

    /// The ids of the experiments whose names begin with `prefix`, at most 1000, also of ones marked as deleted.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn experiments(&self, prefix: &str) -> Result<Vec<String>, MlflowError> {
        let body = json!({"max_results": 1000, "filter": format!("name LIKE '{prefix}%'"), "view_type": "ALL"});
        let answer = self.call(Method::POST, "experiments/search", body).await?;
        // Without any, the answer has no list.
        let found = answer.get("experiments").and_then(Value::as_array).cloned().unwrap_or_default();
        found.iter().map(|one| field(one, "/experiment_id", "look for experiments", "experiment_id")).collect()
    }

    /// The id of the experiment called `name`, which is made if there is none.
    ///
    /// # Errors
    /// The server refuses, for instance since the experiment was deleted.
    pub async fn ensure_experiment(&self, name: &str) -> Result<String, MlflowError> {
        match self.create_experiment(name).await {
            Err(MlflowError::Refused { message, .. }) if message.contains("RESOURCE_ALREADY_EXISTS") => {
                let url = format!("{}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}", self.url);
                let what = "look for an experiment";
                let answer = self.json(self.http.get(url), what).await?;
                field(&answer, "/experiment/experiment_id", what, "experiment_id")
            }
            other => other,
        }
    }

    /// The values of a metric in the order in which they were logged, at most 25000.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn metric_history(&self, run: &str, metric: &str) -> Result<Vec<f64>, MlflowError> {
        let path = "api/2.0/mlflow/metrics/get-history";
        let url = format!("{}/{path}?run_id={run}&metric_key={metric}&max_results=25000", self.url);
        let answer = self.json(self.http.get(url), "read the history of a metric").await?;
        let mut points: Vec<(i64, f64)> = answer
            .get("metrics")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|point| Some((point.get("step")?.as_i64()?, point.get("value")?.as_f64()?)))
            .collect();
        points.sort_by_key(|(step, _)| *step);
        Ok(points.into_iter().map(|(_, value)| value).collect())
    }

    /// Begins a run and returns its id.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_run(&self, experiment: &str, name: &str, start: i64) -> Result<String, MlflowError> {
        let body = json!({"experiment_id": experiment, "start_time": start, "run_name": name});
        let answer = self.call(Method::POST, "runs/create", body).await?;
        field(&answer, "/run/info/run_id", "begin a run", "run_id")
    }

    /// Writes a parameter and a metric into a run.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn log(&self, run: &str, param: (&str, &str), metric: (&str, f64), at: i64) -> Result<(), MlflowError> {
        let params = json!([{"key": param.0, "value": param.1}]);
        let metrics = json!([{"key": metric.0, "value": metric.1, "timestamp": at, "step": 0}]);
        let body = json!({"run_id": run, "params": params, "metrics": metrics});
        self.call(Method::POST, "runs/log-batch", body).await.map(|_| ())
    }

    /// A run, as the server tells it.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn run(&self, run: &str) -> Result<Value, MlflowError> {
        let request = self.http.get(format!("{}/api/2.0/mlflow/runs/get?run_id={run}", self.url));
        self.json(request, "read a run").await
    }

    /// Writes an artifact of a run through the server.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn put_artifact(&self, path: &str, body: Vec<u8>) -> Result<(), MlflowError> {
        let request = self.http.put(format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.url)).body(body);
        self.send(request, "write an artifact").await.map(|_| ())
    }

    /// Reads an artifact through the server.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn artifact(&self, path: &str) -> Result<Vec<u8>, MlflowError> {
        let what = "read an artifact";
        let answer =
            self.send(self.http.get(format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.url)), what).await?;
        let bytes = answer.bytes().await.map_err(|source| MlflowError::Transport { what: what.to_owned(), source })?;
        Ok(bytes.into())
    }

    /// Registers a model with one version and returns that version.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn register(&self, name: &str, run: &str, source: &str) -> Result<String, MlflowError> {
        self.call(Method::POST, "registered-models/create", json!({"name": name})).await?;
        let body = json!({"name": name, "source": source, "run_id": run});
        let answer = self.call(Method::POST, "model-versions/create", body).await?;
        field(&answer, "/model_version/version", "register a model", "version")
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Result<Value, MlflowError> {
        let request = self.http.request(method, format!("{}/api/2.0/mlflow/{path}", self.url)).json(&body);
        self.json(request, path).await
    }

    async fn json(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Value, MlflowError> {
        let answer = self.send(request, what).await?;
        answer.json().await.map_err(|source| MlflowError::Transport { what: what.to_owned(), source })
    }

    async fn send(&self, request: reqwest::RequestBuilder, what: &str) -> Result<reqwest::Response, MlflowError> {
        let transport = |source| MlflowError::Transport { what: what.to_owned(), source };
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer.text().await.unwrap_or_default().chars().take(300).collect();
        Err(MlflowError::Refused { what: what.to_owned(), status, message })
    }
}

fn field(answer: &Value, pointer: &str, what: &str, name: &'static str) -> Result<String, MlflowError> {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| MlflowError::Incomplete { what: what.to_owned(), field: name })
}
