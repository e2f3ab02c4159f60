//! What a plan is made for: the graph with its tasks, and where they live.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::TaskId;
use crate::checkpoint::Done;
use crate::context::{Dirs, UpstreamOutput, View};
use crate::graph::{CommandSpec, Graph, NodeIndex, NodeKind};
use crate::process::{Cancel, Cookie};
use crate::redact::Redactor;
use crate::registry::Bound;
use crate::run::log::AttemptLog;
use crate::secret::{SecretSource, SecretStore};

/// A graph bound to its plugins, in one environment.
pub struct World {
    /// The graph.
    pub graph: Graph,
    /// The tasks of its nodes.
    pub bound: Bound,
    /// The environment's folders.
    pub dirs: Dirs,
    /// The environment's secrets.
    pub secrets: Arc<SecretStore>,
    /// Takes secrets out of texts.
    pub redactor: Redactor,
    /// The environment's name.
    pub environment: String,
    /// Whether the user agreed to make lost data anew.
    pub accept_data_loss: bool,
    /// The user's own secrets, by name.
    pub sources: Vec<(String, SecretSource)>,
    producers: OnceLock<HashMap<PathBuf, NodeIndex>>,
}

impl World {
    /// Puts a world together.
    pub fn new(
        graph: Graph,
        bound: Bound,
        dirs: Dirs,
        secrets: Arc<SecretStore>,
        redactor: Redactor,
        environment: String,
        accept_data_loss: bool,
    ) -> Self {
        let (producers, sources) = (OnceLock::new(), Vec::new());
        Self { graph, bound, dirs, secrets, redactor, environment, accept_data_loss, sources, producers }
    }

    /// The task that makes exactly the file `path`, an absolute one.
    pub(crate) fn producer_of(&self, path: &Path) -> Option<NodeIndex> {
        let producers = self.producers.get_or_init(|| {
            let made = |index| match &self.graph[index].kind {
                NodeKind::Command(command) => {
                    let folder = self.folder_of(command);
                    command.outputs.iter().map(|path| (folder.join(&**path), index)).collect()
                }
                NodeKind::Plugin { .. } => Vec::new(),
            };
            self.graph.indices().flat_map(made).collect()
        });
        producers.get(path).copied()
    }

    /// The folder that a command runs in, and that its paths are relative to.
    pub(crate) fn folder_of(&self, command: &CommandSpec) -> PathBuf {
        match &command.dir {
            Some(dir) => self.dirs.graph.join(dir),
            None => self.dirs.graph.clone(),
        }
    }

    /// The log of an attempt; attempt 0 stands for probes and checks.
    pub(crate) fn log_path(&self, task: &TaskId, attempt: u32) -> PathBuf {
        let name = if attempt == 0 { "probe.log".to_owned() } else { format!("{attempt}.log") };
        self.dirs.state.join("logs").join(task.as_str()).join(name)
    }

    /// A view for looking only.
    pub(crate) fn view(&self, task: &TaskId, upstream: &Upstream, cancel: &Cancel) -> View {
        View {
            task: task.clone(),
            dirs: self.dirs.clone(),
            outputs: Arc::clone(upstream),
            secrets: Arc::clone(&self.secrets),
            redactor: self.redactor.clone(),
            cancel: cancel.clone(),
            cookie: Cookie::random(),
            log: AttemptLog::new(task.clone(), self.log_path(task, 0), None),
            accept_data_loss: self.accept_data_loss,
        }
    }

    /// The kind of output that a node makes.
    pub(crate) fn output_kind(&self, index: NodeIndex) -> String {
        match &self.bound.node(index).task {
            Some(task) => task.output_kind().to_owned(),
            None => "command".to_owned(),
        }
    }
}

/// The outputs that a task reads, by the task that made them.
pub(crate) type Upstream = Arc<BTreeMap<TaskId, UpstreamOutput>>;

/// The output of a success, as its dependents see it; nothing if its JSON cannot be read.
pub(crate) fn upstream_output(kind: String, done: &Done) -> Option<UpstreamOutput> {
    let record = done.output.as_ref()?;
    Some(UpstreamOutput { kind, schema: record.schema, value: serde_json::from_str(record.value.get()).ok()? })
}
