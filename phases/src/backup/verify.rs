//! Whether a backup is as it was written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::{BackupError, disk};
use super::manifest::{Manifest, blob, dump, hex};
use crate::transfer::Progress;

/// Reads the whole backup in `folder` and compares it with its manifest. Blocks.
///
/// # Errors
/// A part is missing or is not as it was written.
pub fn verify(folder: &Path, progress: &dyn Progress) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(folder)?;
    let objects: BTreeMap<&str, u64> =
        manifest.objects.iter().map(|object| (object.sha256.as_str(), object.size)).collect();
    let bytes = objects.values().sum::<u64>() + manifest.database.size;
    progress.begin("compare", objects.len() + 1, bytes);
    compare(&dump(folder), manifest.database.size, &manifest.database.sha256, progress)?;
    for (sha256, size) in objects {
        compare(&blob(folder, sha256), size, sha256, progress)?;
    }
    Ok(manifest)
}

fn compare(path: &Path, size: u64, sha256: &str, progress: &dyn Progress) -> Result<(), BackupError> {
    let damaged = |found: String| BackupError::Damaged { path: path.to_owned(), found };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("it is gone".to_owned())),
        opened => opened.map_err(disk("read", path))?,
    };
    let found = file.metadata().map_err(disk("read", path))?.len();
    if found != size {
        return Err(damaged(format!("it has {found} bytes of {size}")));
    }
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).map_err(disk("read", path))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        progress.sent(count as u64);
    }
    progress.file();
    match hex(&hash.finalize()) == sha256 {
        true => Ok(()),
        false => Err(damaged("it has another SHA-256 than it was written with".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::manifest::tests::write_example;
    use super::*;
    use crate::transfer::progress::Lines;

    fn told(folder: &Path) -> String {
        verify(folder, &Lines::new(|_: &str| ())).unwrap_err().to_string()
    }

    #[test]
    fn whatever_is_not_as_it_was_written_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = write_example(folder.path());
        assert_eq!(verify(folder.path(), &Lines::new(|_: &str| ())).unwrap(), manifest);
        let (object, dump) = (manifest.objects[0].file(folder.path()), dump(folder.path()));
        for (file, whole) in [(&object, "{}"), (&dump, "dump\n")] {
            fs::write(file, &whole[1..]).unwrap();
            assert!(told(folder.path()).contains("bytes of"), "{}", told(folder.path()));
            fs::write(file, whole.replace(['{', 'd'], "x")).unwrap();
            assert!(told(folder.path()).contains("another SHA-256"), "{}", told(folder.path()));
            fs::remove_file(file).unwrap();
            assert!(told(folder.path()).contains("it is gone"), "{}", told(folder.path()));
            fs::write(file, whole).unwrap();
        }
    }
}
