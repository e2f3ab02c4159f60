//! The graph of tasks: what `graph.yaml` says.
//!
//! A graph is read, checked as a whole (every problem is reported at once, with its place) and from then on it does
//! not change: whoever holds a [`Graph`] need not ask whether an id is known or whether there is a cycle.

mod model;
mod order;

pub use model::{
    Claim, CommandSpec, Digest, EnvValue, Graph, Need, Node, NodeKind, Place, Pool, Retries, Run, WhenSkipped,
};
pub use petgraph::graph::NodeIndex;
