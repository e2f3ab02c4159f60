//! This program again, for the same environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use taskrun_engine::cli::{CliError, Session, exit};

/// The program's file and the options that lead to this environment, from any folder.
///
/// # Errors
/// The current folder is gone.
pub(super) fn program(session: &Session) -> Result<Vec<PathBuf>, CliError> {
    let failed = |error: std::io::Error| CliError::caused(exit::FAILED, "find the files of this environment", &error);
    let absolute = |path: &Path| std::path::absolute(path).map_err(failed);
    let mut words = vec![std::env::current_exe().map_err(failed)?];
    // Where there is none the defaults are taken, unless somebody asks for it.
    if session.config_file.is_file() {
        words.extend(["--config".into(), absolute(&session.config_file)?]);
    }
    let state = session.state.parent().unwrap_or(&session.state);
    words.extend(["--graph".into(), absolute(&session.graph_file)?, "--state-dir".into(), absolute(state)?]);
    Ok(words)
}

/// Runs another verb of this program on the terminal; its exit code.
///
/// # Errors
/// It cannot be started, or a signal ended it.
pub(super) fn run(session: &Session, args: &[&str]) -> Result<u8, CliError> {
    let words = program(session)?;
    let (file, options) = words.split_first().ok_or_else(|| CliError::new(exit::FAILED, "find this program"))?;
    let ended = Command::new(file).args(options).args(args).status();
    let ended =
        ended.map_err(|error| CliError::caused(exit::FAILED, format!("start taskrun {}", args.join(" ")), &error))?;
    match ended.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(code),
        None => Err(CliError::new(exit::FAILED, format!("taskrun {} ended by {ended}", args.join(" ")))),
    }
}
