//! A disk that fails or loses power at a chosen point.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::{Disk, DiskFile, RealDisk};

/// The real disk, with one fault at one *persistence point*.
///
/// Each call that changes the disk is a point, counted from 0 over all files. After a crash every call fails with an
/// error that [`is_crash`] recognises, and the files are as the next process finds them; it goes on with a
/// [restarted](Self::restarted) disk. To try all crashes of a run, count its points on a disk
/// [without a fault](Self::reliable), then repeat the run with each of [`Fault::CRASHES`] at each point.
///
/// Cloning gives another handle on the same disk.
#[derive(Debug, Clone)]
pub struct FaultyDisk(Arc<Mutex<State>>);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power fails.
    Crash {
        /// How much of the operation is done by then.
        done: Extent,
        /// What becomes of all that was not synced.
        unsynced: Unsynced,
    },
    /// The operation fails with such an error, an append after one half of it; the disk works on.
    Error(io::ErrorKind),
}

/// How much of an operation is done. What is no append is done as a whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Nothing of it.
    Nothing,
    /// So many bytes of an append.
    Bytes(usize),
    /// One half of an append.
    Half,
    /// All of it.
    All,
}

/// What becomes of unsynced changes in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it reached the disk; always so when only the process is killed.
    Kept,
    /// None of it did.
    Lost,
    /// Names and lengths did, the data reads as zeros.
    Zeroed,
}

#[derive(Debug, Clone, Default)]
struct State {
    fault: Option<(usize, Fault)>,
    points: usize,
    crashed: bool,
    /// The files that were touched; a name is an index into them.
    files: Vec<Content>,
    /// Which file each name leads to.
    names: BTreeMap<PathBuf, usize>,
    /// The same, as far as it is synced.
    synced_names: BTreeMap<PathBuf, usize>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    index: usize,
    real: Box<dyn DiskFile>,
}

#[derive(Debug, thiserror::Error)]
#[error("the power failed, as the test asked for")]
struct Crashed;

/// Whether `error`, or what caused it, is the crash of a [`FaultyDisk`].
pub fn is_crash(error: &(dyn Error + 'static)) -> bool {
    let io_error =
        error.downcast_ref::<io::Error>().or_else(|| error.downcast_ref::<Arc<io::Error>>().map(AsRef::as_ref));
    io_error.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<Crashed>())
        || error.source().is_some_and(is_crash)
}

impl Fault {
    /// Every kind of crash: before, in the middle of and after an operation, with each fate of what is not synced.
    pub const CRASHES: [Self; 8] = [
        Self::Crash { done: Extent::Nothing, unsynced: Unsynced::Kept },
        Self::Crash { done: Extent::Nothing, unsynced: Unsynced::Lost },
        Self::Crash { done: Extent::Bytes(1), unsynced: Unsynced::Kept },
        Self::Crash { done: Extent::Half, unsynced: Unsynced::Kept },
        Self::Crash { done: Extent::Half, unsynced: Unsynced::Zeroed },
        Self::Crash { done: Extent::All, unsynced: Unsynced::Kept },
        Self::Crash { done: Extent::All, unsynced: Unsynced::Lost },
        Self::Crash { done: Extent::All, unsynced: Unsynced::Zeroed },
    ];
}

impl FaultyDisk {
    /// A disk without a fault, to count the points of a run.
    pub fn reliable() -> Self {
        Self::new(None)
    }

    /// A disk that has `fault` at `point`.
    pub fn with(point: usize, fault: Fault) -> Self {
        Self::new(Some((point, fault)))
    }

    /// The same disk under the next process, with a fault, if any, at a point that is counted from 0 again.
    ///
    /// After a crash that kept what was not synced, as when a process is killed, that is still not synced.
    pub fn restarted(&self, fault: Option<(usize, Fault)>) -> Self {
        let State { files, names, synced_names, .. } = self.state().clone();
        Self(Arc::new(Mutex::new(State { fault, points: 0, crashed: false, files, names, synced_names })))
    }

    /// How many points there were so far.
    pub fn points(&self) -> usize {
        self.state().points
    }

    /// Whether the power has failed.
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    fn new(fault: Option<(usize, Fault)>) -> Self {
        Self(Arc::new(Mutex::new(State { fault, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One persistence point: does as much of `operation` as the fault allows.
    fn point<T>(&self, operation: impl FnOnce(&mut State, Extent) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        if state.crashed {
            return Err(io::Error::other(Crashed));
        }
        let point = state.points;
        state.points += 1;
        match state.fault {
            Some((at, Fault::Error(kind))) if at == point => operation(&mut state, Extent::Half).and(Err(kind.into())),
            Some((at, Fault::Crash { done, unsynced })) if at == point => {
                // The power fails whether or not the operation would have succeeded.
                let _ = operation(&mut state, done);
                state.crash(unsynced)?;
                Err(io::Error::other(Crashed))
            }
            _ => operation(&mut state, Extent::All),
        }
    }

    /// As [`point`](Self::point), for what is done as a whole or not at all.
    fn whole_point<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let done =
            self.point(|state, extent| if extent == Extent::All { operation(state).map(Some) } else { Ok(None) });
        done.map(|value| value.expect("a point without a fault does everything"))
    }

    fn file(&self, index: usize, real: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { disk: self.clone(), index, real })
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let opened = self.whole_point(|state| {
            let real = RealDisk.open(path)?;
            Ok((state.adopt(path)?, real))
        });
        opened.map(|(index, real)| self.file(index, real))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let created = self.whole_point(|state| {
            let real = RealDisk.create(path)?;
            let index = state.files.len();
            state.files.push(Content::default());
            state.names.insert(path.to_owned(), index);
            Ok((index, real))
        });
        created.map(|(index, real)| self.file(index, real))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole_point(|state| {
            let index = state.adopt(from)?;
            if to.exists() {
                state.adopt(to)?;
            }
            RealDisk.rename(from, to)?;
            state.names.remove(from);
            state.names.insert(to.to_owned(), index);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole_point(|state| {
            state.adopt(path)?;
            RealDisk.remove(path)?;
            state.names.remove(path);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.whole_point(|state| {
            state.synced_names.retain(|path, _| path.parent() != Some(dir));
            let names = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
            state.synced_names.extend(names.map(|(path, index)| (path.clone(), *index)));
            Ok(())
        })
    }
}

impl DiskFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.point(|state, extent| {
            let done = match extent {
                Extent::Nothing => 0,
                Extent::Bytes(count) => count.min(bytes.len()),
                Extent::Half => bytes.len() / 2,
                Extent::All => bytes.len(),
            };
            state.files[self.index].now.extend_from_slice(&bytes[..done]);
            self.real.append(&bytes[..done])
        })
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.whole_point(|state| {
            state.files[self.index].now.truncate(usize::try_from(length).expect("a file that fits in memory"));
            self.real.truncate(length)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.whole_point(|state| {
            let Content { now, synced } = &mut state.files[self.index];
            synced.clone_from(now);
            Ok(())
        })
    }
}

impl State {
    /// The index of the file at `path`; what lies there before we touch it counts as synced.
    fn adopt(&mut self, path: &Path) -> io::Result<usize> {
        if let Some(index) = self.names.get(path) {
            return Ok(*index);
        }
        let now = fs::read(path)?;
        let index = self.files.len();
        self.files.push(Content { synced: now.clone(), now });
        self.names.insert(path.to_owned(), index);
        self.synced_names.insert(path.to_owned(), index);
        Ok(index)
    }

    /// Makes the files what they are when the power is back.
    fn crash(&mut self, unsynced: Unsynced) -> io::Result<()> {
        self.crashed = true;
        if unsynced == Unsynced::Kept {
            return Ok(());
        }
        for path in self.names.keys() {
            fs::remove_file(path)?;
        }
        if unsynced == Unsynced::Lost {
            self.names.clone_from(&self.synced_names);
        }
        self.synced_names.clone_from(&self.names);
        for (path, index) in &self.names {
            let Content { now, synced } = &mut self.files[*index];
            if unsynced == Unsynced::Zeroed {
                synced.resize(now.len(), 0);
            }
            now.clone_from(synced);
            fs::write(path, now)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `file` holds, and whether there is an `other`, after a crash in the append of `new` behind a synced `old`.
    fn crash(done: Extent, unsynced: Unsynced) -> (Vec<u8>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&path, "old").unwrap();
        // Open, create, append.
        let disk = FaultyDisk::with(2, Fault::Crash { done, unsynced });
        let mut file = disk.open(&path).unwrap();
        disk.create(&other).unwrap();
        let error = file.append(b"new").unwrap_err();
        assert!(is_crash(&error) && disk.has_crashed());
        assert!(is_crash(&file.sync().unwrap_err()) && is_crash(&disk.open(&path).unwrap_err()));
        (fs::read(path).unwrap(), other.exists())
    }

    #[test]
    fn a_crash_leaves_what_it_says() {
        let kept = |done| crash(done, Unsynced::Kept);
        assert_eq!(kept(Extent::Nothing), (b"old".to_vec(), true));
        assert_eq!(kept(Extent::Bytes(1)), (b"oldn".to_vec(), true));
        assert_eq!(kept(Extent::Bytes(9)), (b"oldnew".to_vec(), true));
        assert_eq!(kept(Extent::Half), (b"oldn".to_vec(), true));
        assert_eq!(kept(Extent::All), (b"oldnew".to_vec(), true));
        assert_eq!(crash(Extent::All, Unsynced::Lost), (b"old".to_vec(), false));
        assert_eq!(crash(Extent::All, Unsynced::Zeroed), (b"old\0\0\0".to_vec(), true));
    }

    #[test]
    fn what_a_killed_process_did_not_sync_can_still_be_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let killed = FaultyDisk::with(1, Fault::Crash { done: Extent::All, unsynced: Unsynced::Kept });
        killed.create(&path).unwrap().append(b"new").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        let next = killed.restarted(Some((0, Fault::Crash { done: Extent::Nothing, unsynced: Unsynced::Lost })));
        next.open(&path).unwrap_err();
        assert!(!path.exists());
    }
}
