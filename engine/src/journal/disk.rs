//! What the journal asks of a disk, so that a test can put one in its place that fails or loses power.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A file system, as far as it is changed. Reading needs no disk of its own: what a reader sees is what lies there.
///
/// Every method of it and of [`DiskFile`] is a *persistence point*: a place where a crash leaves the disk in another
/// state than before.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens the existing file `path` for appending.
    ///
    /// # Errors
    /// Whatever the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Makes the new, empty file `path` and opens it for appending.
    ///
    /// # Errors
    /// Whatever the system says; [`io::ErrorKind::AlreadyExists`] if there is such a file.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives `from` the name `to`, in one step, replacing what had that name.
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the file `path`.
    ///
    /// # Errors
    /// Whatever the system says; [`io::ErrorKind::NotFound`] if there is no such file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in the folder `dir` durable.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is open for appending.
pub trait DiskFile: fmt::Debug + Send {
    /// Writes `bytes` behind the end of the file.
    ///
    /// # Errors
    /// Whatever the system says; a part may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Makes content and length durable.
    ///
    /// # Errors
    /// Whatever the system says. What was written since the last sync may then be lost, whatever a later sync says.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).create_new(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
