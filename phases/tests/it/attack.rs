//! What should not happen to a run, and does: a rival, a killed predecessor, damage.

use std::process::{Child, Stdio};

use crate::program::{Stand, wait_for};

/// Its first task ends when the file `go` is there, and never lingers for longer than the tests wait.
const GATED: &str = r#"
version: 1
tasks:
  gated: {run: "echo gated >> effects; for i in $(seq 1500); do [ -e go ] && exit; sleep 0.02; done; exit 1"}
  next: {needs: [gated], run: "echo next >> effects"}
"#;

#[test]
fn of_two_runs_at_once_exactly_one_wins() {
    const ROUNDS: usize = 20;
    std::thread::scope(|scope| {
        for lane in 0..4 {
            // Every other round begins with the lock of a run that was killed.
            scope.spawn(move || (lane..ROUNDS).step_by(4).for_each(|round| contend((round / 4) % 2 == 1)));
        }
    });
}

/// Starts two runs at the same moment, perhaps where one was killed before.
fn contend(killed_before: bool) {
    let stand = Stand::new(GATED);
    let killed = killed_before.then(|| kill_one(&stand));
    let mut rivals = [start(&stand), start(&stand)];
    let mut first_to_end = None;
    wait_for(|| {
        first_to_end = rivals.iter_mut().position(|run| run.try_wait().unwrap().is_some());
        first_to_end.is_some()
    });
    let [one, other] = rivals;
    let (loser, winner) = if first_to_end == Some(0) { (one, other) } else { (other, one) };
    let holder = format!("(pid {} on ", winner.id());

    let refused = loser.wait_with_output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains(&holder) && said.contains("taskrun watch"), "{said}");

    std::fs::write(stand.path().join("go"), "").unwrap();
    let done = winner.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{said}");
    match killed {
        None => assert_eq!(stand.read("effects"), "gated\nnext\n"),
        Some(pid) => {
            assert!(said.contains(&format!("the last run (pid {pid}, since ")), "{said}");
            assert_eq!(stand.read("effects"), "gated\ngated\nnext\n", "one attempt more for the kill");
        }
    }
    assert_eq!(std::fs::read_to_string(stand.state().join("lock")).unwrap(), "", "it was released");
}

/// Starts a run, kills it in its first task, and returns its pid, which stays in the lock's file.
fn kill_one(stand: &Stand) -> u32 {
    let mut run = start(stand);
    wait_for(|| !stand.read("effects").is_empty());
    run.kill().unwrap();
    run.wait().unwrap();
    let lock = std::fs::read_to_string(stand.state().join("lock")).unwrap();
    let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
    assert_eq!(lock["pid"], run.id());
    run.id()
}

fn start(stand: &Stand) -> Child {
    stand.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap()
}
