//! What is written down of a build, beside its image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};

use super::accelerator::Accelerator;
use super::description::Description;
use super::source;
use crate::tools::files;

/// The file beside the image.
pub const FILE: &str = "record.json";

/// The version of the format.
const FORMAT: u32 = 1;

/// What is written down of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the format.
    pub format: u32,
    /// The name of the image: `cloud-base`.
    pub name: String,
    /// The key of what it is made from.
    pub key: Digest,
    /// How it was built.
    pub way: Way,
    /// How machines ran meanwhile.
    pub accelerator: Accelerator,
    /// Where the source is from.
    pub source: String,
    /// The checksum of the source.
    pub source_checksum: String,
    /// What the scripts were given.
    pub environment: BTreeMap<String, String>,
    /// The versions of the programs that built it.
    pub tools: BTreeMap<String, String>,
    /// The SHA-256 of the image.
    pub sha256: String,
    /// Its size as a machine sees it, in bytes.
    pub virtual_size_bytes: u64,
    /// The size of the file, in bytes.
    pub size_bytes: u64,
    /// When the build began.
    pub began: jiff::Timestamp,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// How long each part took, in seconds.
    pub parts: BTreeMap<String, u64>,
    /// What was in it when Packer had booted it.
    pub description: Description,
    /// What the file system says of the file.
    pub stamp: Stamp,
}

/// How an image was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Packer booted the source, and everything was installed in there.
    Booted,
    /// Everything was installed in a chroot; Packer booted the result.
    Native,
    /// It was given, and only looked at.
    Given,
}

impl Way {
    /// In words.
    pub fn told(self) -> &'static str {
        match self {
            Self::Booted => "installed by Packer in a machine that booted the source",
            Self::Native => "installed natively in a chroot, then booted by Packer",
            Self::Given => "given by the configuration",
        }
    }
}

/// What the file system says of a file: the same again means that nobody changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    size: u64,
    modified: i64,
    modified_nanoseconds: i64,
    inode: u64,
}

impl Stamp {
    /// That of a file.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            size: found.size(),
            modified: found.mtime(),
            modified_nanoseconds: found.mtime_nsec(),
            inode: found.ino(),
        })
    }
}

impl Record {
    /// The version of the format that is written.
    pub const FORMAT: u32 = FORMAT;

    /// The record in `folder`, if there is one that can be read.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(FILE)).ok()?;
        serde_json::from_slice(&text).ok().filter(|record: &Self| record.format == FORMAT)
    }

    /// Writes it into `folder`.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::caused(Persistence::Permanent, "write down the build", &error))?;
        let path = folder.join(FILE);
        files::replace(&path, &text).map_err(|error| files::failure("write", &path, &error))
    }

    /// Whether the image in `folder` is the one that was built. Where the file system says something else of it, its
    /// checksum decides.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn is_intact(&self, folder: &Path) -> Result<bool, Failure> {
        let path = self.image(folder);
        let Ok(stamp) = Stamp::of(&path) else { return Ok(false) };
        if stamp == self.stamp {
            return Ok(true);
        }
        if stamp.size != self.size_bytes || source::sha256(&path).await? != self.sha256 {
            return Ok(false);
        }
        Self { stamp, ..self.clone() }.write(folder)?;
        Ok(true)
    }

    /// The image's file in `folder`.
    pub fn image(&self, folder: &Path) -> std::path::PathBuf {
        folder.join(format!("{}.qcow2", self.name))
    }
}
