//! A disk that fails or loses power at a chosen point.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::{Disk, DiskFile, JournalError, RealDisk};

/// The real disk, with one fault at one *persistence point*.
///
/// Each call that changes the disk is a point, counted from 0 over all files. After a crash every call fails with an
/// error that [`is_crash`] recognises, and the files are as they would be when the power comes back. To try all crashes
/// of a run, count its points on a [reliable](Self::reliable) disk, then repeat the run with each of [`Fault::CRASHES`]
/// at each point. Cloning gives another handle on the same disk.
#[derive(Debug, Clone)]
pub struct FaultyDisk(Arc<Mutex<State>>);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power fails.
    Crash {
        /// How much of the operation is done by then.
        done: Extent,
        /// Whether what was appended and not synced is lost; when only the process is killed, it is kept.
        lose: bool,
    },
    /// The operation fails with such an error, an append after one half of it; the disk works on.
    Error(io::ErrorKind),
}

/// How much of an operation is done. What is no append is done as a whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Nothing of it.
    Nothing,
    /// One half of an append.
    Half,
    /// All of it.
    All,
}

#[derive(Debug)]
struct State {
    fault: Option<(usize, Fault)>,
    points: usize,
    crashed: bool,
    /// The length up to which each open file is synced.
    synced: HashMap<PathBuf, u64>,
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    real: Box<dyn DiskFile>,
    length: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the power failed, as the test asked for")]
struct Crashed;

/// Whether `error` is the crash of a [`FaultyDisk`].
pub fn is_crash(error: &JournalError) -> bool {
    match error {
        JournalError::Io { source, .. } => source.get_ref().is_some_and(|inner| inner.is::<Crashed>()),
        _ => false,
    }
}

impl Fault {
    /// Every kind of crash: before, in the middle of and after an operation, with each fate of what is not synced.
    pub const CRASHES: [Self; 5] = [
        Self::Crash { done: Extent::Nothing, lose: false },
        Self::Crash { done: Extent::Nothing, lose: true },
        Self::Crash { done: Extent::Half, lose: false },
        Self::Crash { done: Extent::All, lose: false },
        Self::Crash { done: Extent::All, lose: true },
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

    /// How many points there were so far.
    pub fn points(&self) -> usize {
        self.state().points
    }

    fn new(fault: Option<(usize, Fault)>) -> Self {
        Self(Arc::new(Mutex::new(State { fault, points: 0, crashed: false, synced: HashMap::new() })))
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
            Some((at, Fault::Error(kind))) if at == point => {
                operation(&mut state, Extent::Half)?;
                Err(kind.into())
            }
            Some((at, Fault::Crash { done, lose })) if at == point => {
                // That there was nothing to do it to, as to a file to be removed, does not stop the power from failing.
                let _ = operation(&mut state, done);
                state.crashed = true;
                if lose {
                    state.lose_unsynced()?;
                }
                Err(io::Error::other(Crashed))
            }
            _ => operation(&mut state, Extent::All),
        }
    }
}

impl State {
    fn lose_unsynced(&self) -> io::Result<()> {
        for (path, length) in &self.synced {
            match OpenOptions::new().write(true).open(path) {
                Ok(file) => file.set_len(*length)?,
                // It was renamed, which only follows a sync of all of it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl FaultyDisk {
    fn file(&self, path: &Path, real: Box<dyn DiskFile>, length: u64) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { disk: self.clone(), path: path.to_owned(), real, length })
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let length = std::fs::metadata(path)?.len();
        self.state().synced.insert(path.to_owned(), length);
        Ok(self.file(path, RealDisk.open(path)?, length))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let made = self.point(|state, extent| {
            if extent != Extent::All {
                return Ok(None);
            }
            state.synced.insert(path.to_owned(), 0);
            RealDisk.create(path).map(Some)
        })?;
        made.map(|real| self.file(path, real, 0)).ok_or_else(|| io::Error::other(Crashed))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.point(|state, extent| {
            if extent != Extent::All {
                return Ok(());
            }
            if let Some(length) = state.synced.remove(from) {
                state.synced.insert(to.to_owned(), length);
            }
            RealDisk.rename(from, to)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.point(|_, extent| if extent == Extent::All { RealDisk.remove(path) } else { Ok(()) })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.point(|_, _| RealDisk.sync_dir(dir))
    }
}

impl DiskFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (real, length) = (&mut self.real, &mut self.length);
        self.disk.point(|_, extent| {
            let count = match extent {
                Extent::Nothing => 0,
                Extent::Half => bytes.len() / 2,
                Extent::All => bytes.len(),
            };
            *length += count as u64;
            real.append(&bytes[..count])
        })
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let (real, own) = (&mut self.real, &mut self.length);
        self.disk.point(|_, extent| {
            if extent != Extent::All {
                return Ok(());
            }
            *own = length;
            real.truncate(length)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let (real, length, path) = (&mut self.real, self.length, &self.path);
        self.disk.point(|state, extent| {
            if extent != Extent::All {
                return Ok(());
            }
            // After a rename the file goes by its new name.
            if let Some(synced) = state.synced.get_mut(path) {
                *synced = length;
            } else {
                state.synced.values_mut().for_each(|synced| *synced = length);
            }
            real.sync()
        })
    }
}
