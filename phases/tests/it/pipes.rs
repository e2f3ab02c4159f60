//! Readers that leave before everything was said.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::program::{Stand, wait_for};

/// A graph of so many tasks that what is said of them fits into no pipe.
fn wide() -> Stand {
    let mut graph = String::from("version: 1\ntasks:\n  next: {run: 'true'}\n");
    for i in 0..700 {
        writeln!(graph, "  {}-{i}: {{run: 'true'}}", "WIDE".repeat(30)).unwrap();
    }
    Stand::new(&graph)
}

/// What `verb` says when its reader leaves after `lines` lines: its exit code and stderr.
fn read_only(stand: &Stand, verb: &[&str], lines: usize) -> (Option<i32>, String) {
    let mut command = stand.command(verb);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::with_capacity(64, child.stdout.take().unwrap());
    for _ in 0..lines {
        assert!(reader.read_line(&mut String::new()).unwrap() > 0, "{verb:?}");
    }
    drop(reader);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let stand = wide();
    let all: &[&[&str]] = &[
        &["graph"],
        &["graph", "--format", "mermaid"],
        &["graph", "--format", "json", "--plain"],
        &["list"],
        &["list", "--json"],
        &["status"],
        &["status", "--json"],
        &["plan"],
        &["plan", "--json"],
        &["why", "next"],
        &["output"],
        &["env"],
        &["check"],
        &["secret", "list"],
        &["schema", "graph"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["--version"],
    ];
    for verb in all {
        assert_eq!(read_only(&stand, verb, 0), (Some(0), String::new()), "{verb:?}");
    }
    for verb in &all[..9] {
        assert_eq!(read_only(&stand, verb, 1), (Some(0), String::new()), "{verb:?}");
    }
}

#[test]
fn a_run_goes_on_when_nobody_listens_any_more() {
    const TALKER: &str = r#"
version: 1
tasks:
  talk: {run: "for i in $(seq 300); do echo line $i; done; echo talked >> effects"}
  next: {needs: [talk], run: "echo next >> effects"}
"#;
    for format in ["json", "plain", "live"] {
        let stand = Stand::new(TALKER);
        let mut run = stand.command(&["--output", format, "-v", "run"]);
        let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((run.stdout.take(), run.stderr.take()));
        assert_eq!(run.wait().unwrap().code(), Some(0), "{format}");
        assert_eq!(stand.read("effects"), "talked\nnext\n", "{format}");
        assert_eq!(read_only(&stand, &["logs", "talk"], 1), (Some(0), String::new()), "{format}");
        assert!(stand.ok(&["resume"]).err.contains("nothing to do"), "{format}");
    }
}

#[test]
fn who_follows_leaves_with_the_reader() {
    const ENDLESS: &str = "{version: 1, tasks: {endless: {run: 'echo began > began; for i in $(seq 1500); do echo $i; [ -e go ] && exit; sleep 0.02; done'}}}";
    let stand = Stand::new(ENDLESS);
    let mut run = stand.command(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| stand.path().join("began").exists());
    assert_eq!(read_only(&stand, &["logs", "-f", "endless"], 3), (Some(0), String::new()));
    assert_eq!(read_only(&stand, &["--output", "json", "watch"], 3), (Some(0), String::new()));
    assert!(run.try_wait().unwrap().is_none(), "the run goes on");
    std::fs::write(stand.path().join("go"), "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
}
