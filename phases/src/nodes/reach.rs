//! How nodes are logged in to.

use std::path::{Path, PathBuf};

use super::layout::USER;
use crate::cluster::{Machine, Node};
use crate::outputs::Nodes;
use crate::tools::ssh::SshTarget;

/// The name of the private key's file.
pub const KEY_FILE: &str = "id_ed25519";

/// The folder of the key pair that opens the virtual machines.
pub fn key_folder(state: &Path) -> PathBuf {
    state.join("ssh")
}

/// How a node is logged in to. `address` is a virtual machine's; a given host has its own.
pub fn target(state: &Path, node: &Node, address: Option<&str>) -> Option<SshTarget> {
    let known_hosts = Nodes::known_hosts_file(state);
    match &node.machine {
        Machine::Given(host) => Some(SshTarget {
            address: host.address.clone(),
            port: host.port,
            user: host.user.clone(),
            key: host.key.clone(),
            known_hosts,
        }),
        Machine::Virtual(_) => Some(SshTarget {
            address: address?.to_owned(),
            port: 22,
            user: USER.to_owned(),
            key: Some(key_folder(state).join(KEY_FILE)),
            known_hosts,
        }),
    }
}
