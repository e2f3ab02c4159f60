//! Starting what is meant to outlive the run.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::Path;

use super::command::Command;
use super::cookie::Cookie;
use super::error::CommandError;
use super::id::ProcessId;

impl Command {
    /// Starts the program as a service: in a session of its own, a child of nobody here, without the cookie, with an
    /// empty stdin, and with its output appended to `log`, or lost. Time-out and grace do not apply.
    ///
    /// The program takes the place of a short-lived `setsid` and `sh`, which need to be on the driver's `PATH`. That it
    /// was started does not mean that it works: ask it.
    ///
    /// # Errors
    /// [`CommandError::Spawn`] or [`CommandError::Output`].
    pub fn spawn_detached(&self, log: Option<&Path>) -> Result<ProcessId, CommandError> {
        let log = log.unwrap_or(Path::new("/dev/null"));
        let log = OpenOptions::new().create(true).append(true).open(log).map_err(|source| CommandError::Output {
            command: self.to_string(),
            path: log.to_owned(),
            source,
        })?;
        self.detach(log).map_err(|source| self.spawn_error(source))
    }

    fn detach(&self, log: std::fs::File) -> io::Result<ProcessId> {
        let path = self.own_env("PATH").map(Option::unwrap_or_default);
        let program = super::program::resolve(&self.program, path, self.dir.as_deref())?;
        // `setsid --fork` leaves at once, so that init becomes the parent. The shell tells its pid, which the program
        // then has, through the pipe that is its stdout.
        let launcher = Command {
            program: "setsid".into(),
            args: ["--fork", "sh", "-c", r#"echo $$ && exec "$0" "$@" >&2"#].map(Into::into).to_vec(),
            cookie: None,
            ..self.clone()
        };
        let launcher = launcher.arg(program).args(&self.args).env_remove(Cookie::VARIABLE);
        let (mut told, tell) = std::io::pipe()?;
        let handle = launcher.expression()?.stdin_null().stdout_file(tell).stderr_file(log).start()?;
        let mut pid = String::new();
        told.read_to_string(&mut pid)?;
        handle.wait()?;
        let pid = pid.trim().parse().map_err(|_| io::Error::other("the launcher told no pid"))?;
        ProcessId::of(pid)
    }
}
