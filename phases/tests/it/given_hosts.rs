//! Clusters of given hosts, on machines that boot.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::given_nodes::{GivenNodes, USER};
use crate::program::{Stand, wait_for};

/// The tasks that are of a platform.
const GRAPH: &str = "version: 1
tasks:
  CLOUD-0.1: {title: Hosts}
  CLOUD-1.1: {title: Base, needs: [CLOUD-0.1], timeout: 30m}
  CLOUD-1.2: {title: GPU, needs: [CLOUD-1.1]}
";

/// A stand with a cluster of a control plane and a worker.
fn stand(nodes: &GivenNodes, key: &Path, extra: &str) -> Stand {
    let folder = tempfile::Builder::new().prefix("taskrun-given-").tempdir_in("/var/tmp").unwrap();
    std::fs::write(folder.path().join("graph.yaml"), GRAPH).unwrap();
    configure(folder.path(), nodes, key, extra);
    let state = folder.path().join(".taskrun").display().to_string();
    let args = ["--config", "config.yaml", "--state-dir", &state].map(str::to_owned);
    Stand::with_args(folder, &args)
}

fn configure(folder: &Path, nodes: &GivenNodes, key: &Path, extra: &str) {
    let host = |index: usize, extra: &str| {
        let address = nodes.nodes.get(index).map_or("10.77.0.99", |node| &node.address);
        format!("{{host: {{address: {address}, user: {USER}, key: {}{extra}}}}}", key.display())
    };
    let config = format!(
        "version: '1.0'\nmetadata: {{name: given, description: hosts}}\nclusters:\n  cloud:\n    name: ai\n    \
         control_plane: {}\n    worker_nodes: [{}]\n    \
         kubernetes_config: {{cni: calico, ingress: nginx, storage_class: local-path}}\n",
        host(0, ""),
        host(1, extra)
    );
    std::fs::write(folder.join("config.yaml"), config).unwrap();
}

/// What is installed, to be compared.
fn packages(nodes: &GivenNodes) -> Vec<String> {
    let list = "dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Abbrev}\n'; ls -A /var/lib/taskrun-node 2>&1";
    (0..nodes.nodes.len()).map(|index| nodes.on(index, list)).collect()
}

#[test]
#[ignore = "boots nodes with systemd-nspawn, and installs packages on them: make e2e"]
fn hosts_are_prepared_and_left_as_they_were() {
    let nodes = GivenNodes::boot(2, true);
    let stand = stand(&nodes, &nodes.key(), "");
    // What was there before stays: this is one of the packages that are wanted.
    nodes.on(0, "apt-get -q update >/dev/null && apt-get -qy install --no-install-recommends curl >/dev/null");
    let before = packages(&nodes);

    // A look changes nothing, here or there.
    let planned = nodes.ok(&stand, &["plan"]);
    assert!(planned.out.contains("CLOUD-1.1"), "{}", planned.out);
    assert_eq!(packages(&nodes), before);
    assert!(!stand.path().join(".taskrun/given/ssh").exists());

    // Killed in the middle of apt, a resume finishes it.
    let mut run = nodes.program(&stand, &["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| {
        assert!(run.try_wait().unwrap().is_none(), "it ended by itself");
        nodes.ssh(&nodes.nodes[1], "test -e /var/lib/taskrun-node/installing").status.success()
    });
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGKILL).unwrap();
    run.wait().unwrap();
    nodes.ok(&stand, &["resume"]);
    for index in [0, 1] {
        nodes.on(index, "curl --version >/dev/null && python3 -c 'import apt'");
        let off = nodes.on(
            index,
            "systemctl is-active prometheus-node-exporter; systemctl is-enabled prometheus-node-exporter; true",
        );
        assert_eq!(off, "inactive\ndisabled");
        assert_eq!(nodes.on(index, "ls /var/lib/taskrun-node"), "exporter-is-ours\ninstalled\nowner");
    }
    let skipped = nodes.ok(&stand, &["status"]);
    assert!(skipped.out.contains("no worker has a GPU"), "{}", skipped.out);

    // Again, it changes nothing; what is changed by hand is told and mended.
    let again = nodes.ok(&stand, &["run"]);
    assert!(again.out.contains("nothing to do") || again.err.contains("nothing to do"), "{}{}", again.out, again.err);
    nodes.on(1, "rm /var/lib/taskrun-node/owner; dpkg --purge --force-depends python3-apt 2>/dev/null >/dev/null");
    let drifted = nodes.run(&stand, &["status", "--probe"]);
    let drifted = if drifted.code == Some(2) { nodes.ok(&stand, &["plan"]) } else { drifted };
    assert!(drifted.out.contains("mark of ai-cpu-worker-01"), "{}{}", drifted.out, drifted.err);
    nodes.ok(&stand, &["run"]);
    nodes.on(1, "python3 -c 'import apt'");

    nodes.ok(&stand, &["destroy", "--yes"]);
    assert_eq!(packages(&nodes), before);
    nodes.ok(&stand, &["destroy", "--yes"]);
}

#[test]
#[ignore = "boots nodes with systemd-nspawn: make e2e"]
fn hosts_that_are_not_fit_are_told_all_at_once() {
    let mut nodes = GivenNodes::boot(2, false);
    let folder = tempfile::tempdir().unwrap();
    drop(folder);
    let stand = stand(&nodes, &nodes.key(), "");
    let only = ["run", "--until", "CLOUD-0.1"];
    let told = |nodes: &GivenNodes, parts: &[&str]| {
        let said = nodes.run(&stand, &only);
        assert_ne!(said.code, Some(0), "{}", said.out);
        let all = format!("{}{}", said.out, said.err);
        let missing: Vec<_> = parts.iter().filter(|part| !all.contains(**part)).collect();
        assert!(missing.is_empty(), "{missing:?} not in: {all}");
    };

    // A GPU worker without one; a port that is taken; sudo that wants a password; two of one name.
    configure(stand.path(), &nodes, &nodes.key(), ", gpu: true");
    nodes.on(0, "systemd-run --quiet --unit=thief python3 -m http.server 6443; rm /etc/sudoers.d/admin; hostname two");
    wait_for(|| nodes.on(0, "ss -Hltn sport = :6443") != "");
    told(
        &nodes,
        &[
            "ai-control-plane (10.77.0.11): admin may not use sudo without a password",
            "ai-control-plane (10.77.0.11): ports that Kubernetes needs are taken: 6443",
            "ai-gpu-worker-01 (10.77.0.12): it has no NVIDIA GPU",
            "have one host name: two",
            "NOPASSWD",
        ],
    );
    nodes.on(0, "systemctl stop thief; echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin; hostname one");
    configure(stand.path(), &nodes, &nodes.key(), "");

    // A firewall of one node that drops, and one that rejects.
    let firewall = |verdict: &str| {
        format!(
            "nft add table inet filter; nft 'add chain inet filter input {{ type filter hook input priority 0; }}'; \
             nft add rule inet filter input ip saddr 10.77.0.11 tcp dport 10250 {verdict}"
        )
    };
    nodes.on(1, &firewall("drop"));
    told(
        &nodes,
        &[
            "ai-control-plane (10.77.0.11) gets no answer at ai-cpu-worker-01 (10.77.0.12): tcp/10250",
            "nft insert rule",
        ],
    );
    nodes.on(1, "nft flush ruleset");
    nodes.on(1, &firewall("reject with tcp reset"));
    told(&nodes, &["ai-control-plane (10.77.0.11) is refused at ai-cpu-worker-01 (10.77.0.12): tcp/10250"]);
    nodes.on(1, "nft flush ruleset");

    // A key that is not known there.
    configure(stand.path(), &nodes, &nodes.wrong_key(), "");
    told(&nodes, &["admin refuses the key", "ssh-copy-id -i", "admin@10.77.0.11", "admin@10.77.0.12"]);
    configure(stand.path(), &nodes, &nodes.key(), "");

    // Fit at last; another environment is then told who has them.
    nodes.ok(&stand, &only);
    let other = self::stand(&nodes, &nodes.key(), "");
    let refused = nodes.run(&other, &only);
    assert!(refused.err.contains("it belongs to another cluster already: ai on "), "{}{}", refused.out, refused.err);

    // A server that accepts and says nothing; then a machine that is off.
    let mute = "systemd-run --quiet --unit=mute -- sh -c 'systemctl stop ssh; exec python3 -c \
                \"import socket,time; s=socket.create_server((str(),22)); time.sleep(600)\"'";
    nodes.on(1, mute);
    wait_for(|| {
        nodes
            .beside("bash")
            .args(["-c", "exec 3<>/dev/tcp/10.77.0.12/22 && ! read -t 1 <&3"])
            .status()
            .unwrap()
            .success()
    });
    let silent = nodes.run(&stand, &["plan"]);
    let all = format!("{}{}", silent.out, silent.err);
    assert!(all.contains("ai-cpu-worker-01") && all.contains("there is no answer"), "{all}");
    nodes.nodes[1].cut_power();
    let off = nodes.run(&stand, &["plan"]);
    let all = format!("{}{}", off.out, off.err);
    assert!(all.contains("ai-cpu-worker-01: log in as"), "{all}");

    // Made anew, it has another host key.
    let keys = nodes.nodes[1].host_keys();
    for file in keys {
        std::fs::remove_file(file).unwrap();
    }
    nodes.nodes[1].make_host_keys();
    nodes.nodes[1].start();
    wait_for(|| nodes.ssh(&nodes.nodes[1], "true").status.success());
    let changed = nodes.run(&stand, &["plan"]);
    let all = format!("{}{}", changed.out, changed.err);
    assert!(all.contains("its host key is another than the one that is known"), "{all}");

    let forget = stand.path().join(".taskrun/given/ssh/known_hosts");
    let forgotten = nodes.beside("ssh-keygen").arg("-f").arg(&forget).args(["-R", "10.77.0.12"]).output().unwrap();
    assert!(forgotten.status.success());
    nodes.ok(&stand, &["destroy", "--yes"]);
    for index in [0, 1] {
        assert_eq!(nodes.on(index, "ls -d /var/lib/taskrun-node 2>/dev/null || echo gone"), "gone");
    }
}
