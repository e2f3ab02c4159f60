//! A home of its own for a program that writes into the home of whoever runs it, and forgets what it wrote.

use std::path::PathBuf;

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;

use super::files;
use crate::outputs::ServiceUser;

/// A folder that is removed when this goes out of scope; after a crash, with the state folder's other temporary files.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Makes the folder, for programs of `user`; without one for programs of the present user.
    ///
    /// # Errors
    /// It cannot be made or handed over.
    pub fn new(view: &View, name: &str, user: Option<&ServiceUser>) -> Result<Self, Failure> {
        let name = format!("{name}-{}", jiff::Timestamp::now().as_nanosecond());
        let scratch = Self { folder: view.state_dir().join("tmp").join(name) };
        std::fs::create_dir_all(&scratch.folder).map_err(|error| files::failure("make", &scratch.folder, &error))?;
        if let Some(user) = user {
            files::service_folder(&scratch.folder, user, 0o700)?;
        }
        Ok(scratch)
    }

    /// The folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Lets a command have it as its home and for its temporary files.
    pub fn home_of(&self, command: Command) -> Command {
        let variables = ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR"];
        variables.into_iter().fold(command, |command, name| command.env(name, &self.folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed with the state folder.
        let _ = files::remove(&self.folder);
    }
}
