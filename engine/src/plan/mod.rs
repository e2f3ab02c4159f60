//! What a run will do with each task, and why.
//!
//! One function, [`decide`], judges a task from what is known of it; `run`, `resume`, `run --dry-run` and `why` all ask
//! it, before the run for the whole plan and during the run for the tasks that had to wait for others. It is pure: the
//! files, probes and upstream outputs that it needs are handed in.

pub(crate) mod command;
pub(crate) mod decide;
mod decision;
pub(crate) mod files;
mod footprint;
pub(crate) mod inspect;
pub(crate) mod judge;
pub(crate) mod planner;
mod preflight;

pub use decide::{Asked, Facts, Key, Need, Probed, Standing, Verdict, decide};
pub use decision::{Action, Decision, Drift, Reason};
pub use footprint::Footprints;
pub use planner::{Plan, PlanError, Wanted, plan};
pub use preflight::preflight;
