//! Broken configurations: each gets a clear error, exit code 2, and nothing is started.

use std::time::{Duration, Instant};

use crate::program::Stand;

const BROKEN: [(&str, &str); 26] = [
    ("empty", ""),
    ("blank", "\n\n  \n"),
    ("only-a-comment", "# nothing\n"),
    ("a-list", "- version: 1\n"),
    ("a-text", "hello\n"),
    ("no-version", "name: local\n"),
    ("no-name", "version: 1\n"),
    ("newer-version", "version: 2\nname: local\n"),
    ("wrong-type", "version: 1\nname: local\nports: {tracking: many}\n"),
    ("port-too-large", "version: 1\nname: local\nports: {tracking: 70000}\n"),
    ("unknown-field", "version: 1\nname: local\nport: 5000\n"),
    ("unknown-platform", "version: 1\nname: local\nplatform: mars\n"),
    ("duplicate-key", "version: 1\nname: local\nname: other\n"),
    ("bad-name", "version: 1\nname: ../etc\n"),
    ("two-on-one-port", "version: 1\nname: local\nports: {tracking: 9000}\n"),
    ("literal-secret", "version: 1\nname: local\nsecrets: {mine: hunter2secret}\n"),
    ("exposed-everywhere", "version: 1\nname: local\nexpose: {address: 0.0.0.0}\n"),
    ("exposed-nowhere", "version: 1\nname: local\nexpose: {adress: 192.0.2.1}\n"),
    ("name-of-metadata", "version: \"1.0\"\nmetadata: {name: My workstation}\n"),
    ("no-nodes", "version: 1\nname: own\nplatform: kubernetes\n"),
    ("no-cluster", "version: 1\nname: own\nclusters: {}\n"),
    ("cluster-on-the-local-platform", "version: 1\nname: own\nplatform: local\nclusters: {cloud: CLOUD}\n"),
    ("cluster-with-an-unknown-field", "version: 1\nname: own\nclusters: {cloud: CLOUD, hcp: {}}\n"),
    (
        "cluster-with-overlapping-subnets",
        "version: 1\nname: own\nclusters:\n  hpc: {network: {subnet: 192.168.0.0/16}}\n  cloud: CLOUD\n",
    ),
    ("broken-yaml", "version: 1\nname: [local\n"),
    (
        "alias-bomb",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nversion: *g\n",
    ),
];

/// What stands for `CLOUD` above: a cluster with nothing wrong.
const CLOUD: &str = "{name: cloud, network: {subnet: 192.168.200.0/24, bridge: virbr200},
    control_plane: {cpu_cores: 2, memory_gb: 4, disk_gb: 20, ip: 192.168.200.10},
    worker_nodes: [{cpu_cores: 2, memory_gb: 4, disk_gb: 20, ip: DHCP}],
    kubernetes_config: {cni: calico, ingress: nginx, storage_class: local-path}}";

#[test]
fn broken_configurations_are_told_and_start_nothing() {
    let mut told = String::new();
    for (name, text) in BROKEN {
        let stand = Stand::new("{version: 1, tasks: {a: {run: 'touch started'}}}");
        std::fs::write(stand.path().join("c.yaml"), text.replace("CLOUD", CLOUD)).unwrap();
        let start = Instant::now();
        let said = stand.run(&["--config", "c.yaml", "run"]);
        assert!(start.elapsed() < Duration::from_secs(5), "{name} took {:?}", start.elapsed());
        assert_eq!(said.code, Some(2), "{name}: {}", said.err);
        assert!(!stand.path().join("started").exists() && !stand.path().join(".taskrun").exists(), "{name}");
        assert!(!said.err.contains("hunter2secret"), "a literal secret is not repeated: {}", said.err);
        told.push_str(&format!("=== {name}\n{}\n", said.err.trim_end()));
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../../snapshots/cli");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("bad-config", told));
}

#[test]
fn warnings_are_told_once_beside_the_result() {
    let stand = Stand::new("{version: 1, tasks: {a: {run: 'true'}}}");
    let cloud = CLOUD.replace("[{cpu_cores: 2", "{cpu: [{cpu_cores: 2").replace("DHCP}]", "DHCP}]}");
    std::fs::write(stand.path().join("c.yaml"), format!("version: 1\nname: own\nclusters:\n  cloud: {cloud}\n"))
        .unwrap();
    for verb in [
        &["check"][..],
        &["list", "--json"],
        &["plan", "--json"],
        &["run"],
        &["run", "--detach"],
        &["status", "--json"],
    ] {
        let said = stand.ok(&[&["--config", "c.yaml"], verb].concat());
        let warnings: Vec<&str> = said.err.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), 1, "{verb:?}: {}", said.err);
        assert!(warnings[0].starts_with("warning: c.yaml:6:19: "), "{}", warnings[0]);
        assert!(!said.out.contains("warning"), "{verb:?}: {}", said.out);
    }
}

#[test]
fn a_folder_and_junk_are_no_configuration() {
    let stand = Stand::new("{version: 1, tasks: {a: {run: 'true'}}}");
    assert_eq!(stand.run(&["--config", ".", "run"]).code, Some(2));
    std::fs::write(stand.path().join("junk"), [0xff, 0xfe, 0x00, 0x80]).unwrap();
    assert_eq!(stand.run(&["--config", "junk", "run"]).code, Some(2));
    std::fs::write(stand.path().join("huge"), vec![b'a'; 10 << 20]).unwrap();
    assert_eq!(stand.run(&["--config", "huge", "run"]).code, Some(2));
}
