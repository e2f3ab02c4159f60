//! `taskrun cloud destroy`: as `taskrun destroy`, and what was logged is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ArgMatches;
use taskrun_engine::cli::{CliError, Session, exit, say};

use crate::cli::own;

/// What is kept, below the state folder: logs of tasks, reports of runs, logs of services, consoles of machines.
const LOGS: [&str; 4] = ["logs", "runs", "services/logs", "nodes"];

/// Takes everything away. If that is not agreed to, nothing is kept either.
pub(super) fn destroy(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let archive = archive(session)?;
    let mut words = vec!["destroy"];
    if args.get_flag("yes") {
        words.push("--yes");
    }
    let code = own::run(session, &words)?;
    match archive {
        Some(file) if code == exit::USAGE => {
            let _ = std::fs::remove_file(file);
        }
        Some(file) => say(format!("the logs are kept: {}", file.display())),
        None => {}
    }
    Ok(code)
}

/// Packs the logs, beside the state folder; nothing if there are none.
fn archive(session: &Session) -> Result<Option<PathBuf>, CliError> {
    let there: Vec<&str> = LOGS.into_iter().filter(|folder| session.state.join(folder).exists()).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = format!("{}-logs-{now}.tar.gz", session.identity.environment);
    let file = session.state.parent().unwrap_or(Path::new(".")).join(name);
    let mut tar = Command::new("tar");
    // Logs may grow meanwhile; images and seeds of machines are no logs.
    tar.args(["--create", "--gzip", "--warning=no-file-changed", "--exclude=*.iso", "--exclude=*.qcow2", "--file"]);
    tar.arg(&file).arg("--directory").arg(&session.state).args(there);
    let failed = |error: &dyn std::error::Error| {
        let hint = "make room, or destroy without keeping them: taskrun destroy";
        CliError::caused(exit::FAILED, format!("keep the logs in {}", file.display()), error).with_hint(hint)
    };
    let done = tar.output().map_err(|error| failed(&error))?;
    // 1: files changed while they were read (tar(1)).
    if done.status.success() || done.status.code() == Some(1) {
        return Ok(Some(file));
    }
    let _ = std::fs::remove_file(&file);
    Err(failed(&std::io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned())))
}
