//! Phase 0: the machine and its operator.

mod given_hosts;
mod machine;
mod operator_cli;
mod virtual_machines;

pub use given_hosts::{GivenHosts, GivenHostsTask};
pub use machine::{MachineTask, find_program, missing_programs};
pub use operator_cli::OperatorCliTask;
pub use virtual_machines::VirtualMachinesTask;
