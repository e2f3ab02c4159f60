//! What a service should achieve, and whether it does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::figures::Figures;

/// What a service should achieve. A target that is missed fails nothing: it is told with a recommendation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Targets {
    /// The longest time from asking for a model until its first answer, in seconds, above 0.
    pub cold_start_seconds: f64,
    /// The longest 95th percentile of the latency of a warm service, in milliseconds, above 0.
    pub p95_milliseconds: f64,
    /// The largest share of requests that may fail, 0 to 1.
    pub error_ratio: f64,
    /// The fewest requests a second for each GPU, above 0.
    pub requests_per_second_per_gpu: f64,
    /// The lowest utilisation of the GPUs under load, 0 to 1.
    pub gpu_utilisation: f64,
    /// The longest time from the first to the last replica under load, in seconds, above 0.
    pub scale_up_seconds: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            cold_start_seconds: 10.0,
            p95_milliseconds: 500.0,
            error_ratio: 0.01,
            requests_per_second_per_gpu: 50.0,
            gpu_utilisation: 0.7,
            scale_up_seconds: 120.0,
        }
    }
}

/// All that targets are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// The figures of the load.
    pub figures: &'a Figures,
    /// Seconds from asking for a model until its first answer, if that was measured.
    pub cold_start: Option<f64>,
    /// The GPUs that serve.
    pub gpus: u32,
    /// Their utilisation under load, 0 to 1, if it is known.
    pub gpu_utilisation: Option<f64>,
    /// What the autoscaler did.
    pub scaling: Option<Scaling>,
}

/// What the autoscaler did under load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// The replicas at the start of the load.
    pub from: u32,
    /// The most replicas that were ready at once.
    pub to: u32,
    /// The most that are allowed.
    pub most: u32,
    /// Seconds from the start of the load until the first further replica was ready, if there was one.
    pub first_seconds: Option<f64>,
    /// Seconds until `to` were ready, if these are more than at the start.
    pub all_seconds: Option<f64>,
}

/// A target and how it was met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// What it is about.
    pub name: String,
    /// What is wanted, for people.
    pub wanted: String,
    /// What was measured, for people; a dash where nothing was.
    pub measured: String,
    /// Whether that is good enough.
    pub verdict: Verdict,
    /// What to do, or why it does not apply; empty if it is met.
    pub advice: String,
}

/// Whether a target is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// It cannot be judged here.
    NotApplicable,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::NotApplicable => "not applicable",
        }
    }
}

/// A target that can be compared: whether it is met, and what was measured.
struct Comparison {
    met: bool,
    measured: String,
    /// What to do if it is missed.
    advice: String,
}

/// Judges every target.
pub fn judge(targets: &Targets, measured: &Measured<'_>) -> Vec<Judged> {
    vec![
        judged("cold start", format!("below {} s", targets.cold_start_seconds), cold_start(targets, measured)),
        judged("latency P95, warm", format!("below {} ms", targets.p95_milliseconds), latency(targets, measured)),
        judged("errors", format!("at most {:.1} %", targets.error_ratio * 100.0), errors(targets, measured)),
        judged(
            "throughput per GPU",
            format!("above {} requests/s", targets.requests_per_second_per_gpu),
            throughput(targets, measured),
        ),
        judged(
            "GPU utilisation",
            format!("above {:.0} %", targets.gpu_utilisation * 100.0),
            utilisation(targets, measured),
        ),
        judged("scale-up", format!("all replicas within {} s", targets.scale_up_seconds), scale_up(targets, measured)),
    ]
}

fn judged(name: &str, wanted: String, compared: Result<Comparison, String>) -> Judged {
    let (verdict, measured, advice) = match compared {
        Ok(Comparison { met: true, measured, .. }) => (Verdict::Met, measured, String::new()),
        Ok(Comparison { measured, advice, .. }) => (Verdict::Missed, measured, advice),
        Err(why) => (Verdict::NotApplicable, "-".to_owned(), why),
    };
    Judged { name: name.to_owned(), wanted, measured, verdict, advice }
}

fn cold_start(targets: &Targets, measured: &Measured<'_>) -> Result<Comparison, String> {
    let seconds = measured.cold_start.ok_or("no model was started in this test")?;
    Ok(Comparison {
        met: seconds < targets.cold_start_seconds,
        measured: format!("{seconds:.1} s"),
        advice: "keep one replica at least (no scale to zero), use a smaller model, or one that lies on a local disk"
            .to_owned(),
    })
}

fn latency(targets: &Targets, measured: &Measured<'_>) -> Result<Comparison, String> {
    let Figures { latency, errors, .. } = measured.figures;
    if latency.count == 0 {
        return Err("no request was answered".to_owned());
    }
    let at_most = measured.scaling.is_some_and(|scaling| scaling.to >= scaling.most);
    let advice = match (at_most, errors.contains_key("timed out")) {
        (true, _) => "all replicas were in use: allow more of them, give each more processors, or use a smaller model",
        (_, true) => "requests timed out: see whether the service stalls in the course below, and its log",
        _ => "let the autoscaler add replicas earlier (a lower target of requests in flight), or use a smaller model",
    };
    Ok(Comparison {
        met: latency.p95 < targets.p95_milliseconds,
        measured: format!("{:.1} ms", latency.p95),
        advice: advice.to_owned(),
    })
}

fn errors(targets: &Targets, measured: &Measured<'_>) -> Result<Comparison, String> {
    let Figures { requests, errors, .. } = measured.figures;
    if *requests == 0 {
        return Err("no request was sent".to_owned());
    }
    let most = errors.iter().max_by_key(|(_, count)| **count).map_or("", |(kind, _)| kind);
    let ratio = measured.figures.error_ratio();
    Ok(Comparison {
        met: ratio <= targets.error_ratio,
        measured: format!("{:.2} %", ratio * 100.0),
        advice: format!("most of them: {most}; see the log of the service: taskrun logs, taskrun cloud status"),
    })
}

fn throughput(targets: &Targets, measured: &Measured<'_>) -> Result<Comparison, String> {
    let (throughput, gpus) = (measured.figures.throughput, measured.gpus);
    let wanted = targets.requests_per_second_per_gpu * f64::from(gpus);
    match gpus {
        0 => Err(format!("there is no GPU here; the processors did {throughput:.1} requests/s")),
        _ if measured.figures.rate < wanted && throughput > measured.figures.rate * 0.95 => Err(format!(
            "the load asked for {:.1} requests/s and got them; ask for more than {wanted:.0}",
            measured.figures.rate
        )),
        _ => Ok(Comparison {
            met: throughput > wanted,
            measured: format!("{:.1} requests/s", throughput / f64::from(gpus)),
            advice: "serve with batches (vLLM does), use a smaller or quantised model, or more GPUs".to_owned(),
        }),
    }
}

fn utilisation(targets: &Targets, measured: &Measured<'_>) -> Result<Comparison, String> {
    if measured.gpus == 0 {
        return Err("there is no GPU here".to_owned());
    }
    let utilisation =
        measured.gpu_utilisation.ok_or("Prometheus has no figures of the GPUs for the time of the test")?;
    Ok(Comparison {
        met: utilisation > targets.gpu_utilisation,
        measured: format!("{:.0} %", utilisation * 100.0),
        advice: "send more load, or let more services share a GPU (gpu.slots in the configuration)".to_owned(),
    })
}

fn scale_up(targets: &Targets, measured: &Measured<'_>) -> Result<Comparison, String> {
    let scaling = measured.scaling.ok_or("the replicas of the service were not watched")?;
    let Scaling { from, to, most, all_seconds, .. } = scaling;
    if most <= from {
        return Err(format!("{from} of at most {most} replicas ran from the start"));
    }
    if to == from {
        return Err(format!("the load did not ask for more than the {from} at the start; use a higher rate"));
    }
    let seconds = all_seconds.unwrap_or(f64::INFINITY);
    Ok(Comparison {
        met: seconds < targets.scale_up_seconds,
        measured: format!("{from} to {to} of {most} in {seconds:.1} s"),
        advice: "make a replica start faster (see cold start), or let the autoscaler look more often".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::figures;

    fn verdict<'a>(all: &'a [Judged], name: &str) -> &'a Judged {
        all.iter().find(|judged| judged.name == name).unwrap()
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        let figures = figures(200.0, 50.0, 0);
        let measured = Measured { figures: &figures, cold_start: None, gpus: 0, gpu_utilisation: None, scaling: None };
        let all = judge(&Targets::default(), &measured);
        let verdicts: Vec<&str> = all.iter().map(|judged| judged.verdict.as_str()).collect();
        let none = "not applicable";
        assert_eq!(verdicts, [none, "met", "met", none, none, none]);
        assert!(all.iter().all(|judged| (judged.verdict == Verdict::Met) == judged.advice.is_empty()));
    }

    #[test]
    fn each_target_is_judged_by_its_own_figure() {
        let figures = figures(900.0, 120.0, 5);
        let scaling = Scaling { from: 1, to: 3, most: 3, first_seconds: Some(20.0), all_seconds: Some(130.0) };
        let measured = Measured {
            figures: &figures,
            cold_start: Some(12.0),
            gpus: 2,
            gpu_utilisation: Some(0.9),
            scaling: Some(scaling),
        };
        let all = judge(&Targets::default(), &measured);
        let missed = ["cold start", "latency P95, warm", "errors", "scale-up"];
        for judged in &all {
            let expected = if missed.contains(&&*judged.name) { Verdict::Missed } else { Verdict::Met };
            assert_eq!(judged.verdict, expected, "{judged:?}");
        }
        assert!(verdict(&all, "latency P95, warm").advice.contains("allow more of them"));
        assert_eq!(verdict(&all, "throughput per GPU").measured, "60.0 requests/s");
        assert_eq!(verdict(&all, "scale-up").measured, "1 to 3 of 3 in 130.0 s");
    }

    #[test]
    fn a_rate_below_the_target_shows_nothing() {
        let figures = figures(20.0, 10.0, 0);
        let measured = Measured { figures: &figures, cold_start: None, gpus: 1, gpu_utilisation: None, scaling: None };
        let all = judge(&Targets::default(), &measured);
        assert_eq!(verdict(&all, "throughput per GPU").verdict, Verdict::NotApplicable);
        assert!(verdict(&all, "GPU utilisation").advice.contains("Prometheus has no figures"));
    }
}
