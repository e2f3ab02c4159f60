//! CLOUD-1.1 for a cluster of given hosts: the packages that the base image would carry.
//!
//! What is missing is installed and written down on the host before it is, so that `destroy` takes away exactly that.
//! Neither an upgrade nor another network service comes with it. Proof: every package is there and the node exporter of
//! ours is off; something keeps each clock right.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Proof, Read, Task, Traces};

use crate::hosts::{self, Host};
use crate::outputs::{NodeBase, Nodes};
use crate::tools::ssh::{Script, SshError};

const PREPARE: &str = include_str!("../../assets/hosts/prepare.sh");
const RESTORE: &str = include_str!("../../assets/hosts/restore.sh");

/// How long apt may take, waiting for another apt included.
const APT_TIMEOUT: Duration = Duration::from_secs(25 * 60);

/// What every node has: Python and its apt module for Ansible, curl for downloads, and the node exporter, which
/// monitoring turns on.
const PACKAGES: [&str; 5] = ["ca-certificates", "curl", "prometheus-node-exporter", "python3", "python3-apt"];

/// Keeps the clock right where nothing does; not in a container, whose clock is its host's.
const TIME_SYNC: &str = "systemd-timesyncd";

/// Which of the packages `$@` are not installed.
const MISSING: &str = r#"for package in "$@"; do
  [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
done"#;

/// Whether the node exporter runs although it is ours.
const EXPORTER: &str = "if [ -e /var/lib/taskrun-node/exporter-is-ours ]; then
  for unit in prometheus-node-exporter.service; do
    if systemctl --quiet is-active $unit || systemctl --quiet is-enabled $unit; then echo $unit; fi
  done
fi";

const PROOFS: &[Proof] = &[
    Proof::safe("every package is there, and the node exporter is off"),
    Proof::safe("something keeps each clock right"),
];

/// The task.
pub struct HostBaseTask {
    settings: HostBase,
}

/// What it installs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBase {
    /// The packages that every node has.
    pub packages: Vec<String>,
}

impl HostBaseTask {
    /// The task.
    #[expect(clippy::new_without_default, reason = "tasks are made by `new`")]
    pub fn new() -> Self {
        Self { settings: HostBase { packages: PACKAGES.map(str::to_owned).to_vec() } }
    }
}

/// The hosts that CLOUD-0.1 found.
pub(super) fn hosts_of(view: &View) -> Result<Vec<Host>, Failure> {
    let nodes: Nodes = view.output()?;
    Ok(nodes.nodes.iter().filter_map(|node| Host::of_endpoint(&nodes, node)).collect())
}

/// Runs a script on all hosts at once; what each wrote.
pub(super) async fn on_all(
    view: &View,
    hosts: &[Host],
    script: impl Fn(&Host) -> Script,
) -> Vec<(Host, Result<String, SshError>)> {
    let ran = join_all(hosts.iter().map(|host| {
        let script = script(host);
        async move { host.target.run_script(view, &script).await }
    }));
    hosts.iter().cloned().zip(ran.await).collect()
}

#[async_trait]
impl Task for HostBaseTask {
    type Settings = HostBase;
    type Output = NodeBase;

    fn settings(&self) -> &HostBase {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Nodes>()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![("hosts/prepare.sh", PREPARE.as_bytes()), ("hosts/restore.sh", RESTORE.as_bytes())]
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let hosts = match hosts_of(view) {
            Ok(hosts) => hosts,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        let missing = Script::new(MISSING).args(&made.settings.packages);
        let mut drifts = Vec::new();
        for (host, answer) in on_all(view, &hosts, |_| missing.clone()).await {
            match answer {
                Ok(missing) => drifts.extend(
                    missing
                        .lines()
                        .map(|name| Drift::new(format!("package {name} of {}", host.name), "installed", "missing")),
                ),
                Err(error) => return Probe::CannotTell(format!("{}: {error}", host.name)),
            }
        }
        if drifts.is_empty() { Probe::Holds } else { Probe::Drifted(drifts) }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<NodeBase>, Failure> {
        let hosts = hosts_of(context)?;
        let asked = hosts::ask_all(context, &hosts).await;
        let mut packages = BTreeMap::new();
        let mut systems = BTreeMap::new();
        for (host, answer) in asked {
            let facts = answer.map_err(|error| error.into_failure(&host))?;
            let mut wanted = self.settings.packages.clone();
            if facts.time_sync.is_empty() && facts.container.is_none() {
                wanted.push(TIME_SYNC.to_owned());
            }
            systems.insert(host.name.clone(), facts.system());
            packages.insert(host.name, wanted);
        }
        let wanted = |host: &Host| packages.get(&host.name).cloned().unwrap_or_default();
        for host in &hosts {
            context.say(format!("{}: installing what is missing of {}", host.title(), wanted(host).join(" ")));
        }
        let prepared =
            on_all(context, &hosts, |host| Script::new(PREPARE).args(wanted(host)).sudo(true).timeout(APT_TIMEOUT));
        let mut failures = Vec::new();
        for (host, answer) in prepared.await {
            match answer {
                Ok(installed) if !installed.trim().is_empty() => {
                    context.say(format!("{}: added by taskrun: {}", host.title(), installed.replace('\n', " ")));
                }
                Ok(_) => {}
                Err(error) => failures.push(package_failure(error)),
            }
        }
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(Applied::complete(NodeBase { image: None, systems, packages: self.settings.packages.clone() })),
        }
    }

    fn proofs(&self) -> &'static [Proof] {
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &NodeBase) -> Result<(), Failure> {
        let hosts = hosts_of(view)?;
        if proof == PROOFS[1].name {
            for (host, answer) in hosts::ask_all(view, &hosts).await {
                let facts = answer.map_err(|error| error.into_failure(&host))?;
                if facts.time_sync.is_empty() && facts.container.is_none() {
                    return Err(Failure::permanent(format!("find what keeps the clock of {} right", host.title()))
                        .with_hint("turn it on there: timedatectl set-ntp true"));
                }
            }
            return Ok(());
        }
        let script = Script::new(format!("{MISSING}\n{EXPORTER}")).args(&output.packages);
        for (host, answer) in on_all(view, &hosts, |_| script.clone()).await {
            let wrong = answer.map_err(SshError::into_failure)?;
            if let Some(wrong) = wrong.lines().next() {
                let what = if wrong.ends_with(".service") { "off" } else { "installed" };
                return Err(Failure::permanent(format!("find {wrong} {what} on {}", host.title())));
            }
        }
        Ok(())
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        let hosts = hosts_of(context)?;
        let restored = on_all(context, &hosts, |_| Script::new(RESTORE).sudo(true).timeout(APT_TIMEOUT));
        let mut failures = Vec::new();
        for (host, answer) in restored.await {
            match answer {
                Ok(kept) if !kept.trim().is_empty() => {
                    let kept = kept.split_whitespace().collect::<Vec<_>>().join(" ");
                    context.say(format!("{}: other packages need these by now, so they stay: {kept}", host.title()));
                }
                Ok(_) => {}
                Err(error) => failures.push(package_failure(error)),
            }
        }
        failures.into_iter().next().map_or(Ok(()), Err)
    }
}

/// What apt fails by is mostly the network, or another apt.
fn package_failure(error: SshError) -> Failure {
    let of_network = ["Failed to fetch", "Temporary failure", "Could not get lock", "Unable to acquire"];
    let is_network = of_network.iter().any(|part| error.tail().contains(part));
    let failure = error.into_failure();
    if !is_network {
        return failure;
    }
    let failure = Failure { persistence: taskrun_engine::outcome::Persistence::Transient, ..failure };
    failure.with_hint("see that the host reaches its package mirror: apt-get update, there")
}
