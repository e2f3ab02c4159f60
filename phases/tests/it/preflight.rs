//! What is missing on a machine is told before anything starts: all of it at once, by task, with a remedy.

use std::net::TcpListener;
use std::path::Path;

use crate::program::Stand;

/// A stand with the product's own graph and this configuration.
fn stand(config: &str) -> Stand {
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graph.yaml");
    let stand = Stand::new(&std::fs::read_to_string(graph).unwrap());
    std::fs::write(stand.path().join("c.yaml"), format!("version: 1\nname: local\n{config}")).unwrap();
    stand
}

#[test]
fn everything_that_is_missing_is_told_at_once_and_nothing_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let stand = stand(&format!(
        "ports: {{tracking: {port}}}\n\
         tools: {{python: /nowhere/python3, minio: /nowhere/minio, postgres: /nowhere/postgres, \
         prometheus: /nowhere/prometheus, grafana: /nowhere/grafana}}\n\
         training: {{model: ./no-such-folder, dataset: broken.jsonl}}\n\
         transfer: {{source: no-such-mount, models: [tiny]}}\n\
         hpc: {{prometheus: {{url: 'https://hpc.invalid:9090', ca: /nowhere/ca.pem}}}}\n\
         expose: {{address: 192.0.2.7}}\n"
    ));
    let good = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    std::fs::write(stand.path().join("broken.jsonl"), format!("{good}\n{{\"messages\": []\n")).unwrap();
    let told = [
        ("CLOUD-0.1", format!("port {port} of tracking is taken")),
        ("CLOUD-1.1", "tools.python: there is no /nowhere/python3".to_owned()),
        ("CLOUD-1.1", "tools.minio: there is no /nowhere/minio".to_owned()),
        ("CLOUD-1.1", "tools.postgres: there is no /nowhere/postgres/postgres".to_owned()),
        ("CLOUD-3.4", "cannot listen at 192.0.2.7".to_owned()),
        ("CLOUD-4.1", "/nowhere/prometheus".to_owned()),
        ("CLOUD-4.2", "/nowhere/grafana".to_owned()),
        ("CLOUD-5.1", "training.model: there is no folder ./no-such-folder".to_owned()),
        ("CLOUD-5.1", "broken.jsonl:2: ".to_owned()),
        ("CLOUD-6.1", "no-such-mount".to_owned()),
        ("CLOUD-6.2", "hpc.prometheus.ca: there is no /nowhere/ca.pem".to_owned()),
    ];
    for verb in [&["check"][..], &["run"]] {
        let said = stand.run(&[&["--config", "c.yaml"], verb].concat());
        assert_eq!(said.code, Some(2), "{}", said.err);
        for (task, message) in &told {
            let found = said.err.lines().any(|line| line.contains(task) && line.contains(message));
            assert!(found, "{verb:?} does not tell {task}: {message}\n{}", said.err);
        }
        assert!(said.err.matches("hint").count() >= told.len() - 1, "each has a remedy:\n{}", said.err);
    }
    assert!(!stand.state().join("services").exists(), "nothing was started");
}
