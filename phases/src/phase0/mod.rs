//! Phase 0: the machine and its operator.

mod given_hosts;
mod machine;
mod operator_cli;

pub use given_hosts::{GivenHosts, GivenHostsTask};
pub use machine::{MachineTask, find_program};
pub use operator_cli::OperatorCliTask;
