//! What the user asked for, as the journal keeps it for `resume`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::args::SelectionArgs;
use super::error::CliError;
use crate::checkpoint::{Checkpoint, RunStarted};
use crate::event::Verb;
use crate::graph::{Graph, Selection};
use crate::plan::{Asked, Wanted};
use crate::process::ProcessId;
use crate::run::events::now;

/// What a run or destroy was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) until: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) from: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) only: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) skip: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) force: Vec<String>,
    /// When it was first asked for: what was forced then and succeeded since is not forced again by `resume`.
    pub(super) since: Timestamp,
}

impl Request {
    pub(super) fn new(args: SelectionArgs) -> Self {
        let SelectionArgs { ids, mut until, from, only, skip, force } = args;
        until.splice(0..0, ids);
        Self { until, from, only, skip, force, since: now() }
    }

    /// The head of a run by this process that is asked for this.
    pub(super) fn started(&self, run: u64, verb: Verb) -> std::io::Result<RunStarted> {
        let request = serde_json::value::to_raw_value(self)?;
        Ok(RunStarted { run, at: now(), verb, request, driver: ProcessId::current()? })
    }

    /// The tasks of the graph that are meant.
    pub(super) fn resolve(&self, graph: &Graph, checkpoint: &Checkpoint) -> Result<Wanted, CliError> {
        let Self { until, from, only, skip, force, since } = self.clone();
        let selection = Selection { until, from, only, skip, force };
        let selected = selection.resolve(graph).map_err(|errors| {
            let told = errors.reasons.iter().map(|reason| match reason.hint() {
                Some(hint) => format!("error: {reason}\nhint: {hint}"),
                None => format!("error: {reason}"),
            });
            CliError::report(super::exit::USAGE, told.collect::<Vec<_>>().join("\n"))
        })?;
        let mut wanted = Wanted::from(selected);
        for index in graph.indices() {
            let again = |state: &crate::checkpoint::TaskState| state.status.is_success() && state.since >= since;
            if wanted.asked[index.index()] == Asked::Force
                && checkpoint.tasks.get(&graph[index].id).is_some_and(|state| again(state))
            {
                wanted.asked[index.index()] = Asked::Nothing;
            }
        }
        if !self.only.is_empty() {
            refuse_unmet(graph, checkpoint, &wanted)?;
        }
        Ok(wanted)
    }
}

/// `--only` leaves out what the tasks need: it must stand already.
fn refuse_unmet(graph: &Graph, checkpoint: &Checkpoint, wanted: &Wanted) -> Result<(), CliError> {
    let stands = |id| checkpoint.tasks.get(id).is_some_and(|state| state.done.is_some());
    let mut unmet: Vec<String> = Vec::new();
    for index in graph.indices().filter(|index| wanted.wanted[index.index()]) {
        for (need, how) in graph.needs(index) {
            let id = &graph[need].id;
            let dispensable = how.when_skipped == crate::graph::WhenSkipped::Run;
            if !wanted.wanted[need.index()] && !stands(id) && !dispensable {
                unmet.push(format!("error: {} needs {id}, which has not succeeded yet", graph[index].id));
            }
        }
    }
    if unmet.is_empty() {
        return Ok(());
    }
    unmet.push("hint: use --until instead of --only to run what is needed as well".to_owned());
    Err(CliError::report(super::exit::USAGE, unmet.join("\n")))
}

/// What the last run was asked for, if it can be asked for again.
pub(super) fn last(checkpoint: &Checkpoint) -> Option<(Verb, Request)> {
    let started = &checkpoint.run.as_ref()?.started;
    Some((started.verb, serde_json::from_str(started.request.get()).ok()?))
}
