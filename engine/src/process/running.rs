//! A command that runs: reading it, waiting for it, ending it.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::cancel::{Cancel, Level};
use super::command::Command;
use super::error::CommandError;
use super::exit::{Exit, Status};
use super::fence::{self, FenceError, Mark};
use super::id::{BootId, ProcessId};
use super::output::{OutputSink, Tail};
use super::sweep::{ASK, Sweep};
use crate::redact::RedactStream;

/// A started command. Dropped without [`Running::wait`], it is killed with its process group.
#[derive(Debug)]
pub struct Running<'a> {
    command: &'a Command,
    handle: duct::Handle,
    pid: Pid,
    exited: OwnedFd,
    /// Until its end was read.
    output: Option<PipeReader>,
    started: Instant,
    reaped: bool,
}

/// Why a command is ended.
#[derive(Debug, Clone, Copy)]
enum Stop {
    TimedOut(Duration),
    Cancelled,
}

/// What a command's output passes.
struct Reader<'s> {
    redact: Option<RedactStream>,
    clean: Vec<u8>,
    tail: Tail,
    sink: &'s mut dyn OutputSink,
}

impl<'a> Running<'a> {
    /// After the end of a command, how long something that may be on the point of ending too is waited for, before it
    /// counts as left behind: the other side of `> >(tee log)`, say.
    const SETTLE: Duration = Duration::from_millis(200);
    /// How often the process group is looked at meanwhile.
    const SETTLE_STEP: Duration = Duration::from_millis(5);
    /// From this duration on, leftovers are looked for without any sign of them.
    const LONG: Duration = Duration::from_secs(1);

    pub(super) fn new(
        command: &'a Command,
        handle: duct::Handle,
        pid: Pid,
        exited: OwnedFd,
        output: PipeReader,
        started: Instant,
    ) -> Self {
        Self { command, handle, pid, exited, output: Some(output), started, reaped: false }
    }

    /// The pid, which is also the number of the process group.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// The process, to be recorded for the fence.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn process_id(&self) -> io::Result<ProcessId> {
        ProcessId::of(self.pid())
    }

    /// Waits for the end of the command; see [`Command::run`].
    ///
    /// # Errors
    /// As [`Command::run`].
    pub fn wait(mut self, cancel: &Cancel, sink: &mut dyn OutputSink) -> Result<Exit, CommandError> {
        let redact = self.command.redactor.as_ref().map(|redactor| redactor.stream());
        let mut reader = Reader { redact, clean: Vec::new(), tail: Tail::default(), sink };
        let stop = self.watch(cancel, &mut reader).map_err(|source| self.watch_error(source))?;
        let duration = self.started.elapsed();
        let Some(stop) = stop else {
            let status = self.reap().map_err(|source| self.watch_error(source))?;
            let leftovers = self.leftovers(duration, cancel, &mut reader)?;
            return Ok(Exit { status, duration, tail: reader.finish(), leftovers });
        };
        self.stop(cancel, &mut reader)?;
        self.reap().map_err(|source| self.watch_error(source))?;
        let (command, tail) = (self.command.to_string(), reader.finish());
        Err(match stop {
            Stop::TimedOut(after) => CommandError::TimedOut { command, after, tail },
            Stop::Cancelled => CommandError::Cancelled { command, tail },
        })
    }

    /// Reads until the command ends by itself (and all that it wrote was read) or has to be ended.
    fn watch(&mut self, cancel: &Cancel, reader: &mut Reader<'_>) -> io::Result<Option<Stop>> {
        let end = cancel.fd(Level::End)?;
        loop {
            let left = self.command.timeout.map(|timeout| timeout.saturating_sub(self.started.elapsed()));
            let [readable, exited, cancelled] =
                wait_for([self.output_fd(), Some(self.exited.as_fd()), Some(end)], left)?;
            if exited {
                self.drain(reader)?;
                return Ok(None);
            }
            if readable {
                self.read(reader)?;
            }
            if cancelled {
                return Ok(Some(Stop::Cancelled));
            }
            if left == Some(Duration::ZERO) {
                return Ok(self.command.timeout.map(Stop::TimedOut));
            }
        }
    }

    /// Ends the command with all that belongs to it.
    fn stop(&mut self, cancel: &Cancel, reader: &mut Reader<'_>) -> Result<(), CommandError> {
        for signal in ASK {
            let _ = kill_process_group(self.pid, signal);
        }
        // It is not reaped yet, so that its pid is no other's.
        let leader = self.process_id().map_err(|source| self.watch_error(source))?;
        self.sweep(Mark { cookie: self.command.cookie, leader: Some(leader) }, Some(self.pid()), cancel, reader)?;
        Ok(())
    }

    /// After the end by itself: what is left, and the end of that.
    fn leftovers(
        &mut self,
        duration: Duration,
        cancel: &Cancel,
        reader: &mut Reader<'_>,
    ) -> Result<Vec<ProcessId>, CommandError> {
        let settled = self.settle(reader).map_err(|source| self.watch_error(source))?;
        if settled && (duration < Self::LONG || self.command.cookie.is_none()) {
            return Ok(Vec::new());
        }
        let boot_id = BootId::current().map_err(|source| self.watch_error(source))?;
        // The leader was reaped: whatever has its pid now is a stranger, as no process has this start time.
        let leader = ProcessId { pid: self.pid(), start_time: 0, boot_id };
        let mark = Mark { cookie: self.command.cookie, leader: Some(leader) };
        if self.command.leave_background {
            let found = fence::find(&[mark]).map_err(|source| self.fence_error(FenceError::Scan(source)))?;
            return Ok(found.iter().map(|found| found.process).collect());
        }
        self.sweep(mark, None, cancel, reader)
    }

    /// Waits a little until the output is closed and the process group empty; whether that came about.
    fn settle(&mut self, reader: &mut Reader<'_>) -> io::Result<bool> {
        let begin = Instant::now();
        loop {
            let group_lives = test_kill_process_group(self.pid) != Err(Errno::SRCH);
            if self.output.is_none() && !group_lives {
                return Ok(true);
            }
            if begin.elapsed() >= Self::SETTLE {
                return Ok(false);
            }
            let [readable, ..] = wait_for([self.output_fd(), None, None], Some(Self::SETTLE_STEP))?;
            if readable {
                self.read(reader)?;
            }
        }
    }

    /// Ends all that belongs to `mark`, reading on meanwhile so that nobody hangs on a full pipe.
    fn sweep(
        &mut self,
        mark: Mark,
        asked: Option<u32>,
        cancel: &Cancel,
        reader: &mut Reader<'_>,
    ) -> Result<Vec<ProcessId>, CommandError> {
        let kill = cancel.fd(Level::Kill).map_err(|source| self.watch_error(source))?;
        let mut sweep =
            Sweep::begin(vec![mark], self.command.grace, asked).map_err(|source| self.fence_error(source))?;
        while let Some(pause) = sweep.step().map_err(|source| self.fence_error(source))? {
            let look_again = Instant::now() + pause;
            loop {
                let kill = (!sweep.is_killing()).then_some(kill);
                let left = look_again.saturating_duration_since(Instant::now());
                let [readable, killed, _] =
                    wait_for([self.output_fd(), kill, None], Some(left)).map_err(|source| self.watch_error(source))?;
                if readable {
                    self.read(reader).map_err(|source| self.watch_error(source))?;
                }
                if killed {
                    sweep.kill_now();
                }
                if killed || left.is_zero() {
                    break;
                }
            }
        }
        self.drain(reader).map_err(|source| self.watch_error(source))?;
        Ok(sweep.into_ended())
    }

    fn output_fd(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Reads once; blocks if there is nothing to read.
    fn read(&mut self, reader: &mut Reader<'_>) -> io::Result<usize> {
        let Some(output) = &mut self.output else { return Ok(0) };
        let mut buffer = [0; 32 * 1024];
        match output.read(&mut buffer) {
            Ok(0) => {
                self.output = None;
                Ok(0)
            }
            Ok(length) => {
                reader.take(&buffer[..length]);
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads what is in the pipe now, and its end if that is there: not what others may still write into it.
    fn drain(&mut self, reader: &mut Reader<'_>) -> io::Result<()> {
        let mut left = match &self.output {
            Some(output) => ioctl_fionread(output)?,
            None => return Ok(()),
        };
        loop {
            let [readable, ..] = wait_for([self.output_fd(), None, None], Some(Duration::ZERO))?;
            if !readable {
                return Ok(());
            }
            let length = self.read(reader)? as u64;
            if self.output.is_none() || length > left {
                return Ok(());
            }
            left -= length;
        }
    }

    fn reap(&mut self) -> io::Result<Status> {
        let status = self.handle.wait()?.status;
        self.reaped = true;
        Ok(status.into())
    }

    fn watch_error(&self, source: io::Error) -> CommandError {
        CommandError::Watch { command: self.command.to_string(), source }
    }

    fn fence_error(&self, source: FenceError) -> CommandError {
        CommandError::Fence { command: self.command.to_string(), source }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process_group(self.pid, Signal::KILL);
            // Not waited for, since it may hang in the kernel: duct reaps it when it starts the next command.
        }
    }
}

impl Reader<'_> {
    fn take(&mut self, bytes: &[u8]) {
        let Some(redact) = &mut self.redact else {
            self.tail.push(bytes);
            return self.sink.chunk(bytes);
        };
        redact.push(bytes, &mut self.clean);
        self.pass_on();
    }

    fn pass_on(&mut self) {
        if !self.clean.is_empty() {
            self.tail.push(&self.clean);
            self.sink.chunk(&self.clean);
            self.clean.clear();
        }
    }

    /// Passes on what the redactor held back; the tail.
    fn finish(mut self) -> String {
        if let Some(redact) = &mut self.redact {
            redact.finish(&mut self.clean);
        }
        self.pass_on();
        self.tail.into_text()
    }
}

/// Waits until one of `fds` can be read or is closed, or `timeout` passed; which of them it was.
fn wait_for<const N: usize>(fds: [Option<BorrowedFd<'_>>; N], timeout: Option<Duration>) -> io::Result<[bool; N]> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let mut polled: Vec<_> = fds.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = polled.iter().map(|polled| !polled.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false)))
}
