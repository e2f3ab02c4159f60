//! The plugins for a configuration: one set of tasks for each platform.

use std::path::Path;
use std::sync::Arc;

use taskrun_engine::cli::ConfigureOptions;
use taskrun_engine::registry::{NoParameters, Registry};
use taskrun_engine::task::Task;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::phase0::{GivenHostsTask, MachineTask, OperatorCliTask, VirtualMachinesTask};
use crate::phase1::{
    BaseImageTask, BaseRuntimeTask, GpuWorkerImageTask, HostBaseTask, HostGpuTask, ModelRuntimeTask,
    PythonEnvironmentTask, python_environment,
};
use crate::phase2::{GpuTask, PlatformUp};
use crate::phase3::{ExternalDatabase, ExternalObjectStore, MlflowTask, ModelServingTask, ObjectStoreTask, Postgres};
use crate::phase4::{DashboardsTask, MonitoringTask};
use crate::phase5::{DocumentationTask, TrainingTask};
use crate::phase6::{FederationTask, ModelTransferTask, PerformanceTask};
use crate::phase7::TestFrameworkTask;
use crate::unavailable::Unavailable;

/// What comes after the nodes of a cluster.
const AFTER_NODES: [&str; 14] = [
    "CLOUD-2.1",
    "CLOUD-2.2",
    "CLOUD-3.1",
    "CLOUD-3.2",
    "CLOUD-3.3",
    "CLOUD-3.4",
    "CLOUD-4.1",
    "CLOUD-4.2",
    "CLOUD-5.1",
    "CLOUD-5.2",
    "CLOUD-6.1",
    "CLOUD-6.2",
    "CLOUD-6.3",
    "CLOUD-7.1",
];

/// The plugins for a configuration, which stands in `file`.
pub(crate) fn registry(config: &Config, file: &Path, options: ConfigureOptions) -> Registry {
    let mut plugins = Plugins { registry: Registry::new(), config: Arc::new(config.clone()) };
    let cluster = config.cluster();
    let names = cluster.iter().flat_map(|cluster| &cluster.nodes).map(|node| node.name.clone()).collect::<Vec<_>>();
    let operated = file.to_owned();
    plugins.add("CLOUD-0.2", move |_| OperatorCliTask::new(&operated, names.clone()));
    match cluster {
        None => plugins.add_local(config, options),
        Some(cluster) => plugins.add_cluster(&cluster, file),
    }
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

    /// The tasks of the embedded platform.
    fn add_local(&mut self, config: &Config, options: ConfigureOptions) {
        self.add("CLOUD-0.1", move |config| Ok(MachineTask::new(config, options.reassign_ports)));
        self.add("CLOUD-1.1", |config| Ok(BaseRuntimeTask::new(config)));
        self.add("CLOUD-1.2", |_| Ok(ModelRuntimeTask));
        self.add("CLOUD-2.1", |config| Ok(PlatformUp::new(config)));
        self.add("CLOUD-2.2", |config| Ok(GpuTask::new(config)));
        match config.external.object_store.clone() {
            Some(given) => {
                self.add("CLOUD-3.1", move |config| Ok(ExternalObjectStore::new(&given, &config.object_store)));
            }
            None => self.add("CLOUD-3.1", |config| Ok(ObjectStoreTask::new(config))),
        }
        match config.external.database.clone() {
            Some(given) => self.add("CLOUD-3.2", move |_| Ok(ExternalDatabase::new(&given))),
            None => self.add("CLOUD-3.2", |config| Ok(Postgres::new(config))),
        }
        self.add("CLOUD-3.3", |config| Ok(MlflowTask::new(config)));
        self.add("CLOUD-3.4", |config| Ok(ModelServingTask::new(config)));
        self.add("CLOUD-4.1", |config| Ok(MonitoringTask::new(config)));
        self.add("CLOUD-4.2", |config| Ok(DashboardsTask::new(config)));
        self.add("CLOUD-5.1", |config| Ok(TrainingTask::new(config)));
        self.add("CLOUD-5.2", |_| Ok(DocumentationTask));
        self.add("CLOUD-6.1", |config| Ok(ModelTransferTask::new(config)));
        self.add("CLOUD-6.2", |config| Ok(FederationTask::new(config)));
        self.add("CLOUD-6.3", |config| Ok(PerformanceTask::new(config)));
        self.add("CLOUD-7.1", |_| Ok(TestFrameworkTask));
        self.registry.add(python_environment::PLUGIN, PythonEnvironmentTask::new);
    }

    /// The tasks of a cluster of real nodes.
    fn add_cluster(&mut self, cluster: &Cluster, file: &Path) {
        let (file, given) = (file.to_owned(), cluster.virtualization.is_none());
        let (nodes, workers) = (cluster.clone(), cluster.clone());
        if given {
            self.add("CLOUD-0.1", move |_| Ok(GivenHostsTask::new(&nodes)));
            self.add("CLOUD-1.1", |_| Ok(HostBaseTask::new()));
            self.add("CLOUD-1.2", move |_| Ok(HostGpuTask::new(&workers)));
        } else {
            self.add("CLOUD-0.1", move |config| Ok(VirtualMachinesTask::new(config, nodes.clone(), &file)));
            self.add("CLOUD-1.1", |config| Ok(BaseImageTask::new(config)));
            self.add("CLOUD-1.2", |config| Ok(GpuWorkerImageTask::new(config)));
        }
        for task in AFTER_NODES {
            self.add(task, |_| Ok(Unavailable::on("kubernetes")));
        }
        self.registry.add(python_environment::PLUGIN, |_| Ok(Unavailable::on("kubernetes")));
    }
}
