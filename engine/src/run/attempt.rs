//! One attempt at a task: what happens between its durable start and its durable end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::TaskId;
use crate::checkpoint::{FileRole, FileStamp, OutputRecord, TaskState};
use crate::context::{Context, Recorder, View, command_failure, refuse_secrets};
use crate::fingerprint::{Digest, KeyParts};
use crate::graph::CommandSpec;
use crate::outcome::{Failure, Outcome, Persistence};
use crate::plan::{command, files};
use crate::process::{Cancel, Cookie, Level, Status};
use crate::registry::{DynTask, ErasedMade};
use crate::run::log::AttemptLog;
use crate::task::ProofClass;
use crate::world::{Upstream, World};

/// The exit code by which programs say that trying again may help (`EX_TEMPFAIL` of sysexits.h).
const EX_TEMPFAIL: i32 = 75;

/// How long a task may take to stop after it was told to, beyond the grace of its commands.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// All that an attempt needs.
pub(crate) struct Attempt {
    pub(crate) world: Arc<World>,
    pub(crate) id: TaskId,
    pub(crate) number: u32,
    /// How long it may take.
    pub(crate) timeout: Option<Duration>,
    pub(crate) cookie: Cookie,
    pub(crate) key: Digest,
    pub(crate) upstream: Upstream,
    pub(crate) inputs: Vec<FileStamp>,
    /// What the journal said of the task before this attempt.
    pub(crate) state: Option<Arc<TaskState>>,
    /// Whether disruptive proofs may be made.
    pub(crate) disruptive: bool,
    pub(crate) cancel: Cancel,
    pub(crate) log: AttemptLog,
}

/// How an attempt ended.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) output: Option<OutputRecord>,
    pub(crate) files: Vec<FileStamp>,
}

impl Ended {
    fn because(failure: Failure) -> Self {
        let outcome =
            if failure.persistence == Persistence::Cancelled { Outcome::Cancelled } else { Outcome::from(failure) };
        Self { outcome, output: None, files: Vec::new() }
    }
}

impl Attempt {
    fn view(&self) -> View {
        View {
            task: self.id.clone(),
            dirs: self.world.dirs.clone(),
            outputs: Arc::clone(&self.upstream),
            secrets: Arc::clone(&self.world.secrets),
            redactor: self.world.redactor.clone(),
            cancel: self.cancel.clone(),
            cookie: self.cookie,
            log: self.log.clone(),
            accept_data_loss: self.world.accept_data_loss,
        }
    }

    fn context(&self, recorder: Box<dyn Recorder>) -> Context {
        let steps = self.state.iter().flat_map(|state| state.steps.iter().cloned());
        Context::new(self.view(), self.number, self.key, steps, recorder)
    }

    /// What the last success made.
    fn made(&self) -> Option<ErasedMade> {
        ErasedMade::of(self.state.as_ref()?.done.as_ref()?)
    }

    /// The settings of all attempts that may have left something.
    fn settings(&self) -> Vec<Value> {
        let traces = self.state.iter().flat_map(|state| state.made_with());
        traces.filter_map(|trace| Some(serde_json::from_str::<KeyParts>(trace.parts.get()).ok()?.settings)).collect()
    }

    /// Applies a plugin's task and makes its proofs.
    pub(crate) async fn apply(self, task: Arc<dyn DynTask>, recorder: Box<dyn Recorder>) -> Ended {
        let (cancel, redactor) = (self.cancel.clone(), self.world.redactor.clone());
        let ended = bounded(self.timeout, cancel, async move { self.apply_and_prove(&*task, recorder).await }).await;
        match ended {
            Ok(ended) => ended,
            Err(mut failure) => {
                failure.map_texts(|text| *text = redactor.redact_str(text).into_owned());
                Ended::because(failure)
            }
        }
    }

    async fn apply_and_prove(&self, task: &dyn DynTask, recorder: Box<dyn Recorder>) -> Result<Ended, Failure> {
        let context = self.context(recorder);
        let unfinished: Vec<Value> = self.settings();
        let applied = task.apply(&context, self.made().as_ref(), &unfinished).await?;
        for proof in task.proofs() {
            if proof.class == ProofClass::Disruptive && !self.disruptive {
                continue;
            }
            context.prove(&proof.name, task.prove(&proof.name, &context, &applied.output)).await?;
        }
        let json = serde_json::value::to_raw_value(&applied.output)
            .map_err(|error| Failure::caused(Persistence::Permanent, "write down the output", &error))?;
        refuse_secrets(&self.world.redactor, "the output", json.get())?;
        let missing = applied.missing;
        let outcome = if missing.is_empty() { Outcome::Succeeded } else { Outcome::Degraded { missing } };
        let output = Some(OutputRecord { schema: task.output_schema(), value: json });
        Ok(Ended { outcome, output, files: self.inputs.clone() })
    }

    /// Takes away what a plugin's task made.
    pub(crate) async fn destroy(self, task: Arc<dyn DynTask>, recorder: Box<dyn Recorder>) -> Ended {
        let (cancel, redactor) = (self.cancel.clone(), self.world.redactor.clone());
        let destroyed = bounded(self.timeout, cancel, async move {
            let context = self.context(recorder);
            task.destroy(&context, self.made().as_ref(), &self.settings()).await
        });
        match destroyed.await {
            Ok(()) => Ended { outcome: Outcome::Succeeded, output: None, files: Vec::new() },
            Err(mut failure) => {
                failure.map_texts(|text| *text = redactor.redact_str(text).into_owned());
                Ended::because(failure)
            }
        }
    }

    /// Runs a plain command. Blocks.
    ///
    /// `retried` says whether retries were asked for.
    pub(crate) fn run(&self, spec: &CommandSpec, retried: bool) -> Ended {
        self.try_run(spec, retried).unwrap_or_else(Ended::because)
    }

    fn try_run(&self, spec: &CommandSpec, retried: bool) -> Result<Ended, Failure> {
        let result = self.world.dirs.state.join("tmp").join(format!("{}.{}.json", self.id, self.number));
        let command = command::build(&self.world, spec, &spec.run, &self.upstream)?.env("TASKRUN_OUTPUT", &result);
        self.execute(command, |code| {
            // Who asks for retries without saying after which exit codes means all of them.
            let any = spec.transient_exit_codes.is_empty() && retried;
            any || code == EX_TEMPFAIL || spec.transient_exit_codes.contains(&code)
        })?;
        let output = self.collect_output(&result)?;
        let mut files = self.inputs.clone();
        self.collect_files(spec, &mut files)?;
        Ok(Ended { outcome: Outcome::Succeeded, output, files })
    }

    /// Runs the command that takes away what a plain command made. Blocks.
    pub(crate) fn run_destroy(&self, command: crate::process::Command) -> Ended {
        match self.execute(command, |code| code == EX_TEMPFAIL) {
            Ok(()) => Ended { outcome: Outcome::Succeeded, output: None, files: Vec::new() },
            Err(failure) => Ended::because(failure),
        }
    }

    fn execute(&self, command: crate::process::Command, transient: impl Fn(i32) -> bool) -> Result<(), Failure> {
        let mut command = command.cookie(self.cookie).redact(self.world.redactor.clone());
        if let Some(timeout) = self.timeout {
            command = command.timeout(timeout);
        }
        let mut sink = self.log.clone();
        let failed = |error| command_failure(&command, error, Some(self.log.path().to_owned()));
        let exit = command.run(&self.cancel, &mut sink).map_err(failed)?;
        let status = exit.status;
        exit.check(&command).map(|_| ()).map_err(|error| {
            let mut failure = failed(error);
            if let Status::Code(code) = status
                && transient(code)
            {
                failure.persistence = Persistence::Transient;
            }
            failure
        })
    }

    /// What the command wrote to `$TASKRUN_OUTPUT`; null if it wrote nothing.
    fn collect_output(&self, path: &std::path::Path) -> Result<Option<OutputRecord>, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::caused(Persistence::Permanent, "read $TASKRUN_OUTPUT", &error)),
        };
        // It was read: whether it can be removed does not matter any more.
        let _ = std::fs::remove_file(path);
        let value: Box<RawValue> = serde_json::from_str::<Value>(&text)
            .and_then(|value| serde_json::value::to_raw_value(&value))
            .map_err(|error| {
                Failure::caused(Persistence::Permanent, "read $TASKRUN_OUTPUT as JSON", &error)
                    .with_hint("the command writes one JSON value into that file, for instance {\"url\": \"…\"}")
            })?;
        refuse_secrets(&self.world.redactor, "$TASKRUN_OUTPUT", value.get())?;
        Ok(Some(OutputRecord { schema: 1, value }))
    }

    fn collect_files(&self, spec: &CommandSpec, stamps: &mut Vec<FileStamp>) -> Result<(), Failure> {
        let folder = self.world.folder_of(spec);
        for pattern in &spec.outputs {
            let failed = |error: std::io::Error| {
                Failure::caused(Persistence::Permanent, format!("read the output `{pattern}`"), &error)
            };
            let found = if files::is_glob(pattern) {
                files::expand(&files::Afresh, &folder, pattern).map_err(failed)?
            } else {
                vec![pattern.to_string()]
            };
            let before = stamps.len();
            for path in found {
                stamps.extend(files::stamp(&files::Afresh, &folder, &path, FileRole::Output, None).map_err(failed)?);
            }
            if stamps.len() == before {
                return Err(Failure::permanent(format!("find the output `{pattern}` after the command ended well"))
                    .with_hint("let the command make it, or correct `outputs`"));
            }
        }
        Ok(())
    }
}

/// Runs `work` to its end. After `timeout` it is told to stop through `cancel`, and waited for; a future is dropped only
/// if it does not heed that, and a panic becomes an error.
pub(crate) async fn bounded<T: Send + 'static>(
    timeout: Option<Duration>,
    cancel: Cancel,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let mut work = tokio::spawn(work);
    let first = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, &mut work).await.ok(),
        None => Some((&mut work).await),
    };
    if let Some(joined) = first {
        return joined.unwrap_or_else(|error| Err(panicked(&error)));
    }
    let timed_out = || {
        Failure::transient(format!("finish within {:?}", timeout.unwrap_or_default()))
            .with_hint("give it a longer `timeout` in graph.yaml if it was only slow")
    };
    for level in [Level::End, Level::Kill] {
        cancel.raise(level);
        match tokio::time::timeout(STOP_TIMEOUT, &mut work).await {
            Ok(Ok(Err(failure))) if failure.persistence == Persistence::Cancelled => return Err(timed_out()),
            Ok(joined) => return joined.unwrap_or_else(|error| Err(panicked(&error))),
            Err(_) => {}
        }
    }
    work.abort();
    Err(timed_out())
}

fn panicked(error: &tokio::task::JoinError) -> Failure {
    Failure::caused(Persistence::Permanent, "run the task: it panicked, which is a defect of its plugin", error)
        .with_hint("please report it, with the log")
}
