//! Taking a backup.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::{BackupError, disk};
use super::manifest::{self, FORMAT, Manifest, dump};
use super::{Site, database, objects};
use crate::transfer::Progress;

/// A backup that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its folder.
    pub folder: PathBuf,
    /// What it consists of.
    pub manifest: Manifest,
}

/// Takes a backup into a new folder in `folder`; `artifacts` is the bucket that MLflow's artifacts are in.
///
/// # Errors
/// The database or the store does not answer, or a file cannot be written. What was begun is not taken for a backup, and
/// goes with the next one.
pub async fn take(site: &Site, folder: &Path, artifacts: &str, progress: &dyn Progress) -> Result<Taken, BackupError> {
    fs::create_dir_all(folder).map_err(disk("make", folder))?;
    let lock = folder.join(".lock");
    let held = File::create(&lock).map_err(disk("make", &lock))?;
    match held.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(BackupError::Busy { folder: folder.to_owned() }),
        Err(fs::TryLockError::Error(error)) => return Err(disk("lock", &lock)(error)),
    }
    let older = manifest::list(folder, &site.environment)?.pop();
    // One that cannot be read is no help, and is told when it is to be used.
    let before = older.and_then(|older| Manifest::read(&older).ok().map(|manifest| (older, manifest)));
    let taken = jiff::Timestamp::now();
    let name = format!("{}-{}", site.environment, taken.strftime("%Y%m%dT%H%M%S%3fZ"));
    let partial = new_partial(folder, &name)?;

    let snapshot = database::snapshot(site).await?;
    let dumped = database::dump(site, &snapshot, &dump(&partial)).await?;
    let references = database::references(&snapshot, artifacts).await?;
    drop(snapshot);
    let before = before.as_ref().map(|(older, manifest)| (older.as_path(), manifest));
    let copied = objects::copy(site, &partial, before, progress).await?;
    let is_there = |reference: &&database::Reference| {
        copied.iter().any(|object| object.bucket == reference.bucket && object.key.starts_with(&reference.prefix))
    };
    let lacking = references.iter().filter(|reference| !is_there(reference));
    let lacking = lacking.map(|lack| format!("{}: no object in {}/{}", lack.by, lack.bucket, lack.prefix)).collect();
    let manifest = Manifest {
        format: FORMAT,
        taken,
        environment: site.environment.clone(),
        taskrun: env!("CARGO_PKG_VERSION").to_owned(),
        database: dumped,
        objects: copied,
        lacking,
    };
    manifest.write(&partial)?;
    let whole = folder.join(name);
    // First the bytes, then the name by which it counts as whole.
    sync(&partial)?;
    fs::rename(&partial, &whole).map_err(disk("name", &whole))?;
    sync_folder(folder)?;
    Ok(Taken { folder: whole, manifest })
}

/// Makes the folder of a backup that is not whole yet, and removes those that never became whole: the lock is held.
fn new_partial(folder: &Path, name: &str) -> Result<PathBuf, BackupError> {
    let entries = fs::read_dir(folder).map_err(disk("read", folder))?;
    for entry in entries.flatten().map(|entry| entry.path()) {
        if entry.extension().is_some_and(|extension| extension == "partial") {
            fs::remove_dir_all(&entry).map_err(disk("remove", &entry))?;
        }
    }
    let partial = folder.join(format!(".{name}.partial"));
    fs::create_dir(&partial).map_err(disk("make", &partial))?;
    // What users have put into the cloud is nobody else's business.
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o700)).map_err(disk("protect", &partial))?;
    Ok(partial)
}

/// Lets a folder's files and names reach the disk; objects have done so already.
fn sync(folder: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(folder).map_err(disk("read", folder))?.flatten() {
        if entry.path().is_dir() {
            sync(&entry.path())?;
        } else if entry.path().parent().and_then(Path::parent).is_none_or(|above| !above.ends_with("objects")) {
            File::open(entry.path()).and_then(|file| file.sync_all()).map_err(disk("write", &entry.path()))?;
        }
    }
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(disk("write", folder))
}
