//! CLOUD-6.1 and `taskrun model sync` on the embedded platform with real servers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::embedded::{CleanUp, json, stand};
use crate::program::Stand;
use crate::transfer::unfinished;

const KILLS: u64 = 10;
const MIB: usize = 1 << 20;

/// A file that cannot be compressed.
fn write_file(path: &Path, size: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    std::io::copy(&mut std::io::Read::take(&mut random, size as u64), &mut file).unwrap();
}

fn versions(stand: &Stand, model: &str) -> Vec<Value> {
    let url = stand.ok(&["output", "CLOUD-3.3", "tracking_url"]).out;
    let url = format!("{}/api/2.0/mlflow/model-versions/search?filter=name%3D%27{model}%27", url.trim());
    let answer = Command::new("curl").args(["-sf", &url]).output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    answer["model_versions"].as_array().cloned().unwrap_or_default()
}

fn tag<'a>(version: &'a Value, key: &str) -> Option<&'a str> {
    let tags = version["tags"].as_array()?;
    tags.iter().find(|tag| tag["key"] == key)?["value"].as_str()
}

#[test]
#[ignore = "brings up MinIO, PostgreSQL and MLflow for real: make e2e"]
fn models_are_sent_whatever_happens() {
    let (stand, state) = stand("taskrun-e2e-models", "transfer: {source: trained, models: [tiny]}\n");
    let _clean = CleanUp(&stand);
    // The models are of another origin here: nothing needs to be trained.
    let graph = stand.path().join("graph.yaml");
    let text = std::fs::read_to_string(&graph).unwrap();
    let (before, after) = text.split_once("  CLOUD-6.1:").unwrap();
    let after = after.replacen("[CLOUD-5.1]", "[CLOUD-3.3]", 1);
    std::fs::write(&graph, format!("{before}  CLOUD-6.1:{after}")).unwrap();
    let tiny = stand.path().join("trained/tiny");
    let refused = stand.run(&["run", "--until", "CLOUD-6.1"]);
    assert!(refused.err.contains("trained/tiny") && refused.err.contains("transfer.source"), "{}", refused.err);
    write_file(&tiny.join("layers/weights.bin"), 20 * MIB);
    std::fs::write(tiny.join("config.json"), "{}").unwrap();
    stand.ok(&["run", "--until", "CLOUD-6.1"]);
    assert!(stand.ok(&["run", "--until", "CLOUD-6.1"]).err.contains("nothing to do"));
    let models = state.join("services/minio/data/models");
    let first = versions(&stand, "tiny");
    assert_eq!((first.len(), first[0]["source"].as_str()), (1, Some("s3://models/tiny")));
    assert_eq!(tag(&first[0], "taskrun.source").map(Path::new), Some(&*tiny));
    let output = json(&stand, &["output", "CLOUD-6.1", "--json"]);
    assert_eq!(tag(&first[0], "taskrun.manifest_sha256"), output["models"]["tiny"]["digest"].as_str());

    // An object that is gone and a file that has changed are noticed, and set right.
    std::fs::remove_dir_all(models.join("tiny/config.json")).unwrap();
    let why = stand.ok(&["why", "CLOUD-6.1"]).out;
    assert!(why.contains("s3://models/tiny/config.json"), "{why}");
    std::fs::write(tiny.join("config.json"), "{\"layers\": 2}").unwrap();
    stand.ok(&["run", "--until", "CLOUD-6.1"]);
    let second = versions(&stand, "tiny");
    assert_eq!(second.len(), 2);
    let superseded = second.iter().filter(|version| tag(version, "taskrun.superseded_by") == Some("2"));
    assert_eq!(superseded.count(), 1);

    killed_in_the_middle(&stand, &state);
    told_with_hints(&stand);

    stand.ok(&["destroy", "CLOUD-6.1", "--yes"]);
    let left: Vec<_> = std::fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "what the verb has sent is not the task's: {left:?}");
    assert!(versions(&stand, "tiny").is_empty() && !state.join("transfer").exists());
}

/// A sync that is killed ten times in the middle of a file goes on each time.
fn killed_in_the_middle(stand: &Stand, state: &Path) {
    let source = stand.path().join("big");
    write_file(&source.join("weights.bin"), 320 * MIB);
    let args = ["model", "sync", "big", "--bandwidth", "64MiB"];
    for kill in 0..KILLS {
        let mut sync = stand.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700 + 73 * kill % 300));
        assert!(sync.try_wait().unwrap().is_none(), "it was killed in the middle");
        sync.kill().unwrap();
        sync.wait().unwrap();
        assert!(!state.join("services/minio/data/models/big.manifest.json").exists());
    }
    assert_eq!(unfinished(&state.join("services/minio/data")), 1, "one upload is taken up again and again");
    let done = json(stand, &["model", "sync", "big", "--json"]);
    let (sent, resumed) = (done["sent_bytes"].as_u64().unwrap(), done["resumed_bytes"].as_u64().unwrap());
    assert_eq!(sent + resumed, 320 << 20);
    assert!(resumed >= 160 << 20, "{resumed}");
    assert_eq!(unfinished(&state.join("services/minio/data")), 0);
    let verified = json(stand, &["model", "sync", "big", "--verify", "--json"]);
    assert_eq!((&verified["sent_bytes"], &verified["registered"]["new"]), (&0.into(), &false.into()));
}

fn told_with_hints(stand: &Stand) {
    let said = |args: &[&str], code: u8| {
        let said = stand.run(&[&["model", "sync"], args].concat());
        assert_eq!(said.code, Some(i32::from(code)), "{}", said.err);
        said.err
    };
    assert!(said(&["nowhere"], 2).contains("No such file"));
    assert!(said(&["big", "--name", "no name"], 2).contains("--name"));
    assert!(said(&["big", "--bandwidth", "fast"], 2).contains("50MiB"));
    assert!(said(&["big", "--run", "0123456789abcdef"], 2).contains("no run"));
    stand.ok(&["cloud", "stop", "minio"]);
    assert!(said(&["big"], 1).contains("taskrun cloud status"));
    stand.ok(&["cloud", "start", "minio"]);
}
