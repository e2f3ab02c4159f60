//! Starting a command.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::time::Instant;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cancel::{Cancel, Level};
use super::command::Command;
use super::cookie::Cookie;
use super::error::CommandError;
use super::exit::Exit;
use super::output::OutputSink;
use super::program;
use super::running::Running;
use super::words::plain_words;

impl Command {
    /// Runs the command to its end, giving its output to `sink` as it comes.
    ///
    /// It is ended if its time-out passes or `cancel` reaches [`Level::End`]: TERM to its process group and to all that
    /// carries its cookie, the grace, KILL.
    ///
    /// When it ends by itself, what it left behind is *leftovers*: reported, and ended in the same way unless it may
    /// [leave them](Command::leave_background). A look at every process of the machine is too dear for each short
    /// command, so leftovers are looked for only if there is a sign of them 0.2 s after the end: its process group still
    /// has members, or something still holds its output open; or if it ran for a second or longer. Not noticed, then, is
    /// what a shorter command started in a session of its own with its output elsewhere. The fence finds that, after a
    /// crash as at any time ([`find_orphans`](super::find_orphans)).
    ///
    /// # Errors
    /// All of [`CommandError`] but [`CommandError::Failed`], which [`Exit::check`] makes of an exit code.
    pub fn run(&self, cancel: &Cancel, sink: &mut dyn OutputSink) -> Result<Exit, CommandError> {
        if cancel.level() >= Level::End {
            return Err(CommandError::Cancelled { command: self.to_string(), tail: String::new() });
        }
        self.start()?.wait(cancel, sink)
    }

    /// Runs the command and returns what it wrote to stdout, as it is: not redacted. The sink gets stderr.
    ///
    /// # Errors
    /// As [`Command::run`].
    pub fn read(&self, cancel: &Cancel, sink: &mut dyn OutputSink) -> Result<(Exit, Vec<u8>), CommandError> {
        let watch = |source| CommandError::Watch { command: self.to_string(), source };
        let mut stdout = memory_file("stdout").map_err(watch)?;
        let exit = self.clone().stdout_to(stdout.try_clone().map_err(watch)?).run(cancel, sink)?;
        let mut bytes = Vec::new();
        stdout.rewind().and_then(|()| stdout.read_to_end(&mut bytes)).map_err(watch)?;
        Ok((exit, bytes))
    }

    /// Starts the command; [`Running::wait`] must follow.
    ///
    /// # Errors
    /// [`CommandError::Spawn`].
    pub fn start(&self) -> Result<Running<'_>, CommandError> {
        let started = Instant::now();
        let spawned = std::io::pipe().and_then(|(output, input)| Ok((self.spawn(input)?, output)));
        let (handle, output) = spawned.map_err(|source| self.spawn_error(source))?;
        // The child is ours and not yet waited for, so the pid is no other's.
        let pid =
            handle.pids().first().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("one process was started");
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exited) => Ok(Running::new(self, handle, pid, exited, output, started)),
            Err(error) => {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
                Err(CommandError::Watch { command: self.to_string(), source: error.into() })
            }
        }
    }

    fn spawn(&self, output: PipeWriter) -> io::Result<duct::Handle> {
        if let Some(command) = self.without_shell()
            && let Ok(handle) = command.spawn_program(output.try_clone()?)
        {
            return Ok(handle);
        }
        // What cannot be started, the shell tells in its own words and by its own exit code.
        self.spawn_program(output)
    }

    /// The same without the shell, if that would do nothing but start a program.
    fn without_shell(&self) -> Option<Self> {
        if !self.is_script {
            return None;
        }
        let mut words = plain_words(self.args.last()?.to_str()?)?.into_iter();
        let program = words.next()?.into();
        let command = Self { program, args: words.map(Into::into).collect(), is_script: false, ..self.clone() };
        Some(match (&self.dir, self.own_env("PWD")) {
            // As a shell does.
            (Some(dir), None) => command.env("PWD", std::path::absolute(dir).ok()?),
            _ => command,
        })
    }

    fn spawn_program(&self, output: PipeWriter) -> io::Result<duct::Handle> {
        let expression = self.expression()?;
        let expression = match &self.stdout {
            Some(stdout) => expression.stdout_file(stdout.try_clone()?).stderr_file(output),
            None => expression.stderr_to_stdout().stdout_file(output),
        };
        let expression = match &self.stdin {
            None => expression.stdin_null(),
            Some(bytes) => expression.stdin_file(input_file(bytes)?),
        };
        let name = self.program.clone();
        expression.before_spawn(move |command| Ok(_ = command.arg0(&name).process_group(0))).start()
    }

    /// The program by its path, the arguments, the environment and the folder.
    pub(super) fn expression(&self) -> io::Result<duct::Expression> {
        let path = self.own_env("PATH").map(Option::unwrap_or_default);
        let program = program::resolve(&self.program, path, self.dir.as_deref())?;
        let mut expression = duct::cmd(program, &self.args).unchecked();
        // Of two settings of a variable, duct takes the inner one: the last word goes in first.
        expression = match self.cookie {
            Some(cookie) => expression.env(Cookie::VARIABLE, cookie.value(self.attempt)),
            None => expression,
        };
        for (name, value) in self.env.iter().rev() {
            expression = match value {
                Some(value) => expression.env(name, value),
                None => expression.env_remove(name),
            };
        }
        Ok(match &self.dir {
            Some(dir) => expression.dir(dir),
            None => expression,
        })
    }

    pub(super) fn spawn_error(&self, source: io::Error) -> CommandError {
        let hint = program::hint(&self.program, self.dir.as_deref(), &source);
        CommandError::Spawn { command: self.to_string(), source, hint }
    }
}

/// A file with `bytes` at its beginning. Unlike a pipe it takes any number of bytes at once, and nobody minds when they
/// are not read; unlike a file on disk it cannot be left behind.
fn input_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = memory_file("stdin")?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}
