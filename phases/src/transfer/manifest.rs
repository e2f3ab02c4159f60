//! The manifest: which files a model consists of, each with its size, time and SHA-256.
//!
//! It lies beside the model's objects, as `NAME.manifest.json` beside `NAME/`, and is written last: where it is, all
//! that it names is complete. A copy of it in the state folder is what the next sync compares with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of the format.
const VERSION: u32 = 1;

/// What is known of files, by path.
pub type Entries = BTreeMap<String, Entry>;

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The model's name.
    pub model: String,
    /// The files.
    pub files: Entries,
}

/// A file that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its size in bytes.
    pub size: u64,
    /// When it was last modified, as its file system tells.
    pub mtime: Timestamp,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// The object's entity tag, as the store gave it when the file had been sent.
    pub etag: String,
}

/// A file of a manifest as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) sha256: String,
    pub(super) etag: String,
}

/// A manifest as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    model: String,
    digest: String,
    files: Vec<Line>,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or has other fields.
    #[error("it is no manifest")]
    Json(#[from] serde_json::Error),
    /// It is of a newer program.
    #[error("version {found} is not known here, {VERSION} is")]
    Version {
        /// The version that it tells.
        found: u64,
    },
    /// Its files do not give the digest that it tells.
    #[error("its digest is not that of its files: it was changed")]
    Digest,
}

impl Line {
    /// Joins a path and what is known of its file.
    pub(super) fn new(path: String, entry: Entry) -> Self {
        let Entry { size, mtime, sha256, etag } = entry;
        Self { path, size, mtime, sha256, etag }
    }

    /// The path, and what is known of its file.
    pub(super) fn split(self) -> (String, Entry) {
        let Self { path, size, mtime, sha256, etag } = self;
        (path, Entry { size, mtime, sha256, etag })
    }
}

impl Manifest {
    /// The key of a model's manifest.
    pub fn key(model: &str) -> String {
        format!("{model}.manifest.json")
    }

    /// What the model consists of, as one number: the SHA-256 of what `sha256sum` prints for the files in the order of
    /// their paths. Times and entity tags do not count.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, entry) in &self.files {
            hash.update(format!("{}  {path}\n", entry.sha256));
        }
        hex(&hash.finalize())
    }

    /// The size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.size).sum()
    }

    /// The JSON that is stored.
    ///
    /// # Errors
    /// A time cannot be written.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let lines = self.files.iter().map(|(path, entry)| Line::new(path.clone(), entry.clone())).collect();
        let document = Document { version: VERSION, model: self.model.clone(), digest: self.digest(), files: lines };
        let mut json = serde_json::to_vec_pretty(&document)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// It is no manifest, one of a newer program, or was changed.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        // The version first: what a newer one says cannot be read.
        let value: serde_json::Value = serde_json::from_slice(json)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(VERSION) => return Err(ManifestError::Version { found }),
            _ => {}
        }
        let document: Document = serde_json::from_value(value)?;
        let files = document.files.into_iter().map(Line::split).collect();
        let manifest = Self { model: document.model, files };
        if manifest.digest() == document.digest { Ok(manifest) } else { Err(ManifestError::Digest) }
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn example() -> Manifest {
        let entry = |size, content: &[u8]| Entry {
            size,
            mtime: "2026-11-24T03:00:00.000000001Z".parse().unwrap(),
            sha256: hex(&Sha256::digest(content)),
            etag: "0cc175b9c0f1b6a831c399e269772661".to_owned(),
        };
        let files = [("b/weights.bin", entry(1, b"b")), ("a.json", entry(1, b"a"))];
        Manifest { model: "tiny".to_owned(), files: files.map(|(path, entry)| (path.to_owned(), entry)).into() }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let json = example().to_json().unwrap();
        crate::testing::snapshot("transfer-manifest", std::str::from_utf8(&json).unwrap());
        assert_eq!(Manifest::from_json(&json).unwrap(), example());
    }

    #[test]
    fn the_digest_is_that_of_sha256sum_and_heeds_no_times() {
        let told = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a.json\n\
                    3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  b/weights.bin\n";
        assert_eq!(example().digest(), hex(&Sha256::digest(told)));
        let mut touched = example();
        for entry in touched.files.values_mut() {
            entry.mtime = Timestamp::UNIX_EPOCH;
            entry.etag.clear();
        }
        assert_eq!(touched.digest(), example().digest());
    }

    #[test]
    fn a_newer_or_changed_one_is_refused() {
        let json = String::from_utf8(example().to_json().unwrap()).unwrap();
        let read = |from: &str, to: &str| Manifest::from_json(json.replace(from, to).as_bytes());
        assert!(matches!(read("\"version\": 1", "\"version\": 2"), Err(ManifestError::Version { found: 2 })));
        assert!(matches!(read("a.json", "c.json"), Err(ManifestError::Digest)));
        assert!(matches!(read("\"size\"", "\"length\""), Err(ManifestError::Json(_))));
        assert!(matches!(Manifest::from_json(&json.as_bytes()[..40]), Err(ManifestError::Json(_))));
    }
}
