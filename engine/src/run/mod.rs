//! Making a plan happen.

pub(crate) mod attempt;
mod driver;
pub mod events;
mod journaler;
pub mod log;
mod message;
mod retry;
mod scheduler;
mod state;
mod teardown;

pub use driver::{Options, Run, Summary, drive};
pub use journaler::{Append, AppendError};
pub use scheduler::Scheduler;
pub use state::{Phase, RunState, Settlement};
pub use teardown::{Teardown, destroy, teardown};
