//! The HPC side and the cloud side together: on one machine, and across a network with TLS and a password.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::embedded::{CleanUp, json, stand};
use crate::monitoring::Watched;
use crate::other_host::{Certificate, OtherHost};
use crate::program::wait_for;

/// Samples every two seconds, and alerts soon.
const QUICK: &str = "monitoring: {interval: 2, alerts: {hold: 2}}\n";

/// The password of the HPC side, and how its Prometheus knows it.
const PASSWORD: &str = "hpc-password-1";
const BCRYPT: &str = "$2b$10$abcdefghijklmnopqrstuujJwhtFWdUgggMiLSWcxjfmxFid.1WkG";

/// Starts a node exporter and a Prometheus that wants TLS and the password, and calls itself something else.
fn serve(host: &mut OtherHost, folder: &Path, prometheus: &Path, node_exporter: &Path) {
    let Certificate { key, certificate, .. } = host.certificate(folder);
    let web = format!(
        "tls_server_config: {{cert_file: {}, key_file: {}}}\nbasic_auth_users: {{federation: '{BCRYPT}'}}\n",
        certificate.display(),
        key.display()
    );
    let config = "global: {scrape_interval: 1s, external_labels: {cluster: elsewhere}}\n\
                  scrape_configs: [{job_name: node, static_configs: [{targets: ['127.0.0.1:9100']}]}]\n";
    std::fs::write(folder.join("web.yml"), web).unwrap();
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    host.start(node_exporter, &["--web.listen-address=127.0.0.1:9100".to_owned()], &[]);
    let path = |name: &str| folder.join(name).display().to_string();
    host.start(
        prometheus,
        &[
            format!("--config.file={}", path("prometheus.yml")),
            format!("--web.config.file={}", path("web.yml")),
            format!("--storage.tsdb.path={}", path("data")),
            format!("--web.listen-address={}:9090", host.address),
        ],
        &[],
    );
    wait_for(|| host.listens(9090));
}

#[test]
#[ignore = "brings up both sides' monitoring and what it needs for real, and stops parts of it: make e2e"]
fn each_side_has_its_own_alert() {
    let (stand, state) = stand("taskrun-e2e-fed", QUICK);
    let _clean = CleanUp(&stand);
    stand.ok(&["run", "CLOUD-6.2"]);
    let watched = Watched::new(&stand);
    let alone = |watched: &Watched, alert: &str, other: &str| {
        watched.wait(alert, |watched| !watched.firing(alert).is_empty());
        assert!(watched.firing(other).is_empty(), "{other} fires too");
    };
    for (service, alert, other) in [
        ("hpc-node-exporter", "HpcSideDown", "CloudSideDown"),
        ("hpc-prometheus", "HpcSideDown", "CloudSideDown"),
        ("node-exporter", "CloudSideDown", "HpcSideDown"),
    ] {
        stand.ok(&["cloud", "stop", service]);
        alone(&watched, alert, other);
        stand.ok(&["cloud", "start", service]);
        watched.wait("it resolves", |watched| watched.firing(alert).is_empty());
    }

    // The cloud side's own Prometheus scrapes no service of the other side itself.
    let jobs = watched.query("count by (job, cluster) (up{cluster=\"cloud\", service=~\"hpc-.*\"})");
    assert!(jobs.is_empty(), "{jobs:?}");

    // Without the other side, this one is as it was.
    stand.ok(&["destroy", "CLOUD-6.2", "--yes"]);
    for gone in [
        "services/hpc-prometheus",
        "services/prometheus/rules/federation.yml",
        "supervisor/services/hpc-prometheus.json",
    ] {
        assert!(!state.join(gone).exists(), "{gone} is left");
    }
    let config = std::fs::read_to_string(state.join("services/prometheus/prometheus.yml")).unwrap();
    assert!(!config.contains("federation"), "{config}");
    assert!(!watched.query("up{job=\"prometheus\"} == 1").is_empty());
    stand.ok(&["run", "CLOUD-6.2"]);
}

#[test]
#[ignore = "makes a network of its own (root), and brings up monitoring and what it needs for real: make e2e"]
fn the_hpc_side_is_reached_over_a_network_with_tls_and_a_password() {
    let (stand, state) = stand("taskrun-e2e-net", QUICK);
    let _clean = CleanUp(&stand);
    stand.ok(&["run", "CLOUD-4.1"]);
    let programs = json(&stand, &["output", "CLOUD-4.1", "--json"])["programs"].clone();
    let program = |name: &str| PathBuf::from(programs[name].as_str().unwrap());

    let mut other = OtherHost::new();
    let folder = stand.path().join("hpc");
    std::fs::create_dir(&folder).unwrap();
    serve(&mut other, &folder, &program("prometheus"), &program("node_exporter"));

    // A wrong password: the task says what is not reached.
    let (config, secret) = (stand.path().join("config.yaml"), stand.path().join("password"));
    std::fs::write(&secret, "not-the-password").unwrap();
    let more = format!(
        "hpc: {{prometheus: {{url: 'https://{}:9090', ca: {}, login: {{user: federation, password: hpc}}}}}}\n\
         secrets: {{hpc: {{file: {}}}}}\n",
        other.address,
        folder.join("ca.pem").display(),
        secret.display()
    );
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + &more).unwrap();
    let graph = std::fs::read_to_string(stand.path().join("graph.yaml")).unwrap();
    std::fs::write(stand.path().join("graph.yaml"), graph.replacen("retries: 2", "retries: 0", 99)).unwrap();
    let refused = stand.run(&["run", "CLOUD-6.2"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(
        refused.err.contains("both sides to answer one query") && refused.err.contains(&other.address),
        "{}",
        refused.err
    );
    let watched = Watched::new(&stand);
    assert_eq!(watched.query("up{job=\"federation\"} == 0").len(), 1);

    // The right one: its series come, and belong to the HPC side whatever it calls itself.
    std::fs::write(&secret, PASSWORD).unwrap();
    stand.ok(&["run", "CLOUD-6.2"]);
    let load = watched.query("node_load1{cluster=\"hpc\"}");
    assert_eq!(load.iter().map(|sample| sample.label("job")).collect::<Vec<_>>(), ["node"]);
    assert!(watched.query("{cluster=\"elsewhere\"}").is_empty());
    assert_eq!(watched.query("count by (cluster) (node_load1)").len(), 2);
    assert!(!state.join("services/hpc-prometheus").exists(), "none stands for it");
    let leaked = Command::new("grep").args(["-rlF", PASSWORD]).arg(&state).output().unwrap().stdout;
    assert_eq!(String::from_utf8(leaked).unwrap().trim(), state.join("secrets.json").display().to_string());

    // The link drops: its series are stale at once, its alert fires and not the other's. It comes back by itself.
    other.link("down");
    watched.wait("the series are stale", |watched| watched.query("node_load1{cluster=\"hpc\"}").is_empty());
    watched.wait("HpcSideDown", |watched| !watched.firing("HpcSideDown").is_empty());
    assert!(watched.firing("CloudSideDown").is_empty());
    assert_eq!(watched.query("node_load1{cluster=\"cloud\"}").len(), 1);
    other.link("up");
    watched.wait("HpcSideDown resolves", |watched| watched.firing("HpcSideDown").is_empty());
    watched.wait("the series are back", |watched| watched.query("node_load1{cluster=\"hpc\"}").len() == 1);
}
