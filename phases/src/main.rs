//! The program `taskrun`.

use std::path::Path;
use std::process::ExitCode;

use taskrun_phases::phase2::gpu;
use taskrun_phases::phase4::task_exporter;
use taskrun_phases::serving::controller;
use taskrun_phases::{Cloud, launch};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match &args[..] {
        [_, verb, file] if verb == launch::VERB => launch::run(Path::new(file)),
        [_, verb, port] if verb == gpu::VERB => gpu::export(&port.to_string_lossy()),
        [_, verb, file] if verb == controller::VERB => controller::run(Path::new(file)),
        [_, verb, state, port] if verb == task_exporter::VERB => {
            task_exporter::export(Path::new(state), &port.to_string_lossy())
        }
        _ => taskrun_engine::cli::main(&Cloud, args),
    }
}
