//! A whole test: the load, what is watched meanwhile, the verdicts, and the files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::driver::{Control, LoadError, run};
use super::figures::Figures;
use super::report::{Files, Report};
use super::request::Request;
use super::resources;
use super::schedule::Shape;
use super::targets::{Measured, Scaling, Targets, judge};
use crate::serving::Client;
use crate::tools::prometheus::Prometheus;

/// How often the replicas of a model are counted.
const LOOK: Duration = Duration::from_millis(250);

/// What is to be tested.
#[derive(Debug, Clone)]
pub struct Test {
    /// What it is called in the report.
    pub subject: String,
    /// The request.
    pub request: Request,
    /// The load.
    pub load: Shape,
    /// What should be achieved.
    pub targets: Targets,
    /// The model behind it, if there is one: its replicas are watched.
    pub model: Option<WatchedModel>,
    /// From asking for the model until its first answer, in seconds, if that is known.
    pub cold_start_seconds: Option<f64>,
    /// The GPUs that serve.
    pub gpus: u32,
    /// Prometheus, if there is one.
    pub prometheus: Option<Prometheus>,
}

/// A model whose replicas are watched.
#[derive(Debug, Clone)]
pub struct WatchedModel {
    /// Tells how many there are.
    pub client: Client,
    /// Its name.
    pub name: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The load could not be made.
    #[error("make the load")]
    Load(#[from] LoadError),
    /// The report cannot be written.
    #[error("write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The ready replicas at times since the first request.
type Replicas = Vec<(Duration, u32)>;

impl Test {
    /// Makes the test and writes its report into `folder`.
    ///
    /// # Errors
    /// The load could not be made or was stopped, or a file cannot be written.
    pub async fn run(self, folder: &Path, control: Control) -> Result<(Report, Files), TestError> {
        let told = format!("{} {}", self.request.method, self.request.url);
        let (began, schedule) = (Timestamp::now(), self.load.schedule());
        let ended = Arc::new(AtomicBool::new(false));
        let watching = self.model.clone().map(|model| tokio::spawn(model.watch(Arc::clone(&ended))));
        let samples = run(self.request, schedule.clone(), control).await;
        ended.store(true, Ordering::Relaxed);
        let replicas = match watching {
            Some(watching) => watching.await.unwrap_or_default(),
            None => Replicas::new(),
        };
        let samples = samples?;
        let figures = Figures::new(&samples, &self.load, &schedule);
        let files = Files::new(folder, &self.subject, began);
        let mut report = Report::new(&self.subject, told, began, self.load, figures, &files);
        report.targets = self.targets;
        report.cold_start_seconds = self.cold_start_seconds;
        let most = self.model.as_ref().and_then(WatchedModel::most);
        report.scaling = most.and_then(|most| Scaling::of(&replicas, most));
        let warm_up = self.load.warm_up_seconds;
        report.replicas = replicas.iter().map(|(at, ready)| (at.as_secs_f64() - warm_up, *ready)).collect();
        let model = self.model.as_ref().map(|model| model.name.as_str());
        let mut gpu_utilisation = None;
        match resources::during(self.prometheus.as_ref(), model, &self.load).await {
            Ok(found) => {
                gpu_utilisation = found.iter().find(|one| one.name == resources::GPUS).map(|one| one.mean / 100.0);
                report.resources = found;
            }
            Err(why) => report.notes.push(format!("what the test took of the machine is not known: {why}")),
        }
        report.judged = judge(
            &self.targets,
            &Measured {
                figures: &report.figures,
                cold_start: self.cold_start_seconds,
                gpus: self.gpus,
                gpu_utilisation,
                scaling: report.scaling,
            },
        );
        files.write(&report, &samples).map_err(|(file, source)| TestError::Write { file, source })?;
        Ok((report, files))
    }
}

impl WatchedModel {
    async fn watch(self, ended: Arc<AtomicBool>) -> Replicas {
        let start = Instant::now();
        let mut replicas = Replicas::new();
        while !ended.load(Ordering::Relaxed) {
            if let Ok(status) = self.client.status(&self.name) {
                replicas.push((start.elapsed(), status.ready));
            }
            tokio::time::sleep(LOOK).await;
        }
        replicas
    }

    /// The most replicas that it may have.
    fn most(&self) -> Option<u32> {
        Some(self.client.status(&self.name).ok()?.service.replicas.max)
    }
}

impl Scaling {
    /// What a series of ready replicas shows; nothing if it is empty.
    pub fn of(replicas: &[(Duration, u32)], most: u32) -> Option<Self> {
        let (_, from) = *replicas.first()?;
        let to = replicas.iter().map(|(_, ready)| *ready).max()?;
        let reached = |count: u32| {
            let at = replicas.iter().find(|(_, ready)| *ready >= count)?.0;
            (count > from).then_some(at.as_secs_f64())
        };
        Some(Self { from, to, most, first_seconds: reached(from + 1), all_seconds: reached(to) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reaction_of_the_autoscaler_is_read_off_the_replicas() {
        let at = |seconds: u64, ready: u32| (Duration::from_secs(seconds), ready);
        let grown = Scaling::of(&[at(0, 1), at(4, 1), at(9, 2), at(12, 3), at(20, 2)], 3).unwrap();
        let (first_seconds, all_seconds) = (Some(9.0), Some(12.0));
        assert_eq!(grown, Scaling { from: 1, to: 3, most: 3, first_seconds, all_seconds });
        let same = Scaling::of(&[at(0, 2), at(4, 2)], 2).unwrap();
        assert_eq!((same.first_seconds, same.all_seconds), (None, None));
        assert_eq!(Scaling::of(&[], 3), None);
    }
}
