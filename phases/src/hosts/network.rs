//! Whether nodes reach each other: on each a listener for a moment, and connections from all others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;
use taskrun_engine::context::View;
use taskrun_engine::task::Problem;

use super::{Asked, Host};
use crate::cluster::Role;
use crate::tools::ssh::{Script, SshError, quote};

/// The program that listens and connects.
const SCRIPT: &str = include_str!("../../assets/hosts/network.py");

/// How long one side tries to connect; the other listens a little longer, since it may begin earlier.
const CONNECT_SECONDS: u64 = 6;
const LISTEN_SECONDS: u64 = 8;
const TIMEOUT: Duration = Duration::from_secs(18);

/// A way that must be open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The name of the node that connects.
    pub from: String,
    /// The name of the node that is connected to.
    pub to: String,
    /// The port there.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
}

/// The protocol of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What came of trying a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is open.
    Works,
    /// The other side says no: a firewall that rejects.
    Refused,
    /// Nothing comes back: a firewall that drops.
    NoAnswer,
    /// There is no route.
    NoRoute,
}

/// The ways between nodes of these names and roles: the API server of each control plane from everywhere, etcd between
/// control planes, the kubelet of each node from everywhere, and the tunnels of the network plugin.
pub fn ways<'a>(nodes: impl Iterator<Item = (&'a str, Role)> + Clone, cni: &str) -> Vec<Way> {
    let mut ways = Vec::new();
    for (from, role_from) in nodes.clone() {
        for (to, role_to) in nodes.clone().filter(|(to, _)| *to != from) {
            let mut add = |port, protocol| ways.push(Way { from: from.to_owned(), to: to.to_owned(), port, protocol });
            add(10250, Protocol::Tcp);
            if role_to == Role::ControlPlane {
                add(6443, Protocol::Tcp);
            }
            if role_to == Role::ControlPlane && role_from == Role::ControlPlane {
                add(2379, Protocol::Tcp);
                add(2380, Protocol::Tcp);
            }
            match cni {
                "calico" => add(4789, Protocol::Udp),
                "flannel" | "cilium" => add(8472, Protocol::Udp),
                _ => {}
            }
        }
    }
    ways
}

/// What keeps hosts from each other's ports, tried between those that answered and have a `python3`.
pub async fn network_problems(view: &View, asked: &[Asked], ways: &[Way]) -> Vec<Problem> {
    let able = asked.iter().filter_map(|(host, answer)| {
        let facts = answer.as_ref().ok().filter(|facts| facts.python.is_some())?;
        Some((host, host.address_for_others(facts)?))
    });
    let hosts: Vec<(&Host, Ipv4Addr)> = able.collect();
    let there = |name: &str| hosts.iter().any(|(host, _)| host.name == name);
    let ways: Vec<Way> = ways.iter().filter(|way| there(&way.from) && there(&way.to)).cloned().collect();
    if ways.is_empty() {
        return Vec::new();
    }
    match closed_ways(view, &hosts, &ways).await {
        Ok(closed) => told(&hosts, &closed),
        Err((host, error)) => {
            vec![Problem { message: format!("try the network of {host}: {error}"), hint: error.hint() }]
        }
    }
}

/// The ways between hosts that are not open; each host comes with the address by which the others reach it.
///
/// # Errors
/// A host cannot be reached, or the program fails there.
async fn closed_ways(
    view: &View,
    hosts: &[(&Host, Ipv4Addr)],
    ways: &[Way],
) -> Result<Vec<(Way, Verdict)>, (String, SshError)> {
    let address_of: BTreeMap<&str, Ipv4Addr> = hosts.iter().map(|(host, address)| (&*host.name, *address)).collect();
    let listening = hosts.iter().map(async |(host, _)| {
        let to_it = ways.iter().filter(|way| way.to == host.name);
        let ports = |protocol| {
            let ports: BTreeSet<u16> =
                to_it.clone().filter(|way| way.protocol == protocol).map(|way| way.port).collect();
            ports
        };
        let peers: BTreeSet<&str> = to_it.clone().map(|way| &*way.from).collect();
        let plan = json!({
            "seconds": LISTEN_SECONDS, "peers": peers.len(),
            "tcp": ports(Protocol::Tcp), "udp": ports(Protocol::Udp),
        });
        let taken: Taken = run(view, host, "listen", &plan).await?;
        Ok(taken.taken.into_iter().map(|(port, protocol)| (host.name.clone(), port, protocol)).collect::<Vec<_>>())
    });
    let connecting = hosts.iter().map(async |(host, _)| {
        let from_it = ways.iter().filter(|way| way.from == host.name);
        let aims: Vec<_> = from_it
            .filter_map(|way| Some((address_of.get(&*way.to)?, way.port, protocol_word(way.protocol))))
            .collect();
        let plan = json!({ "seconds": CONNECT_SECONDS, "ways": aims });
        let came: Vec<(Ipv4Addr, u16, Protocol, Verdict)> = run(view, host, "connect", &plan).await?;
        Ok(came.into_iter().map(|(to, port, protocol, verdict)| (host.name.clone(), to, port, protocol, verdict)))
    });
    let (listened, connected) = tokio::join!(join_all(listening), join_all(connecting));
    let mut taken = BTreeSet::new();
    for ports in listened {
        taken.extend(ports?);
    }
    let mut closed = Vec::new();
    for came in connected {
        for (from, address, port, protocol, verdict) in came? {
            let to =
                address_of.iter().find(|(_, of)| **of == address).map_or(String::new(), |(to, _)| (*to).to_owned());
            // Who has a UDP port already does not answer strangers.
            let cannot_tell = protocol == Protocol::Udp && taken.contains(&(to.clone(), port, protocol));
            if verdict != Verdict::Works && !cannot_tell {
                closed.push((Way { from, to, port, protocol }, verdict));
            }
        }
    }
    closed.sort();
    Ok(closed)
}

/// What is told of closed ways, one problem for each pair of nodes and verdict.
fn told(hosts: &[(&Host, Ipv4Addr)], closed: &[(Way, Verdict)]) -> Vec<Problem> {
    let mut pairs: BTreeMap<_, Vec<(u16, Protocol)>> = BTreeMap::new();
    for (way, verdict) in closed {
        pairs.entry((&*way.from, &*way.to, *verdict)).or_default().push((way.port, way.protocol));
    }
    let address = |name: &str| {
        hosts.iter().find(|(host, _)| host.name == name).map_or(String::new(), |(_, address)| address.to_string())
    };
    let told = pairs.into_iter().map(|((from, to, verdict), ports)| {
        let (of_from, of_to) = (address(from), address(to));
        let list: Vec<String> =
            ports.iter().map(|(port, protocol)| format!("{}/{port}", protocol_word(*protocol))).collect();
        let why = match verdict {
            Verdict::Refused => "is refused",
            Verdict::NoRoute => "finds no route",
            _ => "gets no answer",
        };
        let message = format!("{from} ({of_from}) {why} at {to} ({of_to}): {}", list.join(", "));
        let hint = match verdict {
            Verdict::NoRoute => format!("correct the routes of {from}: ip route get {of_to}"),
            _ => {
                let rules: Vec<String> = ports
                    .iter()
                    .map(|(port, protocol)| {
                        let protocol = protocol_word(*protocol);
                        format!("nft insert rule inet filter input ip saddr {of_from} {protocol} dport {port} accept")
                    })
                    .collect();
                format!(
                    "let it through the firewall of {to}: {} (or what ufw or firewalld have for it)",
                    rules.join("; ")
                )
            }
        };
        Problem::new(message, hint)
    });
    told.collect()
}

#[derive(Deserialize)]
struct Taken {
    taken: Vec<(u16, Protocol)>,
}

async fn run<T: serde::de::DeserializeOwned>(
    view: &View,
    host: &Host,
    verb: &str,
    plan: &serde_json::Value,
) -> Result<T, (String, SshError)> {
    // The program is an argument of the interpreter, not of the shell's command line: it goes through stdin.
    let script = format!("python3 - {} {} <<'TASKRUN'\n{SCRIPT}\nTASKRUN", quote(verb), quote(&plan.to_string()));
    let failed = |error| (host.title(), error);
    let answer = host.target.run_script(view, &Script::new(script).timeout(TIMEOUT)).await.map_err(failed)?;
    serde_json::from_str(&answer).map_err(|_| failed(host.target.unclear()))
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::host;
    use super::*;

    const NODES: [(&str, Role); 3] = [("cp", Role::ControlPlane), ("cpu", Role::CpuWorker), ("gpu", Role::GpuWorker)];

    #[test]
    fn workers_reach_the_api_server_and_everybody_each_kubelet() {
        let ways = ways(NODES.into_iter(), "calico");
        let to = |from: &str, to: &str| -> Vec<u16> {
            ways.iter().filter(|way| way.from == from && way.to == to).map(|way| way.port).collect()
        };
        assert_eq!(to("cpu", "cp"), [10250, 6443, 4789]);
        assert_eq!(to("cp", "gpu"), [10250, 4789]);
        assert_eq!(to("cp", "cp"), [] as [u16; 0]);
    }

    #[test]
    fn closed_ways_are_told_by_pair_with_the_rule_that_opens_them() {
        let (a, b) = (host("a", Role::ControlPlane), host("b", Role::CpuWorker));
        let hosts = [(&a, Ipv4Addr::new(10, 0, 0, 2)), (&b, Ipv4Addr::new(10, 0, 0, 3))];
        let way = |port, protocol| Way { from: "a".to_owned(), to: "b".to_owned(), port, protocol };
        let closed = [
            (way(10250, Protocol::Tcp), Verdict::NoAnswer),
            (way(4789, Protocol::Udp), Verdict::NoAnswer),
            (way(6443, Protocol::Tcp), Verdict::NoRoute),
        ];
        let problems = told(&hosts, &closed);
        let messages: Vec<_> = problems.iter().map(|problem| &*problem.message).collect();
        assert_eq!(
            messages,
            [
                "a (10.0.0.2) gets no answer at b (10.0.0.3): tcp/10250, udp/4789",
                "a (10.0.0.2) finds no route at b (10.0.0.3): tcp/6443",
            ]
        );
        let hint = problems[0].hint.as_ref().unwrap();
        assert!(hint.contains("ip saddr 10.0.0.2 udp dport 4789 accept"), "{hint}");
    }

    /// Both sides of the program on this machine.
    #[test]
    fn the_program_tells_open_ports_from_closed_ones() {
        let free = || crate::tools::ports::any_free().unwrap();
        let (open, closed) = (free(), free());
        let start = |verb: &str, plan: serde_json::Value| {
            std::process::Command::new("python3")
                .args(["-c", SCRIPT, verb, &plan.to_string()])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let connect = json!({ "seconds": 3, "ways": [
            ["127.0.0.1", open, "tcp"], ["127.0.0.1", closed, "tcp"], ["127.0.0.1", open, "udp"], ["127.0.0.1", closed, "udp"]
        ] });
        let connect = start("connect", connect);
        let listen = start("listen", json!({ "seconds": 5, "peers": 1, "tcp": [open], "udp": [open] }));
        let answer = |child: std::process::Child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let mut came: Vec<(Ipv4Addr, u16, Protocol, Verdict)> = serde_json::from_str(&answer(connect)).unwrap();
        came.sort_by_key(|(_, port, protocol, _)| (*port != open, *protocol));
        let verdicts: Vec<_> = came.iter().map(|(.., verdict)| *verdict).collect();
        assert_eq!(verdicts, [Verdict::Works, Verdict::Works, Verdict::Refused, Verdict::Refused]);
        assert_eq!(serde_json::from_str::<Taken>(&answer(listen)).unwrap().taken, []);
    }
}
