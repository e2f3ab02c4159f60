//! What a task may do: read upstream outputs and secrets, run commands, and record steps.
//!
//! A [`View`] is for looking, a [`Context`] for changing; a task gets nothing else from the engine.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::TaskId;
use crate::checkpoint::StepRecord;
use crate::fingerprint::Digest;
use crate::outcome::{FailedCommand, Failure, Persistence};
use crate::process::{Cancel, Command, CommandError, Cookie, Exit, Level, OutputSink};
use crate::redact::Redactor;
use crate::run::log::AttemptLog;
use crate::secret::{Secret, SecretStore};
use crate::task::Output;

/// How a task looks at the world.
#[derive(Clone)]
pub struct View {
    pub(crate) task: TaskId,
    pub(crate) dirs: Dirs,
    pub(crate) outputs: Arc<BTreeMap<TaskId, UpstreamOutput>>,
    pub(crate) secrets: Arc<SecretStore>,
    pub(crate) redactor: Redactor,
    pub(crate) cancel: Cancel,
    pub(crate) cookie: Cookie,
    pub(crate) log: AttemptLog,
    pub(crate) accept_data_loss: bool,
}

/// The folders of an environment.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// The state folder.
    pub state: PathBuf,
    /// The folder of `graph.yaml`, to which paths in it are relative.
    pub graph: PathBuf,
}

/// An output of a task that this one may read.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamOutput {
    pub(crate) kind: String,
    pub(crate) schema: u32,
    pub(crate) value: Value,
}

impl View {
    /// The task's id.
    pub fn task(&self) -> &TaskId {
        &self.task
    }

    /// The environment's state folder.
    pub fn state_dir(&self) -> &Path {
        &self.dirs.state
    }

    /// The folder of `graph.yaml`.
    pub fn graph_dir(&self) -> &Path {
        &self.dirs.graph
    }

    /// The output of type `O`, from the one task that makes it.
    ///
    /// # Errors
    /// The task did not declare that it [reads](crate::task::Task::reads) it, or the output cannot be read any more.
    pub fn output<O: Output>(&self) -> Result<O, Failure> {
        let mut found = self.outputs.iter().filter(|(_, output)| output.kind == O::KIND);
        match (found.next(), found.next()) {
            (Some((id, output)), None) => parse_output(id, output),
            (Some(_), Some(_)) => Err(undeclared::<O>("several tasks make it; ask for one of them by its id")),
            (None, _) => Err(undeclared::<O>("declare it in `reads`")),
        }
    }

    /// The output of type `O`, or nothing where the task that makes it was skipped.
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub fn output_unless_skipped<O: Output>(&self) -> Result<Option<O>, Failure> {
        let made = self.outputs.values().any(|output| output.kind == O::KIND);
        made.then(|| self.output()).transpose()
    }

    /// The output of type `O` that the task `id` makes.
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub fn output_from<O: Output>(&self, id: &TaskId) -> Result<O, Failure> {
        match self.outputs.get(id).filter(|output| output.kind == O::KIND) {
            Some(output) => parse_output(id, output),
            None => Err(undeclared::<O>("declare it in `reads`")),
        }
    }

    /// The secret called `name`, which must exist.
    ///
    /// # Errors
    /// There is no such secret.
    pub fn secret(&self, name: &str) -> Result<Secret, Failure> {
        self.secrets.present(name).map(|(_, secret)| secret).ok_or_else(|| {
            Failure::permanent(format!("get the secret `{name}`: there is none"))
                .with_hint("see which there are: taskrun secret list")
        })
    }

    /// The environment's secrets.
    pub fn secrets(&self) -> &SecretStore {
        &self.secrets
    }

    /// Knows every secret, to take it out of texts.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Tells whether and how urgently the run was asked to stop.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Whether the user agreed to make lost data anew.
    pub fn accepts_data_loss(&self) -> bool {
        self.accept_data_loss
    }

    /// Adds a line to the task's log.
    pub fn say(&self, text: impl AsRef<str>) {
        let line = format!("{}\n", text.as_ref());
        self.log.write(self.redactor.redact_str(&line).as_bytes());
    }

    /// A point at which the task may stop without leaving anything half done.
    ///
    /// # Errors
    /// The run was asked to stop: pass this on.
    pub fn safe_point(&self) -> Result<(), Failure> {
        if self.cancel.level() >= Level::Asked { Err(Failure::cancelled()) } else { Ok(()) }
    }

    /// Runs `command` to its end; its output goes into the task's log.
    ///
    /// # Errors
    /// It could not be started, timed out, was cancelled, or ended with another exit code than 0.
    pub async fn command(&self, command: Command) -> Result<Exit, Failure> {
        self.execute(command, |command, cancel, sink| command.run(cancel, sink).map(|exit| (exit, ())))
            .await
            .map(|(exit, ())| exit)
    }

    /// Runs `command` to its end and returns what it wrote to stdout; stderr goes into the task's log.
    ///
    /// # Errors
    /// As [`command`](Self::command); also when stdout is not UTF-8.
    pub async fn capture(&self, command: Command) -> Result<String, Failure> {
        let (_, stdout) = self.execute(command, Command::read).await?;
        String::from_utf8(stdout)
            .map_err(|error| Failure::caused(Persistence::Permanent, "read what the command wrote", &error))
    }

    async fn execute<T: Send + 'static>(
        &self,
        command: Command,
        run: impl FnOnce(&Command, &Cancel, &mut dyn OutputSink) -> Result<(Exit, T), CommandError> + Send + 'static,
    ) -> Result<(Exit, T), Failure> {
        let command = command.part_of(self.cookie).redact(self.redactor.clone());
        let (mut sink, cancel) = (self.log.clone(), self.cancel.clone());
        let (command, result) = tokio::task::spawn_blocking(move || {
            let result = run(&command, &cancel, &mut sink).and_then(|(exit, out)| Ok((exit.check(&command)?, out)));
            (command, result)
        })
        .await
        .map_err(|error| Failure::caused(Persistence::Permanent, "run a command", &error))?;
        result.map_err(|error| command_failure(&command, error, Some(self.log.path().to_owned())))
    }

    /// Asks `ready` again and again until it says yes, at most for `timeout`; `what` is what is waited for.
    ///
    /// # Errors
    /// The time is over (transient, with the last thing that `ready` said), or the run was asked to end its processes.
    pub async fn wait_until<F>(
        &self,
        what: &str,
        timeout: Duration,
        mut ready: impl FnMut() -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), String>> + Send,
    {
        let start = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let said = match ready().await {
                Ok(()) => return Ok(()),
                Err(said) => said,
            };
            if start.elapsed() >= timeout {
                let message = format!("wait for {what}: not within {timeout:?}: {said}");
                return Err(Failure::transient(self.redactor.redact_str(&message)));
            }
            if self.cancel.level() >= Level::End {
                return Err(Failure::cancelled());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(500));
        }
    }
}

/// How a task changes the world.
pub struct Context {
    view: View,
    attempt: u32,
    key: Digest,
    earlier: BTreeMap<String, StepRecord>,
    recorder: Box<dyn Recorder>,
}

impl Deref for Context {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

/// Makes steps durable.
#[async_trait]
pub(crate) trait Recorder: Send + Sync {
    /// A step is under way; nothing waits for this.
    fn started(&self, step: &str);
    /// A step was left out because it was done before.
    fn kept(&self, step: &str);
    /// A proof passed; nothing waits for this.
    fn passed(&self, proof: &str);
    /// A step is done; returns when that is durable.
    async fn finished(&self, step: StepRecord) -> Result<(), Failure>;
}

impl Context {
    pub(crate) fn new(
        view: View,
        attempt: u32,
        key: Digest,
        earlier: impl IntoIterator<Item = StepRecord>,
        recorder: Box<dyn Recorder>,
    ) -> Self {
        let earlier = earlier.into_iter().filter(|step| step.key == key).map(|step| (step.name.clone(), step));
        Self { view, attempt, key, earlier: earlier.collect(), recorder }
    }

    /// Counts the attempts at this task, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Does `work` and records it under `name`: a later attempt under the same key takes the recorded result instead.
    ///
    /// For lasting results only, such as a built file; what may vanish by itself takes [`step_checked`](Self::step_checked).
    /// Each step begins at a [safe point](View::safe_point).
    ///
    /// # Errors
    /// Those of `work`, with the step's name; or the run was asked to stop.
    pub async fn step<T, W>(&self, name: &str, work: W) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned + Send + Sync,
        W: Future<Output = Result<T, Failure>> + Send,
    {
        self.step_checked(name, |_| true, work).await
    }

    /// As [`step`](Self::step), but a recorded result is taken only if `holds` says that it still stands.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub async fn step_checked<T, H, W>(&self, name: &str, holds: H, work: W) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned + Send + Sync,
        H: FnOnce(&T) -> bool + Send,
        W: Future<Output = Result<T, Failure>> + Send,
    {
        self.safe_point()?;
        if let Some(done) = self.earlier.get(name)
            && let Ok(output) = serde_json::from_str::<T>(done.output.get())
            && holds(&output)
        {
            self.recorder.kept(name);
            return Ok(output);
        }
        self.recorder.started(name);
        let output = work.await.map_err(|failure| failure.in_step(name))?;
        let encoded = serde_json::value::to_raw_value(&output)
            .map_err(|error| Failure::caused(Persistence::Permanent, "write down the step's result", &error))?;
        refuse_secrets(&self.redactor, &format!("the result of step `{name}`"), encoded.get())?;
        self.recorder.finished(StepRecord { name: name.to_owned(), key: self.key, output: encoded }).await?;
        Ok(output)
    }
}

impl Context {
    /// Makes a proof and shows it like a step; it is made anew in each attempt.
    pub(crate) async fn prove(
        &self,
        name: &str,
        proof: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        self.safe_point()?;
        let name = format!("prove: {name}");
        self.recorder.started(&name);
        proof.await.map_err(|failure| failure.in_step(&name))?;
        self.recorder.passed(&name);
        Ok(())
    }
}

/// An error if `json`, which is to be written down, holds a secret.
pub(crate) fn refuse_secrets(redactor: &Redactor, what: &str, json: &str) -> Result<(), Failure> {
    match redactor.redact_str(json) {
        std::borrow::Cow::Borrowed(_) => Ok(()),
        std::borrow::Cow::Owned(redacted) if redacted == json => Ok(()),
        std::borrow::Cow::Owned(redacted) => Err(Failure::permanent(format!("write down {what}: it holds a secret"))
            .with_hint(format!("let it name the secret instead of giving its value: {redacted}"))),
    }
}

pub(crate) fn command_failure(command: &Command, error: CommandError, log: Option<PathBuf>) -> Failure {
    if matches!(error, CommandError::Cancelled { .. }) {
        return Failure::cancelled();
    }
    let ended = match &error {
        CommandError::Failed { status, .. } => status.to_string(),
        CommandError::TimedOut { after, .. } => format!("timed out after {after:?}"),
        other => other.to_string(),
    };
    let persistence = match error {
        CommandError::TimedOut { .. } => Persistence::Transient,
        _ => Persistence::Permanent,
    };
    let tail = error.tail().unwrap_or_default().to_owned();
    let failed = FailedCommand { line: command.to_string(), ended, tail, log };
    let failure = match &error {
        CommandError::Failed { .. } | CommandError::TimedOut { .. } => {
            // The whole line stands beside the message.
            let line = command.to_string();
            let program = line.split_whitespace().next().unwrap_or_default();
            let name = program.rsplit('/').next().unwrap_or(program);
            Failure::new(persistence, format!("run `{name}`: {}", failed.ended))
        }
        _ => Failure::caused(persistence, error.to_string(), std::error::Error::source(&error).unwrap_or(&error)),
    };
    let failure = failure.with_command(failed);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn parse_output<O: Output>(id: &TaskId, output: &UpstreamOutput) -> Result<O, Failure> {
    let value = O::migrate(output.schema, output.value.clone()).ok_or_else(|| {
        Failure::permanent(format!("read the output of {id}: its version {} is unknown here", output.schema))
            .with_hint(format!("run it again: taskrun run --force {id}"))
    })?;
    serde_json::from_value(value)
        .map_err(|error| Failure::caused(Persistence::Permanent, format!("read the output of {id}"), &error))
}

fn undeclared<O: Output>(hint: &str) -> Failure {
    Failure::permanent(format!("read an output of kind `{}`: not declared, or not unique", O::KIND)).with_hint(hint)
}
