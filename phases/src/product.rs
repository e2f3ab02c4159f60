//! What this program adds to the engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::{CliError, ConfigureOptions, Configured, Product, Session, exit};
use taskrun_engine::registry::{NoParameters, Registry};
use taskrun_engine::task::Task;

use crate::cli;
use crate::config::{self, Config, Loaded};
use crate::phase0::{GivenHostsTask, MachineTask, OperatorCliTask};
use crate::phase1::{
    BaseRuntimeTask, HostBaseTask, HostGpuTask, ModelRuntimeTask, PythonEnvironmentTask, python_environment,
};
use crate::phase2::{GpuTask, PlatformUp};
use crate::phase3::{ExternalDatabase, ExternalObjectStore, MlflowTask, ModelServingTask, ObjectStoreTask, Postgres};
use crate::phase4::{DashboardsTask, MonitoringTask};
use crate::phase5::{DocumentationTask, TrainingTask};
use crate::phase6::{FederationTask, ModelTransferTask, PerformanceTask};
use crate::phase7::TestFrameworkTask;
use crate::tools::cache;

/// The private AI cloud.
pub struct Cloud;

/// The plugins for a configuration.
fn registry(config: &Config, file: &Path, options: ConfigureOptions) -> Registry {
    let file = file.to_owned();
    let mut plugins = Plugins { registry: Registry::new(), config: Arc::new(config.clone()) };
    let given = config.cluster().filter(|cluster| cluster.virtualization.is_none());
    match given {
        Some(cluster) => {
            let gpu = cluster.clone();
            plugins.add("CLOUD-0.1", move |_| Ok(GivenHostsTask::new(&cluster)));
            plugins.add("CLOUD-1.1", |_| Ok(HostBaseTask::new()));
            plugins.add("CLOUD-1.2", move |_| Ok(HostGpuTask::new(&gpu)));
        }
        None => {
            plugins.add("CLOUD-0.1", move |config| Ok(MachineTask::new(config, options.reassign_ports)));
            plugins.add("CLOUD-1.1", |config| Ok(BaseRuntimeTask::new(config)));
            plugins.add("CLOUD-1.2", |_| Ok(ModelRuntimeTask));
        }
    }
    plugins.add("CLOUD-0.2", move |_| OperatorCliTask::new(&file));
    plugins.add("CLOUD-2.1", |config| Ok(PlatformUp::new(config)));
    plugins.add("CLOUD-2.2", |config| Ok(GpuTask::new(config)));
    match config.external.object_store.clone() {
        Some(given) => {
            plugins.add("CLOUD-3.1", move |config| Ok(ExternalObjectStore::new(&given, &config.object_store)));
        }
        None => plugins.add("CLOUD-3.1", |config| Ok(ObjectStoreTask::new(config))),
    }
    match config.external.database.clone() {
        Some(given) => plugins.add("CLOUD-3.2", move |_| Ok(ExternalDatabase::new(&given))),
        None => plugins.add("CLOUD-3.2", |config| Ok(Postgres::new(config))),
    }
    plugins.add("CLOUD-3.3", |config| Ok(MlflowTask::new(config)));
    plugins.add("CLOUD-3.4", |config| Ok(ModelServingTask::new(config)));
    plugins.add("CLOUD-4.1", |config| Ok(MonitoringTask::new(config)));
    plugins.add("CLOUD-4.2", |config| Ok(DashboardsTask::new(config)));
    plugins.add("CLOUD-5.1", |config| Ok(TrainingTask::new(config)));
    plugins.add("CLOUD-5.2", |_| Ok(DocumentationTask));
    plugins.add("CLOUD-6.1", |config| Ok(ModelTransferTask::new(config)));
    plugins.add("CLOUD-6.2", |config| Ok(FederationTask::new(config)));
    plugins.add("CLOUD-6.3", |config| Ok(PerformanceTask::new(config)));
    plugins.add("CLOUD-7.1", |_| Ok(TestFrameworkTask));
    plugins.registry.add(python_environment::PLUGIN, PythonEnvironmentTask::new);
    plugins.registry
}

/// Plugins whose settings are all in the configuration: they take no parameters.
struct Plugins {
    registry: Registry,
    config: Arc<Config>,
}

impl Plugins {
    fn add<T: Task>(
        &mut self,
        name: &'static str,
        make: impl Fn(&Config) -> Result<T, String> + Send + Sync + 'static,
    ) {
        let config = Arc::clone(&self.config);
        self.registry.add(name, move |instance| {
            let NoParameters {} = instance.parameters()?;
            Ok(make(&config)?)
        });
    }
}

#[async_trait]
impl Product for Cloud {
    fn configure(&self, file: &Path, asked: bool, options: ConfigureOptions) -> Result<Configured, CliError> {
        let Loaded { config, warnings } = config::load(file, asked)?;
        Ok(Configured {
            environment: config.name().to_owned(),
            platform: config.platform().as_str().to_owned(),
            warnings,
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
        vec![
            cli::backup::backup_command(),
            cli::backup::restore_command(),
            cli::bench::command(),
            cli::cloud::command(),
            cli::docs::command(),
            cli::model::command(),
            cli::open::command(),
            cli::test::command(),
        ]
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
