//! What `/proc` says about the processes of this machine.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::cookie::Cookie;

/// One process, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The process id.
    pub(super) pid: u32,
    /// One letter: `R` running, `S` sleeping, `D` waiting for a device, `Z` ended and not yet reaped, …
    pub(super) state: u8,
    /// The parent.
    pub(super) parent: u32,
    /// The process group.
    pub(super) group: u32,
    /// The session.
    pub(super) session: u32,
    /// How many threads it has.
    pub(super) threads: u32,
    /// Clock ticks after boot.
    pub(super) start_time: u64,
}

/// A living process with the cookies in the environment that it was started with: none if that may not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) entry: Entry,
    pub(super) cookies: Vec<Cookie>,
}

impl Entry {
    /// Reads the entry of `pid`.
    ///
    /// # Errors
    /// There is no such process, or `/proc` cannot be read.
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(pid, &stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))
    }

    /// Field 2, the program's name, stands in parentheses and may hold anything, parentheses and line ends included:
    /// the fields behind it begin after the *last* closing one.
    fn parse(pid: u32, stat: &[u8]) -> Option<Self> {
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let (parent, group, session) = (number(fields.next())?, number(fields.next())?, number(fields.next())?);
        let (threads, start_time) = (number(fields.nth(13))?, fields.nth(1)?.parse().ok()?);
        Some(Self { pid, state, parent, group, session, threads, start_time })
    }

    /// Whether the process still does something. One whose first thread has ended looks like one that has ended, but for
    /// its other threads.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }
}

/// Every living process, by pid.
///
/// While the list is read, a process on it may start another one and end before it is looked at. So the list is read
/// again until it has no new names: then each process that lived at that time was looked at while it lived. On a machine
/// that is too busy for this the last list counts, and who wants certainty looks again.
///
/// # Errors
/// `/proc` cannot be listed.
pub(super) fn read_all() -> io::Result<HashMap<u32, Process>> {
    let (mut seen, mut table) = (HashSet::new(), HashMap::new());
    for _ in 0..20 {
        let before = seen.len();
        for directory in fs::read_dir("/proc")? {
            let Some(pid) = pid_of(&directory?.file_name()).filter(|pid| seen.insert(*pid)) else { continue };
            let Ok(entry) = Entry::read(pid) else { continue };
            if let Some(cookies) = cookies(&entry).filter(|_| entry.is_running()) {
                table.insert(pid, Process { entry, cookies });
            }
        }
        if seen.len() == before {
            break;
        }
    }
    Ok(table)
}

/// The cookies in the environment of a process; nothing if it vanished.
fn cookies(entry: &Entry) -> Option<Vec<Cookie>> {
    const KTHREADD: u32 = 2;
    for attempt in 0..3 {
        match fs::read(format!("/proc/{}/environ", entry.pid)) {
            // For an instant of its `exec` a process has no environment; kernel threads never have one.
            Ok(environ) if environ.is_empty() && attempt < 2 && ![entry.pid, entry.parent].contains(&KTHREADD) => {
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(environ) => return Some(Cookie::all_in(&environ)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(_) => return None,
        }
    }
    Some(Vec::new())
}

/// The command line of `pid` with blanks between the arguments; the program's name where there is none.
pub(super) fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    if line.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", name.trim_end());
    }
    line
}

fn pid_of(name: &OsStr) -> Option<u32> {
    name.as_bytes().first().filter(|first| first.is_ascii_digit())?;
    name.to_str()?.parse().ok()
}

fn number(field: Option<&str>) -> Option<u32> {
    // Sessions and groups of other pid namespaces read as 0 or -1.
    field?.parse::<i64>().ok().map(|n| u32::try_from(n).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nasty_name_does_not_shift_the_fields() {
        let fields = "S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 99 98";
        for name in ["sh", "a b", ")", "x) R 1 1 1", "new\nline"] {
            let entry = Entry::parse(10, format!("10 ({name}) {fields}\n").as_bytes()).unwrap();
            let expected =
                Entry { pid: 10, state: b'S', parent: 7, group: 8, session: 9, threads: 3, start_time: 12345 };
            assert_eq!(entry, expected, "{name:?}");
        }
        assert_eq!(Entry::parse(10, b"10 (sh) S 1"), None);
        assert_eq!(Entry::parse(10, b""), None);
    }

    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        let entry = Entry { pid: 1, state: b'Z', parent: 1, group: 1, session: 1, threads: 2, start_time: 1 };
        assert!(entry.is_running());
        assert!(!Entry { threads: 1, ..entry }.is_running());
    }

    #[test]
    fn lists_ourselves() {
        let me = std::process::id();
        let table = read_all().unwrap();
        assert_eq!(table[&me].entry.parent, std::os::unix::process::parent_id());
        assert!(command_line(me).starts_with(&std::env::args().next().unwrap()), "{}", command_line(me));
    }
}
