//! The files that tasks read and make.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use crate::checkpoint::{FileRole, FileStamp};
use crate::fingerprint::Digest;
use crate::plan::{Drift, Reason};

/// Looks at files.
pub(crate) trait Look {
    /// What there is at a path.
    ///
    /// # Errors
    /// It cannot be told.
    fn look(&self, path: &Path) -> io::Result<Option<Seen>>;
}

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    is_dir: bool,
    size: u64,
    /// In nanoseconds since 1970.
    mtime: i64,
    inode: u64,
}

/// Looks anew each time.
pub(crate) struct Afresh;

impl Look for Afresh {
    fn look(&self, path: &Path) -> io::Result<Option<Seen>> {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mtime = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
        Ok(Some(Seen { is_dir: found.is_dir(), size: found.len(), mtime, inode: found.ino() }))
    }
}

/// Looks once at each path: what one task made, another reads. For as long as nothing is changed.
#[derive(Default)]
pub(crate) struct Once(RefCell<HashMap<PathBuf, Option<Seen>>>);

impl Look for Once {
    fn look(&self, path: &Path) -> io::Result<Option<Seen>> {
        if let Some(seen) = self.0.borrow().get(path) {
            return Ok(*seen);
        }
        let seen = Afresh.look(path)?;
        self.0.borrow_mut().insert(path.to_owned(), seen);
        Ok(seen)
    }
}

/// Expands a path or glob below `root` to the files that exist, sorted; a folder stands for all files in it.
///
/// # Errors
/// A folder could not be read.
pub(crate) fn expand(look: &dyn Look, root: &Path, pattern: &str) -> io::Result<Vec<String>> {
    let Some((base, glob)) = split_glob(pattern) else {
        return match look.look(&root.join(pattern))? {
            Some(found) if found.is_dir => walk(root, pattern, None),
            Some(_) => Ok(vec![pattern.to_owned()]),
            None => Ok(Vec::new()),
        };
    };
    walk(root, base, Some(&glob))
}

/// Whether `pattern` is a glob and not the name of one file.
pub(crate) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

/// The folder that all matches are in, and the matcher; nothing for a plain path.
fn split_glob(pattern: &str) -> Option<(&str, GlobMatcher)> {
    if !is_glob(pattern) {
        return None;
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build().ok()?.compile_matcher();
    let first = pattern.find(['*', '?', '[', '{']).unwrap_or(0);
    Some((pattern[..first].rsplit_once('/').map_or("", |(base, _)| base), glob))
}

fn walk(root: &Path, base: &str, glob: Option<&GlobMatcher>) -> io::Result<Vec<String>> {
    let start = root.join(base);
    if !start.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in WalkDir::new(start).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_dir() {
            continue;
        }
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if glob.is_none_or(|glob| glob.is_match(path)) {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(files)
}

/// The stamp of a file; its digest is taken from `known` if the file was not touched since. Nothing if there is no file.
///
/// # Errors
/// The file could not be read.
pub(crate) fn stamp(
    look: &dyn Look,
    root: &Path,
    path: &str,
    role: FileRole,
    known: Option<&FileStamp>,
) -> io::Result<Option<FileStamp>> {
    let full = root.join(path);
    let Some(seen) = look.look(&full)? else { return Ok(None) };
    let digest = match known.filter(|known| seen.is_untouched(known)) {
        Some(known) => known.digest,
        None => seen.digest(&full)?,
    };
    let Seen { size, mtime, inode, .. } = seen;
    Ok(Some(FileStamp { path: path.into(), role, size, mtime, inode, digest }))
}

/// What happened to an output since it was made, if anything.
///
/// # Errors
/// The file could not be read.
pub(crate) fn damage(look: &dyn Look, root: &Path, made: &FileStamp) -> io::Result<Option<Reason>> {
    let full = root.join(&*made.path);
    let Some(seen) = look.look(&full)? else {
        return Ok(Some(Reason::Missing { found: format!("no file {}", made.path) }));
    };
    if seen.is_untouched(made) {
        return Ok(None);
    }
    let now = seen.digest(&full)?;
    Ok((now != made.digest).then(|| {
        let drift = Drift::new(format!("file {}", made.path), made.digest.to_string(), now.to_string());
        Reason::Drifted { fields: vec![drift] }
    }))
}

impl Seen {
    fn is_untouched(&self, since: &FileStamp) -> bool {
        (self.size, self.mtime, self.inode) == (since.size, since.mtime, since.inode)
    }

    /// The digest of the contents of the file, which is at `path`.
    fn digest(&self, path: &Path) -> io::Result<Digest> {
        if self.is_dir || self.size == 0 {
            return Ok(Digest::of(&[]));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Digest::from_hash(&hasher.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_folders_and_plain_paths_expand_to_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("src/deep")).unwrap();
        ["src/a.c", "src/b.h", "src/deep/c.c"].iter().for_each(|path| fs::write(root.join(path), path).unwrap());
        assert_eq!(expand(&Afresh, root, "src/*.c").unwrap(), ["src/a.c"]);
        assert_eq!(expand(&Afresh, root, "src/**/*.c").unwrap(), ["src/a.c", "src/deep/c.c"]);
        assert_eq!(expand(&Afresh, root, "src").unwrap(), ["src/a.c", "src/b.h", "src/deep/c.c"]);
        assert_eq!(expand(&Afresh, root, "src/b.h").unwrap(), ["src/b.h"]);
        assert!(expand(&Afresh, root, "nothing").unwrap().is_empty());
        assert!(expand(&Afresh, root, "nothing/*.c").unwrap().is_empty());
    }

    #[test]
    fn damage_is_told_by_content_and_not_by_time() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("out"), "x").unwrap();
        let made = stamp(&Afresh, root, "out", FileRole::Output, None).unwrap().unwrap();
        fs::write(root.join("out"), "x").unwrap();
        assert_eq!(damage(&Afresh, root, &made).unwrap(), None);
        fs::write(root.join("out"), "y").unwrap();
        assert!(matches!(damage(&Afresh, root, &made).unwrap(), Some(Reason::Drifted { .. })));
        let once = Once::default();
        assert_eq!(stamp(&once, root, "out", FileRole::Output, None).unwrap().unwrap().size, 1);
        fs::remove_file(root.join("out")).unwrap();
        assert!(matches!(damage(&Afresh, root, &made).unwrap(), Some(Reason::Missing { .. })));
        assert!(once.look(&root.join("out")).unwrap().is_some(), "it looks once");
    }
}
