//! A small DAG engine: it brings a machine to a described state, and can be killed at any instant.
//!
//! `graph.yaml` says what depends on what, a [plan](plan) says what will happen and why, one [loop](run) makes it
//! happen, and a [journal](journal) remembers it so exactly that the power cord may be pulled. Everything a person
//! sees is a fold over one stream of [events](event).

pub mod checkpoint;
pub mod event;
pub mod fingerprint;
pub mod graph;
pub mod id;
pub mod journal;
pub mod outcome;
pub mod plan;
pub mod process;
pub mod redact;
pub mod secret;
#[cfg(feature = "testing")]
pub mod testing;

pub use id::{TaskId, TaskIdError};
