//! A client of the HTTP APIs of Prometheus (<https://prometheus.io/docs/prometheus/latest/querying/api/>) and
//! Alertmanager, as far as it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::secret::Secret;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A Prometheus server.
#[derive(Debug, Clone)]
pub struct Prometheus {
    http: reqwest::Client,
    url: String,
}

/// What can go wrong with Prometheus or Alertmanager.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// It does not answer.
    #[error("no answer from {url}")]
    Transport {
        /// What was asked for.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// It says no.
    #[error("{url} answers {status}: {message}")]
    Refused {
        /// What was asked for.
        url: String,
        /// Its status.
        status: StatusCode,
        /// What it says.
        message: String,
    },
}

impl PrometheusError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
        }
    }

    /// It, as the error of a task.
    pub fn into_failure(self) -> Failure {
        let persistence = if self.is_transient() { Persistence::Transient } else { Persistence::Permanent };
        Failure::caused(persistence, "ask the monitoring", &self)
    }
}

/// A series with its present value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sample {
    /// The labels; `__name__` is the metric's name.
    pub metric: BTreeMap<String, String>,
    /// The time, in seconds since 1970, and the value as text.
    value: (f64, String),
}

impl Sample {
    /// The value; NaN where it is not a number.
    pub fn value(&self) -> f64 {
        self.value.1.parse().unwrap_or(f64::NAN)
    }

    /// A label; empty if the series does not have it.
    pub fn label(&self, name: &str) -> &str {
        self.metric.get(name).map_or("", String::as_str)
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The alert's or the recorded series' name.
    pub name: String,
    /// `ok`, `err`, or `unknown` before the first evaluation.
    pub health: String,
    /// What the last evaluation failed with.
    #[serde(default)]
    pub last_error: String,
    /// The file that it stands in.
    #[serde(skip)]
    pub file: PathBuf,
}

/// An alert at Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Alert {
    /// Its labels; `alertname` is its name.
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct BuildInfo {
    version: String,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    file: PathBuf,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<ActiveTarget>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActiveTarget {
    discovered_labels: BTreeMap<String, String>,
}

impl Prometheus {
    /// The server at `url`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(url: &str) -> Result<Self, PrometheusError> {
        Self::with_login(url, None)
    }

    /// The server at `url`, which wants a login if one is given.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn with_login(url: &str, login: Option<(&str, &Secret)>) -> Result<Self, PrometheusError> {
        Ok(Self { http: client(url, login)?, url: url.trim_end_matches('/').to_owned() })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The series that an expression has now; it must be one that gives series.
    ///
    /// # Errors
    /// The server does not answer, or the expression is wrong.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, PrometheusError> {
        let url = format!("{}/api/v1/query", self.url);
        let request = self.http.get(&url).query(&[("query", expression)]);
        Ok(send::<Answer<Vector>>(&url, request).await?.data.result)
    }

    /// Its version.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn version(&self) -> Result<String, PrometheusError> {
        let url = format!("{}/api/v1/status/buildinfo", self.url);
        Ok(send::<Answer<BuildInfo>>(&url, self.http.get(&url)).await?.data.version)
    }

    /// The rules that it evaluates.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn rules(&self) -> Result<Vec<Rule>, PrometheusError> {
        let url = format!("{}/api/v1/rules", self.url);
        let groups = send::<Answer<Groups>>(&url, self.http.get(&url)).await?.data.groups;
        let in_file = |group: Group| {
            let file = group.file;
            group.rules.into_iter().map(move |rule| Rule { file: file.clone(), ..rule })
        };
        Ok(groups.into_iter().flat_map(in_file).collect())
    }

    /// The files by which it found what it scrapes.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn target_files(&self) -> Result<BTreeSet<PathBuf>, PrometheusError> {
        let url = format!("{}/api/v1/targets?state=active", self.url);
        let targets = send::<Answer<Targets>>(&url, self.http.get(&url)).await?.data.active_targets;
        let file = |mut target: ActiveTarget| target.discovered_labels.remove("__meta_filepath").map(PathBuf::from);
        Ok(targets.into_iter().filter_map(file).collect())
    }

    /// The value of a metric without labels that it tells of itself, read at its source.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>, PrometheusError> {
        own_metric(&self.http, &self.url, name).await
    }

    /// Lets it read its configuration again; whether it takes such requests (`--web.enable-lifecycle`).
    ///
    /// # Errors
    /// The server does not answer, or finds its configuration wrong.
    pub async fn reload(&self) -> Result<bool, PrometheusError> {
        let url = format!("{}/-/reload", self.url);
        let transport = |source| PrometheusError::Transport { url: url.clone(), source };
        let answer = self.http.post(&url).send().await.map_err(transport)?;
        let status = answer.status();
        match status {
            StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND => Ok(false),
            _ if status.is_success() => Ok(true),
            _ => {
                let message = answer.text().await.unwrap_or_default().chars().take(300).collect();
                Err(PrometheusError::Refused { url, status, message })
            }
        }
    }
}

/// The value of a metric without labels that the server at `url` tells of itself, read at its source.
///
/// # Errors
/// It does not answer.
pub async fn metric(url: &str, name: &str) -> Result<Option<f64>, PrometheusError> {
    own_metric(&client(url, None)?, url, name).await
}

async fn own_metric(http: &reqwest::Client, url: &str, name: &str) -> Result<Option<f64>, PrometheusError> {
    let url = format!("{url}/metrics");
    let transport = |source| PrometheusError::Transport { url: url.clone(), source };
    let answer = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
    let text = answer.map_err(transport)?.text().await.map_err(transport)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.and_then(|value| value.trim().parse().ok()))
}

/// The alerts that Alertmanager at `url` knows of.
///
/// # Errors
/// It does not answer.
pub async fn alerts(url: &str, login: Option<(&str, &Secret)>) -> Result<Vec<Alert>, PrometheusError> {
    let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
    send(&url, client(&url, login)?.get(&url)).await
}

fn client(url: &str, login: Option<(&str, &Secret)>) -> Result<reqwest::Client, PrometheusError> {
    let mut headers = HeaderMap::new();
    if let Some((user, password)) = login {
        let login = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
        // Base 64 is fit for a header.
        if let Ok(mut value) = HeaderValue::from_str(&format!("Basic {login}")) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }
    let client = super::http::client(url).default_headers(headers).timeout(TIMEOUT).build();
    client.map_err(|source| PrometheusError::Transport { url: url.to_owned(), source })
}

async fn send<T: DeserializeOwned>(url: &str, request: reqwest::RequestBuilder) -> Result<T, PrometheusError> {
    let transport = |source| PrometheusError::Transport { url: url.to_owned(), source };
    let answer = request.send().await.map_err(transport)?;
    let status = answer.status();
    if !status.is_success() {
        let message = answer.text().await.unwrap_or_default().chars().take(300).collect();
        return Err(PrometheusError::Refused { url: url.to_owned(), status, message });
    }
    answer.json().await.map_err(transport)
}
