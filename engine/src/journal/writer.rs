//! The one writer of a journal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FILE_NAME;
use super::disk::{Disk, DiskFile};
use super::error::{BoxError, JournalError};
use super::frame::{self, Place};
use super::header::{Header, Identity};
use super::lock::Lock;

/// A new file before it gets its name.
const TEMPORARY_NAME: &str = "journal.new";

/// Appends frames to the journal of a state folder, and holds the folder's lock meanwhile.
#[derive(Debug)]
pub struct Writer {
    lock: Arc<Lock>,
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    header: Header,
    next: Place,
    size: u64,
    failed: Option<Failure>,
}

/// What [`Writer::open`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Whether there was no journal, so that a new one was begun.
    pub created: bool,
    /// The unfinished last frame that was cut off, if there was one.
    pub torn: Option<Torn>,
}

/// An unfinished frame at the end of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Where it began, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes of it there were.
    pub bytes: u64,
}

/// The first thing that the disk refused.
#[derive(Debug)]
struct Failure {
    action: &'static str,
    path: PathBuf,
    source: Arc<io::Error>,
}

impl Writer {
    /// Opens the journal in the folder of `lock`, or begins one, and hands the payload of each frame with its sequence
    /// number to `each`. What `each` has seen counts only if this succeeds.
    ///
    /// An unfinished last frame is cut off. Everything that `each` saw is durable when this returns, also what a
    /// killed writer had not come to sync.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`TooNew`](JournalError::TooNew), [`Foreign`](JournalError::Foreign) if the journal
    /// is not that of `identity`, [`Record`](JournalError::Record) if `each` fails, and [`Io`](JournalError::Io). In
    /// all these cases the journal is as it was, except that `Io` may come after a torn tail was cut.
    pub fn open(
        lock: Arc<Lock>,
        disk: Arc<dyn Disk>,
        identity: &Identity,
        each: impl FnMut(u64, &[u8]) -> Result<(), BoxError>,
    ) -> Result<(Self, Opened), JournalError> {
        let path = lock.dir().join(FILE_NAME);
        remove_temporary(&*disk, lock.dir())?;
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let writer = Self::create(lock, disk, identity, None)?;
                return Ok((writer, Opened { created: true, torn: None }));
            }
            Err(error) => return Err(JournalError::io("read", &path)(error)),
        };
        let (header, start) = Header::read(&path, &file)?;
        header.require(&path, identity)?;
        let first = Place { generation: header.generation, seq: header.first };
        let end = frame::fold(&path, &file, start.len() as u64, first, each)?;
        let size = (start.len() + end.at) as u64;
        let length = file.metadata().map_err(JournalError::io("read", &path))?.len();
        let excess = length.saturating_sub(size);

        let mut file = disk.open(&path).map_err(JournalError::io("open", &path))?;
        if excess > 0 {
            file.truncate(size).map_err(JournalError::io("cut the torn tail of", &path))?;
        }
        file.sync().map_err(JournalError::io("sync", &path))?;
        disk.sync_dir(lock.dir()).map_err(JournalError::io("sync", lock.dir()))?;
        let torn = (excess > 0).then_some(Torn { offset: size, bytes: excess });
        let writer = Self { lock, disk, file, header, next: end.next, size, failed: None };
        Ok((writer, Opened { created: false, torn }))
    }

    /// Begins a journal in the folder of `lock`, which has none, with the payloads of `snapshot`, a frame each. A crash
    /// leaves all of it or nothing.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`] and [`JournalError::Io`].
    pub fn begin(
        lock: Arc<Lock>,
        disk: Arc<dyn Disk>,
        identity: &Identity,
        snapshot: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Self, JournalError> {
        remove_temporary(&*disk, lock.dir())?;
        Self::create(lock, disk, identity, snapshot)
    }

    fn create(
        lock: Arc<Lock>,
        disk: Arc<dyn Disk>,
        identity: &Identity,
        snapshot: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Self, JournalError> {
        let header = Header::new(identity);
        let Prepared { file, size, next } = prepare(&*disk, lock.dir(), &header, snapshot)?;
        install(&*disk, lock.dir())?;
        Ok(Self { lock, disk, file, header, next, size, failed: None })
    }

    /// Appends `payload` as one frame and returns its sequence number once it is durable.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`], after which the writer goes on. [`JournalError::Io`] if the frame could not be
    /// written or synced: then it must count as not recorded, and every later call fails with this same error.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, JournalError> {
        self.require_unfailed()?;
        let frame = frame::encode(self.next, payload)?;
        if let Err(error) = self.file.append(&frame).and_then(|()| self.file.sync()) {
            // Best effort: what cannot be cut now is a torn tail to the next writer.
            let _ = self.file.truncate(self.size);
            let path = self.lock.dir().join(FILE_NAME);
            return Err(self.fail(JournalError::io("write to", &path)(error)));
        }
        self.size += frame.len() as u64;
        self.next.seq += 1;
        Ok(self.next.seq - 1)
    }

    /// Replaces the journal by a new generation of it that begins with the payloads of `snapshot`, a frame each, which
    /// together have to stand for all frames so far. Returns the sequence number of the first of them. A crash leaves
    /// either the old file or the new one.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`], or [`JournalError::Io`] if the new file could not be written, say for want of space:
    /// then the writer goes on with the old one. [`JournalError::Io`] also if it is uncertain which of them a crash
    /// would leave: then every later call fails with this same error.
    pub fn compact(&mut self, snapshot: impl IntoIterator<Item = Vec<u8>>) -> Result<u64, JournalError> {
        self.require_unfailed()?;
        let header = Header { generation: self.header.generation + 1, first: self.next.seq, ..self.header.clone() };
        let Prepared { file, size, next } = prepare(&*self.disk, self.lock.dir(), &header, snapshot)?;
        install(&*self.disk, self.lock.dir()).map_err(|error| self.fail(error))?;
        (self.file, self.size, self.header, self.next) = (file, size, header, next);
        Ok(self.header.first)
    }

    /// What the file begins with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The length of the file in bytes: what a reader has to read, and compaction makes smaller.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn require_unfailed(&self) -> Result<(), JournalError> {
        match &self.failed {
            None => Ok(()),
            Some(Failure { action, path, source }) => {
                Err(JournalError::Io { action, path: path.clone(), source: Arc::clone(source) })
            }
        }
    }

    /// Remembers `error`, so that it answers every later call too.
    fn fail(&mut self, error: JournalError) -> JournalError {
        if let JournalError::Io { action, path, source } = &error {
            self.failed = Some(Failure { action, path: path.clone(), source: Arc::clone(source) });
        }
        error
    }
}

/// Renames the journal in the folder of `lock` to `journal.damaged-<time>`, so that a new one can be begun, and
/// returns its new path.
///
/// # Errors
/// [`JournalError::Io`], also when there is no journal.
pub fn set_aside(lock: &Lock, disk: &dyn Disk) -> Result<PathBuf, JournalError> {
    let path = lock.dir().join(FILE_NAME);
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ");
    let aside = lock.dir().join(format!("{FILE_NAME}.damaged-{time}"));
    disk.rename(&path, &aside).map_err(JournalError::io("set aside", &path))?;
    disk.sync_dir(lock.dir()).map_err(JournalError::io("sync", lock.dir()))?;
    Ok(aside)
}

/// A new file that is not yet the journal.
struct Prepared {
    file: Box<dyn DiskFile>,
    size: u64,
    next: Place,
}

/// Makes a temporary file of `header` and the payloads of `snapshot`, a frame each, durable.
fn prepare(
    disk: &dyn Disk,
    dir: &Path,
    header: &Header,
    snapshot: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Prepared, JournalError> {
    let path = dir.join(TEMPORARY_NAME);
    let file = disk.create(&path).map_err(JournalError::io("create", &path))?;
    let next = Place { generation: header.generation, seq: header.first };
    let mut new = Prepared { file, size: 0, next };
    new.fill(&path, header, snapshot).inspect_err(|_| {
        // Best effort: what cannot be removed now is removed by the next writer.
        let _ = disk.remove(&path);
    })?;
    Ok(new)
}

impl Prepared {
    fn fill(
        &mut self,
        path: &Path,
        header: &Header,
        snapshot: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<(), JournalError> {
        const AT_ONCE: usize = 1 << 20;
        let mut pending = header.encode();
        for payload in snapshot {
            if pending.len() >= AT_ONCE {
                self.file.append(&pending).map_err(JournalError::io("write to", path))?;
                self.size += pending.len() as u64;
                pending.clear();
            }
            pending.extend(frame::encode(self.next, &payload)?);
            self.next.seq += 1;
        }
        self.size += pending.len() as u64;
        self.file.append(&pending).and_then(|()| self.file.sync()).map_err(JournalError::io("write to", path))
    }
}

/// Makes the temporary file the journal, durably and in one step.
fn install(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    let path = dir.join(FILE_NAME);
    disk.rename(&dir.join(TEMPORARY_NAME), &path).map_err(JournalError::io("replace", &path))?;
    disk.sync_dir(dir).map_err(JournalError::io("sync", dir))
}

/// Removes what a writer left that died while it made a new file.
fn remove_temporary(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    let path = dir.join(TEMPORARY_NAME);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(JournalError::io("remove", &path)(error)),
        _ => Ok(()),
    }
}
