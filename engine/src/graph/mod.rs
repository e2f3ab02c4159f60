//! The graph of tasks: what `graph.yaml` says.
//!
//! A graph is read, checked as a whole (every problem is reported at once, with its place) and from then on it does
//! not change: whoever holds a [`Graph`] need not ask whether an id is known or whether there is a cycle.

mod cache;
mod check;
mod command;
pub mod critical;
mod decode;
mod diagnose;
mod document;
mod draft;
mod duration;
mod field;
mod flow;
mod load;
mod model;
mod order;
mod problem;
mod reach;
pub mod render;
#[cfg(test)]
mod round_trip;
mod schema;
mod selection;
mod source;
#[cfg(test)]
mod testing;
mod yaml;

pub use cache::{CacheUse, load_cached};
pub use diagnose::{GraphErrors, Problem, nearest};
pub use document::{Document, Fault};
pub use duration::parse as parse_duration;
pub use load::load;
pub(crate) use load::{Finding, Part};
pub use model::{
    Claim, CommandSpec, Digest, EnvValue, Graph, Need, Node, NodeKind, Place, Pool, Retries, Run, WhenSkipped,
};
pub use petgraph::graph::NodeIndex;
pub use problem::ProblemKind;
pub use schema::schema;
pub use selection::{Selected, Selection, SelectionError, SelectionErrors};
