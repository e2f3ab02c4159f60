//! What a test took of the machine, by Prometheus.

use super::report::Resource;
use super::schedule::Shape;
use crate::tools::prometheus::{Prometheus, PrometheusError};

/// The name of the utilisation of the GPUs.
pub(super) const GPUS: &str = "GPUs in use";

/// The figures of the machine: name, expression, factor, unit. The HPC side's exporter may be one of the same machine.
const MACHINE: [(&str, &str, f64, &str); 3] = [
    (
        "processors in use",
        "sum(rate(node_cpu_seconds_total{mode!~\"idle|iowait|steal\",cluster!=\"hpc\"}[1m]))",
        1.0,
        "",
    ),
    (
        "memory in use",
        "sum(node_memory_MemTotal_bytes{cluster!=\"hpc\"} - node_memory_MemAvailable_bytes{cluster!=\"hpc\"})",
        1.0 / (1 << 30) as f64,
        "GiB",
    ),
    (GPUS, "avg(DCGM_FI_DEV_GPU_UTIL{cluster!=\"hpc\"})", 1.0, "%"),
];

/// The means and maxima during a test that has just ended.
///
/// # Errors
/// Why there are none, for people.
pub(super) async fn during(
    prometheus: Option<&Prometheus>,
    model: Option<&str>,
    load: &Shape,
) -> Result<Vec<Resource>, String> {
    let prometheus = prometheus.ok_or("there is no Prometheus")?;
    let seconds = (load.seconds + load.warm_up_seconds).ceil().max(1.0);
    let mut wanted: Vec<(String, String, f64, &str)> =
        MACHINE.map(|(name, expression, factor, unit)| (name.to_owned(), expression.to_owned(), factor, unit)).into();
    if let Some(model) = model {
        let own = format!("{{job=\"model\",model=\"{model}\"}}");
        let cpu = format!("sum(rate(process_cpu_seconds_total{own}[1m]))");
        wanted.push((format!("processors of {model}"), cpu, 1.0, ""));
        let memory = format!("sum(process_resident_memory_bytes{own})");
        wanted.push((format!("memory of {model}"), memory, 1.0 / (1 << 30) as f64, "GiB"));
    }
    let mut found = Vec::new();
    for (name, expression, factor, unit) in wanted {
        let over = |function: &str| format!("{function}_over_time(({expression})[{seconds}s:5s])");
        let (mean, max) = (value(prometheus, &over("avg")).await?, value(prometheus, &over("max")).await?);
        if let (Some(mean), Some(max)) = (mean, max) {
            found.push(Resource { name, mean: mean * factor, max: max * factor, unit: unit.to_owned() });
        }
    }
    if found.is_empty() {
        Err(format!("{} has no figures for the time of the test", prometheus.url()))
    } else {
        Ok(found)
    }
}

async fn value(prometheus: &Prometheus, expression: &str) -> Result<Option<f64>, String> {
    let told = |error: PrometheusError| error.to_string();
    let value = prometheus.query(expression).await.map_err(told)?.first().map(|sample| sample.value());
    Ok(value.filter(|value| value.is_finite()))
}
