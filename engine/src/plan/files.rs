//! The files that tasks read and make.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use crate::checkpoint::{FileRole, FileStamp};
use crate::fingerprint::Digest;
use crate::plan::{Drift, Reason};

/// Expands a path or glob below `root` to the files that exist, sorted; a folder stands for all files in it.
///
/// # Errors
/// A folder could not be read.
pub(crate) fn expand(root: &Path, pattern: &str) -> io::Result<Vec<String>> {
    let Some((base, glob)) = split_glob(pattern) else {
        return match fs::metadata(root.join(pattern)) {
            Ok(found) if found.is_dir() => walk(root, pattern, None),
            Ok(_) => Ok(vec![pattern.to_owned()]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
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
    root: &Path,
    path: &str,
    role: FileRole,
    known: Option<&FileStamp>,
) -> io::Result<Option<FileStamp>> {
    let full = root.join(path);
    let metadata = match fs::metadata(&full) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let digest = match known.filter(|known| untouched(known, &metadata)) {
        Some(known) => known.digest,
        None => digest(&full, &metadata)?,
    };
    let (size, inode) = (metadata.len(), metadata.ino());
    Ok(Some(FileStamp { path: path.to_owned(), role, size, mtime: mtime(&metadata), inode, digest }))
}

/// What happened to an output since it was made, if anything.
///
/// # Errors
/// The file could not be read.
pub(crate) fn damage(root: &Path, made: &FileStamp) -> io::Result<Option<Reason>> {
    Ok(match stamp(root, &made.path, FileRole::Output, Some(made))? {
        None => Some(Reason::Missing { found: format!("no file {}", made.path) }),
        Some(now) if now.digest == made.digest => None,
        Some(now) => {
            let field = format!("file {}", made.path);
            let drift = Drift::new(field, made.digest.to_string(), now.digest.to_string());
            Some(Reason::Drifted { fields: vec![drift] })
        }
    })
}

fn untouched(known: &FileStamp, now: &Metadata) -> bool {
    known.size == now.len() && known.mtime == mtime(now) && known.inode == now.ino()
}

fn mtime(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

fn digest(path: &Path, metadata: &Metadata) -> io::Result<Digest> {
    if metadata.is_dir() || metadata.len() == 0 {
        return Ok(Digest::of(&[]));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Digest::from_hash(&hasher.finalize()))
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
        assert_eq!(expand(root, "src/*.c").unwrap(), ["src/a.c"]);
        assert_eq!(expand(root, "src/**/*.c").unwrap(), ["src/a.c", "src/deep/c.c"]);
        assert_eq!(expand(root, "src").unwrap(), ["src/a.c", "src/b.h", "src/deep/c.c"]);
        assert_eq!(expand(root, "src/b.h").unwrap(), ["src/b.h"]);
        assert!(expand(root, "nothing").unwrap().is_empty());
        assert!(expand(root, "nothing/*.c").unwrap().is_empty());
    }

    #[test]
    fn damage_is_told_by_content_and_not_by_time() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("out"), "x").unwrap();
        let made = stamp(root, "out", FileRole::Output, None).unwrap().unwrap();
        fs::write(root.join("out"), "x").unwrap();
        assert_eq!(damage(root, &made).unwrap(), None);
        fs::write(root.join("out"), "y").unwrap();
        assert!(matches!(damage(root, &made).unwrap(), Some(Reason::Drifted { .. })));
        fs::remove_file(root.join("out")).unwrap();
        assert!(matches!(damage(root, &made).unwrap(), Some(Reason::Missing { .. })));
    }
}
