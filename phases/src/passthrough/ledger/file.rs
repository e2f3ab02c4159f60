//! The file of the ledger. It is replaced as a whole, so that a crash leaves the old or the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::journal::Disk;

use super::claims::Claims;
use super::error::{LedgerError, disk};

/// The name of the file in the ledger's folder.
const NAME: &str = "ledger.json";
/// What it says that it is.
const FORMAT: &str = "taskrun-device-ledger";
/// The newest version of the format that is known here.
const VERSION: u32 = 1;

/// What the file says first, in any version.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    /// Of the claims, as JSON without spaces.
    digest: Digest,
    claims: Claims,
}

pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Reads the claims; none if there is no file.
pub(super) fn read(folder: &Path) -> Result<Claims, LedgerError> {
    let path = path(folder);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claims::default()),
        Err(error) => return Err(disk("read", &path)(error)),
    };
    let damaged = |found: String| LedgerError::Damaged { path: path.clone(), found };
    let json = |error: serde_json::Error| damaged(error.to_string());
    let head: Head = serde_json::from_slice(&bytes).map_err(json)?;
    if head.format != FORMAT {
        return Err(damaged(format!("its format is `{}`, not `{FORMAT}`", head.format)));
    }
    if head.version > VERSION {
        return Err(LedgerError::Newer { path, found: head.version, known: VERSION });
    }
    let document: Document = serde_json::from_slice(&bytes).map_err(json)?;
    if digest(&document.claims).map_err(json)? != document.digest {
        return Err(damaged("its claims are not those that were written: the digest differs".to_owned()));
    }
    if !bytes.ends_with(b"\n") {
        let line = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        return Err(damaged(format!("it ends in the middle of line {line}")));
    }
    Ok(document.claims)
}

/// Writes the claims. If that fails, those from before stand; only where no more than the last step fails, which makes
/// the new name durable, the new ones may.
pub(super) fn write(disk_of: &dyn Disk, folder: &Path, claims: &Claims) -> Result<(), LedgerError> {
    let path = path(folder);
    let failed = |error| disk("write", &path)(error);
    let json = |error: serde_json::Error| failed(error.into());
    let digest = digest(claims).map_err(json)?;
    let document = Document { format: FORMAT.to_owned(), version: VERSION, digest, claims: claims.clone() };
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(json)?;
    bytes.push(b'\n');
    let new = path.with_extension("new");
    // Who was killed while it wrote left it.
    if new.symlink_metadata().is_ok() {
        disk_of.remove(&new).map_err(failed)?;
    }
    let written = || {
        let mut file = disk_of.create(&new)?;
        file.append(&bytes)?;
        file.sync()?;
        drop(file);
        disk_of.rename(&new, &path)
    };
    if let Err(error) = written() {
        // A full disk shall not stay full of it; the next one who writes removes it otherwise.
        let _ = disk_of.remove(&new);
        return Err(failed(error));
    }
    disk_of.sync_dir(folder).map_err(failed)
}

/// Gives a damaged file another name, and returns that.
pub(super) fn set_aside(disk_of: &dyn Disk, folder: &Path) -> Result<PathBuf, LedgerError> {
    let path = path(folder);
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let aside = |count: u32| folder.join(format!("{NAME}.damaged-{time}-{count}"));
    let aside = (1..).map(aside).find(|aside| !aside.exists()).unwrap_or_else(|| aside(0));
    let renamed = disk_of.rename(&path, &aside).and_then(|()| disk_of.sync_dir(folder));
    renamed.map(|()| aside).map_err(disk("set aside", &path))
}

fn digest(claims: &Claims) -> Result<Digest, serde_json::Error> {
    Ok(Digest::of(&serde_json::to_vec(claims)?))
}
