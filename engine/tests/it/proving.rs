//! What tasks made, proved again.

use std::path::Path;

use taskrun_engine::checkpoint::Status;
use taskrun_engine::process::{Cancel, Level};
use taskrun_engine::proving::{Check, Verdict, prove};

use crate::stand::Stand;

const GRAPH: &str = r#"
version: 1
tasks:
  one: {run: "echo 1 > one", outputs: [one]}
  two: {needs: [one], run: "echo 2 > two", probe: "test -f two"}
  three: {needs: [two], run: "echo 3 > three", probe: "test -f three"}
  aside: {run: "echo 4 > aside", probe: "test -f aside"}
  device: {uses: device}
"#;

async fn proved(stand: &Stand, cancel: &Cancel) -> Vec<String> {
    let all: Vec<_> = stand.world.graph.indices().collect();
    let mut told = Vec::new();
    let checks = prove(&stand.world, &stand.checkpoint, &all, false, cancel, |check| told.push(line(check))).await;
    assert_eq!(told, checks.iter().map(line).collect::<Vec<_>>(), "each is told");
    told.sort();
    told
}

fn line(check: &Check) -> String {
    let verdict = match &check.verdict {
        Verdict::Passed => "passed".to_owned(),
        Verdict::Failed(failure) => format!("failed: {failure}"),
        Verdict::Skipped(why) => format!("skipped: {why}"),
        Verdict::Blocked(by) => format!("blocked by {by}"),
    };
    format!("{}: {verdict}", check.task)
}

fn remove(folder: &Path, file: &str) {
    std::fs::remove_file(folder.join(file)).unwrap();
}

#[tokio::test]
async fn a_failure_is_put_down_to_what_fell_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut stand = Stand::new(folder.path(), GRAPH);
    assert!(proved(&stand, &Cancel::new()).await.iter().all(|line| line.contains("skipped: it never ran")));
    stand.run().await;
    assert_eq!(stand.status("device"), Status::Skipped);
    let skipped = "device: skipped: there is no device";
    let all = ["aside: passed", skipped, "one: passed", "three: passed", "two: passed"];
    assert_eq!(proved(&stand, &Cancel::new()).await, all);

    // What stands is told to stand, whatever it depends on.
    remove(folder.path(), "one");
    let told = proved(&stand, &Cancel::new()).await;
    assert_eq!([&*told[0], &told[1], &told[3], &told[4]], ["aside: passed", skipped, "three: passed", "two: passed"]);
    assert!(told[2].starts_with("one: failed: find what it made: ") && told[2].contains("one"), "{told:?}");

    // What does not is put down to the first that fell, through those that stand.
    remove(folder.path(), "three");
    assert_eq!(proved(&stand, &Cancel::new()).await[3], "three: blocked by one");
    std::fs::write(folder.path().join("one"), "1\n").unwrap();
    let told = proved(&stand, &Cancel::new()).await;
    assert!(told[3].starts_with("three: failed: find what it made: its probe ended with exit code 1"), "{told:?}");

    let stopped = Cancel::new();
    stopped.raise(Level::Asked);
    assert_eq!(proved(&stand, &stopped).await, [""; 0], "nothing is begun any more");
}
