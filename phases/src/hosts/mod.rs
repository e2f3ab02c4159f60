//! Hosts that are given: asked what they are, and judged before anything is done to them.

mod facts;
mod network;
mod problems;
#[cfg(test)]
pub(crate) mod testing;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use taskrun_engine::context::View;

pub use self::facts::{Facts, FactsError, GpuDevice, Sudo};
pub use self::network::{Protocol, Verdict, Way, network_problems, ways};
pub use self::problems::problems;
use crate::cluster::{GivenHost, Node, Role};
use crate::outputs::{NodeEndpoint, Nodes};
use crate::tools::ssh::SshTarget;

/// A given host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name in the cluster.
    pub name: String,
    /// What it does there.
    pub role: Role,
    /// How it is logged in to.
    pub target: SshTarget,
    /// The address by which other nodes reach it, if that was said.
    pub internal_address: Option<Ipv4Addr>,
}

impl Host {
    /// The host that a node of the configuration is.
    pub fn new(node: &Node, given: &GivenHost, known_hosts: &Path) -> Self {
        let target = SshTarget {
            address: given.address.clone(),
            port: given.port,
            user: given.user.clone(),
            key: given.key.clone(),
            known_hosts: known_hosts.to_owned(),
        };
        Self { name: node.name.clone(), role: node.role, target, internal_address: given.internal_address }
    }

    /// The host that a task's output tells of; nothing while its address is not known.
    pub fn of_endpoint(nodes: &Nodes, node: &NodeEndpoint) -> Option<Self> {
        let target = nodes.target(node)?;
        Some(Self { name: node.name.clone(), role: node.role, target, internal_address: node.internal_address })
    }

    /// Its name and address, as messages begin: `ai-control-plane (10.0.0.2)`.
    pub fn title(&self) -> String {
        format!("{} ({})", self.name, self.target.address)
    }

    /// The address by which other nodes reach it: the one that was said, or is one, or that it was reached at.
    pub fn address_for_others(&self, facts: &Facts) -> Option<Ipv4Addr> {
        self.internal_address.or_else(|| self.target.address.parse().ok()).or_else(|| facts.own_address())
    }
}

/// A host with what it said of itself.
pub type Asked = (Host, Result<Facts, FactsError>);

/// Asks all hosts at once.
pub async fn ask_all(view: &View, hosts: &[Host]) -> Vec<Asked> {
    let asked = join_all(hosts.iter().map(|host| Facts::ask(view, host))).await;
    hosts.iter().cloned().zip(asked).collect()
}

/// The TCP ports that a node needs for itself.
pub fn ports_of(role: Role) -> &'static [u16] {
    match role {
        Role::ControlPlane => &[2379, 2380, 6443, 10250, 10257, 10259],
        Role::CpuWorker | Role::GpuWorker => &[10250],
    }
}

/// A copy of a file of host keys, for who only looks: keys seen for the first time are not kept.
pub struct Glance {
    folder: tempfile::TempDir,
}

impl Glance {
    /// A copy of `known_hosts`, which need not be there.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn at(known_hosts: &Path) -> std::io::Result<Self> {
        let glance = Self { folder: tempfile::Builder::new().prefix("taskrun-ssh-").tempdir()? };
        if known_hosts.is_file() {
            std::fs::copy(known_hosts, glance.known_hosts())?;
        }
        Ok(glance)
    }

    /// The copy.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }
}
