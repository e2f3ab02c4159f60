//! A reader that follows a journal while a run writes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::FILE_NAME;
use super::error::{BoxError, JournalError};
use super::frame::{self, CHECKSUM, Place};
use super::header::Header;

/// Follows the journal of a state folder. It reads only, never waits for the writer, and needs no lock.
///
/// A frame may be seen here an instant before the writer knows that it is durable.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    position: Option<Position>,
}

/// What a [`Tail`] tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A journal begins here, and all that was seen before no longer counts. It comes first of all, and again when the
    /// journal was compacted, replaced or cut.
    Start(&'a Header),
    /// The next frame.
    Frame {
        /// Its sequence number.
        seq: u64,
        /// What was appended.
        payload: &'a [u8],
    },
}

/// How far a file has been read.
#[derive(Debug)]
struct Position {
    /// Kept open, so that meanwhile no other file can get the same inode number.
    file: File,
    /// The end of the last whole part that was read, in bytes from the start of the file.
    offset: u64,
    /// The checksum of that part, which stands just before `offset`.
    checksum: [u8; CHECKSUM],
    next: Place,
}

impl Tail {
    /// A reader at the start of the journal in the folder `dir`; neither need exist yet.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join(FILE_NAME), position: None }
    }

    /// Hands to `each` what came since the last call, and says whether there is a journal.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`TooNew`](JournalError::TooNew), [`Record`](JournalError::Record) if `each` fails,
    /// and [`Io`](JournalError::Io). The call after an error begins again with [`Seen::Start`].
    pub fn poll(&mut self, mut each: impl FnMut(Seen<'_>) -> Result<(), BoxError>) -> Result<bool, JournalError> {
        match self.advance(&mut each) {
            // A writer may have cut a torn tail and appended while we read; true damage is still there the second time.
            Err(JournalError::Damaged { .. }) => self.advance(&mut each),
            outcome => outcome,
        }
    }

    /// As [`poll`](Self::poll); leaves no position behind when it fails.
    fn advance(&mut self, each: &mut impl FnMut(Seen<'_>) -> Result<(), BoxError>) -> Result<bool, JournalError> {
        let io_error = |error| JournalError::io("read", &self.path)(error);
        let before = self.position.take();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_error(error)),
        };
        let resumed = match before {
            Some(position) => position.resume(&file).map_err(io_error)?,
            None => None,
        };
        let mut position = match resumed {
            Some(position) => position,
            None => self.start(file, each)?,
        };
        position.fold(&self.path, each)?;
        self.position = Some(position);
        Ok(true)
    }

    /// Begins with `file`: returns the place of its first frame.
    fn start(
        &self,
        file: File,
        each: &mut impl FnMut(Seen<'_>) -> Result<(), BoxError>,
    ) -> Result<Position, JournalError> {
        let (header, bytes) = Header::read(&self.path, &file)?;
        let next = Place { generation: header.generation, seq: header.first };
        each(Seen::Start(&header)).map_err(|source| JournalError::Record {
            path: self.path.clone(),
            seq: next.seq,
            offset: 0,
            source,
        })?;
        let checksum = *bytes.last_chunk().expect("a header ends with its checksum");
        Ok(Position { file, offset: bytes.len() as u64, checksum, next })
    }
}

impl Position {
    /// This place, if `file` is still the same file and still holds what was read of it.
    fn resume(self, file: &File) -> io::Result<Option<Self>> {
        let (ours, theirs) = (self.file.metadata()?, file.metadata()?);
        if (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()) {
            return Ok(None);
        }
        let mut checksum = [0; CHECKSUM];
        match self.file.read_exact_at(&mut checksum, self.offset - CHECKSUM as u64) {
            Ok(()) => Ok((checksum == self.checksum).then_some(self)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands over the frames behind this place, and moves behind them.
    ///
    /// What a writer appends meanwhile may arrive in pieces; what is inside the length that the file has now is whole.
    fn fold(
        &mut self,
        path: &Path,
        each: &mut impl FnMut(Seen<'_>) -> Result<(), BoxError>,
    ) -> Result<(), JournalError> {
        let failed = |error| JournalError::io("read", path)(error);
        let length = self.file.metadata().map_err(failed)?.len().saturating_sub(self.offset);
        (&self.file).seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        let each = |seq, payload: &[u8]| each(Seen::Frame { seq, payload });
        let end = frame::fold(path, (&self.file).take(length), self.offset, self.next, each)?;
        if let Some(checksum) = end.checksum {
            self.offset += end.at as u64;
            self.checksum = checksum;
            self.next = end.next;
        }
        Ok(())
    }
}
