//! Making a plan happen.

pub mod events;
pub mod log;
mod scheduler;
mod state;

pub use scheduler::Scheduler;
pub use state::{Phase, RunState, Settlement};
