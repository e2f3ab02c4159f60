//! What every verb begins with: graph, configuration and state, read and bound together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::Global;
use super::error::{CliError, MEND_DISK, exit};
use super::main::say;
use super::product::{ConfigureOptions, Product};
use crate::TaskId;
use crate::checkpoint::{Checkpoint, Record};
use crate::context::Dirs;
use crate::graph::{Graph, load_cached, nearest};
use crate::journal::{Identity, JournalError, Lock, LockError, RealDisk, Seen, Tail, Writer, set_aside};
use crate::process::{end_orphans, find_orphans};
use crate::redact::Redactor;
use crate::registry::Registry;
use crate::secret::SecretStore;
use crate::task::Output;
use crate::world::World;

/// How long orphans of a killed run may take to end before they are killed.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// A graph bound to its configuration, and the folder of its state.
pub struct Session {
    /// The graph's file.
    pub graph_file: PathBuf,
    /// The configuration's file.
    pub config_file: PathBuf,
    /// The state folder of the environment.
    pub state: PathBuf,
    /// Whose state it is.
    pub identity: Identity,
    /// The plugins.
    pub registry: Arc<Registry>,
    /// The graph with its tasks.
    pub world: Arc<World>,
    /// What the user should know of the configuration.
    warnings: Vec<String>,
}

/// What a session is opened for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Purpose {
    /// Options that plugins heed.
    pub configure: ConfigureOptions,
    /// Lost data may be made anew.
    pub accept_data_loss: bool,
}

/// The state, open for writing, by nobody else.
pub struct Writing {
    /// The journal.
    pub writer: Writer,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// What the user should know of how it was found.
    pub notices: Vec<String>,
}

/// Whether the sources of the user's own secrets must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// What is made needs them as they are now.
    Required,
    /// What is taken away does with what is known of them.
    Optional,
}

/// Where the graph's file is.
pub(super) fn graph_file(global: &Global) -> PathBuf {
    global.graph.clone().unwrap_or_else(|| PathBuf::from("graph.yaml"))
}

impl Session {
    /// Reads and binds everything, and tells the warnings.
    ///
    /// # Errors
    /// Everything that is wrong with graph and configuration, exit code 2; an unreadable secrets file, 4.
    pub fn open(product: &dyn Product, global: &Global, purpose: Purpose) -> Result<Self, CliError> {
        let session = Self::open_quietly(product, global, purpose)?;
        session.warn();
        Ok(session)
    }

    /// As [`open`](Self::open), without telling the warnings.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub(super) fn open_quietly(product: &dyn Product, global: &Global, purpose: Purpose) -> Result<Self, CliError> {
        let graph_file = graph_file(global);
        let config_file = global.config.clone().unwrap_or_else(|| product.default_config().to_owned());
        let configured = product.configure(&config_file, global.config.is_some(), purpose.configure);
        let configured = configured.map_err(|error| match crate::graph::load(&graph_file) {
            Ok(_) => error,
            // What is wrong with either is told at once.
            Err(errors) => CliError::report(error.code, error.render() + &CliError::from(errors).render()),
        })?;
        let folder = graph_folder(&graph_file)?;
        let root = global.state_dir.clone().unwrap_or_else(|| product.state_root(&folder));
        let root = std::path::absolute(&root)
            .map_err(|error| CliError::caused(exit::USAGE, format!("find {}", root.display()), &error))?;
        let state = root.join(&configured.environment);
        let graph = load_graph(&graph_file, &state)?;
        let registry = configured.registry;
        let bound = registry.bind(&graph)?;
        let redactor = Redactor::new();
        let secrets = SecretStore::open(state.join("secrets.json"), redactor.clone())
            .map_err(|error| CliError::caused(exit::STATE, "read the secrets", &error))?;
        let identity = Identity { environment: configured.environment.clone(), platform: configured.platform };
        let dirs = Dirs { state: state.clone(), graph: folder };
        let mut world = World::new(
            graph,
            bound,
            dirs,
            Arc::new(secrets),
            redactor,
            configured.environment,
            purpose.accept_data_loss,
        );
        world.sources = configured.secrets;
        let (registry, world, warnings) = (Arc::new(registry), Arc::new(world), configured.warnings);
        Ok(Self { graph_file, config_file, state, identity, registry, world, warnings })
    }

    /// Tells what the user should know of the configuration.
    pub(super) fn warn(&self) {
        for warning in &self.warnings {
            say(format!("warning: {warning}"));
        }
    }

    /// What the journal says now. Waits for nobody and changes nothing.
    ///
    /// # Errors
    /// The journal is damaged, was set aside, or is from a newer program, exit code 4; or it is another environment's, 2.
    pub fn read(&self) -> Result<Checkpoint, CliError> {
        self.refuse_to_begin_anew()?;
        read_checkpoint(&self.state, &self.identity)
    }

    /// As [`read`](Self::read); also whether the last run goes on.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn observe(&self) -> Result<(Checkpoint, bool), CliError> {
        let mut gone = None;
        loop {
            let checkpoint = self.read()?;
            let unfinished = checkpoint.run.as_ref().filter(|run| run.finished.is_none());
            match unfinished.map(|run| run.started.driver) {
                Some(driver) if driver.is_alive() => return Ok((checkpoint, true)),
                // It may have written its end between the look at the journal and that at the process.
                Some(driver) if gone != Some(driver) => gone = Some(driver),
                _ => return Ok((checkpoint, false)),
            }
        }
    }

    /// The output of type `O` that a task of the graph gave when it succeeded last.
    pub fn output<O: Output>(&self, checkpoint: &Checkpoint) -> Option<O> {
        let graph = &self.world.graph;
        let mut made = graph.indices().filter(|index| self.world.output_kind(*index) == O::KIND);
        let record = made.find_map(|index| checkpoint.tasks.get(&graph[index].id)?.done.as_ref()?.output.as_ref())?;
        let value = O::migrate(record.schema, serde_json::from_str(record.value.get()).ok()?)?;
        serde_json::from_value(value).ok()
    }

    /// The id of a task of the graph, or of one that only `checkpoint` knows, as the user wrote it.
    ///
    /// # Errors
    /// There is no such task, exit code 2.
    pub fn task_id(&self, checkpoint: &Checkpoint, name: &str) -> Result<TaskId, CliError> {
        let graph = &self.world.graph;
        let known = || graph.indices().map(|index| &graph[index].id).chain(checkpoint.tasks.keys());
        if let Some(id) = known().find(|id| id.as_str() == name) {
            return Ok(id.clone());
        }
        let hint = match nearest(name, known().map(TaskId::as_str)) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "see which there are: taskrun list".to_owned(),
        };
        Err(CliError::usage(format!("there is no task `{name}`")).with_hint(hint))
    }

    /// Takes the lock, recovers the journal, and ends what a killed run has left running.
    ///
    /// # Errors
    /// Another run holds the state, exit code 3; the state is damaged or cannot be written, 4.
    pub fn write(&self, sources: Sources) -> Result<Writing, CliError> {
        let (lock, mut notices) = self.lock()?;
        self.refuse_to_begin_anew()?;
        for (name, source) in &self.world.sources {
            match (self.world.secrets.resolve(name, source), sources) {
                (Ok(_), _) => {}
                (Err(error), Sources::Required) => {
                    return Err(CliError::caused(exit::USAGE, format!("get the secret `{name}`"), &error));
                }
                (Err(error), Sources::Optional) => {
                    notices.push(format!("the secret `{name}` stays as it was last known: {error}"));
                }
            }
        }
        let mut checkpoint = Checkpoint::default();
        let opened = Writer::open(Arc::clone(&lock), Arc::new(RealDisk), &self.identity, |_, payload| {
            Ok(fold(&mut checkpoint, payload)?)
        });
        let (writer, opened) = match opened {
            Ok(opened) => opened,
            Err(error @ JournalError::Damaged { .. }) => {
                let aside = set_aside(&lock, &RealDisk).map_err(|error| journal_error(&error))?;
                return Err(CliError::new(exit::STATE, format!("{error}; it was set aside as {}", aside.display()))
                    .with_hint("rebuild the state from what exists: taskrun recover"));
            }
            Err(error) => return Err(journal_error(&error)),
        };
        if let Some(torn) = opened.torn {
            notices.push(format!(
                "the journal ended in the middle of a record, as after a power failure: {} bytes at {} were cut",
                torn.bytes, torn.offset
            ));
        }
        notices.extend(fence(&checkpoint)?);
        Ok(Writing { writer, checkpoint, notices })
    }

    /// Takes the lock of the state folder, which is made if it is not there.
    ///
    /// # Errors
    /// Another run holds it, exit code 3; the folder cannot be written, 4.
    pub fn lock(&self) -> Result<(Arc<Lock>, Vec<String>), CliError> {
        std::fs::create_dir_all(&self.state).map_err(|error| {
            CliError::caused(exit::STATE, format!("make the state folder {}", self.state.display()), &error)
                .with_hint("let it be written, or name another one: --state-dir")
        })?;
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let lock = Lock::acquire(&self.state, &command).map_err(|error| lock_error(&error))?;
        let stale = lock.predecessor().map(|holder| {
            let (pid, since) = (holder.process.pid, &holder.since);
            format!("the last run (pid {pid}, since {since}) ended without saying goodbye; going on from its journal")
        });
        let notices = stale.into_iter().collect();
        Ok((Arc::new(lock), notices))
    }

    /// A journal that was set aside must not be taken for one that never was.
    fn refuse_to_begin_anew(&self) -> Result<(), CliError> {
        if self.state.join(crate::journal::FILE_NAME).exists() {
            return Ok(());
        }
        match super::recover::newest_damaged(&self.state) {
            None => Ok(()),
            Some(path) => {
                Err(CliError::new(exit::STATE, format!("the journal was damaged and set aside: {}", path.display()))
                    .with_hint("rebuild the state from what exists: taskrun recover"))
            }
        }
    }
}

/// Folds one frame's records into a checkpoint.
pub(crate) fn fold(checkpoint: &mut Checkpoint, payload: &[u8]) -> Result<(), FoldError> {
    for record in serde_json::from_slice::<Vec<Record>>(payload)? {
        checkpoint.apply(record)?;
    }
    Ok(())
}

/// A frame that holds no records, or impossible ones.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    #[error("it holds no records of this version")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Illegal(#[from] crate::checkpoint::IllegalTransition),
}

pub(super) fn read_checkpoint(state: &Path, identity: &Identity) -> Result<Checkpoint, CliError> {
    let mut checkpoint = Checkpoint::default();
    let mut foreign = None;
    let read = Tail::new(state).poll(|seen| {
        match seen {
            Seen::Start(header) => {
                checkpoint = Checkpoint::default();
                foreign = (header.identity() != *identity).then(|| header.identity());
            }
            Seen::Frame { payload, .. } => fold(&mut checkpoint, payload)?,
        }
        Ok(())
    });
    read.map_err(|error| journal_error(&error))?;
    match foreign {
        None => Ok(checkpoint),
        Some(found) => Err(CliError::usage(format!("{} belongs to {found}, not to {identity}", state.display()))
            .with_hint("give each environment a state folder of its own: --state-dir")),
    }
}

pub(super) fn journal_error(error: &JournalError) -> CliError {
    let code = if matches!(error, JournalError::Foreign { .. }) { exit::USAGE } else { exit::STATE };
    let told = match std::error::Error::source(error) {
        Some(source) => CliError::caused(code, error.to_string(), source),
        None => CliError::new(code, error.to_string()),
    };
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

fn lock_error(error: &LockError) -> CliError {
    match error {
        LockError::Held { .. } => CliError::new(exit::LOCKED, error.to_string())
            .with_hint("follow it with `taskrun watch`, or wait until it has ended"),
        LockError::Io { .. } => {
            CliError::caused(exit::STATE, "take the lock of the state folder", error).with_hint(MEND_DISK)
        }
    }
}

/// Ends every process of attempts whose driver is gone.
fn fence(checkpoint: &Checkpoint) -> Result<Vec<String>, CliError> {
    let lost = checkpoint.tasks.values().filter_map(|state| state.in_flight.as_ref());
    let attempts: Vec<_> = lost.map(|attempt| (attempt.cookie, attempt.process)).collect();
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error: &dyn std::error::Error| {
        CliError::caused(exit::STATE, "end what the last run has left running", error)
            .with_hint("end these processes by hand, then resume")
    };
    let orphans = find_orphans(&attempts).map_err(|error| failed(&error))?;
    let told = orphans
        .iter()
        .map(|orphan| format!("ended pid {}, left over from the last run: {}", orphan.process, orphan.command));
    let told = told.collect();
    end_orphans(&orphans, ORPHAN_GRACE).map_err(|error| failed(&error))?;
    Ok(told)
}

/// The folder of the graph's file, absolute.
fn graph_folder(file: &Path) -> Result<PathBuf, CliError> {
    let file = std::path::absolute(file)
        .map_err(|error| CliError::caused(exit::USAGE, format!("find {}", file.display()), &error))?;
    Ok(file.parent().map(Path::to_owned).unwrap_or_default())
}

/// Loads the graph, compiled if it was compiled before.
pub(super) fn load_graph(file: &Path, state: &Path) -> Result<Graph, CliError> {
    let (graph, _) = load_cached(file, &state.join("graph.cache"))?;
    Ok(graph)
}
