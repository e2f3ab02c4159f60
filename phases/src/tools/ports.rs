//! Loopback ports: free, ours, or somebody else's.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use super::marked;

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A service of this environment.
    Ours,
    /// Somebody else, as one would name them.
    Foreign(String),
}

/// Who has `port` on 127.0.0.1; services of the environment in `home` are ours.
pub fn holder(port: u16, home: &Path) -> Holder {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
        return Holder::Nobody;
    }
    let ours: Vec<u32> = marked::find(home).iter().map(|found| found.process.pid).collect();
    match listeners(port).as_slice() {
        [] => Holder::Foreign("a process that cannot be seen from here".to_owned()),
        // A worker that inherited the socket from a service has the service's mark too.
        pids if pids.iter().any(|pid| ours.contains(pid)) => Holder::Ours,
        pids => Holder::Foreign(pids.iter().map(|pid| describe(*pid)).collect::<Vec<_>>().join(", ")),
    }
}

/// A port that nobody has.
///
/// # Errors
/// The machine has none left.
pub fn any_free() -> std::io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|address| address.port())
}

/// The processes that listen on a TCP port, from `/proc/net/tcp` and the open files of all processes (man 5 proc).
fn listeners(port: u16) -> Vec<u32> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let inodes: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let here = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == LISTEN;
            here.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
        })
        .collect();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_open(*pid, &inodes)).collect()
}

fn has_open(pid: u32, links: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|link| links.iter().any(|wanted| link == Path::new(wanted)))
}

fn describe(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let short: String = line.trim().chars().take(60).collect();
    format!("`{short}` (pid {pid})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_listener_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let Holder::Foreign(who) = holder(port, Path::new("/nowhere")) else { panic!("it is not seen") };
        assert!(who.contains(&format!("pid {}", std::process::id())), "{who}");
        drop(listener);
        assert_eq!(holder(port, Path::new("/nowhere")), Holder::Nobody);
    }
}
