//! The file header: whose journal it is, and which of its generations.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::JournalError;

/// The newest format version that this program writes and reads.
pub const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"\x89TRJ\r\n\x1a\n";
/// Magic, version and length of the JSON text.
const FIXED: usize = 16;
/// More bytes than any header has.
const LONGEST: u64 = 1 << 20;
const CHECKSUM: usize = 4;

/// Whose state a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The environment's name, from the config.
    pub environment: String,
    /// The platform that the environment is deployed to.
    pub platform: String,
}

/// What stands at the start of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The environment whose journal this is.
    pub environment: String,
    /// The platform that the environment is deployed to.
    pub platform: String,
    /// When the journal was begun (RFC 3339, UTC); compaction keeps it.
    pub created: String,
    /// 1 for a new journal, one more after each compaction.
    pub generation: u64,
    /// The sequence number of the first frame in this file.
    pub first: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "environment `{}` on platform `{}`", self.environment, self.platform)
    }
}

impl Header {
    /// The header of a new journal.
    pub(super) fn new(identity: &Identity) -> Self {
        Self {
            environment: identity.environment.clone(),
            platform: identity.platform.clone(),
            created: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            generation: 1,
            first: 1,
        }
    }

    /// Whose journal this is.
    pub fn identity(&self) -> Identity {
        Identity { environment: self.environment.clone(), platform: self.platform.clone() }
    }

    /// The bytes that a file with this header begins with.
    pub(super) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("strings and numbers always make JSON");
        let length = u32::try_from(json.len()).expect("names are shorter than 4 GiB");
        let mut bytes = Vec::with_capacity(FIXED + json.len() + CHECKSUM);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(json);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `file`, the one at `path`, and leaves it behind the header. Returns the header
    /// with its bytes.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and [`JournalError::Io`].
    pub(super) fn read(path: &Path, mut file: &File) -> Result<(Self, Vec<u8>), JournalError> {
        let mut bytes = Vec::new();
        let read = file.take(LONGEST).read_to_end(&mut bytes);
        read.map_err(JournalError::io("read", path))?;
        let (header, end) = Self::decode(path, &bytes)?;
        file.seek(SeekFrom::Start(end as u64)).map_err(JournalError::io("read", path))?;
        bytes.truncate(end);
        Ok((header, bytes))
    }

    /// Reads the header at the start of `bytes`, the content of `path`, and says where it ends.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] and [`JournalError::TooNew`].
    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<(Self, usize), JournalError> {
        let damaged = |offset, expected| JournalError::damaged(path, offset, expected);
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
            return Err(damaged(0, "a file header, but the file is too short for one"));
        };
        if fixed[..8] != MAGIC {
            return Err(damaged(0, "the signature of a journal"));
        }
        let version = read_u32(&fixed[8..12]);
        let end = FIXED.saturating_add(read_u32(&fixed[12..16]) as usize);
        let Some(checksum) = rest.get(end - FIXED..).and_then(|rest| rest.get(..CHECKSUM)) else {
            return Err(damaged(12, "a file header that ends within the file"));
        };
        if crc32fast::hash(&bytes[..end]) != read_u32(checksum) {
            return Err(damaged(0, "a file header that fits its checksum"));
        }
        if version > FORMAT {
            return Err(JournalError::TooNew { path: path.to_owned(), found: version, known: FORMAT });
        }
        match serde_json::from_slice(&bytes[FIXED..end]) {
            Ok(header) => Ok((header, end + CHECKSUM)),
            Err(error) => Err(JournalError::damaged(path, FIXED as u64, format!("a readable file header ({error})"))),
        }
    }

    /// Fails unless this is the journal of `wanted`.
    pub(super) fn require(&self, path: &Path, wanted: &Identity) -> Result<(), JournalError> {
        let found = self.identity();
        if found == *wanted {
            return Ok(());
        }
        Err(JournalError::Foreign { path: path.to_owned(), found, wanted: wanted.clone() })
    }
}

/// The number in four bytes.
pub(super) fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(&Identity { environment: "home".into(), platform: "local".into() })
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let bytes = header().encode();
        let (back, end) = Header::decode(Path::new("journal"), &bytes).unwrap();
        assert_eq!((back, end), (header(), bytes.len()));
    }

    #[test]
    fn a_newer_version_is_refused_and_a_flipped_one_is_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let flipped = Header::decode(Path::new("journal"), &bytes).unwrap_err();
        assert!(matches!(flipped, JournalError::Damaged { offset: 0, .. }), "{flipped}");

        let body = bytes.len() - CHECKSUM;
        let checksum = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_le_bytes());
        let newer = Header::decode(Path::new("journal"), &bytes).unwrap_err();
        assert_eq!(newer.to_string(), "journal has format version 2, but this program reads versions up to 1");
    }

    #[test]
    fn another_environment_is_refused_by_name() {
        let wanted = Identity { environment: "home".into(), platform: "kubernetes".into() };
        assert_eq!(
            header().require(Path::new("journal"), &wanted).unwrap_err().to_string(),
            "journal belongs to environment `home` on platform `local`, \
             not to environment `home` on platform `kubernetes`"
        );
    }
}
