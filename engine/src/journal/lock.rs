//! The lock of a state folder: one run at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// The name of the lock's file in its state folder.
const FILE_NAME: &str = "lock";
/// How long a lock may be held by nobody who can be named: a holder that has not yet written its name, or a killed
/// one whose child has the file for the instant between fork and exec.
const PATIENCE: Duration = Duration::from_millis(250);

/// The right to change a state folder, held until it is dropped.
///
/// The truth is an advisory lock (`flock`) on the file `lock`, which the system releases when its holder dies. Who
/// holds it stands in the file as JSON, for people; a clean release empties the file.
#[derive(Debug)]
pub struct Lock {
    file: File,
    dir: PathBuf,
    predecessor: Option<Holder>,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessId,
    /// The machine's name.
    pub host: String,
    /// When the lock was taken (RFC 3339, UTC).
    pub since: String,
    /// What the holder does, in the user's words: its verb or command line.
    pub command: String,
}

/// Why a lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("{} is in use by {}", dir.display(), describe(holder.as_deref()))]
    Held {
        /// The state folder.
        dir: PathBuf,
        /// Who holds it, if the file says so.
        holder: Option<Box<Holder>>,
    },
    /// The disk refused.
    #[error("failed to lock {}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of the existing folder `dir`, without waiting for another run; `command` says to others what
    /// for.
    ///
    /// # Errors
    /// [`LockError::Held`] if another run has it, in this process or in another one, and [`LockError::Io`].
    pub fn acquire(dir: &Path, command: &str) -> Result<Self, LockError> {
        let path = dir.join(FILE_NAME);
        let io_error = |source| LockError::Io { path: path.clone(), source };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = opened.map_err(io_error)?;
            if take(&file, &path).map_err(io_error)? {
                let predecessor = Holder::read(&mut file);
                Holder::myself(command).and_then(|holder| holder.write(&mut file)).map_err(io_error)?;
                return Ok(Self { file, dir: dir.to_owned(), predecessor });
            }
            let holder = Holder::read(&mut file).filter(|holder| holder.may_live());
            if holder.is_some() || Instant::now() > deadline {
                return Err(LockError::Held { dir: dir.to_owned(), holder: holder.map(Box::new) });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The state folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run before this one, if it ended without releasing the lock: it was killed, or the machine went down.
    pub fn predecessor(&self) -> Option<&Holder> {
        self.predecessor.as_ref()
    }
}

impl LockError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Held { .. } => Some("wait for it, or follow it: taskrun watch"),
            Self::Io { .. } => None,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Best effort: a name that stays is that of a process that is gone.
        let _ = self.file.set_len(0);
        // Closing would leave the lock with a child that is between fork and exec.
        let _ = self.file.unlock();
    }
}

impl Holder {
    /// Who runs on the folder `dir` now, for readers: it takes no lock. `None` also if the last run was killed.
    pub fn of(dir: &Path) -> Option<Self> {
        let mut file = File::open(dir.join(FILE_NAME)).ok()?;
        Self::read(&mut file).filter(Self::may_live)
    }

    /// Whether this process is there, as far as one can tell from this machine: that of another machine may be.
    fn may_live(&self) -> bool {
        self.host != host().unwrap_or_default() || self.process.is_alive()
    }

    fn myself(command: &str) -> io::Result<Self> {
        Ok(Self {
            process: ProcessId::current()?,
            host: host()?,
            since: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            command: command.to_owned(),
        })
    }

    /// Whoever stands in `file`, if its content can be understood.
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.rewind().and_then(|()| file.take(1 << 20).read_to_string(&mut text)).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn write(&self, file: &mut File) -> io::Result<()> {
        let mut text = serde_json::to_string(self)?;
        text.push('\n');
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())
    }
}

fn describe(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { process, host, since, command }) => {
            format!("`{command}` (pid {} on {host}, since {since})", process.pid)
        }
        None => "a run that has not given its name".to_owned(),
    }
}

/// Locks `file`, which was opened as `path`; `false` if somebody else has it, or if that name leads to another file
/// by now, because the run that had it removed the folder.
fn take(file: &File, path: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::metadata(path) {
        Ok(there) => Ok(id(there) == id(file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn host() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_lost_its_name_locks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let stale = File::create(&path).unwrap();
        assert!(take(&stale, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!take(&stale, &path).unwrap());
        let _new = File::create(&path).unwrap();
        assert!(!take(&stale, &path).unwrap());
    }
}
