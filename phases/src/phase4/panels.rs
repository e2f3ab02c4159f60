//! The dashboards that come with the program, and whether their panels have something to show.

use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};

use crate::tools::prometheus::{Prometheus, PrometheusError};

/// How long until the series of a panel are there: some samples apart by at most a minute.
const SHOW_TIMEOUT: Duration = Duration::from_secs(180);

/// What Grafana puts in the place of its own variable, about.
const RATE_INTERVAL: &str = "5m";

/// A dashboard, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Dashboard {
    /// Its id.
    pub(crate) uid: String,
    /// Its title.
    pub(crate) title: String,
    panels: Vec<Panel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Panel {
    title: String,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Target {
    expr: String,
}

/// Series that are there only if something else is: their prefix, the series that tell whether it is, and what it means
/// that it is not.
const CONDITIONAL: [(&str, &str, &str); 9] = [
    ("DCGM_", "{__name__=~\"DCGM_.*\"}", "there is no GPU"),
    ("gpu:", "{__name__=~\"DCGM_.*\"}", "there is no GPU"),
    ("haproxy_", "{__name__=~\"haproxy_backend_.*\"}", "no model is served"),
    ("taskrun_serving_", "{__name__=~\"taskrun_serving_.*\"}", "no model is served"),
    ("request_predict_", "{__name__=~\"request_predict_.*\"}", "no model was asked yet"),
    ("model:", "{__name__=~\"request_predict_.*\"}", "no model was asked yet"),
    ("process_resident_memory_bytes{job=\"model\"", "up{job=\"model\"}", "no model is served"),
    ("mlflow_", "{__name__=~\"mlflow_http_.*\"}", "MLflow was not asked yet"),
    ("minio_", "up{job=\"minio\"}", "there is no object store"),
];

impl Dashboard {
    /// Reads a dashboard that comes with the program; a test reads each.
    pub(crate) fn parse(json: &str) -> Self {
        serde_json::from_str(json).expect("the dashboard is sound")
    }
}

/// Waits until every panel has series, but for those of what is not there, which are told.
///
/// # Errors
/// A panel has none, or its expression is wrong.
pub(crate) async fn prove(view: &View, prometheus: &Prometheus, dashboards: &[Dashboard]) -> Result<(), Failure> {
    for dashboard in dashboards {
        for panel in &dashboard.panels {
            for target in &panel.targets {
                prove_target(view, prometheus, dashboard, panel, &target.expr).await?;
            }
        }
    }
    Ok(())
}

async fn prove_target(
    view: &View,
    prometheus: &Prometheus,
    dashboard: &Dashboard,
    panel: &Panel,
    expr: &str,
) -> Result<(), Failure> {
    let expression = expr.replace("$__rate_interval", RATE_INTERVAL);
    let name = format!("{}: {}", dashboard.title, panel.title);
    // Waiting mends neither an expression that is wrong nor something that is not there.
    let settled = std::sync::Mutex::new(Ok(None));
    let settle = |outcome| *settled.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    let shown = || async {
        match prometheus.query(&expression).await {
            Ok(series) if !series.is_empty() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_transient() => return Err(error.to_string()),
            Err(error) => {
                settle(Err(error));
                return Ok(());
            }
        }
        match absence(prometheus, expr).await.map_err(|error| error.to_string())? {
            Some(why) => {
                settle(Ok(Some(why)));
                Ok(())
            }
            None => Err(format!("`{expression}` has no series")),
        }
    };
    let waited = view.wait_until(&format!("the panel {name}"), SHOW_TIMEOUT, shown).await;
    // A series that did not come in several scrapes comes with the next attempt as little.
    waited.map_err(|failure| match failure.persistence {
        Persistence::Transient => Failure { persistence: Persistence::Permanent, ..failure }
            .with_hint("see whether its source is scraped: taskrun open prometheus, Status, Targets"),
        _ => failure,
    })?;
    match settled.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Err(error) => Err(Failure::caused(Persistence::Permanent, format!("evaluate the panel {name}"), &error)),
        Ok(Some(why)) => {
            view.say(format!("{name} is empty: {why}"));
            Ok(())
        }
        Ok(None) => Ok(()),
    }
}

/// What is not there of what an expression without series shows; nothing if all of it is.
async fn absence(prometheus: &Prometheus, expr: &str) -> Result<Option<&'static str>, PrometheusError> {
    for (prefix, there, why) in CONDITIONAL {
        if names(expr, prefix) && prometheus.query(there).await?.is_empty() {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// Whether a metric of the expression begins with `prefix`.
fn names(expr: &str, prefix: &str) -> bool {
    let inside_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    expr.match_indices(prefix).any(|(at, _)| !expr[..at].chars().next_back().is_some_and(inside_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_beginning_of_a_name() {
        assert!(names("sum(rate(minio_s3[5m]))", "minio_"));
        assert!(!names("sum(rate(x_minio_s3[5m]))", "minio_"));
        assert!(names("process_resident_memory_bytes{job=\"model\"}", CONDITIONAL[6].0));
    }
}
