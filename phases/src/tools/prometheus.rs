//! A client of the HTTP APIs of Prometheus (<https://prometheus.io/docs/prometheus/latest/querying/api/>) and
//! Alertmanager, as far as it is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

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
    rules: Vec<Rule>,
}

impl Prometheus {
    /// The server at `url`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(url: &str) -> Result<Self, PrometheusError> {
        Ok(Self { http: client(url)?, url: url.trim_end_matches('/').to_owned() })
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
        Ok(groups.into_iter().flat_map(|group| group.rules).collect())
    }
}

/// The value of a metric without labels that the server at `url` tells of itself, read at its source.
///
/// # Errors
/// It does not answer.
pub async fn metric(url: &str, name: &str) -> Result<Option<f64>, PrometheusError> {
    let url = format!("{url}/metrics");
    let transport = |source| PrometheusError::Transport { url: url.clone(), source };
    let answer = client(&url)?.get(&url).send().await.and_then(reqwest::Response::error_for_status);
    let text = answer.map_err(transport)?.text().await.map_err(transport)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.and_then(|value| value.trim().parse().ok()))
}

/// The alerts that Alertmanager at `url` knows of.
///
/// # Errors
/// It does not answer.
pub async fn alerts(url: &str) -> Result<Vec<Alert>, PrometheusError> {
    let url = format!("{url}/api/v2/alerts");
    send(&url, client(&url)?.get(&url)).await
}

fn client(url: &str) -> Result<reqwest::Client, PrometheusError> {
    let client = super::http::client(url).timeout(TIMEOUT).build();
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
