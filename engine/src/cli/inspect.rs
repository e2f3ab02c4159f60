//! `list` and `graph`

use serde_json::json;

use super::args::{Global, GraphArgs, GraphFormat, JsonArgs, SelectionArgs};
use super::error::CliError;
use super::main::print;
use super::product::Product;
use super::request::Request;
use super::session::{Purpose, Session};
use super::{show, status};
use crate::checkpoint::Checkpoint;
use crate::graph::render::{Format, NodeLook, Overlay, render};
use crate::graph::{NodeIndex, critical};

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
