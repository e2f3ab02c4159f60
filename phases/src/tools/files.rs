//! Files and folders of services, with errors that name them.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use taskrun_engine::outcome::{Failure, Persistence};

use crate::outputs::ServiceUser;

/// What the disk said no to.
pub fn failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::caused(Persistence::Permanent, format!("{what} {}", path.display()), error)
}

/// Makes a folder that belongs to the service user.
///
/// # Errors
/// It cannot be made or handed over.
pub fn service_folder(path: &Path, user: &ServiceUser, mode: u32) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| failure("make", path, &error))?;
    give(path, user, mode)
}

/// Writes a file that belongs to the service user and nobody else may read.
///
/// # Errors
/// It cannot be written or handed over.
pub fn service_file(path: &Path, user: &ServiceUser, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| failure("write", path, &error))?;
    give(path, user, 0o600)
}

/// Writes a file that everybody may read.
///
/// # Errors
/// It cannot be written.
pub fn public_file(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| failure("write", path, &error))?;
    open_up(path)
}

/// Lets everybody read a file.
///
/// # Errors
/// It is not there, or another user's.
pub fn open_up(path: &Path) -> Result<(), Failure> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(|error| failure("open up", path, &error))
}

/// Writes a file, and the folder that it is in, so that it holds either the old or the new text, also after a crash.
///
/// # Errors
/// It cannot be written; the old one is still there.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Writers at the same time must not share it.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    let written = fs::File::create(&new).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced?;
    fs::File::open(folder)?.sync_all()
}

/// Removes a file, or a folder with all that is in it; that there is none is fine.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure("remove", path, &error)),
        _ => Ok(()),
    }
}

fn give(path: &Path, user: &ServiceUser, mode: u32) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(user.uid), Some(user.gid)).map_err(|error| failure("hand over", path, &error))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| failure("protect", path, &error))
}
