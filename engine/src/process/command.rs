//! What to run: the builder.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::cookie::Cookie;
use crate::redact::Redactor;

/// How long a command that was asked to end (TERM) may take before it is killed, unless [`Command::grace`] says other.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// A program with its arguments and all that it is to run with.
///
/// It inherits the driver's environment, gets an empty stdin, and its stdout and stderr go into one pipe. It displays
/// as a shell would write it, without environment and stdin, which may hold secrets; arguments must not hold any, since
/// every user of the machine can read them.
#[derive(Clone)]
pub struct Command {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    /// Whether the arguments are `-c` and a script for the shell.
    pub(super) is_script: bool,
    /// In order; nothing for a variable that is removed.
    pub(super) env: Vec<(OsString, Option<OsString>)>,
    pub(super) dir: Option<PathBuf>,
    pub(super) stdin: Option<Zeroizing<Vec<u8>>>,
    pub(super) stdout: Option<std::sync::Arc<File>>,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) cookie: Option<Cookie>,
    /// The attempt that the command is one of several of.
    pub(super) attempt: Option<Cookie>,
    pub(super) redactor: Option<Redactor>,
    pub(super) leave_background: bool,
}

impl Command {
    /// A command that runs `program`: a path if it holds a `/` (relative to [`Command::dir`]), else a name on `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            is_script: false,
            env: Vec::new(),
            dir: None,
            stdin: None,
            stdout: None,
            timeout: None,
            grace: DEFAULT_GRACE,
            cookie: None,
            attempt: None,
            redactor: None,
            leave_background: false,
        }
    }

    /// A command that runs `script` by `sh -c`.
    ///
    /// A script that is nothing but plain words is started without the shell, which would only do the same more slowly.
    pub fn shell(script: impl Into<OsString>) -> Self {
        Self { is_script: true, ..Self::new("sh").arg("-c").arg(script) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.env.push((name.into(), None));
        self
    }

    /// The folder to run in, by default the driver's.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What the command reads from stdin. It may hold secrets, is never shown, and need not be read to its end.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(Zeroizing::new(bytes.into()));
        self
    }

    /// Sends stdout into `file`, from its present position on and as it is: not redacted. The sink then gets stderr only.
    #[must_use]
    pub fn stdout_to(mut self, file: File) -> Self {
        self.stdout = Some(std::sync::Arc::new(file));
        self
    }

    /// Ends the command if it runs longer, by default never.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long it may take to end after TERM before it is killed, [`DEFAULT_GRACE`] by default.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Marks the command and all it starts as part of the attempt that `cookie` stands for.
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// Marks the command as one of several, maybe at the same time, of the attempt that `attempt` stands for. It gets a
    /// cookie of its own besides, so that what ends with it is what it started, and not its neighbours.
    #[must_use]
    pub fn part_of(mut self, attempt: Cookie) -> Self {
        self.attempt = Some(attempt);
        self.cookie(Cookie::random())
    }

    /// Takes the secrets that `redactor` knows out of the output before the sink, the tail and errors see it.
    #[must_use]
    pub fn redact(mut self, redactor: Redactor) -> Self {
        self.redactor = Some(redactor);
        self
    }

    /// Whether processes that the command leaves behind when it ends by itself live on, by default not.
    #[must_use]
    pub fn leave_background(mut self, leave: bool) -> Self {
        self.leave_background = leave;
        self
    }

    /// The value that the command's environment has for `name` because it was set or removed here.
    pub(super) fn own_env(&self, name: &str) -> Option<Option<&OsStr>> {
        self.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_deref())
    }
}

/// The command line, quoted for a shell, with secrets taken out.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.args);
        let line = words.map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        match &self.redactor {
            Some(redactor) => f.write_str(&redactor.redact_str(&line)),
            None => f.write_str(&line),
        }
    }
}

/// Names what may hold secrets, without the values.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Command")
            .field("line", &self.to_string())
            .field("env", &variables)
            .field("dir", &self.dir)
            .field("stdin_bytes", &self.stdin.as_ref().map(|bytes| bytes.len()))
            .field("timeout", &self.timeout)
            .field("cookie", &self.cookie)
            .finish_non_exhaustive()
    }
}

fn quote(word: &OsStr) -> String {
    let word = Path::new(word).to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_as_a_shell_would_write_it() {
        let command = Command::new("psql").args(["-c", "select 'a'", "", "--port=5"]);
        assert_eq!(command.to_string(), r"psql -c 'select '\''a'\''' '' --port=5");
    }

    #[test]
    fn neither_form_shows_what_may_be_secret() {
        let command = Command::new("psql").env("PGPASSWORD", "hunter22").stdin("hunter22");
        let shown = format!("{command} {command:?}");
        assert!(shown.contains("PGPASSWORD") && !shown.contains("hunter22"), "{shown}");
    }

    #[test]
    fn the_last_word_on_a_variable_counts() {
        let command = Command::new("x").env("A", "1").env("A", "2").env("B", "1").env_remove("B");
        assert_eq!(command.own_env("A"), Some(Some("2".as_ref())));
        assert_eq!(command.own_env("B"), Some(None));
        assert_eq!(command.own_env("C"), None);
    }
}
