//! Which files a folder holds.
//!
//! An object store knows neither links nor devices. A link to a file or folder inside the source is followed; one that
//! leads out of it is followed only if asked, because it may lead anywhere. What is no file has no bytes to send and is
//! left out, and empty folders vanish: an object store has none.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The longest key that S3 takes, in bytes.
const MAX_KEY: usize = 1024;

/// A file that belongs to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Its path in the source, with `/` between folders.
    pub path: String,
    /// Where it is.
    pub location: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last modified.
    pub mtime: Timestamp,
}

/// What a source holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The files, in the order of their paths.
    pub files: Vec<LocalFile>,
    /// The paths of what is no file and is left out: sockets, pipes, devices.
    pub special: Vec<PathBuf>,
    /// The folders directly in the source that are left out because they are a trainer's checkpoints (`checkpoint-40`).
    pub checkpoints: Vec<PathBuf>,
}

/// Why a source cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The disk said no.
    #[error("read {}", path.display())]
    Io {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link leads out of the source.
    #[error("{} is a link that leads out of the source, to {}", path.display(), target.display())]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A link leads to a folder that it lies in.
    #[error("{} is a link to a folder that it lies in", path.display())]
    Loop {
        /// The link.
        path: PathBuf,
    },
    /// An object's key is text of one line.
    #[error("the name of {} is not UTF-8, or has control characters", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The key would be too long.
    #[error("the path of {} is longer than {MAX_KEY} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// There is no file in it.
    #[error("there is no file in {}", path.display())]
    Empty {
        /// The source.
        path: PathBuf,
    },
}

impl ScanError {
    /// What to try.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "name a folder, or a file, that this user may read",
            Self::LeadsOut { .. } => "send what it leads to by --follow-links, or remove the link",
            Self::Loop { .. } => "remove the link",
            Self::NotText { .. } | Self::TooLong { .. } => "rename it",
            Self::Empty { .. } => "name the folder that the model was written to",
        }
    }
}

/// The files of `source`, a folder or a single file, for keys that begin with `prefix` bytes.
///
/// # Errors
/// Something cannot be read or sent; see [`ScanError`].
pub fn scan(source: &Path, follow_links: bool, prefix: usize) -> Result<Scan, ScanError> {
    let root = fs::canonicalize(source).map_err(|error| io_error(source, error))?;
    let mut walk = Walk { root: root.clone(), follow_links, prefix, found: Scan::default() };
    let metadata = fs::metadata(&root).map_err(|error| io_error(source, error))?;
    if metadata.is_dir() {
        walk.folder(&root, "", &mut vec![(metadata.dev(), metadata.ino())])?;
    } else {
        let name = source.file_name().or(root.file_name()).map(Path::new).unwrap_or(&root);
        let name = text(&root, name.to_str())?;
        walk.add(&root, name.to_owned(), &metadata)?;
    }
    let mut found = walk.found;
    if found.files.is_empty() {
        return Err(ScanError::Empty { path: source.to_owned() });
    }
    found.files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// When a file was last modified; a time that no calendar has is the nearest one that it has.
pub(super) fn mtime(metadata: &Metadata) -> Timestamp {
    let nanoseconds = i32::try_from(metadata.mtime_nsec()).unwrap_or_default();
    Timestamp::new(metadata.mtime(), nanoseconds).unwrap_or(if metadata.mtime() < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

struct Walk {
    root: PathBuf,
    follow_links: bool,
    prefix: usize,
    found: Scan,
}

impl Walk {
    /// Looks into a folder; `within` are the folders that it lies in, itself included.
    fn folder(&mut self, folder: &Path, path: &str, within: &mut Vec<(u64, u64)>) -> Result<(), ScanError> {
        for entry in fs::read_dir(folder).map_err(|error| io_error(folder, error))? {
            let entry = entry.map_err(|error| io_error(folder, error))?;
            let location = entry.path();
            let name = entry.file_name();
            let name = text(&location, name.to_str())?;
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            let kind = entry.file_type().map_err(|error| io_error(&location, error))?;
            if kind.is_symlink() {
                self.check_link(&location)?;
            }
            let metadata = fs::metadata(&location).map_err(|error| io_error(&location, error))?;
            if !metadata.is_dir() {
                self.add(&location, path, &metadata)?;
                continue;
            }
            if folder == self.root && is_checkpoint(name) {
                self.found.checkpoints.push(location);
                continue;
            }
            let id = (metadata.dev(), metadata.ino());
            if within.contains(&id) {
                return Err(ScanError::Loop { path: location });
            }
            within.push(id);
            self.folder(&location, &path, within)?;
            within.pop();
        }
        Ok(())
    }

    fn check_link(&self, location: &Path) -> Result<(), ScanError> {
        let target = fs::canonicalize(location).map_err(|error| io_error(location, error))?;
        if self.follow_links || target.starts_with(&self.root) {
            return Ok(());
        }
        Err(ScanError::LeadsOut { path: location.to_owned(), target })
    }

    fn add(&mut self, location: &Path, path: String, metadata: &Metadata) -> Result<(), ScanError> {
        if !metadata.is_file() {
            self.found.special.push(location.to_owned());
            return Ok(());
        }
        if self.prefix + path.len() > MAX_KEY {
            return Err(ScanError::TooLong { path: location.to_owned() });
        }
        let (size, mtime) = (metadata.len(), mtime(metadata));
        self.found.files.push(LocalFile { path, location: location.to_owned(), size, mtime });
        Ok(())
    }
}

/// Whether a folder beside a model is what a trainer would go on from: several times as large, and no part of the model.
fn is_checkpoint(name: &str) -> bool {
    let number = name.strip_prefix("checkpoint-");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A name that can be part of a key.
fn text<'n>(path: &Path, name: Option<&'n str>) -> Result<&'n str, ScanError> {
    let plain = name.filter(|name| !name.contains(char::is_control));
    plain.ok_or_else(|| ScanError::NotText { path: path.to_owned() })
}

fn io_error(path: &Path, source: io::Error) -> ScanError {
    ScanError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/empty")).unwrap();
        fs::write(folder.path().join("b/weights"), "12345").unwrap();
        fs::write(folder.path().join("a.json"), "").unwrap();
        folder
    }

    fn paths(scan: &Scan) -> Vec<&str> {
        scan.files.iter().map(|file| &*file.path).collect()
    }

    #[test]
    fn files_are_found_in_order_and_links_inside_are_followed() {
        let folder = folder();
        symlink("weights", folder.path().join("b/link")).unwrap();
        symlink(folder.path().join("b"), folder.path().join("c")).unwrap();
        nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = scan(folder.path(), false, 0).unwrap();
        assert_eq!(paths(&found), ["a.json", "b/link", "b/weights", "c/link", "c/weights"]);
        assert_eq!(found.files[1].size, 5, "that of the file it leads to");
        assert_eq!(found.special, [folder.path().canonicalize().unwrap().join("pipe")]);
    }

    #[test]
    fn checkpoints_beside_a_model_are_left_out() {
        let folder = folder();
        for name in ["checkpoint-40", "checkpoint-final", "b/checkpoint-40"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("state"), "1").unwrap();
        }
        let found = scan(folder.path(), false, 0).unwrap();
        let expected = ["a.json", "b/checkpoint-40/state", "b/weights", "checkpoint-final/state"];
        assert_eq!(paths(&found), expected);
        assert_eq!(found.checkpoints, [folder.path().canonicalize().unwrap().join("checkpoint-40")]);
        let one = scan(&folder.path().join("checkpoint-40"), false, 0).unwrap();
        assert_eq!(paths(&one), ["state"], "one that is asked for is sent");
    }

    #[test]
    fn a_single_file_is_a_source_too() {
        let folder = folder();
        let found = scan(&folder.path().join("b/weights"), false, 0).unwrap();
        assert_eq!(paths(&found), ["weights"]);
    }

    #[test]
    fn a_link_that_leads_out_is_followed_only_if_asked() {
        let (folder, other) = (folder(), folder());
        symlink(other.path().join("a.json"), folder.path().join("out")).unwrap();
        assert!(matches!(scan(folder.path(), false, 0), Err(ScanError::LeadsOut { .. })));
        assert_eq!(paths(&scan(folder.path(), true, 0).unwrap()), ["a.json", "b/weights", "out"]);
    }

    #[test]
    fn what_cannot_be_sent_is_told() {
        let told = |make: &dyn Fn(&Path)| {
            let folder = folder();
            make(folder.path());
            scan(folder.path(), true, 0).unwrap_err()
        };
        assert!(matches!(told(&|at| symlink(at, at.join("b/up")).unwrap()), ScanError::Loop { .. }));
        assert!(matches!(told(&|at| symlink("nowhere", at.join("dangling")).unwrap()), ScanError::Io { .. }));
        let bad = OsStr::from_bytes(b"\xff.bin");
        assert!(matches!(told(&|at| fs::write(at.join(bad), "").unwrap()), ScanError::NotText { .. }));
        assert!(matches!(told(&|at| fs::write(at.join("two\nlines"), "").unwrap()), ScanError::NotText { .. }));
        let folder = folder();
        assert!(matches!(scan(folder.path(), true, 1017), Err(ScanError::TooLong { .. })));
        assert!(matches!(scan(&folder.path().join("b/empty"), true, 0), Err(ScanError::Empty { .. })));
        assert!(matches!(scan(&folder.path().join("none"), true, 0), Err(ScanError::Io { .. })));
    }
}
