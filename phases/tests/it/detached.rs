//! Runs in the background, and who follows them.

use std::process::{Child, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::program::{Stand, wait_for};

/// Its first task ends when the file `go` is there, and never lingers for longer than the tests wait.
const GATED: &str = r#"
version: 1
tasks:
  first: {run: "echo first >> effects; echo waiting; for i in $(seq 1500); do [ -e go ] && break; sleep 0.02; done; echo over; test -e go"}
  second: {needs: [first], run: "echo second >> effects; echo there", outputs: [effects]}
"#;

/// A detached run whose first task has begun.
struct Detached {
    stand: Stand,
    pid: Pid,
}

impl Detached {
    fn start(graph: &str) -> Self {
        let stand = Stand::new(graph);
        let said = stand.ok(&["run", "--detach"]);
        assert!(said.out.is_empty() && said.err.contains("follow it: taskrun watch"), "{}", said.err);
        wait_for(|| stand.read("effects") == "first\n");
        let lock = std::fs::read_to_string(stand.state().join("lock")).unwrap();
        let lock: Value = serde_json::from_str(&lock).unwrap();
        let pid = Pid::from_raw(i32::try_from(lock["pid"].as_u64().unwrap()).unwrap());
        assert!(said.err.contains(&format!("(pid {pid})")), "it named the right process: {}", said.err);
        Self { stand, pid }
    }

    /// Starts a verb beside it.
    fn beside(&self, args: &[&str]) -> Child {
        self.stand.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Lets its first task end.
    fn go(&self) {
        std::fs::write(self.stand.path().join("go"), "").unwrap();
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.stand.ok(&["status", "--json"]).out).unwrap()
    }
}

/// What a verb said, and how it ended.
fn end(verb: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = verb.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_detached_run_is_followed_from_elsewhere() {
    let run = Detached::start(GATED);
    let status = run.status();
    assert_eq!((&status["run"]["running"], &status["run"]["exit_code"]), (&true.into(), &Value::Null));
    let state = |status: &Value, id: &str| status["tasks"][id]["state"].clone();
    assert_eq!((state(&status, "first"), state(&status, "second")), ("running".into(), "pending".into()));
    for args in [&["run"][..], &["resume"], &["run", "--detach"], &["destroy", "--yes"]] {
        let refused = run.stand.run(args);
        assert_eq!(refused.code, Some(3), "{args:?}: {}", refused.err);
        assert!(refused.err.contains(&format!("(pid {} on ", run.pid)), "{args:?}: {}", refused.err);
    }
    let watch = run.beside(&["watch"]);
    let first = run.beside(&["logs", "-f", "first"]);
    let second = run.beside(&["logs", "-f", "second"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    run.go();
    let (code, out, told) = end(watch);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{told}");
    assert!(told.contains("second"), "it tells of what came later: {told}");
    assert_eq!(end(first), (Some(0), "waiting\nover\n".to_owned(), String::new()));
    assert_eq!(end(second), (Some(0), "there\n".to_owned(), String::new()), "it waits for the task's turn");
    let status = run.status();
    assert_eq!((&status["run"]["running"], &status["run"]["exit_code"]), (&false.into(), &0.into()));
    assert_eq!(run.stand.run(&["watch"]).code, Some(0), "one who comes later sees the same");
    assert_eq!(run.stand.read("effects"), "first\nsecond\n");
    assert!(run.stand.ok(&["run", "--detach"]).err.contains("nothing to do"));
}

#[test]
fn who_follows_a_detached_run_ends_as_it_does() {
    let run = Detached::start(&GATED.replace("echo there", "exit 7"));
    let watch = run.beside(&["watch"]);
    run.go();
    let (code, _, told) = end(watch);
    assert_eq!(code, Some(1), "{told}");

    let run = Detached::start(GATED);
    let watch = run.beside(&["watch"]);
    kill(run.pid, Signal::SIGKILL).unwrap();
    let (code, _, told) = end(watch);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("without saying goodbye") && told.contains("taskrun resume"), "{told}");
    run.go();
    run.stand.ok(&["resume"]);
    assert_eq!(run.stand.read("effects"), "first\nfirst\nsecond\n", "one attempt more for the kill");
}

#[test]
fn a_detached_run_that_cannot_begin_says_why_with_its_exit_code() {
    let stand = Stand::new(GATED);
    let said = stand.run(&["run", "--detach", "--until", "third"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("there is no task or phase `third`"), "{}", said.err);
    assert_eq!(stand.read("effects"), "");
}

#[test]
fn hanging_up_lets_tasks_end_as_the_first_sigterm_does() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let run = Detached::start(GATED);
        let watch = run.beside(&["watch"]);
        kill(run.pid, signal).unwrap();
        wait_for(|| run.stand.read(".taskrun/local/runs/1/events.jsonl").contains("stopping"));
        run.go();
        let (code, _, told) = end(watch);
        assert_eq!(code, Some(143), "{signal}: {told}");
        let status = run.status();
        assert_eq!(status["run"]["exit_code"], 143, "{signal}");
        assert_eq!(status["tasks"]["first"]["state"], "succeeded", "{signal}");
        assert_eq!(run.stand.read("effects"), "first\n", "{signal}: nothing new is started");
        run.stand.ok(&["resume"]);
        assert_eq!(run.stand.read("effects"), "first\nsecond\n", "{signal}");
    }
}
