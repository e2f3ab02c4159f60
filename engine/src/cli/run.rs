//! `run` and `resume`.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::args::{DriveArgs, Global, ResumeArgs, RunArgs};
use super::error::{CliError, exit};
use super::execute::Execution;
use super::main::say;
use super::plan::{self, SavedPlan};
use super::product::{ConfigureOptions, Product};
use super::request::{self, Request};
use super::session::{Purpose, Session, Sources, Writing};
use super::{destroy, show};
use crate::checkpoint::Checkpoint;
use crate::event::{EventKind, PlannedTask, Verb};
use crate::plan::{Footprints, Plan, Wanted};
use crate::process::Cancel;
use crate::run::{Options, Run, drive};

pub(super) async fn run(product: &dyn Product, global: &Global, args: RunArgs) -> Result<u8, CliError> {
    if args.detach {
        return super::detach::detach(product, global);
    }
    let configure = ConfigureOptions { reassign_ports: args.reassign_ports };
    let purpose = Purpose { configure, accept_data_loss: args.drive.accept_data_loss };
    let session = ManuallyDrop::new(Session::open(product, global, purpose)?);
    let saved = args.plan.as_deref().map(SavedPlan::read).transpose()?;
    let request = match &saved {
        Some(saved) => saved.request.clone(),
        None => Request::new(args.selection),
    };
    if args.dry_run {
        return plan::show(&session, &request, args.plan_out.as_deref(), false, false).await;
    }
    bring_up(product, &session, global, request, &args.drive, args.plan_out.as_deref(), saved).await
}

pub(super) async fn resume(product: &dyn Product, global: &Global, args: ResumeArgs) -> Result<u8, CliError> {
    let purpose = Purpose { accept_data_loss: args.drive.accept_data_loss, ..Purpose::default() };
    let session = ManuallyDrop::new(Session::open(product, global, purpose)?);
    match request::last(&session.read()?) {
        None => {
            say("nothing to resume: nothing was run here yet; start with `taskrun run`");
            Ok(exit::OK)
        }
        Some((Verb::Run, request)) => bring_up(product, &session, global, request, &args.drive, None, None).await,
        Some((Verb::Destroy, request)) => destroy::go_on(product, &session, global, request).await,
    }
}

async fn bring_up(
    product: &dyn Product,
    session: &Session,
    global: &Global,
    request: Request,
    args: &DriveArgs,
    plan_out: Option<&std::path::Path>,
    saved: Option<SavedPlan>,
) -> Result<u8, CliError> {
    let writing = session.write(Sources::Required)?;
    let wanted = request.resolve(&session.world.graph, &writing.checkpoint)?;
    let plan = plan::make(session, &writing.checkpoint, &wanted).await?;
    if let Some(saved) = &saved {
        saved.refuse_drift(session, &plan)?;
    }
    if let Some(file) = plan_out {
        SavedPlan::new(session, &request, &plan).write(file)?;
    }
    if !plan.has_work() {
        let Writing { writer: _writer, checkpoint, notices } = writing;
        notices.iter().for_each(say);
        // The program is about to end: to give so much memory back piece by piece takes long, and helps nobody.
        let (checkpoint, plan) = (ManuallyDrop::new(checkpoint), ManuallyDrop::new(plan));
        return settle_without_work(product, session, &checkpoint, &plan, args);
    }
    plan::preflight(session, &writing.checkpoint, &plan).await?;

    let mut execution = Execution::begin(session, writing, global, Verb::Run, &request)?;
    let jobs = args.jobs.unwrap_or_else(default_jobs);
    let tasks = planned_tasks(session, &execution.checkpoint, &wanted, &plan);
    let environment = session.identity.environment.clone();
    execution.events.send(EventKind::RunStarted { verb: Verb::Run, environment, jobs, tasks });
    let footprints = Footprints::of(&session.world, &execution.checkpoint, &plan);
    if !footprints.is_empty() {
        execution.events.send(EventKind::Notice { task: None, text: footprints.to_string() });
    }
    let options = Options { jobs, keep_going: args.keep_going, disruptive: args.disruptive };
    let checkpoint = std::mem::take(&mut execution.checkpoint);
    let (world, append) = (Arc::clone(&session.world), execution.append());
    let (events, cancel) = (execution.events.clone(), execution.cancel.clone());
    let (checkpoint, summary) = drive(Run { world, checkpoint, wanted, plan, options, append, events, cancel }).await;
    let farewell = (summary.stopped == crate::process::Level::None && show::is_success(&summary.counts, false))
        .then(|| product.farewell(session, &checkpoint))
        .flatten();
    execution.checkpoint = checkpoint;
    let code = execution.end(summary, args.strict)?;
    farewell.iter().for_each(say);
    Ok(code)
}

/// Nothing is to be run: either everything stands, or something keeps everything from running.
fn settle_without_work(
    product: &dyn Product,
    session: &Session,
    checkpoint: &Checkpoint,
    plan: &Plan,
    args: &DriveArgs,
) -> Result<u8, CliError> {
    use crate::plan::Action;
    let is = |action: Action| move |(_, decision): &(_, &crate::plan::Decision)| decision.action == action;
    if plan.iter().any(|row| is(Action::Blocked)(&row)) {
        say(show::plan(&session.world.graph, plan).trim_end());
        return Ok(exit::FAILED);
    }
    say(format!("nothing to do: {}", show::plan_summary(plan)));
    if let Some(farewell) = product.farewell(session, checkpoint) {
        say(farewell);
    }
    let lesser = |(index, decision): (crate::graph::NodeIndex, &crate::plan::Decision)| {
        let state = checkpoint.tasks.get(&session.world.graph[index].id);
        decision.action == Action::Skip || state.is_some_and(|s| s.status == crate::checkpoint::Status::Degraded)
    };
    let strict = args.strict && plan.iter().any(lesser);
    Ok(if strict { exit::FAILED } else { exit::OK })
}

fn planned_tasks(session: &Session, checkpoint: &Checkpoint, wanted: &Wanted, plan: &Plan) -> Vec<PlannedTask> {
    let graph = &session.world.graph;
    let task = |(index, decision): (crate::graph::NodeIndex, &crate::plan::Decision)| {
        let node = &graph[index];
        let in_run = graph.needs(index).filter(|(need, _)| wanted.wanted[need.index()]);
        let done = checkpoint.tasks.get(&node.id).and_then(|state| state.done.as_ref());
        PlannedTask {
            id: node.id.clone(),
            title: node.title.as_deref().map(str::to_owned),
            needs: in_run.map(|(need, _)| graph[need].id.clone()).collect(),
            decision: decision.clone(),
            expected_seconds: done.map(|done| done.seconds),
        }
    };
    plan.iter().map(task).collect()
}

/// As many as there are processors, but at least 4: most tasks wait for something else most of the time.
fn default_jobs() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors).unwrap_or(u32::MAX).max(4)
}

/// The plan of everything, for verbs that only look.
pub(super) async fn look(session: &Session, request: &Request) -> Result<(Checkpoint, Wanted, Plan), CliError> {
    let checkpoint = session.read()?;
    let wanted = request.resolve(&session.world.graph, &checkpoint)?;
    let plan = crate::plan::plan(&session.world, &checkpoint, &wanted, &Cancel::new())
        .await
        .map_err(|error| CliError::caused(exit::USAGE, error.to_string(), &*error.source))?;
    Ok((checkpoint, wanted, plan))
}
