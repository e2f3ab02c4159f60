//! The performance test: how much load for how long, and what should be achieved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::graph::Fault;

use crate::load::{Arrivals, Profile, Shape, Targets};

/// The performance test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PerformanceConfig {
    /// The model that is tested, by its URI as in `taskrun model deploy`; by default a small classifier that is trained
    /// for it. It is served by itself, with 1 to 3 replicas, and taken away after the test.
    pub model_uri: Option<String>,
    /// The highest rate, in requests a second: above 0, up to 10000; 30 by default.
    pub rate: f64,
    /// How long it is measured, in seconds: 1 to 3600, 20 by default.
    pub duration_s: u32,
    /// How long requests are sent before that, in seconds: 0 to 600, 3 by default.
    pub warm_up_s: u32,
    /// How the rate changes: steady by default.
    pub profile: Profile,
    /// How requests are spread: poisson by default.
    pub arrivals: Arrivals,
    /// What should be achieved.
    pub targets: Targets,
}

impl Default for PerformanceConfig {
    fn default() -> Self {
        Self {
            model_uri: None,
            rate: 30.0,
            duration_s: 20,
            warm_up_s: 3,
            profile: Profile::default(),
            arrivals: Arrivals::default(),
            targets: Targets::default(),
        }
    }
}

impl PerformanceConfig {
    /// The load.
    pub fn load(&self) -> Shape {
        Shape {
            profile: self.profile,
            arrivals: self.arrivals,
            rate: self.rate,
            seconds: f64::from(self.duration_s),
            warm_up_seconds: f64::from(self.warm_up_s),
            seed: 1,
        }
    }

    /// What makes no sense, with its place.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut within = |path: &[&str], value: f64, least: f64, most: f64| {
            if !(least..=most).contains(&value) {
                let path = std::iter::once("performance").chain(path.iter().copied());
                faults.push(Fault::new(path, format!("{value} is not between {least} and {most}")));
            }
        };
        within(&["rate"], self.rate, 0.01, 10_000.0);
        within(&["duration_s"], self.duration_s.into(), 1.0, 3600.0);
        within(&["warm_up_s"], self.warm_up_s.into(), 0.0, 600.0);
        let targets = &self.targets;
        within(&["targets", "cold_start_seconds"], targets.cold_start_seconds, 0.001, 1e6);
        within(&["targets", "p95_milliseconds"], targets.p95_milliseconds, 0.001, 1e9);
        within(&["targets", "error_ratio"], targets.error_ratio, 0.0, 1.0);
        within(&["targets", "requests_per_second_per_gpu"], targets.requests_per_second_per_gpu, 0.001, 1e6);
        within(&["targets", "gpu_utilisation"], targets.gpu_utilisation, 0.0, 1.0);
        within(&["targets", "scale_up_seconds"], targets.scale_up_seconds, 0.001, 1e6);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_less_than_half_a_minute_of_load_and_is_sound() {
        let default = PerformanceConfig::default();
        assert!(default.faults().is_empty());
        assert!(default.load().seconds + default.load().warm_up_seconds <= 30.0);
    }

    #[test]
    fn each_number_out_of_its_range_is_told() {
        let targets = Targets { error_ratio: 1.5, p95_milliseconds: f64::NAN, ..Targets::default() };
        let config = PerformanceConfig { rate: 0.0, duration_s: 0, targets, ..PerformanceConfig::default() };
        let told: Vec<String> = config.faults().into_iter().map(|fault| fault.message).collect();
        assert_eq!(
            told,
            [
                "0 is not between 0.01 and 10000",
                "0 is not between 1 and 3600",
                "NaN is not between 0.001 and 1000000000",
                "1.5 is not between 0 and 1",
            ]
        );
    }
}
