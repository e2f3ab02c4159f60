//! What a run will do with each task, and why.
//!
//! One function judges a task from what is known of it; `run`, `resume`, `run --dry-run` and `why` all ask
//! it. It is pure: the files, probes and upstream outputs that it needs are handed in.

mod decision;

pub use decision::{Action, Decision, Drift, Reason};
