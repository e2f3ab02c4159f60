//! Ending all that belongs to an attempt: TERM, grace, KILL, until nothing is left.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::fence::{FenceError, Found, Mark, Refusal, find};
use super::id::ProcessId;
use super::table::{self, Entry};

/// What asks a process to end, also one that is stopped: a command that wanted to read from the terminal, say.
pub(super) const ASK: [Signal; 2] = [Signal::TERM, Signal::CONT];

/// One ending. TERM is sent once, to what lives at the beginning, so that what a process starts to clean up after itself
/// is left alone; KILL is sent to all that is left after the grace, again and again.
#[derive(Debug)]
pub(super) struct Sweep {
    marks: Vec<Mark>,
    kill_at: Instant,
    pause: Duration,
    ended: HashSet<ProcessId>,
}

impl Sweep {
    /// How long a killed process may take to be gone.
    const PATIENCE: Duration = Duration::from_secs(10);
    const FIRST_PAUSE: Duration = Duration::from_millis(2);
    const LONGEST_PAUSE: Duration = Duration::from_millis(200);

    /// Sends TERM to all that belongs to `marks`, except to the group `asked`, which has got it.
    ///
    /// # Errors
    /// [`FenceError::Scan`].
    pub(super) fn begin(marks: Vec<Mark>, grace: Duration, asked: Option<u32>) -> Result<Self, FenceError> {
        let found = find(&marks).map_err(FenceError::Scan)?;
        for found in found.iter().filter(|found| Some(found.group) != asked) {
            // Gone is fine, and what may not be signalled is reported when it outlives the grace.
            let _ = ASK.map(|what| signal(&found.process, what));
        }
        let now = Instant::now();
        Ok(Self {
            marks,
            kill_at: now.checked_add(grace).unwrap_or(now),
            pause: Self::FIRST_PAUSE,
            ended: found.iter().map(|found| found.process).collect(),
        })
    }

    /// Ends the grace.
    pub(super) fn kill_now(&mut self) {
        self.kill_at = self.kill_at.min(Instant::now());
        self.pause = Self::FIRST_PAUSE;
    }

    /// Whether the grace is over.
    pub(super) fn is_killing(&self) -> bool {
        Instant::now() >= self.kill_at
    }

    /// Looks what is left, and kills it if the grace is over. Nothing is left: `None`; else when to look again.
    ///
    /// # Errors
    /// `/proc` cannot be read, or a process does not go.
    pub(super) fn step(&mut self) -> Result<Option<Duration>, FenceError> {
        let left = find(&self.marks).map_err(FenceError::Scan)?;
        if left.is_empty() {
            return Ok(None);
        }
        self.ended.extend(left.iter().map(|found| found.process));
        let now = Instant::now();
        if now < self.kill_at {
            self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
            return Ok(Some(self.pause.min(self.kill_at - now)));
        }
        let refusals: Vec<_> = left.iter().filter_map(kill).collect();
        if now.duration_since(self.kill_at) >= Self::PATIENCE {
            return Err(FenceError::Refused(refusals));
        }
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE / 10);
        Ok(Some(self.pause))
    }

    /// All that was found and is gone now.
    pub(super) fn into_ended(self) -> Vec<ProcessId> {
        let mut ended: Vec<_> = self.ended.into_iter().collect();
        ended.sort_unstable_by_key(|process| (process.start_time, process.pid));
        ended
    }
}

/// Sends `what` to this very process, and never to another one that got its pid meanwhile.
fn signal(process: &ProcessId, what: Signal) -> Result<(), Errno> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    // First pinned, then compared: the descriptor can come to mean no other process.
    let pinned = pidfd_open(pid, PidfdFlags::empty())?;
    let now = Entry::read(process.pid).map_err(|_| Errno::SRCH)?;
    if now.start_time != process.start_time {
        return Err(Errno::SRCH);
    }
    pidfd_send_signal(pinned, what)
}

/// Kills it; tells about it in case that it does not go.
fn kill(found: &Found) -> Option<Refusal> {
    let outcome = signal(&found.process, Signal::KILL);
    if outcome == Err(Errno::SRCH) {
        return None;
    }
    Some(Refusal {
        process: found.process,
        command: table::command_line(found.process.pid),
        forbidden: outcome == Err(Errno::PERM),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_got_the_pid_later_is_not_signalled() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        let earlier = ProcessId { start_time: id.start_time - 1, ..id };
        assert_eq!(signal(&earlier, Signal::KILL), Err(Errno::SRCH));
        assert!(id.is_alive());
        assert_eq!(signal(&id, Signal::KILL), Ok(()));
        child.wait().unwrap();
        assert_eq!(signal(&id, Signal::KILL), Err(Errno::SRCH));
    }
}
