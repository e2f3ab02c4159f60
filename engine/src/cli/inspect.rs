//! `list` and `graph`

use serde_json::json;

use super::args::{Global, GraphArgs, GraphFormat, JsonArgs, SelectionArgs};
use super::error::CliError;
use super::main::print;
use super::product::Product;
use super::request::Request;
use super::session::{Purpose, Session, graph_file};
use super::{show, status};
use crate::TaskId;
use crate::checkpoint::{Checkpoint, Status};
use crate::graph::render::{Class, NodeState, Overlay, dot, json as to_json, mermaid};
use crate::graph::{Graph, NodeIndex, critical};

pub(super) fn list(session: &Session, args: &JsonArgs) -> Result<u8, CliError> {
    let graph = &session.world.graph;
    let mut tasks: Vec<NodeIndex> = graph.indices().collect();
    tasks.sort_by(|a, b| graph[*a].id.cmp(&graph[*b].id));
    let needs = |task: NodeIndex| graph.needs(task).map(|(need, _)| graph[need].id.clone()).collect::<Vec<_>>();
    if args.json {
        let rows: Vec<_> = tasks
            .iter()
            .map(|task| json!({"id": graph[*task].id, "title": graph[*task].title, "needs": needs(*task)}))
            .collect();
        return print(&format!("{:#}\n", json!({"version": 1, "tasks": rows})));
    }
    let rows: Vec<Vec<String>> = tasks
        .iter()
        .map(|task| {
            let needs = needs(*task).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            vec![graph[*task].id.to_string(), graph[*task].title.as_deref().unwrap_or_default().to_owned(), needs]
        })
        .collect();
    let head = vec![["TASK", "TITLE", "NEEDS"].map(str::to_owned).to_vec()];
    print(&show::table(&[head, rows].concat()))
}

pub(super) fn graph(product: &dyn Product, global: &Global, args: &GraphArgs) -> Result<u8, CliError> {
    // The plain graph needs neither configuration nor state.
    let session = if args.plain { None } else { Some(Session::open(product, global, Purpose::default())?) };
    let loaded;
    let (graph, (checkpoint, driven)) = match &session {
        Some(session) => (&session.world.graph, session.observe()?),
        None => {
            let file = graph_file(global);
            loaded = crate::graph::load(&file)?;
            (&loaded, (Checkpoint::default(), false))
        }
    };
    let until = SelectionArgs { until: args.until.clone(), ..SelectionArgs::default() };
    let shown = Request::new(until).resolve(graph, &checkpoint)?.wanted;
    let states = match checkpoint.run {
        Some(_) => graph.indices().map(|task| state_of(&graph[task].id, &checkpoint, driven)).collect(),
        None => Vec::new(),
    };
    let critical = critical_path(graph, &checkpoint, &shown);
    let overlay = Overlay { states, critical, shown };
    print(&match args.format {
        GraphFormat::Dot => dot(graph, &overlay),
        GraphFormat::Mermaid => mermaid(graph, &overlay),
        GraphFormat::Json => to_json(graph, &overlay),
    })
}

fn state_of(id: &TaskId, checkpoint: &Checkpoint, driven: bool) -> NodeState {
    let status = status::now_of(checkpoint.tasks.get(id), driven);
    let class = match status {
        Status::Pending => Class::Pending,
        Status::Running => Class::Running,
        Status::Succeeded => Class::Succeeded,
        Status::Degraded => Class::Degraded,
        Status::Skipped => Class::Skipped,
        Status::Failed => Class::Failed,
        Status::Cancelled => Class::Cancelled,
        Status::Interrupted => Class::Interrupted,
    };
    NodeState { class, label: status.to_string() }
}

/// The longest path through the shown tasks; tasks of unknown duration count as long as the usual one.
fn critical_path(graph: &Graph, checkpoint: &Checkpoint, shown: &[bool]) -> Vec<NodeIndex> {
    let known = |task: NodeIndex| Some(checkpoint.tasks.get(&graph[task].id)?.done.as_ref()?.seconds);
    let mut all: Vec<f64> = graph.indices().filter_map(known).collect();
    all.sort_by(f64::total_cmp);
    let usual = all.get(all.len() / 2).copied().unwrap_or(1.0);
    let duration = |task: NodeIndex| if shown[task.index()] { known(task).unwrap_or(usual) } else { 0.0 };
    critical::critical_path(graph, duration).into_iter().filter(|task| shown[task.index()]).collect()
}
