//! The [`Task`] trait: what a plugin is.
//!
//! A task brings one thing to a described state. It is a value that holds its settings and nothing else: what it made
//! is known from the journal, what it may do comes from the [`Context`]. The engine calls its verbs in this order:
//! [`relevant`](Task::relevant) and [`check`](Task::check) before anything starts, [`probe`](Task::probe) to see
//! whether earlier work still stands, [`apply`](Task::apply) and then each of its [proofs](Task::proofs),
//! [`destroy`](Task::destroy) at the end of its life.

use std::borrow::Cow;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TaskId;
use crate::context::{Context, View};
use crate::outcome::Failure;
pub use crate::plan::Drift;

/// What a task gives to the tasks that need it.
///
/// Dependents ask for it by this type ([`View::output`]), so implementations of one task for different platforms have
/// the same output type. It stands in the journal: secrets enter as [`SecretRef`](crate::secret::SecretRef), never by
/// value, and nothing enters that changes by itself, such as a process id.
pub trait Output: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is, such as `object-store`: the name that joins producers and readers.
    const KIND: &'static str;
    /// The version of the type, raised when its JSON changes in a way that older programs cannot read.
    const SCHEMA: u32 = 1;

    /// Turns the JSON of an older version into the present one; nothing where that is impossible, and the task is then
    /// applied again to adopt what exists.
    fn migrate(schema: u32, value: Value) -> Option<Value> {
        (schema == Self::SCHEMA).then_some(value)
    }
}

/// A plugin.
///
/// `apply` and `destroy` are idempotent: they may be killed at any instant and are called again.
#[async_trait]
pub trait Task: Send + Sync + 'static {
    /// What the task reads of the configuration; part of its key, and kept in the journal for `destroy`.
    type Settings: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it gives to its dependents.
    type Output: Output;

    /// The version of the plugin, raised when `apply` does something else for the same settings.
    fn version(&self) -> u32 {
        1
    }

    /// The settings.
    fn settings(&self) -> &Self::Settings;

    /// The upstream outputs that the verbs ask for.
    fn reads(&self) -> Vec<Read> {
        Vec::new()
    }

    /// The names of the secrets whose versions are part of the key.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// The files that come with the plugin and decide what it does, such as templates and locked requirements.
    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        Vec::new()
    }

    /// The user's files that it reads.
    fn inputs(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// What the first [`apply`](Self::apply) takes of the network and the disk: told before anything starts, and
    /// compared with the free disk.
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }

    /// Whether the task applies to this machine at all; otherwise a reason such as `no NVIDIA GPU was found`.
    async fn relevant(&self, _view: &View) -> Result<(), String> {
        Ok(())
    }

    /// What is missing on the machine, all of it at once; asked before anything starts.
    async fn check(&self, _view: &View) -> Vec<Problem> {
        Vec::new()
    }

    /// Whether what an earlier attempt made still stands. Changes nothing.
    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe
    where
        Self: Sized;

    /// Brings the thing to its described state, whatever state it is in, and returns what dependents need.
    ///
    /// Never deletes or re-initialises data, unless [`View::accepts_data_loss`]. `earlier` tells what is there from
    /// before, so that what moved or was renamed can be taken away.
    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<Self::Output>, Failure>
    where
        Self: Sized;

    /// The checks that must pass before a success is recorded, in order.
    fn proofs(&self) -> &'static [Proof] {
        &[]
    }

    /// Makes the check called `proof`, and cleans up what the check itself made.
    async fn prove(&self, proof: &str, _view: &View, _output: &Self::Output) -> Result<(), Failure> {
        Err(Failure::permanent(format!("no proof is called `{proof}`")))
    }

    /// Takes away what attempts with these settings made or may have half made, and checks that it is gone.
    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure>
    where
        Self: Sized;
}

/// An upstream output that a task asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The [`Output::KIND`].
    pub kind: &'static str,
    /// The task that makes it; only needed where several do.
    pub from: Option<TaskId>,
}

impl Read {
    /// The output of type `O`, from the one ancestor that makes it.
    pub fn of<O: Output>() -> Self {
        Self { kind: O::KIND, from: None }
    }

    /// The output of type `O` that the task `from` makes.
    pub fn from<O: Output>(from: TaskId) -> Self {
        Self { kind: O::KIND, from: Some(from) }
    }
}

/// What a first `apply` takes, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Footprint {
    /// What it fetches from the network if no cache has it, in MiB.
    pub download_mib: u64,
    /// What it leaves on the disk, caches included, in MiB.
    pub disk_mib: u64,
}

/// Something that must be put right before a run can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What mends it, if possible a command.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem and what mends it.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// It stands and works.
    Holds,
    /// It is there and does not run; `apply` starts it.
    Stopped(String),
    /// It differs from the record; `apply` sets it right.
    Drifted(Vec<Drift>),
    /// It is gone; `apply` makes it again, and nothing is lost.
    Missing(String),
    /// Data is gone; `apply` makes it again, empty, and is called only with `--accept-data-loss`.
    DataLost(String),
    /// It could not be seen; `apply` is not called.
    CannotTell(String),
}

/// What a success made.
pub struct Made<T: Task> {
    /// The settings that it was made with.
    pub settings: T::Settings,
    /// What it gave to its dependents.
    pub output: T::Output,
}

/// What is there from before an `apply`.
pub struct Earlier<T: Task> {
    /// The last success.
    pub made: Option<Made<T>>,
    /// The settings of attempts after it that did not succeed.
    pub unfinished: Vec<T::Settings>,
}

/// What a `destroy` has to take away.
pub struct Traces<T: Task> {
    /// The output of the last success, if there was one.
    pub output: Option<T::Output>,
    /// The settings of all attempts that may have left something, the oldest first; never empty.
    pub settings: Vec<T::Settings>,
}

/// What an `apply` achieved.
#[derive(Debug)]
pub struct Applied<O> {
    /// What dependents need.
    pub output: O,
    /// What does not work; dependents go on nevertheless.
    pub missing: Vec<String>,
}

impl<O> Applied<O> {
    /// Everything works.
    pub fn complete(output: O) -> Self {
        Self { output, missing: Vec::new() }
    }

    /// Works but for `missing`: what it is, and what to do about it.
    pub fn degraded(output: O, missing: Vec<String>) -> Self {
        Self { output, missing }
    }
}

/// A named check of a task's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Its name: what holds if it passes, such as `an object survives a restart`.
    pub name: Cow<'static, str>,
    /// When it may be made.
    pub class: ProofClass,
}

impl Proof {
    /// A proof of milliseconds that changes nothing.
    pub const fn quick(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), class: ProofClass::Quick }
    }

    /// A proof that cleans up after itself.
    pub const fn safe(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), class: ProofClass::Safe }
    }

    /// A proof that disturbs who uses the thing.
    pub const fn disruptive(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), class: ProofClass::Disruptive }
    }
}

/// When a proof may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofClass {
    /// Milliseconds, and changes nothing: made after each `apply` and as a part of each probe.
    Quick,
    /// Cleans up its rows, objects and experiments: made after each `apply`.
    Safe,
    /// Restarts and the like: made at the first install while nothing depends on the task, else only with
    /// `--disruptive`.
    Disruptive,
}
