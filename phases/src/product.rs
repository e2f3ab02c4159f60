//! What this program adds to the engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::Value;
use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::{CliError, ConfigureOptions, Configured, Product, Session, exit};
use taskrun_engine::registry::{NoParameters, Registry};
use taskrun_engine::task::Task;

use crate::cli;
use crate::config::{self, Config};
use crate::phase0::{MachineTask, OperatorCliTask};
use crate::phase1::{BaseRuntimeTask, ModelRuntimeTask, PythonEnvironmentTask, python_environment};
use crate::phase2::{GpuTask, PlatformUp};
use crate::phase3::{MlflowTask, ModelServingTask, ObjectStoreTask, Postgres};
use crate::phase4::MonitoringTask;
use crate::phase5::DocumentationTask;
use crate::tools::cache;

/// The private AI cloud.
pub struct Cloud;

/// The plugins for a configuration.
fn registry(config: &Config, file: &Path, options: ConfigureOptions) -> Registry {
    let mut registry = Registry::new();
    let shared = std::sync::Arc::new(config.clone());
    let file = file.to_owned();
    let with = |config: &std::sync::Arc<Config>| std::sync::Arc::clone(config);
    let config = with(&shared);
    add(&mut registry, "CLOUD-0.1", move || Ok(MachineTask::new(&config, options.reassign_ports)));
    add(&mut registry, "CLOUD-0.2", move || OperatorCliTask::new(&file));
    let config = with(&shared);
    add(&mut registry, "CLOUD-1.1", move || Ok(BaseRuntimeTask::new(&config)));
    add(&mut registry, "CLOUD-1.2", || Ok(ModelRuntimeTask));
    let config = with(&shared);
    add(&mut registry, "CLOUD-2.1", move || Ok(PlatformUp::new(&config)));
    let config = with(&shared);
    add(&mut registry, "CLOUD-2.2", move || Ok(GpuTask::new(&config)));
    let config = with(&shared);
    add(&mut registry, "CLOUD-3.1", move || Ok(ObjectStoreTask::new(&config)));
    let config = with(&shared);
    add(&mut registry, "CLOUD-3.2", move || Ok(Postgres::new(&config)));
    let config = with(&shared);
    add(&mut registry, "CLOUD-3.3", move || Ok(MlflowTask::new(&config)));
    add(&mut registry, "CLOUD-3.4", || Ok(ModelServingTask));
    add(&mut registry, "CLOUD-4.1", move || Ok(MonitoringTask::new(&shared)));
    add(&mut registry, "CLOUD-5.2", || Ok(DocumentationTask));
    registry.add(python_environment::PLUGIN, PythonEnvironmentTask::new);
    registry
}

/// Adds a plugin whose settings are all in the configuration: it takes no parameters.
fn add<T: Task>(
    registry: &mut Registry,
    name: &'static str,
    make: impl Fn() -> Result<T, String> + Send + Sync + 'static,
) {
    registry.add(name, move |instance| {
        let NoParameters {} = instance.parameters()?;
        Ok(make()?)
    });
}

#[async_trait]
impl Product for Cloud {
    fn configure(&self, file: &Path, asked: bool, options: ConfigureOptions) -> Result<Configured, CliError> {
        let config = config::load(file, asked)?;
        Ok(Configured {
            environment: config.name.clone(),
            platform: config.platform.as_str().to_owned(),
            registry: registry(&config, file, options),
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
        vec![cli::bench::command(), cli::cloud::command(), cli::docs::command(), cli::open::command()]
    }

    async fn verb(&self, name: &str, args: &clap::ArgMatches, session: &Session) -> Result<u8, CliError> {
        match name {
            "bench" => cli::bench::bench(args, session).await,
            "cloud" => cli::cloud::cloud(args, session).await,
            "docs" => cli::docs::docs(args, session).await,
            "open" => cli::open::open(args, session),
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
