//! The states and durations of the tasks, and the last run, as metrics: a service that reads the journal at each scrape.
//!
//! It changes nothing and waits for nobody, so it can be scraped while a run goes on.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use taskrun_engine::checkpoint::{Checkpoint, Record, Status};
use taskrun_engine::journal::{JournalError, Seen, Tail};

use crate::tools::exporter;

/// The hidden verb that the exporter is started by.
pub const VERB: &str = "export-tasks";

/// All that may have happened last to a task.
const STATES: [Status; 8] = [
    Status::Pending,
    Status::Running,
    Status::Succeeded,
    Status::Degraded,
    Status::Skipped,
    Status::Failed,
    Status::Cancelled,
    Status::Interrupted,
];

/// A gauge whose values need not be whole.
type Real = Gauge<f64, std::sync::atomic::AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Task {
    task: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskState {
    task: String,
    state: &'static str,
}

/// The journal of a state folder, as far as it was read.
struct Follower {
    tail: Tail,
    checkpoint: Checkpoint,
}

/// Serves the metrics of the state folder `state` on a port: what [`VERB`] does.
pub fn export(state: &Path, port: &str) -> ExitCode {
    exporter::main(async {
        let port = port.parse().map_err(|_| std::io::Error::other(format!("`{port}` is no port")))?;
        let follower = Follower { tail: Tail::new(state), checkpoint: Checkpoint::default() };
        let follower = Arc::new(Mutex::new(follower));
        exporter::serve(port, move || {
            let follower = Arc::clone(&follower);
            let look = move || {
                // A look that panicked leaves a checkpoint that the next one begins anew.
                let mut follower = follower.lock().unwrap_or_else(PoisonError::into_inner);
                follower.advance().map_err(|error| describe(&error))?;
                Ok(metrics(&follower.checkpoint))
            };
            async { tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())? }
        })
        .await
    })
}

impl Follower {
    /// Reads what was written since the last time.
    fn advance(&mut self) -> Result<(), JournalError> {
        let checkpoint = &mut self.checkpoint;
        let read = self.tail.poll(|seen| {
            match seen {
                Seen::Start(_) => *checkpoint = Checkpoint::default(),
                Seen::Frame { payload, .. } => {
                    for record in serde_json::from_slice::<Vec<Record>>(payload)? {
                        checkpoint.apply(record)?;
                    }
                }
            }
            Ok(())
        });
        read.map(|_| ())
    }
}

fn describe(error: &JournalError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn metrics(checkpoint: &Checkpoint) -> Registry {
    let mut registry = Registry::with_prefix("taskrun");
    registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    tasks(&mut registry, checkpoint);
    run(&mut registry, checkpoint);
    registry
}

fn tasks(registry: &mut Registry, checkpoint: &Checkpoint) {
    let states = Family::<TaskState, Gauge>::default();
    let changed = Family::<Task, Real>::default();
    let durations = Family::<Task, Real>::default();
    let attempts = Family::<Task, Gauge>::default();
    for (id, state) in &checkpoint.tasks {
        let task = Task { task: id.to_string() };
        for status in STATES {
            let labels = TaskState { task: task.task.clone(), state: status.as_str() };
            states.get_or_create(&labels).set((state.status == status).into());
        }
        changed.get_or_create(&task).set(state.since.as_duration().as_secs_f64());
        attempts.get_or_create(&task).set(state.attempt.into());
        if let Some(done) = &state.done {
            durations.get_or_create(&task).set(done.seconds);
        }
    }
    registry.register("task_state", "1 for the state that the task is in", states);
    registry.register("task_state_changed_timestamp_seconds", "Since when it is in that state", changed);
    registry.register("task_attempts", "Attempts at the task so far", attempts);
    registry.register("task_duration_seconds", "How long its last success took", durations);
}

fn run(registry: &mut Registry, checkpoint: &Checkpoint) {
    let Some(run) = &checkpoint.run else { return };
    let mut add = |name: &str, help: &str, value: f64| {
        let gauge = Real::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let started = run.started.at.as_duration().as_secs_f64();
    add("run_number", "The number of the last run", run.started.run as f64);
    add("run_start_timestamp_seconds", "When the last run began", started);
    let active = run.finished.is_none() && run.started.driver.is_alive();
    add("run_active", "1 while a run goes on", f64::from(u8::from(active)));
    if let Some((at, exit_code)) = run.finished {
        let ended = at.as_duration().as_secs_f64();
        add("run_end_timestamp_seconds", "When the last run ended", ended);
        add("run_duration_seconds", "How long the last run took", ended - started);
        add("run_exit_code", "The exit code of the last run", f64::from(exit_code));
    }
}
