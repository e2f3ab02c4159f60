//! CLOUD-6.3: a model is served, put under load, and judged.
//!
//! It delivers the report (HTML and JSON) and all samples. A target that is missed fails nothing: it is told, with a
//! recommendation. Proof: the generator kept its schedule, every request of it has a sample in the file, and the report
//! can be read back.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Level;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Proof, Read, Task, Traces};

use crate::config::{Config, PerformanceConfig};
use crate::load::{self, Control, Report, Test, WatchedModel};
use crate::outputs::{
    BaseRuntime, Database, Machine, ModelRuntime, ModelServing, Monitoring, ObjectStore, Performance,
    PerformanceFigures, Platform, Tracking,
};
use crate::phase3::mlflow::forget_experiments;
use crate::phase3::model_serving::train;
use crate::serving::{Client, InferenceService, Replicas, ServingError};
use crate::tools::files;

/// The name that the model is served by during the test.
const MODEL: &str = "taskrun-performance";

/// What the experiment of its own model begins with.
const EXPERIMENT: &str = "taskrun-performance-";

/// The replicas that the autoscaler may make.
const REPLICAS: Replicas = Replicas { min: 1, max: 3 };

/// The requests at once that one replica is meant to have: few, so that a short test shows the autoscaler.
const CONCURRENCY: f64 = 1.0;

/// How long the model may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How late the generator may be, in milliseconds: later in the median, and the latencies are its own.
const LATEST: f64 = 20.0;

/// How often it is asked whether the run was asked to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The task.
pub struct PerformanceTask {
    settings: PerformanceConfig,
}

impl PerformanceTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: config.performance.clone() }
    }

    /// Serves the model and puts it under load.
    async fn test(&self, context: &Context, serving: &ModelServing, model_uri: &str) -> Result<Performance, Failure> {
        let client = Client::new(serving);
        let mut service = InferenceService::new(MODEL, model_uri);
        service.replicas = REPLICAS;
        service.autoscaling.target_concurrency = CONCURRENCY;
        let asked = Instant::now();
        client.deploy(&service).map_err(failure)?;
        client.wait_ready(MODEL, START_TIMEOUT).await.map_err(failure)?;
        let mut request = load::prediction(serving, MODEL).await?;
        request.timeout = Duration::from_secs(10);
        let answered = || async { load::once(&request).await.map_err(|outcome| outcome.to_string()) };
        context.wait_until("the first answer of the model", START_TIMEOUT, answered).await?;
        let cold_start_seconds = asked.elapsed().as_secs_f64();
        context.say(format!("cold start: {cold_start_seconds:.1} s"));
        let test = Test {
            subject: MODEL.to_owned(),
            request,
            load: self.settings.load(),
            targets: self.settings.targets,
            model: Some(WatchedModel { client, name: MODEL.to_owned() }),
            cold_start_seconds: Some(cold_start_seconds),
            // The model is served on the processor.
            gpus: 0,
            prometheus: Some(context.output::<Monitoring>()?.prometheus(context.secrets())?),
        };
        let folder = folder(context.state_dir());
        files::remove(&folder)?;
        let (report, files) = stoppable(context, test, &folder).await?;
        context.say(report.summary());
        Ok(Performance {
            report: files.html,
            json: files.json,
            samples: files.samples,
            figures: PerformanceFigures {
                latency: report.figures.latency,
                requests: report.figures.requests,
                successes: report.figures.successes,
                throughput: report.figures.throughput,
                cold_start_seconds,
            },
            targets: report.judged,
        })
    }
}

/// The folder of the report.
fn folder(state: &Path) -> PathBuf {
    state.join("reports").join("performance")
}

/// Makes the test; no further request is sent once the run was asked to stop.
async fn stoppable(context: &Context, test: Test, folder: &Path) -> Result<(Report, load::Files), Failure> {
    let control = Control::default();
    let (cancel, stop) = (context.cancel().clone(), control.clone());
    let watching = tokio::spawn(async move {
        while cancel.level() < Level::Asked {
            tokio::time::sleep(LOOK).await;
        }
        stop.stop();
    });
    let made = test.run(folder, control).await;
    watching.abort();
    context.safe_point()?;
    made.map_err(|error| Failure::caused(Persistence::Permanent, "test the model", &error))
}

/// Takes away what the test needs and nobody else.
async fn clean_up(view: &View, serving: &ModelServing) -> Result<(), Failure> {
    Client::new(serving).delete(MODEL).await.map_err(failure)?;
    forget_experiments(view, EXPERIMENT).await
}

#[async_trait]
impl Task for PerformanceTask {
    type Settings = PerformanceConfig;
    type Output = Performance;

    fn settings(&self) -> &PerformanceConfig {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![
            Read::of::<Machine>(),
            Read::of::<BaseRuntime>(),
            Read::of::<ModelRuntime>(),
            Read::of::<Platform>(),
            Read::of::<ObjectStore>(),
            Read::of::<Database>(),
            Read::of::<Tracking>(),
            Read::of::<ModelServing>(),
            Read::of::<Monitoring>(),
        ]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        load::ASSETS.to_vec()
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        let Performance { report, json, samples, .. } = &made.output;
        match [report, json, samples].into_iter().find(|file| !file.is_file()) {
            None => Probe::Holds,
            Some(file) => Probe::Missing(format!("{} is gone", file.display())),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Performance>, Failure> {
        let serving: ModelServing = context.output()?;
        // What a killed attempt has left would be no cold start.
        clean_up(context, &serving).await?;
        let tested = async {
            let model_uri = match &self.settings.model_uri {
                Some(uri) => uri.clone(),
                None => train(context, EXPERIMENT).await?.uri,
            };
            self.test(context, &serving, &model_uri).await
        };
        let tested = tested.await;
        let cleaned = clean_up(context, &serving).await;
        let output = tested?;
        cleaned?;
        if output.figures.successes == 0 {
            return Err(Failure::permanent("test the model: no request was answered as it should be")
                .with_hint(format!("see the errors in {}", output.report.display())));
        }
        Ok(Applied::complete(output))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("the generator kept its schedule"),
            Proof::safe("every request has a sample"),
            Proof::safe("each target has a verdict in the report"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, _view: &View, output: &Performance) -> Result<(), Failure> {
        let report = read_report(&output.json)?;
        match proof {
            "the generator kept its schedule" => match report.figures.delay.p50 {
                late if late > LATEST => Err(Failure::transient(format!(
                    "send requests in time: half of them left {late:.0} ms late or later"
                ))
                .with_hint("this machine is too busy with other things; test again: taskrun run --force CLOUD-6.3")),
                _ => Ok(()),
            },
            "every request has a sample" => {
                let expected = report.load.schedule().times.len();
                match samples(&output.samples)? {
                    found if found == expected => Ok(()),
                    found => Err(Failure::permanent(format!("find {expected} samples: there are {found}"))),
                }
            }
            "each target has a verdict in the report" => {
                match report.judged == output.targets && !report.judged.is_empty() {
                    true => Ok(()),
                    false => Err(Failure::permanent("find the verdicts in the report: they are others")),
                }
            }
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        if let Ok(serving) = context.output::<ModelServing>() {
            clean_up(context, &serving).await?;
        }
        files::remove(&folder(context.state_dir()))
    }
}

fn read_report(file: &Path) -> Result<Report, Failure> {
    let json = std::fs::read(file).map_err(|error| files::failure("read", file, &error))?;
    serde_json::from_slice(&json)
        .map_err(|error| Failure::caused(Persistence::Permanent, format!("understand {}", file.display()), &error))
}

/// The number of samples in a file of them.
fn samples(file: &Path) -> Result<usize, Failure> {
    let failed = |error: std::io::Error| files::failure("read", file, &error);
    let mut text = String::new();
    let compressed = std::fs::File::open(file).map_err(failed)?;
    flate2::read::GzDecoder::new(compressed).read_to_string(&mut text).map_err(failed)?;
    Ok(text.lines().count().saturating_sub(1))
}

fn failure(error: ServingError) -> Failure {
    let persistence = match error {
        ServingError::TimedOut { .. } => Persistence::Transient,
        _ => Persistence::Permanent,
    };
    let failure = Failure::caused(persistence, "serve the model of the test", &error);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
