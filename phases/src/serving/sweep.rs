//! Removing what replicas have left: fetched models, and their logs.

use std::fs;
use std::io;
use std::path::Path;

use super::replica::Replica;
use super::setup::Setup;
use crate::platform::Local;

/// Removes the fetched models of those revisions of a model that have no replicas.
pub(super) fn revisions(setup: &Setup, model: &str, replicas: &[Replica]) -> io::Result<()> {
    let used = |revision: u32| replicas.iter().any(|replica| replica.revision == revision);
    remove(&setup.models(), |name| revision(name, model).is_some_and(|revision| !used(revision)))
}

/// Removes everything of a model: the fetched revisions, and the logs of its replicas.
pub(super) fn model(setup: &Setup, local: &Local, model: &str) -> io::Result<()> {
    revisions(setup, model, &[])?;
    let prefix = format!("model-{model}");
    let log = local.log(&prefix);
    remove(log.parent().unwrap_or(Path::new("/")), |name| {
        // model-NAME-REVISION-NUMBER.log, and older ones with a number behind.
        let numbers = name.strip_prefix(&format!("{prefix}-")).and_then(|rest| rest.split_once(".log"));
        numbers.and_then(|(numbers, _)| numbers.split_once('-')).is_some_and(|(a, b)| is_number(a) && is_number(b))
    })
}

/// The revision of the fetched model called `name`, if it is one of `model`: `NAME-REVISION`, with an end while it is
/// fetched.
fn revision(name: &str, model: &str) -> Option<u32> {
    let number = name.strip_prefix(model)?.strip_prefix('-')?;
    number.split('.').next()?.parse().ok()
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

fn remove(folder: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&which) {
            let removed = if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_models_are_not_taken_for_revisions() {
        assert_eq!(revision("iris-12", "iris"), Some(12));
        assert_eq!(revision("iris-12.partial", "iris"), Some(12));
        assert_eq!(revision("iris-big-1", "iris"), None);
        assert_eq!(revision("iris", "iris"), None);
        assert_eq!(revision("iris-2", "ir"), None);
    }
}
