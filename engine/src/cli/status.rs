//! `status`

use jiff::{SpanRound, Timestamp, Unit};
use serde_json::json;

use super::args::JsonArgs;
use super::error::CliError;
use super::main::print;
use super::product::Product;
use super::session::Session;
use super::show;
use crate::TaskId;
use crate::checkpoint::{Status, TaskState};

/// The version of the JSON.
const VERSION: u32 = 1;

pub(super) fn status(product: &dyn Product, session: &Session, args: &JsonArgs) -> Result<u8, CliError> {
    let (checkpoint, driven) = session.observe()?;
    let mut ids: Vec<TaskId> =
        session.world.graph.indices().map(|index| session.world.graph[index].id.clone()).collect();
    let orphans = checkpoint.tasks.keys().filter(|id| session.world.graph.find(id).is_none());
    ids.extend(orphans.cloned().collect::<Vec<_>>());
    ids.sort();
    let redactor = &session.world.redactor;
    if args.json {
        let tasks: serde_json::Map<_, _> = ids
            .iter()
            .map(|id| {
                let state = checkpoint.tasks.get(id);
                let mut entry = json!({
                    "state": now_of(state, driven),
                    "since": state.map(|state| state.since),
                    "attempt": state.map_or(0, |state| state.attempt),
                    "reason": state.map_or_else(|| "never run".to_owned(), reason),
                });
                if session.world.graph.find(id).is_none() {
                    entry["orphan"] = json!(true);
                }
                redactor.redact_json(&mut entry);
                (id.to_string(), entry)
            })
            .collect();
        let run = checkpoint.run.as_ref().map(|run| {
            let (at, code) = run.finished.map_or((None, None), |(at, code)| (Some(at), Some(code)));
            json!({
                "run": run.started.run, "verb": run.started.verb, "started": run.started.at,
                "finished": at, "exit_code": code, "running": driven,
            })
        });
        let status =
            json!({"version": VERSION, "environment": session.identity.environment, "run": run, "tasks": tasks});
        return print(&format!("{status:#}\n"));
    }
    let mut rows = vec![["TASK", "STATE", "SINCE", "ATTEMPT", "REASON"].map(str::to_owned).to_vec()];
    for id in &ids {
        let state = checkpoint.tasks.get(id);
        let orphan = if session.world.graph.find(id).is_none() { " (no longer in the graph)" } else { "" };
        rows.push(vec![
            id.to_string(),
            now_of(state, driven).to_string(),
            state.map_or_else(|| "-".to_owned(), |state| ago(state.since)),
            state.map_or_else(|| "-".to_owned(), |state| state.attempt.to_string()),
            state.map_or_else(|| "never run".to_owned(), reason) + orphan,
        ]);
    }
    let mut text = show::table(&rows);
    if let Some(where_it_is) = product.farewell(session, &checkpoint) {
        text.push_str(&format!("\n{where_it_is}\n"));
    }
    print(&redactor.redact_str(&text))
}

/// What a task does now, while its run is `driven` or after that: an attempt whose program is gone was interrupted.
pub(super) fn now_of(state: Option<&std::sync::Arc<TaskState>>, driven: bool) -> Status {
    let Some(state) = state else { return Status::Pending };
    if state.status == Status::Running && !driven { Status::Interrupted } else { state.status }
}

/// The most telling thing about a task: its error, what is missing, or why it ran.
fn reason(state: &std::sync::Arc<TaskState>) -> String {
    let missing = state.done.as_ref().and_then(|done| done.missing.first());
    match (&state.error, missing) {
        (Some(error), _) => error.to_string(),
        (None, Some(missing)) if state.status == Status::Degraded => missing.clone(),
        _ => state.reason.to_string(),
    }
}

/// How long ago, in the two largest units.
fn ago(since: Timestamp) -> String {
    let span = Timestamp::now().since((Unit::Hour, since)).unwrap_or_default();
    let unit = if span.get_hours() > 0 { Unit::Minute } else { Unit::Second };
    match span.round(SpanRound::new().smallest(unit)) {
        Ok(span) if !span.is_zero() => format!("{span:#} ago"),
        _ => "now".to_owned(),
    }
}
