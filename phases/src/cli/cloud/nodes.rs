//! The nodes of a cluster.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use taskrun_engine::TaskId;
use taskrun_engine::cli::{CliError, Session, Work, exit, say};
use taskrun_engine::outcome::Failure;

use super::{Shown, Units};
use crate::cli::own;
use crate::cluster::{Cluster, Node, Role, VirtualMachine};
use crate::config;
use crate::nodes::machines::{Image, Stopped};
use crate::nodes::{Layout, Machines, Power, StopTimes, look, reach};
use crate::outputs::{GpuBase, NodeBase};
use crate::tools::ssh::{self, SshTarget};

/// How long a machine may take until it lets us in.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// The same, where its processors are emulated.
const EMULATED_BOOT_TIMEOUT: Duration = Duration::from_secs(900);

/// The task that defines the machines.
const DEFINES: &str = "CLOUD-0.1";
/// The task that makes the images of all machines is the last one before a cluster.
const BEFORE: &str = "CLOUD-1.2";
/// The task that makes a cluster.
const MAKES_CLUSTER: &str = "CLOUD-2.1";

/// The nodes of the cluster that the configuration describes.
pub(in crate::cli) struct Nodes<'s> {
    session: &'s Session,
    cluster: Cluster,
    work: Work,
}

impl<'s> Nodes<'s> {
    /// The nodes of a session's cluster.
    ///
    /// # Errors
    /// The platform has no nodes, exit code 2.
    pub(in crate::cli) fn new(session: &'s Session) -> Result<Self, CliError> {
        let cluster = config::load(&session.config_file, false)?.config.cluster().ok_or_else(|| {
            CliError::usage(format!("the platform `{}` has no nodes", session.identity.platform))
                .with_hint("describe a cluster and name the file: --config config/workstation.yaml")
        })?;
        let task = TaskId::new(DEFINES).map_err(|error| CliError::new(exit::FAILED, error.to_string()))?;
        Ok(Self { session, cluster, work: session.work(&task)? })
    }

    /// Brings about what nodes are made of: definitions and images.
    pub(super) fn prepare(&self) -> Result<u8, CliError> {
        own::run(self.session, &["run", "--until", BEFORE])
    }

    /// Makes a cluster of the nodes that run.
    pub(super) fn make_cluster(&self) -> Result<u8, CliError> {
        own::run(self.session, &["run", "--until", MAKES_CLUSTER])
    }

    /// The layout of the virtual machines; nothing where all nodes are given hosts.
    fn layout(&self) -> Option<Layout<'_>> {
        Layout::new(&self.cluster, &self.session.identity.environment, &self.session.state)
    }

    async fn machines(&self) -> Result<Option<Machines<'_>>, CliError> {
        let Some(layout) = self.layout() else { return Ok(None) };
        Machines::connect(self.work.view(), layout, &self.session.config_file).await.map(Some).map_err(told)
    }

    fn node(&self, name: &str) -> Result<&Node, CliError> {
        self.cluster.node(name).ok_or_else(|| CliError::usage(format!("there is no node `{name}`")))
    }

    /// What the disk of a machine begins with; nothing if it was not built yet.
    fn image(&self, node: &Node) -> Result<Option<Image>, CliError> {
        let checkpoint = self.session.read()?;
        let made = match node.role {
            Role::GpuWorker => self.session.output::<GpuBase>(&checkpoint).and_then(|made| made.image),
            _ => self.session.output::<NodeBase>(&checkpoint).and_then(|made| made.image),
        };
        Ok(made.map(|image| Image { key: image.sha256, file: image.path }))
    }

    async fn start_one(&self, machines: &Machines<'_>, node: &Node, machine: &VirtualMachine) -> Result<(), CliError> {
        let view = self.work.view();
        let folder = reach::key_folder(&self.session.state);
        let (_, key) = ssh::ensure_key(view, &folder).await.map_err(told)?;
        let image = self.image(node)?;
        let started = machines.start(view, node, image.as_ref(), &key).await.map_err(told)?;
        Power::set(&self.session.state, [&*node.name], true).map_err(told)?;
        say(format!("{}: {}", node.name, if started { "started" } else { "runs" }));
        let timeout = if machines.has_kvm() { BOOT_TIMEOUT } else { EMULATED_BOOT_TIMEOUT };
        let begun = std::time::Instant::now();
        let target = self.wait_for_address(machines, node, machine, timeout).await?;
        let left = timeout.saturating_sub(begun.elapsed());
        let up = target.wait_until_up(view, left).await;
        up.map_err(|error| {
            let failure = error.into_failure();
            let console = machines.layout().console_log(&node.name);
            CliError::new(exit::FAILED, format!("reach {}: {failure}", node.name))
                .with_hint(failure.hint.unwrap_or_else(|| format!("see its console: {}", console.display())))
        })?;
        say(format!("{}: lets us in after {:.0} s", node.name, begun.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn wait_for_address(
        &self,
        machines: &Machines<'_>,
        node: &Node,
        machine: &VirtualMachine,
        timeout: Duration,
    ) -> Result<SshTarget, CliError> {
        let found = std::sync::Mutex::new(None);
        let ask = || async {
            match machines.address(machine).await {
                Ok(Some(address)) => {
                    *found.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(address);
                    Ok(())
                }
                Ok(None) => Err("it has asked for no address yet".to_owned()),
                Err(failure) => Err(failure.to_string()),
            }
        };
        self.work.view().wait_until(&format!("an address of {}", node.name), timeout, ask).await.map_err(told)?;
        let address = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let address = address.map(|address| address.to_string());
        reach::target(&self.session.state, node, address.as_deref())
            .ok_or_else(|| CliError::new(exit::FAILED, format!("{} has no address", node.name)))
    }

    async fn stop_one(&self, machines: &Machines<'_>, node: &Node, force: bool) -> Result<(), CliError> {
        // It is not to be started again while it ends.
        Power::set(&self.session.state, [&*node.name], false).map_err(told)?;
        let how = machines.stop(self.work.view(), &node.name, StopTimes::default(), force).await.map_err(told)?;
        let how = match how {
            Stopped::Already => "is off",
            Stopped::Gracefully => "has ended",
            Stopped::Forced => "was turned off",
        };
        say(format!("{}: {how}", node.name));
        Ok(())
    }

    /// The target of ssh for a node.
    pub(in crate::cli) async fn target(&self, name: &str) -> Result<SshTarget, CliError> {
        let node = self.node(name)?;
        let address = match (node.virtual_machine(), self.machines().await?) {
            (Some(machine), Some(machines)) => machines.address(machine).await.map_err(told)?,
            _ => None,
        };
        let address = address.map(|address| address.to_string());
        reach::target(&self.session.state, node, address.as_deref()).ok_or_else(|| {
            CliError::new(exit::FAILED, format!("{name} has no address yet"))
                .with_hint(format!("start it: taskrun vm start {name}"))
        })
    }

    /// The virtual machine called `name`, or why there is none.
    pub(in crate::cli) fn virtual_machine(&self, name: &str) -> Result<(Layout<'_>, &Node), CliError> {
        let node = self.node(name)?;
        match (node.virtual_machine(), self.layout()) {
            (Some(_), Some(layout)) => Ok((layout, node)),
            _ => Err(CliError::usage(format!("{name} is a given host and no virtual machine"))
                .with_hint(format!("it is reached all the same: taskrun vm ssh {name}"))),
        }
    }

    /// Does something to nodes at once, and tells all that failed.
    async fn each<F>(&self, nodes: Vec<&Node>, work: impl Fn(&Node) -> F) -> Result<(), CliError>
    where
        F: Future<Output = Result<(), CliError>>,
    {
        let failed: Vec<CliError> =
            join_all(nodes.into_iter().map(work)).await.into_iter().filter_map(Result::err).collect();
        if let Some(interrupted) = self.work.interrupted() {
            return Err(interrupted);
        }
        let mut failed = failed.into_iter();
        match (failed.next(), failed.len()) {
            (None, _) => Ok(()),
            (Some(only), 0) => Err(only),
            (Some(first), _) => {
                let code = first.code;
                let told = std::iter::once(first).chain(failed).map(|error| error.render()).collect::<String>();
                Err(CliError::report(code, told))
            }
        }
    }
}

/// The error of a verb for what a machine did not do.
pub(in crate::cli) fn told(failure: Failure) -> CliError {
    let mut message = failure.message.clone();
    for cause in &failure.causes {
        message.push_str(": ");
        message.push_str(cause);
    }
    let error = CliError::new(exit::FAILED, message);
    match failure.hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

#[async_trait]
impl Units for Nodes<'_> {
    fn word(&self) -> &'static str {
        "node"
    }

    fn names(&self) -> Vec<String> {
        self.cluster.nodes.iter().map(|node| node.name.clone()).collect()
    }

    fn usual(&self, up: bool) -> Vec<String> {
        let machines = self.cluster.virtual_machines().filter(|(_, machine)| machine.auto_start || !up);
        machines.map(|(node, _)| node.name.clone()).collect()
    }

    async fn start(&self, names: &[String]) -> Result<(), CliError> {
        // No run and no other start or stop meanwhile.
        let (_lock, _) = self.session.lock()?;
        let machines = self.machines().await?;
        let (first, then): (Vec<&Node>, Vec<&Node>) = self
            .cluster
            .nodes
            .iter()
            .filter(|node| names.contains(&node.name))
            .partition(|node| node.role == Role::ControlPlane);
        for nodes in [first, then] {
            let start = |node: &Node| {
                let node = node.clone();
                let machines = machines.as_ref();
                async move {
                    match (node.virtual_machine(), machines) {
                        (Some(machine), Some(machines)) => self.start_one(machines, &node, machine).await,
                        _ => {
                            say(format!("{}: a given host, which is not started from here", node.name));
                            Ok(())
                        }
                    }
                }
            };
            self.each(nodes, start).await?;
        }
        Ok(())
    }

    async fn stop(&self, names: &[String], force: bool) -> Result<(), CliError> {
        let (_lock, _) = self.session.lock()?;
        let Some(machines) = self.machines().await? else {
            return Err(CliError::usage("given hosts are not stopped from here")
                .with_hint("stop one by yourself: taskrun vm ssh NAME sudo poweroff"));
        };
        let (last, first): (Vec<&Node>, Vec<&Node>) = self
            .cluster
            .nodes
            .iter()
            .filter(|node| names.contains(&node.name))
            .partition(|node| node.role == Role::ControlPlane);
        for nodes in [first, last] {
            let stop = |node: &Node| {
                let (node, machines) = (node.clone(), &machines);
                async move { self.stop_one(machines, &node, force).await }
            };
            self.each(nodes, stop).await?;
        }
        Ok(())
    }

    async fn status(&self) -> Result<Shown, CliError> {
        let (view, state) = (self.work.view(), &self.session.state);
        let machines = self.machines().await?;
        let status = look::status(view, &self.cluster, machines.as_ref(), state).await.map_err(told)?;
        let json = serde_json::to_value(&status)
            .map_err(|error| CliError::caused(exit::FAILED, "write down the status", &error))?;
        Ok(Shown { healthy: status.healthy, table: status.table(), json, dot: status.dot() })
    }
}
