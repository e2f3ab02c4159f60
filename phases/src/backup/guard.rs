//! No change that cannot be taken back without a backup.

use std::path::Path;
use std::time::Duration;

use taskrun_engine::outcome::Failure;

use super::manifest::Manifest;
use super::record::What;

/// How old a backup may be that stands for what is there.
const FRESH: Duration = Duration::from_hours(24);

/// Refuses to do `what`, which cannot be undone, to the data of the environment in the state folder `state`, unless
/// there is a backup of it that is not older than a day.
///
/// # Errors
/// There is none, or it is no longer where it was.
pub fn guard(state: &Path, what: &str) -> Result<(), Failure> {
    let hint = "take one, best on another disk, then go on: taskrun backup FOLDER && taskrun resume";
    let refuse = |why: String| Err(Failure::permanent(format!("{what}: {why}")).with_hint(hint));
    let Some(newest) = What::Newest.read(state) else {
        return refuse("there is no backup of it".to_owned());
    };
    if Manifest::read(&newest.folder).is_err() {
        return refuse(format!("its backup is no longer in {}", newest.folder.display()));
    }
    let age = Duration::try_from(jiff::Timestamp::now().duration_since(newest.taken)).unwrap_or_default();
    if age > FRESH {
        return refuse(format!("its newest backup is of {}, which is more than a day ago", newest.taken));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan};

    use super::super::manifest::tests::write_example;
    use super::super::record::Remembered;
    use super::*;

    fn refused(state: &Path) -> String {
        guard(state, "change the data").unwrap_err().to_string()
    }

    #[test]
    fn only_a_fresh_backup_that_is_there_lets_the_data_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (state, backup) = (folder.path().join("state"), folder.path().join("backup"));
        std::fs::create_dir_all(&state).unwrap();
        assert!(refused(&state).ends_with("there is no backup of it"), "{}", refused(&state));
        let now = Timestamp::now();
        let remember = |taken| What::Newest.write(&state, &Remembered { folder: backup.clone(), taken }).unwrap();
        remember(now);
        assert!(refused(&state).contains("no longer in"), "{}", refused(&state));
        std::fs::create_dir(&backup).unwrap();
        write_example(&backup);
        guard(&state, "change the data").unwrap();
        remember(now - 25.hours());
        assert!(refused(&state).contains("more than a day ago"), "{}", refused(&state));
    }
}
