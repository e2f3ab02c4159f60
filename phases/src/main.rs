//! The program `taskrun`.

use std::process::ExitCode;

fn main() -> ExitCode {
    taskrun_engine::cli::main(&taskrun_phases::Cloud, std::env::args_os())
}
