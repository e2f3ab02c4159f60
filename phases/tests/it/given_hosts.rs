//! Clusters of given hosts, on machines that boot.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

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
    let list = "dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Abbrev}\n'; ls -A /var/lib/taskrun-node 2>&1; find /etc/systemd -type l | sort";
    (0..nodes.nodes.len()).map(|index| nodes.on(index, list)).collect()
}

#[test]
#[ignore = "boots nodes with systemd-nspawn, and installs packages on them: make e2e"]
fn hosts_are_prepared_and_left_as_they_were() {
    let nodes = GivenNodes::boot(3, true);
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
    let begin = Instant::now();
    while !nodes.ssh(&nodes.nodes[1], "test -e /var/lib/taskrun-node/installing").status.success() {
        assert!(run.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(180), "apt never began");
        std::thread::sleep(Duration::from_millis(100));
    }
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
    let drifted = nodes.ok(&stand, &["plan"]);
    assert!(drifted.out.contains("mark of ai-cpu-worker-01"), "{}{}", drifted.out, drifted.err);
    nodes.ok(&stand, &["run"]);
    nodes.on(1, "python3 -c 'import apt'");

    // A host that another takes the place of is left as it was. Then it comes back.
    let config = stand.path().join("config.yaml");
    let both = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, both.replace(&nodes.nodes[1].address, &nodes.nodes[2].address)).unwrap();
    nodes.ok(&stand, &["run"]);
    let now = packages(&nodes);
    assert!(now[0] != before[0] && now[1] == before[1] && now[2] != before[2], "{}", now[1]);
    std::fs::write(&config, both).unwrap();
    nodes.ok(&stand, &["run"]);
    assert_eq!(packages(&nodes)[2], before[2]);

    // What something else needs by now stays, and is told.
    nodes.on(
        1,
        "mkdir -p /tmp/needs/DEBIAN; printf 'Package: needs-curl\\nVersion: 1\\nArchitecture: all\\nMaintainer: \
         Nobody <nobody@example.org>\\nDescription: needs it\\nDepends: curl\\n' >/tmp/needs/DEBIAN/control; \
         dpkg-deb --build /tmp/needs /tmp/needs.deb >/dev/null; dpkg --install /tmp/needs.deb >/dev/null",
    );
    nodes.ok(&stand, &["destroy", "--yes"]);
    let after = packages(&nodes);
    assert_eq!(after[0], before[0]);
    let has = |name: &str| after[1].lines().any(|line| line.starts_with(&format!("{name} ")) && line.ends_with("ii "));
    assert!(
        has("curl") && has("needs-curl") && !has("python3-apt") && !has("prometheus-node-exporter"),
        "{}",
        after[1]
    );
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
    wait_for(|| !nodes.on(0, "ss -Hltn sport = :6443").is_empty());
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

#[test]
#[ignore = "boots a node with systemd-nspawn: make e2e"]
fn a_real_server_is_understood() {
    use taskrun_engine::process::{Cancel, Discard};
    use taskrun_phases::tools::ssh::{Script, SshErrorKind as Kind, SshTarget};

    let mut nodes = GivenNodes::boot(1, false);
    let folder = tempfile::tempdir().unwrap();
    let target = SshTarget {
        address: nodes.nodes[0].address.clone(),
        port: 22,
        user: USER.to_owned(),
        key: Some(nodes.key()),
        known_hosts: folder.path().join("a folder's known_hosts"),
    };
    let run = |nodes: &GivenNodes, target: &SshTarget, script: Script| {
        nodes.inside(|| target.run_blocking(&Cancel::new(), &mut Discard, &script))
    };
    let kind =
        |nodes: &GivenNodes, target: &SshTarget, script: Script| run(nodes, target, script).unwrap_err().kind().clone();
    let script = |text: &str| Script::new(text).timeout(Duration::from_secs(20));

    let said = run(&nodes, &target, script("id -un; cat; printf '%s' \"$1\"").arg("it's $HOME").sudo(true)).unwrap();
    assert_eq!(said, "root\nit's $HOME");
    assert_eq!(run(&nodes, &target, script("id -un")).unwrap(), "admin\n");
    let failed = run(&nodes, &target, script("echo no such thing >&2; exit 3")).unwrap_err();
    assert_eq!(
        failed.to_string(),
        format!("run a script as admin@{}: it ended with exit code 3: no such thing", target.address)
    );
    assert!(!failed.is_transient());
    assert_eq!(kind(&nodes, &target, Script::new("sleep 30").timeout(Duration::from_secs(2))), Kind::TooLong);

    let with = |change: &dyn Fn(&mut SshTarget)| {
        let mut other = target.clone();
        change(&mut other);
        other
    };
    assert_eq!(kind(&nodes, &with(&|target| target.key = Some(nodes.wrong_key())), script("true")), Kind::Denied);
    assert_eq!(kind(&nodes, &with(&|target| target.user = "nobody".to_owned()), script("true")), Kind::Denied);
    assert_eq!(kind(&nodes, &with(&|target| target.port = 23), script("true")), Kind::Refused);
    assert_eq!(kind(&nodes, &with(&|target| target.address = "10.99.0.1".to_owned()), script("true")), Kind::NoRoute);
    let absent = with(&|target| target.key = Some("/nonexistent/key".into()));
    assert!(
        matches!(kind(&nodes, &absent, script("true")), Kind::UnusableKey(said) if said.contains("/nonexistent/key"))
    );
    let unknown = with(&|target| target.address = "no-such-host.invalid".to_owned());
    assert!(matches!(kind(&nodes, &unknown, script("true")), Kind::UnknownName { .. }));

    nodes.on(0, "echo 'admin ALL=(ALL) ALL' >/etc/sudoers.d/admin");
    assert!(matches!(kind(&nodes, &target, script("true").sudo(true)), Kind::Sudo(_)));
    nodes.on(0, "systemd-run --quiet sh -c 'sleep 2; exec kill -KILL $(pgrep -f \"sshd: [a]dmin\")'; true");
    assert_eq!(kind(&nodes, &target, script("sleep 15")), Kind::Lost);

    nodes.nodes[0].cut_power();
    nodes.nodes[0].host_keys().iter().for_each(|file| std::fs::remove_file(file).unwrap());
    nodes.nodes[0].make_host_keys();
    nodes.nodes[0].start();
    wait_for(|| nodes.ssh(&nodes.nodes[0], "true").status.success());
    assert_eq!(kind(&nodes, &target, script("true")), Kind::HostKeyChanged);
    target.forget().unwrap();
    run(&nodes, &target, script("true")).unwrap();
}
