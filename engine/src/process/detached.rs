//! Starting what is meant to outlive the run.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use super::command::Command;
use super::cookie::Cookie;
use super::error::CommandError;
use super::id::ProcessId;
use super::program;

impl Command {
    /// Starts the program as a service: in a session of its own, a child of nobody here, without the cookie, with an
    /// empty stdin, and with its output appended to `log`, or lost. The output is not redacted; time-out and grace do not
    /// apply.
    ///
    /// The program takes the place of a short-lived `setsid` (util-linux) and `sh`. That it was started does not mean that
    /// it works: ask it.
    ///
    /// # Errors
    /// [`CommandError::Spawn`], also if it ended at once, or [`CommandError::Output`].
    pub fn spawn_detached(&self, log: Option<&Path>) -> Result<ProcessId, CommandError> {
        let failed = |source| self.spawn_error(source);
        let path = self.own_env("PATH").map(Option::unwrap_or_default);
        let program = program::resolve(&self.program, path, self.dir.as_deref()).map_err(failed)?;
        let log = log.unwrap_or(Path::new("/dev/null"));
        let output = OpenOptions::new().create(true).append(true).open(log).map_err(|source| CommandError::Output {
            command: self.to_string(),
            path: log.to_owned(),
            source,
        })?;
        // Resolved on the driver's PATH: the service's own may be another.
        let setsid = program::resolve("setsid".as_ref(), None, None);
        let setsid = setsid.map_err(|source| Command::new("setsid").spawn_error(source))?;
        // `setsid --fork` leaves at once, so that init becomes the parent. The shell tells its pid, which the program
        // then has, through the pipe that is its stdout.
        let launcher = Command {
            program: setsid.into(),
            args: ["--fork", "/bin/sh", "-c", r#"echo $$ && exec "$0" "$@" >&2"#].map(Into::into).to_vec(),
            is_script: false,
            cookie: None,
            attempt: None,
            ..self.clone()
        };
        launcher.arg(program).args(&self.args).env_remove(Cookie::VARIABLE).launch(output).map_err(failed)
    }

    /// Runs the launcher; the process that it told.
    fn launch(&self, output: File) -> io::Result<ProcessId> {
        let (mut told, tell) = io::pipe()?;
        let launcher = self.expression()?.stdin_null().stdout_file(tell).stderr_file(output).start()?;
        let mut pid = String::new();
        told.read_to_string(&mut pid)?;
        launcher.wait()?;
        let process = pid.trim().parse().ok().and_then(|pid| ProcessId::of(pid).ok());
        process.ok_or_else(|| io::Error::other("it ended at once"))
    }
}
