//! `plan`, `why` and `check`: what a run would do, without doing it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::args::{CheckArgs, Global, IdArgs, PlanArgs, SelectionArgs};
use super::error::{CliError, exit};
use super::main::print;
use super::product::Product;
use super::request::Request;
use super::run::look;
use super::session::{Purpose, Session};
use super::show;
use crate::TaskId;
use crate::checkpoint::Checkpoint;
use crate::graph::NodeIndex;
use crate::plan::{Action, Decision, Footprints, Plan, Wanted};
use crate::process::Cancel;

/// The version of the format of saved plans.
const VERSION: u32 = 1;

pub(super) async fn plan(product: &dyn Product, global: &Global, args: PlanArgs) -> Result<u8, CliError> {
    let purpose = Purpose { accept_data_loss: args.accept_data_loss, ..Purpose::default() };
    let session = Session::open(product, global, purpose)?;
    let request = Request::new(args.selection);
    show(&session, &request, args.plan_out.as_deref(), args.json, args.detailed_exitcode).await
}

/// Prints the plan of a request.
pub(super) async fn show(
    session: &Session,
    request: &Request,
    out: Option<&Path>,
    json: bool,
    detailed: bool,
) -> Result<u8, CliError> {
    let (checkpoint, _, plan) = look(session, request).await?;
    let saved = SavedPlan::new(session, request, &plan);
    if let Some(file) = out {
        saved.write(file)?;
    }
    if json {
        print(&saved.to_json()?)?;
    } else {
        let footprints = Footprints::of(&session.world, &checkpoint, &plan);
        let footprints = if footprints.is_empty() { String::new() } else { format!("{footprints}\n") };
        print(&format!("{}{footprints}", show::plan(&session.world.graph, &plan)))?;
    }
    Ok(if detailed && plan.has_work() { exit::CHANGES } else { exit::OK })
}

/// Makes the plan of a run that is about to start.
pub(super) async fn make(session: &Session, checkpoint: &Checkpoint, wanted: &Wanted) -> Result<Plan, CliError> {
    crate::plan::plan(&session.world, checkpoint, wanted, &Cancel::new())
        .await
        .map_err(|error| CliError::caused(exit::USAGE, error.to_string(), &*error.source))
}

pub(super) async fn why(session: &Session, args: &IdArgs) -> Result<u8, CliError> {
    let ids = SelectionArgs { ids: vec![args.id.clone()], ..SelectionArgs::default() };
    let (checkpoint, _, plan) = look(session, &Request::new(ids)).await?;
    let graph = &session.world.graph;
    let meant: Vec<(NodeIndex, &Decision)> = plan
        .iter()
        .filter(|(index, _)| {
            let id = &graph[*index].id;
            id.as_str() == args.id || id.phase() == Some(&args.id)
        })
        .collect();
    let mut out = String::new();
    for (index, decision) in meant {
        out.push_str(&explain(session, &checkpoint, index, decision));
    }
    print(&session.world.redactor.redact_str(&out))
}

/// Everything that is known of a decision.
fn explain(session: &Session, checkpoint: &Checkpoint, index: NodeIndex, decision: &Decision) -> String {
    use crate::plan::Reason;
    let node = &session.world.graph[index];
    let mut out = format!("{}: {}: {}\n", node.id, decision.action, decision.reason);
    match &decision.reason {
        Reason::Changed { changes } => changes.iter().for_each(|change| out.push_str(&format!("  {change}\n"))),
        Reason::Drifted { fields } => fields.iter().for_each(|field| out.push_str(&format!("  {field}\n"))),
        _ => {}
    }
    if let Some(state) = checkpoint.tasks.get(&node.id) {
        out.push_str(&format!(
            "  last: {} since {} (attempt {}: {})\n",
            state.status, state.since, state.attempt, state.reason
        ));
        if let Some(error) = &state.error {
            out.push_str(&format!("  error: {error}\n"));
            error.hint.iter().for_each(|hint| out.push_str(&format!("  hint: {hint}\n")));
        }
        if let Some(done) = &state.done {
            done.missing.iter().for_each(|missing| out.push_str(&format!("  degraded: {missing}\n")));
        }
    }
    out
}

pub(super) async fn check(session: &Session, args: &CheckArgs) -> Result<u8, CliError> {
    let ids = SelectionArgs { ids: args.ids.clone(), ..SelectionArgs::default() };
    let request = Request::new(ids);
    let checkpoint = session.read()?;
    let wanted = request.resolve(&session.world.graph, &checkpoint)?;
    let all = Plan {
        decisions: wanted
            .wanted
            .iter()
            .map(|wanted| wanted.then(|| Decision::new(Action::Run, crate::plan::Reason::NeverRun)))
            .collect(),
    };
    preflight(session, &checkpoint, &all).await?;
    let tasks = all.iter().count();
    print(&format!(
        "{} and {} are sound, and the machine has what {tasks} tasks need\n",
        session.graph_file.display(),
        session.config_file.display()
    ))
}

/// Asks all tasks that may run what is missing on the machine.
///
/// # Errors
/// All that is missing, exit code 2: nothing was started.
pub(super) async fn preflight(session: &Session, checkpoint: &Checkpoint, plan: &Plan) -> Result<(), CliError> {
    let problems = crate::plan::preflight(&session.world, checkpoint, plan).await;
    if problems.is_empty() {
        return Ok(());
    }
    let mut out = String::new();
    for (task, problem) in problems {
        let message = session.world.redactor.redact_str(&problem.message).into_owned();
        out.push_str(&format!("error: {task}: {message}\n"));
        problem.hint.iter().for_each(|hint| out.push_str(&format!("hint: {hint}\n")));
    }
    Err(CliError::report(exit::USAGE, out))
}

/// A plan in a file: exactly this is run, or nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedPlan {
    version: u32,
    environment: String,
    pub(super) request: Request,
    tasks: BTreeMap<TaskId, Decision>,
}

impl SavedPlan {
    pub(super) fn new(session: &Session, request: &Request, plan: &Plan) -> Self {
        let tasks = plan.iter().map(|(index, decision)| (session.world.graph[index].id.clone(), decision.clone()));
        let (environment, request) = (session.identity.environment.clone(), request.clone());
        Self { version: VERSION, environment, request, tasks: tasks.collect() }
    }

    fn to_json(&self) -> Result<String, CliError> {
        serde_json::to_string_pretty(self)
            .map(|json| json + "\n")
            .map_err(|error| CliError::caused(exit::FAILED, "write the plan", &error))
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), CliError> {
        std::fs::write(file, self.to_json()?)
            .map_err(|error| CliError::caused(exit::USAGE, format!("write {}", file.display()), &error))
    }

    pub(super) fn read(file: &Path) -> Result<Self, CliError> {
        let failed = |error: &dyn std::error::Error| {
            CliError::caused(exit::USAGE, format!("read the plan {}", file.display()), error)
        };
        let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        let saved: Self = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        if saved.version != VERSION {
            let found = saved.version;
            return Err(CliError::usage(format!("{} has format version {found}, not {VERSION}", file.display())));
        }
        Ok(saved)
    }

    /// Refuses to run if the plan made now is another one.
    pub(super) fn refuse_drift(&self, session: &Session, now: &Plan) -> Result<(), CliError> {
        let now = Self::new(session, &self.request, now);
        let mut drifted = Vec::new();
        if now.environment != self.environment {
            drifted.push(format!("it is for the environment {}, not for {}", self.environment, now.environment));
        }
        let ids: std::collections::BTreeSet<&TaskId> = self.tasks.keys().chain(now.tasks.keys()).collect();
        let told = |decision: Option<&Decision>| match decision {
            Some(decision) => format!("{} ({})", decision.action, decision.reason),
            None => "not in the graph".to_owned(),
        };
        for id in ids {
            let (then, now) = (self.tasks.get(id), now.tasks.get(id));
            if then != now {
                drifted.push(format!("{id}: planned {}, now {}", told(then), told(now)));
            }
        }
        if drifted.is_empty() {
            return Ok(());
        }
        let told = drifted.iter().map(|line| format!("  {line}\n")).collect::<String>();
        Err(CliError::report(
            exit::USAGE,
            format!(
                "error: something changed since the plan was made; nothing was started\n{told}hint: look at the new plan: taskrun plan --plan-out FILE"
            ),
        ))
    }
}
