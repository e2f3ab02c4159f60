//! `run --detach`: the same run, in the background.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::args::Global;
use super::error::{CliError, exit};
use super::main::say;
use super::product::Product;
use super::session::{Purpose, Session};
use crate::process::{Cookie, ProcessId};

/// How long the run may take to begin.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether it has begun.
const INTERVAL: Duration = Duration::from_millis(20);

/// Starts the run and returns as soon as its start is durable. A run that ends before that, since it has nothing to do or
/// may not begin, is told in its own words and with its own exit code.
pub(super) fn detach(product: &dyn Product, global: &Global) -> Result<u8, CliError> {
    // A run that ends at once tells them itself.
    let session = Session::open_quietly(product, global, Purpose::default())?;
    let failed = |error: std::io::Error| CliError::caused(exit::FAILED, "start the run in the background", &error);
    std::fs::create_dir_all(&session.state).map_err(failed)?;
    // Another run may go on and write to the log: it becomes that of this one only when this one has begun.
    let log = session.state.join("detached.log");
    let output = session.state.join(format!("detached.{}.log", std::process::id()));
    let mut child = start(&output).map_err(failed)?;
    let process = ProcessId::of(child.id()).map_err(failed)?;
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let ended = child.try_wait().map_err(failed)?;
        let run = session.read()?.run.map(|run| run.started).filter(|started| started.driver == process);
        if let Some(started) = run {
            std::fs::rename(&output, &log).map_err(failed)?;
            session.warn();
            say(format!("run {} goes on in the background (pid {process}); follow it: taskrun watch", started.run));
            return Ok(exit::OK);
        }
        if let Some(status) = ended {
            let said = std::fs::read_to_string(&output).map_err(failed)?;
            std::fs::remove_file(&output).map_err(failed)?;
            say(said.trim_end());
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED));
        }
        if Instant::now() > deadline {
            let message = format!("the run (pid {process}) did not begin within {TIMEOUT:?}");
            return Err(
                CliError::new(exit::FAILED, message).with_hint(format!("see what it says: {}", output.display()))
            );
        }
        std::thread::sleep(INTERVAL);
    }
}

/// This program with the same arguments but one, in a session of its own: `setsid` (util-linux) takes it there and then
/// becomes it, so that it keeps its pid and can be waited for as long as this process is there.
fn start(output: &Path) -> std::io::Result<Child> {
    let output = File::create(output)?;
    Command::new("setsid")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"))
        .env("TASKRUN_OUTPUT_FORMAT", "plain")
        .env_remove(Cookie::VARIABLE)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
}
