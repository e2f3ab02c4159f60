//! The graph as data.

use serde::Serialize;
use std::collections::BTreeMap;

use super::{Drawing, Overlay};
use crate::graph::{Graph, NodeIndex, NodeKind};

/// The graph as one JSON object: `version`, `pools`, `nodes` in the order of declaration, and `edges` from needs to
/// dependents.
pub fn json(graph: &Graph, overlay: &Overlay) -> String {
    let drawing = Drawing::new(graph, overlay);
    let shown = graph.indices().filter(|task| drawing.shows(*task));
    let document = Document {
        version: 1,
        pools: graph.pools().iter().map(|pool| (&*pool.name, pool.capacity)).collect(),
        nodes: shown.map(|task| node(&drawing, task)).collect(),
        edges: drawing
            .edges()
            .map(|edge| Edge {
                from: graph[edge.from].id.as_str(),
                to: graph[edge.to].id.as_str(),
                when_skipped: if edge.optional { "run" } else { "skip" },
                critical: edge.critical,
            })
            .collect(),
    };
    // Its keys are texts and its values numbers, texts and truth values: it can be written.
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    pools: BTreeMap<&'a str, u32>,
    nodes: Vec<Node<'a>>,
    edges: Vec<Edge<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: &'a str,
    phase: Option<&'a str>,
    title: Option<&'a str>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<&'a str>,
    pools: BTreeMap<&'a str, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_label: Option<&'a str>,
    critical: bool,
    file: String,
    line: u32,
}

#[derive(Serialize)]
struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    when_skipped: &'static str,
    critical: bool,
}

fn node<'a>(drawing: &Drawing<'a>, task: NodeIndex) -> Node<'a> {
    let graph = drawing.graph;
    let node = &graph[task];
    let (kind, uses) = match &node.kind {
        NodeKind::Plugin { uses, .. } => ("plugin", Some(&**uses)),
        NodeKind::Command(_) => ("command", None),
    };
    let claims = node.pools.iter().map(|claim| (&*graph.pools()[usize::from(claim.pool)].name, claim.amount));
    let state = drawing.state(task);
    let file = graph.files().get(usize::from(node.place.file)).map(|file| file.display().to_string());
    Node {
        id: node.id.as_str(),
        phase: node.id.phase(),
        title: node.title.as_deref(),
        kind,
        uses,
        pools: claims.collect(),
        state: state.map(|state| state.class.name()),
        state_label: state.map(|state| &*state.label),
        critical: drawing.on_path.contains(&task),
        file: file.unwrap_or_default(),
        line: node.place.line,
    }
}
