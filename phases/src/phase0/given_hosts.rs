//! CLOUD-0.1 for a cluster of given hosts: they are reached, fit, and marked as this cluster's.
//!
//! Nothing else is changed on them. Proof: each host makes us root, and reaches the ports of the others that Kubernetes
//! needs.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Problem, Proof, Task, Traces};

use crate::cluster::{Cluster, Machine, Node};
use crate::hosts::{self, Asked, Facts, Glance, Host};
use crate::outputs::{HostIdentity, NodeEndpoint, Nodes};
use crate::tools::files;
use crate::tools::ssh::Script;

const OWN: &str = include_str!("../../assets/hosts/own.sh");
const DISOWN: &str = include_str!("../../assets/hosts/disown.sh");
/// What takes away what CLOUD-1.1 added, for hosts that leave the cluster.
const RESTORE: &str = include_str!("../../assets/hosts/restore.sh");
const RESTORE_TIMEOUT: Duration = Duration::from_secs(25 * 60);

/// Preflight ends after half a minute: the network is tried only if the hosts answered so soon.
const SOON: Duration = Duration::from_secs(10);

/// How much of its memory a host may keep to itself at one boot and not at another, in percent.
const MEMORY_TOLERANCE_PERCENT: u64 = 5;

const ROOT: Proof = Proof::safe("every host makes us root");
const NETWORK: Proof = Proof::safe("every host reaches the others' ports");

/// The task.
pub struct GivenHostsTask {
    settings: GivenHosts,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenHosts {
    /// The cluster's name.
    pub cluster: String,
    /// The nodes, all of them given hosts.
    pub nodes: Vec<Node>,
    /// The network plugin of Kubernetes, which decides on ports between nodes.
    pub cni: String,
}

impl GivenHosts {
    /// The hosts; `known_hosts` is the file of their keys.
    pub fn hosts(&self, known_hosts: &Path) -> Vec<Host> {
        let given = self.nodes.iter().filter_map(|node| match &node.machine {
            Machine::Given(given) => Some(Host::new(node, given, known_hosts)),
            Machine::Virtual(_) => None,
        });
        given.collect()
    }

    /// What the mark of this cluster on its hosts says.
    fn owner(&self, view: &View) -> String {
        let here = nix::unistd::gethostname().unwrap_or_default();
        format!("{} on {}:{}", self.cluster, here.to_string_lossy(), view.state_dir().display())
    }

    fn ways(&self) -> Vec<hosts::Way> {
        hosts::ways(self.nodes.iter().map(|node| (&*node.name, node.role)), &self.cni)
    }
}

impl GivenHostsTask {
    /// The task for a cluster of given hosts.
    pub fn new(cluster: &Cluster) -> Self {
        let (nodes, cni) = (cluster.nodes.clone(), cluster.kubernetes.cni.clone());
        Self { settings: GivenHosts { cluster: cluster.name.clone(), nodes, cni } }
    }
}

#[async_trait]
impl Task for GivenHostsTask {
    type Settings = GivenHosts;
    type Output = Nodes;

    fn settings(&self) -> &GivenHosts {
        &self.settings
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![("hosts/own.sh", OWN.as_bytes()), ("hosts/disown.sh", DISOWN.as_bytes())]
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        let begin = Instant::now();
        let asked = match look(view, &self.settings).await {
            Ok(asked) => asked,
            Err(failure) => return vec![Problem { message: failure.to_string(), hint: failure.hint }],
        };
        let (glance, asked) = asked;
        let mut problems = hosts::problems(&self.settings.owner(view), &asked);
        if begin.elapsed() < SOON {
            problems.extend(hosts::network_problems(view, &asked, &self.settings.ways()).await);
        }
        drop(glance);
        problems
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let (_glance, asked) = match look(view, &made.settings).await {
            Ok(asked) => asked,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        let mut drifts = Vec::new();
        for (host, answer) in &asked {
            let facts = match answer {
                Ok(facts) => facts,
                Err(error) => return Probe::CannotTell(format!("{}: {error}", host.name)),
            };
            let recorded = made.output.node(&host.name).and_then(|node| node.identity.as_ref());
            drifts.extend(recorded.into_iter().flat_map(|recorded| drift(&host.name, recorded, &identity(facts))));
            let owner = made.settings.owner(view);
            if facts.owner.as_ref() != Some(&owner) {
                let found = facts.owner.clone().unwrap_or_else(|| "nobody's".to_owned());
                drifts.push(Drift::new(format!("mark of {}", host.name), owner, found));
            }
        }
        if drifts.is_empty() { Probe::Holds } else { Probe::Drifted(drifts) }
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<Nodes>, Failure> {
        let known_hosts = Nodes::known_hosts_file(context.state_dir());
        if let Some(folder) = known_hosts.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| files::failure("make", folder, &error))?;
        }
        let owner = self.settings.owner(context);
        let hosts = self.settings.hosts(&known_hosts);
        let before = earlier.made.iter().map(|made| &made.settings).chain(&earlier.unfinished);
        let dropped = no_longer(&hosts, before, &known_hosts);
        // A host that is gone for good must not keep the others from going on.
        let kept = release(context, &dropped, &owner).await.into_iter();
        let kept = kept.map(|failure| format!("a host that left the cluster is not as it was: {failure}")).collect();
        let asked = hosts::ask_all(context, &hosts).await;
        if let Some(failure) = unfit(&hosts::problems(&owner, &asked)) {
            return Err(failure);
        }
        let marked = hosts.iter().map(async |host| {
            context.say(format!("{}: marking it as {owner}", host.title()));
            host.target.run_script(context, &Script::new(OWN).arg(&owner).sudo(true)).await
        });
        for marked in join_all(marked).await {
            marked.map_err(crate::tools::ssh::SshError::into_failure)?;
        }
        let nodes = asked.iter().filter_map(|(host, answer)| Some(endpoint(host, answer.as_ref().ok()?))).collect();
        Ok(Applied::degraded(Nodes { nodes, known_hosts }, kept))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[ROOT, NETWORK];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Nodes) -> Result<(), Failure> {
        let hosts: Vec<Host> = output.nodes.iter().filter_map(|node| Host::of_endpoint(output, node)).collect();
        if proof == ROOT.name {
            let asked = hosts.iter().map(async |host| {
                let who = host.target.run(view, "id -u", true).await.map_err(|error| error.into_failure())?;
                match who.trim() {
                    "0" => Ok(()),
                    other => Err(Failure::permanent(format!("become root on {}: we are user {other}", host.title()))),
                }
            });
            return join_all(asked).await.into_iter().collect();
        }
        let asked = hosts::ask_all(view, &hosts).await;
        match unfit(&hosts::network_problems(view, &asked, &self.settings.ways()).await) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        let known_hosts = Nodes::known_hosts_file(context.state_dir());
        let all = no_longer(&[], made.settings.iter(), &known_hosts);
        let owner = made.settings.last().unwrap_or(&self.settings).owner(context);
        let hint = "start it; or, if it is gone for good, take it out of the configuration, and run CLOUD-0.1 before";
        match release(context, &all, &owner).await.into_iter().next() {
            Some(failure) if failure.is_transient() => Err(failure.with_hint(hint)),
            Some(failure) => Err(failure),
            None => files::remove(&known_hosts),
        }
    }
}

/// Asks the hosts, keeping no key that is new.
async fn look(view: &View, settings: &GivenHosts) -> Result<(Glance, Vec<Asked>), Failure> {
    let known_hosts = Nodes::known_hosts_file(view.state_dir());
    let glance = Glance::at(&known_hosts).map_err(|error| files::failure("copy", &known_hosts, &error))?;
    let asked = hosts::ask_all(view, &settings.hosts(&glance.known_hosts())).await;
    Ok((glance, asked))
}

/// Takes what is this cluster's off hosts; why that failed, where it did.
async fn release(context: &Context, hosts: &[Host], owner: &str) -> Vec<Failure> {
    let script = format!(
        "if [ \"$(cat /var/lib/taskrun-node/owner 2>/dev/null)\" = \"$1\" ]; then (\n{RESTORE}\n); fi\n{DISOWN}"
    );
    let script = Script::new(script).arg(owner).sudo(true).timeout(RESTORE_TIMEOUT);
    let released = hosts.iter().map(|host| host.target.run_script(context, &script));
    let failed = join_all(released).await.into_iter().filter_map(Result::err);
    failed.map(crate::tools::ssh::SshError::into_failure).collect()
}

/// The hosts of earlier attempts that are not among `hosts`.
fn no_longer<'a>(hosts: &[Host], earlier: impl Iterator<Item = &'a GivenHosts>, known_hosts: &Path) -> Vec<Host> {
    let mut gone: Vec<Host> = Vec::new();
    for host in earlier.flat_map(|settings| settings.hosts(known_hosts)) {
        let same = |other: &&Host| other.target.address == host.target.address && other.target.port == host.target.port;
        if !hosts.iter().any(|other| same(&other)) {
            // The latest way in counts.
            gone.retain(|other| !same(&other));
            gone.push(host);
        }
    }
    gone
}

/// One failure of all problems.
fn unfit(problems: &[Problem]) -> Option<Failure> {
    let first = problems.first()?;
    let messages: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
    let failure = Failure::permanent(format!("find the hosts fit: {}", messages.join("; ")));
    Some(match &first.hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    })
}

fn endpoint(host: &Host, facts: &Facts) -> NodeEndpoint {
    let internal: Option<Ipv4Addr> = host.address_for_others(facts);
    NodeEndpoint {
        name: host.name.clone(),
        role: host.role,
        address: Some(host.target.address.clone()),
        ssh_port: host.target.port,
        user: host.target.user.clone(),
        key: host.target.key.clone(),
        internal_address: internal,
        gpu: !facts.gpus.is_empty(),
        identity: Some(identity(facts)),
    }
}

fn identity(facts: &Facts) -> HostIdentity {
    HostIdentity {
        machine_id: facts.machine_id.clone(),
        host_name: facts.host_name.clone(),
        os: facts.system(),
        architecture: facts.architecture.clone(),
        cpus: facts.cpus,
        memory_mib: facts.memory_mib,
        gpus: facts.gpus.iter().map(|gpu| gpu.address.clone()).collect(),
    }
}

/// In what a host differs from the record.
fn drift(name: &str, recorded: &HostIdentity, found: &HostIdentity) -> Vec<Drift> {
    let mut drifts = Vec::new();
    let texts = [
        ("machine-id", &recorded.machine_id, &found.machine_id),
        ("host name", &recorded.host_name, &found.host_name),
        ("operating system", &recorded.os, &found.os),
        ("architecture", &recorded.architecture, &found.architecture),
    ];
    let differ = texts.into_iter().filter(|(_, recorded, found)| recorded != found);
    drifts.extend(
        differ
            .map(|(what, recorded, found)| Drift::new(format!("{what} of {name}"), recorded.as_str(), found.as_str())),
    );
    if recorded.cpus != found.cpus {
        drifts.push(Drift::new(format!("processors of {name}"), recorded.cpus, found.cpus));
    }
    if recorded.memory_mib.abs_diff(found.memory_mib) * 100 > recorded.memory_mib * MEMORY_TOLERANCE_PERCENT {
        drifts.push(Drift::new(format!("memory of {name}, in MiB"), recorded.memory_mib, found.memory_mib));
    }
    if recorded.gpus != found.gpus {
        drifts.push(Drift::new(format!("GPUs of {name}"), recorded.gpus.join(" "), found.gpus.join(" ")));
    }
    drifts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_drifts_field_by_field() {
        let recorded = HostIdentity {
            machine_id: "1".to_owned(),
            host_name: "one".to_owned(),
            os: "debian 12".to_owned(),
            architecture: "x86_64".to_owned(),
            cpus: 4,
            memory_mib: 8000,
            gpus: Vec::new(),
        };
        let told = |change: &dyn Fn(&mut HostIdentity)| {
            let mut found = recorded.clone();
            change(&mut found);
            drift("n", &recorded, &found).into_iter().map(|drift| drift.field).collect::<Vec<_>>()
        };
        assert_eq!(told(&|found| found.memory_mib = 7900), [] as [String; 0]);
        assert_eq!(told(&|found| found.memory_mib = 4000), ["memory of n, in MiB"]);
        let upgraded = |found: &mut HostIdentity| (found.os, found.cpus) = ("debian 13".to_owned(), 8);
        assert_eq!(told(&upgraded), ["operating system of n", "processors of n"]);
        assert_eq!(told(&|found| found.gpus.push("0000:65:00.0".to_owned())), ["GPUs of n"]);
        assert_eq!(told(&|found| found.machine_id = "2".to_owned()), ["machine-id of n"]);
    }
}
