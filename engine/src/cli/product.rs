//! What a program adds to the engine: its plugins, its configuration, its own verbs.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::Value;

use super::error::CliError;
use super::session::Session;
use crate::registry::Registry;
use crate::secret::SecretSource;

/// A program made with the engine.
#[async_trait]
pub trait Product: Send + Sync {
    /// The configuration that is used when none is named, relative to the current folder.
    fn default_config(&self) -> &Path {
        Path::new("config/local.yaml")
    }

    /// Reads the configuration and makes the plugins for it. `asked` tells whether the user named the file; a default
    /// file need not exist.
    ///
    /// # Errors
    /// Everything that is wrong with the file, with places.
    fn configure(&self, file: &Path, asked: bool, options: ConfigureOptions) -> Result<Configured, CliError>;

    /// The JSON Schema of the configuration.
    fn config_schema(&self) -> Value;

    /// The folder that holds the states of all environments, for a graph in the folder `graph`.
    fn state_root(&self, graph: &Path) -> PathBuf {
        graph.join(".taskrun")
    }

    /// Verbs of the product's own.
    fn verbs(&self) -> Vec<clap::Command> {
        Vec::new()
    }

    /// The command line with the values that fit a configuration, such as names that stand in it: for completions. As it
    /// is where there is no such configuration.
    fn completed(&self, command: clap::Command, _config: &Path) -> clap::Command {
        command
    }

    /// Runs a verb of the product's own and returns the exit code.
    ///
    /// # Errors
    /// As any verb.
    async fn verb(&self, name: &str, _args: &clap::ArgMatches, _session: &Session) -> Result<u8, CliError> {
        Err(CliError::usage(format!("no verb is called `{name}`")))
    }

    /// What is said at the end of a run that succeeded, and by `status`: where everything is.
    fn farewell(&self, _session: &Session, _checkpoint: &crate::checkpoint::Checkpoint) -> Option<String> {
        None
    }

    /// Removes what is left in the state folder after everything was destroyed, before the folder itself is removed.
    ///
    /// # Errors
    /// Something could not be removed.
    fn purge(&self, _state: &Path) -> Result<(), CliError> {
        Ok(())
    }
}

/// Options of a run that plugins heed.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConfigureOptions {
    /// Services may move to other ports where theirs are taken.
    pub reassign_ports: bool,
}

/// A configuration that was read.
pub struct Configured {
    /// The environment's name: states of different environments are kept apart.
    pub environment: String,
    /// The platform's name; an environment stays on its platform.
    pub platform: String,
    /// The plugins.
    pub registry: Registry,
    /// The user's own secrets.
    pub secrets: Vec<(String, SecretSource)>,
    /// What the user should know of it though nothing is wrong, each with its place: `FILE:LINE:COLUMN: MESSAGE`. It is
    /// told on stderr.
    pub warnings: Vec<String>,
}
