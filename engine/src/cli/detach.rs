//! `run --detach`: the same run, in the background.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::args::Global;
use super::error::{CliError, exit};
use super::main::say;
use super::product::Product;
use super::session::{Purpose, Session};
use crate::process::Command;

/// How long the run may take to begin.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn detach(product: &dyn Product, global: &Global) -> Result<u8, CliError> {
    let session = Session::open(product, global, Purpose::default())?;
    let failed =
        |error: &dyn std::error::Error| CliError::caused(exit::FAILED, "start the run in the background", error);
    let before = session.read()?.run.map_or(0, |run| run.started.run);
    let program: PathBuf = std::env::current_exe().map_err(|error| failed(&error))?;
    let args = std::env::args_os().skip(1).filter(|arg| arg != "--detach");
    std::fs::create_dir_all(&session.state).map_err(|error| failed(&error))?;
    let output = session.state.join("detached.log");
    let started = Command::new(program)
        .args(args)
        .env("TASKRUN_OUTPUT_FORMAT", "plain")
        .spawn_detached(Some(&output))
        .map_err(|error| failed(&error))?;
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let run = session.read()?.run.filter(|run| run.started.run > before);
        if let Some(run) = run {
            say(format!("run {} goes on in the background (pid {started}); follow it: taskrun watch", run.started.run));
            return Ok(exit::OK);
        }
        if !started.is_alive() {
            // Nothing to do, or it could not begin: its output says which.
            let said = std::fs::read_to_string(&output).unwrap_or_default();
            say(said.trim_end());
            let fine = said.contains("nothing to do");
            return if fine { Ok(exit::OK) } else { Err(CliError::new(exit::FAILED, "the run did not begin")) };
        }
        if Instant::now() > deadline {
            return Err(CliError::new(
                exit::FAILED,
                format!("the run (pid {started}) did not begin within {TIMEOUT:?}"),
            )
            .with_hint(format!("see what it says: {}", output.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
