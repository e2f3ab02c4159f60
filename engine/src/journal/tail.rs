//! A reader that follows a journal while a run writes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::FILE_NAME;
use super::error::{BoxError, JournalError};
use super::frame::{self, Place};
use super::header::Header;

const CHECKSUM: usize = 4;

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
        let (mut position, bytes) = match resumed {
            Some(resumed) => resumed,
            None => self.start(file, each)?,
        };
        position.fold(&self.path, &bytes, each)?;
        self.position = Some(position);
        Ok(true)
    }

    /// Begins with `file`: returns the place of its first frame, and all bytes from there on.
    fn start(
        &self,
        file: File,
        each: &mut impl FnMut(Seen<'_>) -> Result<(), BoxError>,
    ) -> Result<(Position, Vec<u8>), JournalError> {
        let mut bytes = read_from(&file, 0).map_err(JournalError::io("read", &self.path))?;
        let (header, end) = Header::decode(&self.path, &bytes)?;
        let next = Place { generation: header.generation, seq: header.first };
        each(Seen::Start(&header)).map_err(|source| JournalError::Record {
            path: self.path.clone(),
            seq: next.seq,
            offset: 0,
            source,
        })?;
        let checksum = checksum_before(&bytes, end);
        bytes.drain(..end);
        Ok((Position { file, offset: end as u64, checksum, next }, bytes))
    }
}

impl Position {
    /// The bytes behind this place, if `file` is still the same file and still holds what was read of it.
    fn resume(self, file: &File) -> io::Result<Option<(Self, Vec<u8>)>> {
        let (ours, theirs) = (self.file.metadata()?, file.metadata()?);
        if (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()) {
            return Ok(None);
        }
        let mut bytes = read_from(&self.file, self.offset - CHECKSUM as u64)?;
        if !bytes.starts_with(&self.checksum) {
            return Ok(None);
        }
        bytes.drain(..CHECKSUM);
        Ok(Some((self, bytes)))
    }

    /// Hands over the frames in `bytes`, which stand behind this place, and moves behind them.
    fn fold(
        &mut self,
        path: &Path,
        bytes: &[u8],
        each: &mut impl FnMut(Seen<'_>) -> Result<(), BoxError>,
    ) -> Result<(), JournalError> {
        let end = frame::fold(path, bytes, self.offset, self.next, |seq, payload| each(Seen::Frame { seq, payload }))?;
        if end.at > 0 {
            self.offset += end.at as u64;
            self.checksum = checksum_before(bytes, end.at);
            self.next = end.next;
        }
        Ok(())
    }
}

/// Everything in `file` from `offset` up to the length that it has now: what a writer appends meanwhile may arrive
/// in pieces, what is inside the length is whole.
fn read_from(mut file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.seek(SeekFrom::Start(offset))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn checksum_before(bytes: &[u8], end: usize) -> [u8; CHECKSUM] {
    bytes[end - CHECKSUM..end].try_into().expect("four bytes")
}
