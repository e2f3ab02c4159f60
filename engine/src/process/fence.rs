//! Nothing outlives its attempt unnoticed: finding what an attempt left running, and ending it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::time::Duration;

use super::cookie::Cookie;
use super::id::{BootId, ProcessId};
use super::sweep::Sweep;
use super::table::{self, Entry, Process};

/// A living process of an attempt whose driver is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The attempt.
    pub cookie: Cookie,
    /// The process.
    pub process: ProcessId,
    /// Its command line, for people.
    pub command: String,
}

/// Why a machine is not known to be free of an attempt's processes.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The list of processes could not be read.
    #[error("read the list of processes in /proc")]
    Scan(#[source] io::Error),
    /// Some processes live on although they were killed.
    #[error("end {}", Listed(.0))]
    Refused(Vec<Refusal>),
}

/// A process that could not be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The process.
    pub process: ProcessId,
    /// Its command line.
    pub command: String,
    /// Whether it belongs to a user whose processes the driver may not signal; else it hangs inside the kernel.
    pub forbidden: bool,
}

struct Listed<'a>(&'a [Refusal]);

impl FenceError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Scan(_) => Some("mount /proc, and run as a user who may read it".to_owned()),
            Self::Refused(refusals) if refusals.iter().any(|refusal| refusal.forbidden) => {
                Some("it belongs to another user: end it as that user or as root, then resume".to_owned())
            }
            Self::Refused(_) => Some(
                "it waits inside the kernel (state D in `ps`), mostly for a disk or a network mount: \
                 repair that or reboot, then resume"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, refusal) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}process {} (`{}`)", refusal.process, refusal.command)?;
        }
        Ok(())
    }
}

/// Finds every living process of the given attempts, in one pass over `/proc`. The process is the attempt's first one,
/// where its driver came to record it.
///
/// A process belongs to an attempt if it carries the cookie; if it is the recorded process or in the group or session
/// that this one led; or if its parent or the leader of its group or session belongs to it. Ourselves and our ancestors
/// never belong.
///
/// Not found are processes that scrubbed their environment *and* left the group *and* whose parent is gone: what a
/// service does on purpose ([`Command::spawn_detached`](super::Command::spawn_detached)). Neither are those whose
/// environment this user may not read, unless one of the other marks tells.
///
/// # Errors
/// [`FenceError::Scan`].
pub fn find_orphans(attempts: &[(Cookie, Option<ProcessId>)]) -> Result<Vec<Orphan>, FenceError> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let marks: Vec<_> =
        attempts.iter().map(|(cookie, leader)| Mark { cookie: Some(*cookie), leader: *leader }).collect();
    let found = find(&marks).map_err(FenceError::Scan)?;
    let orphan = |found: Found| Orphan {
        cookie: attempts[found.mark].0,
        process: found.process,
        command: table::command_line(found.process.pid),
    };
    Ok(found.into_iter().map(orphan).collect())
}

/// Ends orphans and all that they start meanwhile: TERM, up to `grace`, then KILL until none is left. Returns those that
/// were ended, also the ones that were not known before.
///
/// # Errors
/// [`FenceError::Refused`] names those that live on, ten seconds after they were first killed.
pub fn end_orphans(orphans: &[Orphan], grace: Duration) -> Result<Vec<ProcessId>, FenceError> {
    if orphans.is_empty() {
        return Ok(Vec::new());
    }
    let mark = |orphan: &Orphan| Mark { cookie: Some(orphan.cookie), leader: Some(orphan.process) };
    let mut sweep = Sweep::begin(orphans.iter().map(mark).collect(), grace, None)?;
    while let Some(pause) = sweep.step()? {
        std::thread::sleep(pause);
    }
    Ok(sweep.into_ended())
}

/// What tells that a process belongs to an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// The cookie that it may carry.
    pub(super) cookie: Option<Cookie>,
    /// The process that led the group or session that it may be in.
    pub(super) leader: Option<ProcessId>,
}

/// A process that belongs to an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Which of the marks told.
    pub(super) mark: usize,
    /// The process.
    pub(super) process: ProcessId,
    /// Its process group.
    pub(super) group: u32,
}

/// The living processes that belong to the marks; see [`find_orphans`].
pub(super) fn find(marks: &[Mark]) -> io::Result<Vec<Found>> {
    let boot_id = BootId::current()?;
    let table = table::read_all()?;
    let owners = Search::new(marks, boot_id, &table).owners();
    let mut found: Vec<_> = owners
        .into_iter()
        .map(|(pid, mark)| {
            let Entry { group, start_time, .. } = table[&pid].entry;
            Found { mark, process: ProcessId { pid, start_time, boot_id }, group }
        })
        .collect();
    found.sort_by_key(|found| found.process.pid);
    Ok(found)
}

struct Search<'a> {
    table: &'a HashMap<u32, Process>,
    cookies: HashMap<Cookie, usize>,
    /// The leaders of this boot, by pid.
    leaders: HashMap<u32, (ProcessId, usize)>,
    spared: HashSet<u32>,
}

impl<'a> Search<'a> {
    fn new(marks: &[Mark], boot_id: BootId, table: &'a HashMap<u32, Process>) -> Self {
        let cookies = marks.iter().enumerate().filter_map(|(at, mark)| Some((mark.cookie?, at))).collect();
        let leaders = marks.iter().enumerate().filter_map(|(at, mark)| Some((mark.leader?, at)));
        let leaders = leaders.filter(|(id, _)| id.boot_id == boot_id).map(|(id, at)| (id.pid, (id, at))).collect();
        let mut spared = HashSet::new();
        let mut pid = std::process::id();
        while pid != 0 && spared.insert(pid) {
            pid = table.get(&pid).map_or(0, |process| process.entry.parent);
        }
        Self { table, cookies, leaders, spared }
    }

    /// Which mark each process that belongs to one belongs to, by pid.
    fn owners(&self) -> HashMap<u32, usize> {
        let candidates = || self.table.values().filter(|process| !self.spared.contains(&process.entry.pid));
        let by_cookie = |cookies: &[Cookie]| cookies.iter().find_map(|cookie| self.cookies.get(cookie).copied());
        let mut owners: HashMap<u32, usize> = candidates()
            .filter_map(|Process { entry, cookies }| {
                Some((entry.pid, self.by_leader(entry).or_else(|| by_cookie(cookies))?))
            })
            .collect();
        loop {
            let kin = |entry: &Entry| [entry.parent, entry.group, entry.session].iter().find_map(|pid| owners.get(pid));
            let strangers = candidates().map(|process| &process.entry).filter(|entry| !owners.contains_key(&entry.pid));
            let more: Vec<_> = strangers.filter_map(|entry| Some((entry.pid, *kin(entry)?))).collect();
            if more.is_empty() {
                return owners;
            }
            owners.extend(more);
        }
    }

    /// The mark whose leader `entry` is, or in whose group or session it is.
    ///
    /// The kernel gives a pid to no new process while a group or session of that number exists. So if another process
    /// has the leader's pid now, the leader's group is long gone, and the group of that number is a stranger's.
    fn by_leader(&self, entry: &Entry) -> Option<usize> {
        [entry.pid, entry.group, entry.session].iter().find_map(|number| {
            let (leader, mark) = self.leaders.get(number)?;
            let is_the_same = |now: &Process| now.entry.start_time == leader.start_time;
            (self.table.get(number).is_none_or(is_the_same) && entry.start_time >= leader.start_time).then_some(*mark)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "01234567-89ab-cdef-0123-456789abcdef";

    fn leader(pid: u32, start_time: u64) -> ProcessId {
        ProcessId { pid, start_time, boot_id: BOOT.parse().unwrap() }
    }

    fn entry(pid: u32, parent: u32, group: u32, session: u32, start_time: u64) -> Entry {
        Entry { pid, state: b'S', parent, group, session, threads: 1, start_time }
    }

    /// The pids that belong to `mark` in a machine of `entries`, where only `carriers` carry its cookie.
    fn belong(mark: Mark, entries: &[Entry], carriers: &[u32]) -> Vec<u32> {
        let carried = |pid| mark.cookie.filter(|_| carriers.contains(&pid)).into_iter().collect();
        let process = |entry: &Entry| (entry.pid, Process { entry: *entry, cookies: carried(entry.pid) });
        let table = entries.iter().map(process).collect();
        let mut pids: Vec<_> = Search::new(&[mark], BOOT.parse().unwrap(), &table).owners().into_keys().collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn a_reused_pid_is_a_stranger_and_so_is_its_group() {
        let mark = Mark { cookie: None, leader: Some(leader(100, 5_000)) };
        let original = [entry(100, 1, 100, 9, 5_000), entry(101, 100, 100, 9, 5_001)];
        assert_eq!(belong(mark, &original, &[]), [100, 101]);
        let reused = [entry(100, 1, 100, 9, 9_000), entry(101, 100, 100, 9, 9_001)];
        assert!(belong(mark, &reused, &[]).is_empty());
        let other_boot =
            Mark { leader: Some(ProcessId { boot_id: "0".repeat(32).parse().unwrap(), ..leader(100, 5_000) }), ..mark };
        assert!(belong(other_boot, &original, &[]).is_empty());
    }

    #[test]
    fn the_group_of_a_dead_leader_is_still_its_own() {
        let mark = Mark { cookie: None, leader: Some(leader(100, 5_000)) };
        let members = [entry(101, 1, 100, 9, 5_001), entry(102, 1, 102, 9, 5_002), entry(99, 1, 100, 9, 4_000)];
        assert_eq!(belong(mark, &members, &[]), [101], "102 left the group, 99 is older than the leader");
    }

    #[test]
    fn carriers_bring_their_descendants_groups_and_sessions() {
        let mark = Mark { cookie: Some(Cookie::random()), leader: None };
        let entries = [
            entry(200, 1, 200, 200, 10),
            entry(201, 200, 201, 200, 11),
            entry(202, 201, 202, 202, 12),
            entry(203, 1, 200, 200, 13),
            entry(300, 1, 300, 300, 14),
        ];
        assert_eq!(belong(mark, &entries, &[200]), [200, 201, 202, 203]);
        assert!(belong(mark, &entries, &[]).is_empty());
    }

    #[test]
    fn neither_we_nor_our_ancestors_nor_our_session_belong() {
        let me = std::process::id();
        let mark = Mark { cookie: Some(Cookie::random()), leader: None };
        let entries =
            [entry(50, 1, 50, 50, 1), entry(me, 50, me, 50, 2), entry(60, 50, 60, 50, 3), entry(61, 1, 61, 61, 4)];
        assert_eq!(belong(mark, &entries, &[50, me, 61]), [61]);
    }

    #[test]
    fn refusals_are_named() {
        let refusal = Refusal { process: leader(7, 1), command: "dd if=/dev/sda".to_owned(), forbidden: false };
        let error = FenceError::Refused(vec![refusal.clone(), Refusal { forbidden: true, ..refusal }]);
        assert_eq!(error.to_string(), "end process 7 (`dd if=/dev/sda`), process 7 (`dd if=/dev/sda`)");
        assert!(error.hint().unwrap().contains("another user"));
    }
}
