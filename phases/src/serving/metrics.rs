//! What the controller tells Prometheus: its decisions, and what they are made from.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The figures of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) replicas: u32,
    pub(super) desired: u32,
    pub(super) max: u32,
    pub(super) concurrency: f64,
    pub(super) ready: bool,
    pub(super) scaled_up: u64,
    pub(super) scaled_down: u64,
    pub(super) cold_start_s: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    model: String,
    direction: &'static str,
}

type Values = Family<Model, Gauge<f64, AtomicU64>>;

/// The figures of all models.
pub(super) fn registry(models: &BTreeMap<String, Figures>) -> Registry {
    let mut registry = Registry::with_prefix("taskrun_serving");
    let mut gauge = |name: &str, help: &str, value: fn(&Figures) -> Option<f64>| {
        registry.register(name, help, gauges(models, value));
    };
    gauge("replicas", "Replicas that serve", |figures| Some(figures.replicas.into()));
    gauge("replicas_desired", "Replicas that the autoscaler wants", |figures| Some(figures.desired.into()));
    gauge("replicas_max", "The most replicas that there may be", |figures| Some(figures.max.into()));
    gauge("concurrency", "Requests under way and waiting, mean of some seconds", |figures| Some(figures.concurrency));
    gauge("model_ready", "Whether the model is served as it was deployed", |figures| Some(figures.ready.into()));
    let cold_start = gauges(models, |figures| figures.cold_start_s);
    let help = "From the start of the latest replica to its first readiness";
    registry.register_with_unit("cold_start", help, Unit::Seconds, cold_start);
    let events = Family::<Event, Counter>::default();
    for (model, figures) in models {
        for (direction, count) in [("up", figures.scaled_up), ("down", figures.scaled_down)] {
            events.get_or_create(&Event { model: model.clone(), direction }).inc_by(count);
        }
    }
    registry.register("scale_events", "Changes of the desired replicas", events);
    registry
}

fn gauges(models: &BTreeMap<String, Figures>, value: fn(&Figures) -> Option<f64>) -> Values {
    let values = Values::default();
    for (model, figures) in models {
        if let Some(value) = value(figures) {
            values.get_or_create(&Model { model: model.clone() }).set(value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_tells_its_figures() {
        let figures = Figures { replicas: 2, desired: 3, max: 4, concurrency: 5.5, scaled_up: 1, ..Figures::default() };
        let mut text = String::new();
        let models = BTreeMap::from([("iris".to_owned(), figures)]);
        prometheus_client::encoding::text::encode(&mut text, &registry(&models)).unwrap();
        // The series of a family come in any order.
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        lines.sort_unstable();
        crate::testing::snapshot("serving-metrics", &lines.join("\n"));
    }
}
