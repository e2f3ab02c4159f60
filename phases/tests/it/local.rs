//! The embedded platform with real servers: brought up, broken, repaired, taken away.

use std::path::Path;
use std::process::Command;

use crate::embedded::{CleanUp, json, kill, no_secret_is_told, pid_of, stand};

fn psql(state: &Path, port: u64, database: &str, statement: &str) -> String {
    let output = Command::new("psql")
        .args(["-h", &state.join("run/postgres").display().to_string(), "-p", &port.to_string(), "-U", "postgres"])
        .args(["-d", database, "-Atc", statement])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "brings up MinIO, PostgreSQL and MLflow for real, which downloads and builds them the first time: make e2e"]
fn the_embedded_platform_survives_what_can_happen_to_it() {
    let (stand, state) = stand("taskrun-e2e", "");
    let _clean = CleanUp(&stand);
    stand.ok(&["run", "--until", "CLOUD-3.3"]);
    let again = stand.ok(&["resume"]);
    assert!(again.err.contains("nothing to do"), "{}", again.err);

    no_secret_is_told(&state);

    // The proofs have cleaned up after themselves.
    let port = json(&stand, &["output", "CLOUD-3.2", "port", "--json"]).as_u64().unwrap();
    let proofs = "SELECT (SELECT count(*) FROM experiments WHERE name LIKE 'taskrun-proof-%') \
                  + (SELECT count(*) FROM registered_models) + (SELECT count(*) FROM runs)";
    assert_eq!(psql(&state, port, "mlflow", proofs), "0");
    assert_eq!(std::fs::read_dir(state.join("services/minio/data/mlflow-artifacts")).unwrap().count(), 0);

    // A killed service is started again by the supervisor.
    let before = pid_of(&stand, "postgres");
    kill(before);
    stand.ok(&["resume"]);
    assert_ne!(pid_of(&stand, "postgres"), before);

    // A killed supervisor leaves its services alone in the world; all of it is noticed and repaired.
    let old = pid_of(&stand, "minio");
    kill(pid_of(&stand, "supervisor"));
    let why = stand.ok(&["why", "CLOUD-2.1"]);
    assert!(why.out.contains("the supervisor does not answer"), "{}", why.out);
    stand.ok(&["resume"]);
    assert_ne!(pid_of(&stand, "minio"), old);

    // Data that is gone is made anew only if the user agrees.
    assert!(stand.ok(&["cloud", "stop", "mlflow"]).out.contains("mlflow"));
    psql(&state, port, "postgres", "DROP DATABASE mlflow WITH (FORCE)");
    let refused = stand.run(&["resume"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(
        refused.err.contains("there is no database mlflow") && refused.err.contains("--accept-data-loss"),
        "{}",
        refused.err
    );
    stand.ok(&["resume", "--accept-data-loss"]);

    // A changed setting is explained and brought to the server.
    let config = std::fs::read_to_string(stand.path().join("config.yaml")).unwrap();
    let changed = format!("{config}database: {{settings: {{max_connections: '50', shared_buffers: 256MB}}}}\n");
    std::fs::write(stand.path().join("config.yaml"), changed).unwrap();
    let plan = stand.ok(&["plan", "--until", "CLOUD-3.3"]);
    assert!(plan.out.contains("max_connections: 100 -> 50"), "{}", plan.out);
    stand.ok(&["run", "--until", "CLOUD-3.3"]);
    assert_eq!(psql(&state, port, "mlflow", "SHOW max_connections"), "50");

    // Nothing is left, also not in the folders that all programs share.
    let user = Command::new("id").args(["-u", "taskrun-e2e"]).output().unwrap().stdout;
    stand.ok(&["destroy", "--yes"]);
    if let Ok(user) = String::from_utf8(user).unwrap().trim().parse::<u32>() {
        let shared = ["/dev/shm", "/tmp", "/var/tmp", "-mindepth", "1", "-user", &user.to_string(), "-newer"];
        let left = Command::new("find").args(shared).arg(stand.path().join("graph.yaml")).output().unwrap().stdout;
        assert_eq!(String::from_utf8_lossy(&left), "");
    }
    assert!(!state.join("services").exists() && !state.join("runtime").exists());
    let marked = Command::new("sh")
        .args(["-c", &format!("grep -l 'TASKRUN_SERVICE={}' /proc/[0-9]*/environ 2>/dev/null", state.display())])
        .output()
        .unwrap();
    assert!(marked.stdout.is_empty(), "processes are left: {}", String::from_utf8_lossy(&marked.stdout));
    assert!(!Command::new("id").arg("taskrun-e2e").output().unwrap().status.success(), "the user is left");
    stand.ok(&["destroy", "--yes", "--purge"]);
    assert!(!state.exists());
}
