//! The file of host keys.

use std::io::{self, Write};
use std::path::Path;

/// Takes the keys of `name` out of `file`; that there are none is fine.
pub(super) fn forget(file: &Path, name: &str) -> io::Result<()> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (theirs, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| names(line).any(|one| one == name));
    if theirs.is_empty() {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    for line in others {
        writeln!(new, "{line}")?;
    }
    new.persist(file)?;
    Ok(())
}

/// The names that a line is for.
fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().next().unwrap_or_default().split(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_of_that_name_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        forget(&file, "a").unwrap();
        let text = "10.0.0.1 ssh-ed25519 AAAA\n[10.0.0.1]:2222 ssh-ed25519 BBBB\n10.0.0.10 ssh-rsa CCCC\n";
        std::fs::write(&file, text).unwrap();
        forget(&file, "10.0.0.1").unwrap();
        let left = std::fs::read_to_string(&file).unwrap();
        assert_eq!(left, "[10.0.0.1]:2222 ssh-ed25519 BBBB\n10.0.0.10 ssh-rsa CCCC\n");
        forget(&file, "[10.0.0.1]:2222").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "10.0.0.10 ssh-rsa CCCC\n");
    }
}
