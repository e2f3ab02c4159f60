//! The loop, driven in process on graphs of plain commands.

use taskrun_engine::checkpoint::Status;
use taskrun_engine::plan::{Action, Reason};

use crate::stand::Stand;

#[tokio::test]
async fn a_graph_runs_and_then_stands() {
    let folder = tempfile::tempdir().unwrap();
    let mut stand = Stand::new(
        folder.path(),
        r#"
version: 1
tasks:
  one: {run: "echo 1 > one", outputs: [one]}
  two: {needs: [one], run: "cat one one > two", inputs: [one], outputs: [two]}
  three: {needs: [one], run: 'echo "{\"n\": 3}" > $TASKRUN_OUTPUT'}
  four: {needs: [three, two], run: "echo $N > four", env: {N: {from: three, field: n}}, outputs: [four]}
"#,
    );
    let summary = stand.run().await;
    assert_eq!(summary.counts.succeeded, 4, "{summary:?} {:?}", stand.checkpoint.tasks);
    assert_eq!(std::fs::read_to_string(folder.path().join("four")).unwrap(), "3\n");

    let (_, again) = stand.plan().await;
    assert!(!again.has_work(), "{again:?}");

    std::fs::write(folder.path().join("one"), "2\n").unwrap();
    let (_, changed) = stand.plan().await;
    let actions: Vec<Action> = changed.iter().map(|(_, decision)| decision.action).collect();
    assert_eq!(actions, [Action::Run, Action::DecideAfter, Action::Keep, Action::DecideAfter]);
    let summary = stand.run().await;
    assert_eq!((summary.counts.succeeded, summary.counts.kept), (1, 3), "one makes what it made before");
}

#[tokio::test]
async fn a_failure_blocks_what_needs_it_and_is_the_reason_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "{version: 1, tasks: {bad: {run: 'echo no; exit 3'}, after: {needs: [bad], run: 'true'}}}";
    let mut stand = Stand::new(folder.path(), yaml);
    let summary = stand.run().await;
    assert_eq!((summary.counts.failed, summary.counts.blocked), (1, 1));
    assert_eq!(stand.status("bad"), Status::Failed);
    let (_, again) = stand.plan().await;
    let reasons: Vec<&Reason> = again.iter().map(|(_, decision)| &decision.reason).collect();
    assert!(matches!(reasons[..], [Reason::FailedBefore { .. }, Reason::NeverRun]), "{reasons:?}");
}

#[tokio::test]
async fn what_a_skipped_task_gave_before_is_there_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "{version: 1, tasks: {gpu: {uses: device}, \
                user: {uses: reader, needs: [gpu], when_skipped: {gpu: run}}}}";
    let mut stand = Stand::new(folder.path(), yaml);
    let device = folder.path().join("device");
    stand.run().await;
    assert_eq!((stand.status("gpu"), stand.effects()["without"]), (Status::Skipped, 1));
    assert!(!stand.plan().await.1.has_work());

    std::fs::write(&device, "").unwrap();
    stand.run().await;
    assert_eq!((stand.status("gpu"), stand.effects()["with gpu"]), (Status::Succeeded, 1));

    std::fs::remove_file(&device).unwrap();
    stand.run().await;
    assert_eq!((stand.status("gpu"), stand.effects()["without"]), (Status::Skipped, 2));
}
