//! Reading the files that are sent, and noticing when they change meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::TransferError;
use super::manifest::{Entry, hex};
use super::scan::{LocalFile, mtime};
use crate::tools::s3::Part;

/// What is counted in megabytes.
pub(super) const MIB: u64 = 1 << 20;

/// The size of a part. With each part that is under way this much is lost by a kill, and held in memory.
const PART: u64 = 16 * MIB;

/// The most parts that S3 allows in one object.
const MAX_PARTS: u64 = 10_000;

/// How much of all files may be in memory at once, in MiB.
pub(super) const MEMORY: u64 = 128;

/// How old a file must be to tell by its time that it has changed. File systems count in clock ticks of at most 10 ms;
/// those that count in seconds show no fraction.
const TICK: SignedDuration = SignedDuration::from_millis(30);
const SECOND: SignedDuration = SignedDuration::from_millis(1_030);

/// The memory that files share while they are sent.
#[derive(Clone)]
pub(super) struct Memory {
    free: Arc<Semaphore>,
    size: u64,
}

impl Memory {
    /// All of it or, where a limit makes sending slow, as much as passes in half a second: many parts at once would
    /// all be unfinished for long, and lost by a kill.
    pub(super) fn new(rate: Option<u64>) -> Self {
        let size = rate.map_or(MEMORY, |rate| (rate / 2 / MIB).clamp(PART / MIB, MEMORY));
        Self { free: Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(1))), size }
    }

    /// Room for so many bytes, or for as many as there can be.
    pub(super) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes.div_ceil(MIB).clamp(1, self.size)).unwrap_or(1);
        // It is never closed.
        Arc::clone(&self.free).acquire_many_owned(wanted).await.ok()
    }
}

/// A part that was read.
pub(super) enum Chunk {
    /// The store has it already.
    Had(Part, u32),
    /// It is to be sent.
    New { number: u16, bytes: Bytes, crc32c: u32, room: OwnedSemaphorePermit },
}

/// Whether a file is so small that it is sent whole.
pub(super) fn is_small(size: u64) -> bool {
    size <= PART
}

/// The size of the parts of a file: the same whenever it is sent, so that parts fit together.
fn part_size(size: u64) -> u64 {
    PART.max(size.div_ceil(MAX_PARTS).next_multiple_of(MIB))
}

/// A file that is being read, and how it was when it was opened.
struct Opened {
    file: File,
    size: u64,
    mtime: Timestamp,
}

impl Opened {
    /// Opens a file once a change of it could be told by its time; nothing if it is gone.
    fn new(file: &LocalFile) -> io::Result<Option<Self>> {
        let opened = match File::open(&file.location) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let wait = settling(mtime(&opened.metadata()?), Timestamp::now());
        std::thread::sleep(wait);
        let metadata = opened.metadata()?;
        Ok(Some(Self { file: opened, size: metadata.len(), mtime: mtime(&metadata) }))
    }

    /// Whether the file is still the one that was opened, and was not written to.
    fn is_as_before(&self, file: &LocalFile) -> io::Result<bool> {
        let own = self.file.metadata()?;
        let now = match std::fs::metadata(&file.location) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let same = (now.dev(), now.ino()) == (own.dev(), own.ino());
        Ok(same && (now.len(), mtime(&now)) == (self.size, self.mtime))
    }

    fn entry(&self, sha256: &[u8]) -> Entry {
        Entry { size: self.size, mtime: self.mtime, sha256: hex(sha256), etag: String::new() }
    }
}

/// How long to wait until a change of a file that was last modified at `mtime` would change its time.
fn settling(mtime: Timestamp, now: Timestamp) -> Duration {
    let needed = if mtime.subsec_nanosecond() == 0 { SECOND } else { TICK };
    let age = now.duration_since(mtime);
    // One from the future is as good as one of now.
    let age = age.max(SignedDuration::ZERO);
    Duration::try_from(needed - age).unwrap_or_default()
}

/// Reads a small file; nothing if it does not stay as it is.
pub(super) fn read_whole(file: &LocalFile) -> io::Result<Option<(Bytes, Entry, [u8; 32])>> {
    let Some(opened) = Opened::new(file)? else { return Ok(None) };
    let mut bytes = Vec::with_capacity(usize::try_from(opened.size).unwrap_or_default() + 1);
    // One that has grown beyond measure must not fill the memory.
    (&opened.file).take(opened.size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != opened.size || !is_small(opened.size) || !opened.is_as_before(file)? {
        return Ok(None);
    }
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let entry = opened.entry(&sha256);
    Ok(Some((bytes.into(), entry, sha256)))
}

/// Reads a large file part by part; nothing if it does not stay as it is, or if nobody takes the parts.
pub(super) fn read_parts(
    file: &LocalFile,
    there: &[Part],
    memory: &Memory,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<Option<Entry>, TransferError> {
    let failed = |source| TransferError::Read { path: file.location.clone(), source };
    let Some(opened) = Opened::new(file).map_err(failed)? else { return Ok(None) };
    let size = part_size(opened.size);
    let runtime = tokio::runtime::Handle::current();
    let (mut hash, mut left) = (Sha256::new(), opened.size);
    for number in 1.. {
        if left == 0 {
            break;
        }
        let length = size.min(left);
        let Some(room) = runtime.block_on(memory.room(length)) else { return Ok(None) };
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        (&opened.file).take(length).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 != length {
            return Ok(None);
        }
        hash.update(&bytes);
        let crc32c = crc32c::crc32c(&bytes);
        let had = there.iter().find(|part| part.number == number && part.size == length);
        let chunk = match had.filter(|part| part.etag == hex(&Md5::digest(&bytes))) {
            Some(part) => Chunk::Had(part.clone(), crc32c),
            None => Chunk::New { number, bytes: bytes.into(), crc32c, room },
        };
        if chunks.blocking_send(chunk).is_err() {
            return Ok(None);
        }
        left -= length;
    }
    let steady = opened.is_as_before(file).map_err(failed)?;
    Ok(steady.then(|| opened.entry(&hash.finalize())))
}

/// The SHA-256 of a file that stays as it is; nothing if it does not.
pub(super) async fn digest(file: &LocalFile) -> Result<Option<String>, TransferError> {
    blocking(file, |file| {
        let Some(mut opened) = Opened::new(file)? else { return Ok(None) };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match opened.file.read(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        Ok(opened.is_as_before(file)?.then(|| hex(&hash.finalize())))
    })
    .await
}

pub(super) async fn blocking<T: Send + 'static>(
    file: &LocalFile,
    work: impl FnOnce(&LocalFile) -> io::Result<T> + Send + 'static,
) -> Result<T, TransferError> {
    let owned = file.clone();
    let done = joined(tokio::task::spawn_blocking(move || work(&owned)).await)?;
    done.map_err(|source| TransferError::Read { path: file.location.clone(), source })
}

/// What a spawned task returned; its panic goes on here.
pub(super) fn joined<T>(joined: Result<T, tokio::task::JoinError>) -> Result<T, TransferError> {
    joined.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => TransferError::Stopped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_the_memory_finds_room_nevertheless() {
        for rate in [None, Some(1), Some(64 * MIB), Some(u64::MAX)] {
            let memory = Memory::new(rate);
            assert!((16..=MEMORY).contains(&memory.size));
            drop(memory.room(1 << 50).await.unwrap());
            let (one, other) = (memory.room(8 * MIB).await, memory.room(0).await);
            assert!(one.is_some() && other.is_some());
        }
    }

    #[test]
    fn parts_are_as_many_as_s3_allows() {
        for size in [PART + 1, 2048 * MIB, MAX_PARTS * PART, MAX_PARTS * PART + 1, 5 << 40] {
            let part = part_size(size);
            assert!(size.div_ceil(part) <= MAX_PARTS && part >= PART && part.is_multiple_of(MIB), "{size}: {part}");
        }
    }

    #[test]
    fn a_file_settles_before_it_is_read() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let wait = |mtime, now| settling(at(mtime), at(now)).as_millis();
        assert_eq!(wait("2026-11-24T03:00:00.5Z", "2026-11-24T03:00:00.510Z"), 20);
        assert_eq!(wait("2026-11-24T03:00:00.5Z", "2026-11-24T03:00:00.6Z"), 0);
        // A file system that counts in seconds.
        assert_eq!(wait("2026-11-24T03:00:00Z", "2026-11-24T03:00:00.510Z"), 520);
        // A file server whose clock goes before.
        assert_eq!(wait("2027-11-24T03:00:00.5Z", "2026-11-24T03:00:00Z"), 30);
    }
}
