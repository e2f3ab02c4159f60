//! What should not happen to a run, and does: a rival, a killed predecessor, damage.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::program::{Said, Stand, wait_for};

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

#[test]
fn an_output_that_is_not_there_is_told_with_what_to_do() {
    const OUTPUTS: &str = r#"
version: 1
tasks:
  BUILD-1.1: {run: 'echo "{\"port\": 80}" > $TASKRUN_OUTPUT'}
  BUILD-1.2: {run: 'true'}
  BUILD-1.3: {needs: [BUILD-1.1, BUILD-1.2], run: 'exit 1'}
"#;
    let stand = Stand::new(OUTPUTS);
    let refused = |args: &[&str]| {
        let said = stand.run(args);
        assert_eq!(said.out, "", "{args:?}");
        (said.code, said.err)
    };
    let nothing = |id: &str, is: &str, hint: &str| {
        (Some(1), format!("error: {id} has given nothing yet: it is {is}\nhint: {hint}\n"))
    };
    let unknown = |hint: &str| (Some(2), format!("error: there is no task `{hint}\n"));
    assert_eq!(
        refused(&["output", "BUILD-1.1"]),
        nothing("BUILD-1.1", "pending", "bring it up: taskrun run BUILD-1.1")
    );
    assert_eq!(stand.run(&["run"]).code, Some(1));
    assert_eq!(stand.ok(&["output", "BUILD-1.1", "port"]).out, "80\n");
    let logs = "see what it wrote: taskrun logs BUILD-1.3; then: taskrun run BUILD-1.3";
    assert_eq!(refused(&["output", "BUILD-1.3", "port"]), nothing("BUILD-1.3", "failed", logs));
    let (code, told) = refused(&["output", "BUILD-1.2"]);
    assert!(
        code == Some(2) && told.contains("BUILD-1.2 gives no output") && told.contains("$TASKRUN_OUTPUT"),
        "{told}"
    );
    for verb in ["output", "env", "logs"] {
        assert_eq!(refused(&[verb, "BULD-1.1"]), unknown("BULD-1.1`\nhint: did you mean `BUILD-1.1`?"), "{verb}");
        assert_eq!(refused(&[verb, "CLOUD"]), unknown("CLOUD`\nhint: see which there are: taskrun list"), "{verb}");
    }
    assert_eq!(stand.ok(&["env", "BUILD-1.2", "BUILD-1.1"]).out, "export BUILD_1_1_PORT='80'\n");
}

#[test]
fn damage_to_an_early_record_is_recovered_from() {
    const CHAIN: &str = r#"
version: 1
tasks:
  base: {run: "echo base >> effects; touch base", outputs: [base]}
  left: {needs: [base], run: "echo left >> effects; touch left", outputs: [left]}
  last: {needs: [left], run: "echo last >> effects; test -e allowed"}
"#;
    // What is damaged: the head of the run, then the first record of the first and of the second task.
    for (damaged, run_again) in
        [("run_started", "base\nleft\nlast\n"), ("base", "base\nleft\nlast\n"), ("left", "left\nlast\n")]
    {
        let stand = Stand::new(CHAIN);
        assert_eq!(stand.run(&["run"]).code, Some(1));
        let at = flip_a_bit_in(&stand.state().join("journal"), damaged);

        let refused = ["resume", "run"].map(|verb| stand.run(&[verb]));
        for said in &refused {
            let offset = said.err.split_once("damaged at byte ").unwrap().1.split_once(':').unwrap().0;
            assert!((at.saturating_sub(100)..=at).contains(&offset.parse().unwrap()), "{at}: {}", said.err);
            assert!(said.code == Some(4) && said.err.contains("taskrun recover"), "{}", said.err);
        }
        let aside = refused[1].err.lines().next().unwrap().rsplit_once(" set aside as ").unwrap().1;
        assert!(Path::new(aside).exists(), "{aside}");
        for verb in
            [&["run"][..], &["resume"], &["run", "--detach"], &["plan"], &["status"], &["watch"], &["destroy", "--yes"]]
        {
            let Said { code, err, .. } = stand.run(verb);
            assert_eq!(code, Some(4), "{verb:?}: {err}");
            assert!(err.contains(aside) && err.contains("taskrun recover"), "{verb:?}: {err}");
        }

        stand.ok(&["recover"]);
        stand.ok(&["recover"]);
        assert_eq!(stand.read("effects"), "base\nleft\nlast\n", "{damaged}: to recover is to look");
        std::fs::write(stand.path().join("allowed"), "").unwrap();
        stand.ok(&["resume"]);
        assert_eq!(stand.read("effects"), format!("base\nleft\nlast\n{run_again}"), "{damaged}");
        assert!(stand.ok(&["resume"]).err.contains("nothing to do"));
    }
}

/// Damages the first place in `file` where `text` stands, and returns where that is.
fn flip_a_bit_in(file: &Path, text: &str) -> usize {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, &bytes).unwrap();
    at
}
