//! What this program adds to the engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::Value;
use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::{CliError, ConfigureOptions, Configured, Product, Session, exit};

use crate::config::{self, Config, Loaded};
use crate::tools::cache;
use crate::{cli, plugins};

/// The private AI cloud.
pub struct Cloud;

#[async_trait]
impl Product for Cloud {
    fn configure(&self, file: &Path, asked: bool, options: ConfigureOptions) -> Result<Configured, CliError> {
        let Loaded { config, warnings } = config::load(file, asked)?;
        Ok(Configured {
            environment: config.name().to_owned(),
            platform: config.platform().as_str().to_owned(),
            warnings,
            registry: plugins::registry(&config, file, options),
            secrets: config.secrets.into_iter().collect(),
        })
    }

    fn config_schema(&self) -> Value {
        schemars::schema_for!(Config).to_value()
    }

    /// Beside the graph; as root, in /var/lib where the service user could not get there.
    fn state_root(&self, graph: &Path) -> PathBuf {
        let passable =
            |folder: &Path| std::fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
        if nix::unistd::geteuid().is_root() && !graph.ancestors().all(passable) {
            return PathBuf::from("/var/lib/taskrun");
        }
        graph.join(".taskrun")
    }

    fn verbs(&self) -> Vec<clap::Command> {
        vec![
            cli::backup::backup_command(),
            cli::backup::restore_command(),
            cli::bench::command(),
            cli::cloud::command(),
            cli::docs::command(),
            cli::model::command(),
            cli::open::command(),
            cli::test::command(),
            cli::vm::command(),
        ]
    }

    fn completed(&self, command: clap::Command, config: &Path) -> clap::Command {
        let cluster = config::load(config, true).ok().and_then(|loaded| loaded.config.cluster());
        match cluster {
            Some(cluster) => cli::vm::completed(command, &cluster),
            None => command,
        }
    }

    async fn verb(&self, name: &str, args: &clap::ArgMatches, session: &Session) -> Result<u8, CliError> {
        match name {
            "backup" => cli::backup::backup(args, session).await,
            "restore" => cli::backup::restore(args, session).await,
            "bench" => cli::bench::bench(args, session).await,
            "cloud" => cli::cloud::cloud(args, session).await,
            "docs" => cli::docs::docs(args, session).await,
            "model" => cli::model::model(args, session).await,
            "open" => cli::open::open(args, session),
            "test" => cli::test::test(args, session).await,
            "vm" => cli::vm::vm(args, session).await,
            _ => Err(CliError::usage(format!("there is no verb `{name}`"))),
        }
    }

    /// The caches: nothing that was made here is left then.
    fn purge(&self, _state: &Path) -> Result<(), CliError> {
        cache::purge()
            .map_err(|failure| CliError::caused(exit::STATE, "remove what was downloaded and built", &failure))
    }

    fn farewell(&self, session: &Session, checkpoint: &Checkpoint) -> Option<String> {
        cli::cloud::endpoints(session, checkpoint)
    }
}
