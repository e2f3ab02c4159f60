//! Which machines are meant to run: what `cloud start` and `vm stop` say, kept so that `resume` can set right what
//! happened since, such as a machine that died.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taskrun_engine::outcome::{Failure, Persistence};

use crate::tools::files;

/// The machines that are meant to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    version: u32,
    on: BTreeSet<String>,
}

/// The version of the file's format.
const VERSION: u32 = 1;

impl Power {
    /// The file, in a state folder.
    fn file(state: &Path) -> PathBuf {
        state.join("nodes").join("power.json")
    }

    /// What was said last; nothing is meant to run at first.
    ///
    /// # Errors
    /// The file cannot be read, or is not one that this program wrote.
    pub fn read(state: &Path) -> Result<Self, Failure> {
        let file = Self::file(state);
        let failed = |error: &dyn std::error::Error| {
            let what = format!("read {}", file.display());
            let hint = format!("remove it, then say again what runs: rm {}", file.display());
            Failure::caused(Persistence::Permanent, what, error).with_hint(hint)
        };
        match fs::read(&file) {
            Ok(bytes) => {
                let power: Self = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
                match power.version {
                    VERSION => Ok(power),
                    version => Err(failed(&io::Error::other(format!("its version {version} is unknown here")))),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { version: VERSION, ..Self::default() }),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Whether this machine is meant to run.
    pub fn is_on(&self, node: &str) -> bool {
        self.on.contains(node)
    }

    /// Notes what these machines are meant to do.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn set<'n>(state: &Path, nodes: impl IntoIterator<Item = &'n str>, on: bool) -> Result<(), Failure> {
        let mut power = Self::read(state)?;
        for node in nodes {
            if on {
                power.on.insert(node.to_owned());
            } else {
                power.on.remove(node);
            }
        }
        let file = Self::file(state);
        let text = serde_json::to_string_pretty(&power)
            .map_err(|error| Failure::caused(Persistence::Permanent, "write down what runs", &error))?;
        files::replace(&file, text.as_bytes()).map_err(|error| files::failure("write", &file, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_kept() {
        let state = tempfile::tempdir().unwrap();
        assert!(!Power::read(state.path()).unwrap().is_on("a"));
        Power::set(state.path(), ["a", "b"], true).unwrap();
        Power::set(state.path(), ["a", "never"], false).unwrap();
        let power = Power::read(state.path()).unwrap();
        assert!(!power.is_on("a") && power.is_on("b"));
    }

    #[test]
    fn a_file_of_somebody_else_is_not_guessed_at() {
        let state = tempfile::tempdir().unwrap();
        let file = Power::file(state.path());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        for text in ["", "{}", "{\"version\": 2, \"on\": []}", "{\"version\": 1, \"on\": [], \"off\": []}"] {
            fs::write(&file, text).unwrap();
            let failure = Power::read(state.path()).unwrap_err();
            assert!(failure.to_string().contains("power.json") && failure.hint.is_some(), "{failure}");
            assert!(Power::set(state.path(), ["a"], true).is_err());
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }
}
