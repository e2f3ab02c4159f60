//! The verbs on graphs of plain commands.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{Said, Stand, wait_for};

const GRAPH: &str = r#"
version: 1
tasks:
  BUILD-1.1: {title: Fetch, run: "echo fetched >> effects; echo source > source", outputs: [source], destroy: "rm -f source"}
  BUILD-1.2: {title: Compile, needs: [BUILD-1.1], run: "echo compiled >> effects; cat source source > program", inputs: [source], outputs: [program], destroy: "rm -f program"}
  TEST-2.1: {title: Test, needs: [BUILD-1.2], run: 'echo tested >> effects; echo "{\"passed\": 3}" > $TASKRUN_OUTPUT'}
  TEST-2.2: {title: Report, needs: [TEST-2.1], run: 'echo "passed: $PASSED" > report', env: {PASSED: {from: TEST-2.1, field: passed}}, outputs: [report]}
"#;

/// What was printed, without durations.
fn tidy(said: &Said) -> String {
    let text = format!("exit code: {:?}\n--- stdout ---\n{}--- stderr ---\n{}", said.code, said.out, said.err);
    let is_duration = |word: &str| {
        let bare = word.trim_end_matches([',', '.', ')']);
        bare.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok())
    };
    let tidy_word = |word: &str| if is_duration(word) { "[t]".to_owned() } else { word.to_owned() };
    let tidy_line = |line: &str| line.split(' ').map(tidy_word).collect::<Vec<_>>().join(" ").trim_end().to_owned();
    text.lines().map(tidy_line).collect::<Vec<_>>().join("\n")
}

fn snapshot(name: &str, said: &Said) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../../snapshots/cli");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter(r"/tmp/\.tmp[A-Za-z0-9]+", "[folder]");
    settings.add_filter(r" (after|in) \d+\.\ds", " $1 [s]");
    settings.bind(|| insta::assert_snapshot!(name, tidy(said)));
}

#[test]
fn a_graph_is_planned_run_and_stands() {
    let stand = Stand::new(GRAPH);
    snapshot("plan-fresh", &stand.ok(&["plan"]));
    assert!(!stand.path().join(".taskrun").exists(), "a plan changes nothing");
    assert_eq!(stand.run(&["plan", "--detailed-exitcode"]).code, Some(10));
    stand.ok(&["run"]);
    assert_eq!(stand.read("report"), "passed: 3\n");
    snapshot("resume-nothing", &stand.ok(&["resume"]));
    snapshot("plan-done", &stand.ok(&["plan", "--detailed-exitcode"]));
    assert_eq!(stand.read("effects"), "fetched\ncompiled\ntested\n", "nothing ran twice");
    snapshot("output", &stand.ok(&["output", "TEST-2.1"]));
    assert_eq!(stand.ok(&["output", "TEST-2.1", "passed"]).out, "3\n");
    assert_eq!(stand.ok(&["env"]).out, "export TEST_2_1_PASSED='3'\n");
    snapshot("list", &stand.ok(&["list"]));
}

#[test]
fn changes_are_explained_field_by_field() {
    let stand = Stand::new(GRAPH);
    stand.ok(&["run"]);
    std::fs::write(stand.path().join("source"), "tampered\n").unwrap();
    snapshot("plan-tampered", &stand.ok(&["plan"]));
    let changed = GRAPH.replace("cat source source", "cat source");
    std::fs::write(stand.path().join("graph.yaml"), changed).unwrap();
    snapshot("why-changed", &stand.ok(&["why", "BUILD-1.2"]).without_last());
    stand.ok(&["run"]);
    assert_eq!(stand.read("program"), "source\n");
}

impl Said {
    /// Without the line that tells when the task ran last.
    fn without_last(mut self) -> Self {
        self.out = self.out.lines().filter(|line| !line.contains("last:")).map(|line| format!("{line}\n")).collect();
        self
    }
}

#[test]
fn wrong_usage_is_told_and_starts_nothing() {
    let stand = Stand::new(GRAPH);
    snapshot("unknown-id", &stand.run(&["run", "--until", "BUILD-1.9"]));
    snapshot("only-unmet", &stand.run(&["run", "--only", "TEST-2.2"]));
    snapshot("destroy-unasked", &{
        stand.ok(&["run"]);
        stand.run(&["destroy"])
    });
    assert_eq!(stand.run(&["frobnicate"]).code, Some(2));
    assert_eq!(stand.run(&["--config", "nothing.yaml", "run"]).code, Some(2));
    assert_eq!(stand.run(&["secret", "show", "none"]).code, Some(2));
}

#[test]
fn a_graph_that_does_not_fit_the_plugins_starts_nothing() {
    let stand = Stand::new(
        "version: 1
tasks:
  CLOUD-0.1: {with: {port: 1}}
  CLOUD-0.2: {}
  CLOUD-1.1:
    needs: [hello]
  hello: {run: touch started}
  database: {uses: CLOUD-3.20}
",
    );
    snapshot("unfit-graph", &stand.run(&["run"]));
    assert!(!stand.path().join("started").exists() && !stand.path().join(".taskrun").exists());
}

#[test]
fn a_failure_is_told_with_its_command_and_its_last_lines() {
    let stand =
        Stand::new("{version: 1, tasks: {bad: {run: 'echo a hint; exit 3'}, next: {needs: [bad], run: 'true'}}}");
    snapshot("failure", &stand.run(&["run"]));
    let status: serde_json::Value = serde_json::from_str(&stand.ok(&["status", "--json"]).out).unwrap();
    assert_eq!(status["version"], 1);
    assert_eq!(
        (&status["tasks"]["bad"]["state"], &status["tasks"]["next"]["state"]),
        (&"failed".into(), &"pending".into())
    );
    assert_eq!(stand.ok(&["logs", "bad"]).out, "a hint\n");
}

#[test]
fn destroy_goes_backwards_and_takes_dependents_along() {
    let stand = Stand::new(GRAPH);
    stand.ok(&["run"]);
    let without = GRAPH.replace("TEST-2.2", "TEST-2.3");
    std::fs::write(stand.path().join("graph.yaml"), without).unwrap();
    snapshot("destroy", &stand.ok(&["destroy", "BUILD-1.2", "--yes"]));
    assert!(!stand.path().join("program").exists() && stand.path().join("source").exists());
    stand.ok(&["destroy", "--yes", "--purge"]);
    assert!(!stand.path().join("source").exists() && !stand.path().join(".taskrun").exists());
}

#[test]
fn what_was_made_with_a_secret_is_destroyed_without_it() {
    let graph = "{version: 1, tasks: {uses: {run: 'echo made > made', destroy: 'rm made', env: {KEY: {secret: key}}}}}";
    let stand = Stand::new(graph);
    let config = "version: 1\nname: local\nsecrets: {key: {file: key.secret}}\n";
    std::fs::write(stand.path().join("c.yaml"), config).unwrap();
    std::fs::write(stand.path().join("key.secret"), "a-long-secret").unwrap();
    stand.ok(&["--config", "c.yaml", "run"]);
    std::fs::remove_file(stand.path().join("key.secret")).unwrap();
    let refused = stand.run(&["--config", "c.yaml", "run"]);
    assert!(refused.code == Some(2) && refused.err.contains("get the secret `key`"), "{}", refused.err);
    let said = stand.ok(&["--config", "c.yaml", "destroy", "--yes"]);
    assert!(said.err.contains("the secret `key` stays as it was last known"), "{}", said.err);
    assert!(!stand.path().join("made").exists());
}

#[test]
fn a_saved_plan_is_run_exactly_or_not_at_all() {
    let stand = Stand::new(GRAPH);
    stand.ok(&["plan", "--plan-out", "p.json"]);
    stand.ok(&["run", "--plan", "p.json"]);
    snapshot("stale-plan", &stand.run(&["run", "--plan", "p.json"]));
}

#[test]
fn a_second_run_is_refused_and_a_reader_is_not() {
    let stand = Stand::new("{version: 1, tasks: {slow: {run: 'echo began > began; sleep 30'}}}");
    let mut first = stand.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for(|| stand.path().join("began").exists());
    let second = stand.run(&["run"]);
    assert_eq!(second.code, Some(3), "{}", second.err);
    let status: serde_json::Value = serde_json::from_str(&stand.ok(&["status", "--json"]).out).unwrap();
    assert_eq!(status["tasks"]["slow"]["state"], "running");
    first.kill().unwrap();
    first.wait().unwrap();
    let status: serde_json::Value = serde_json::from_str(&stand.ok(&["status", "--json"]).out).unwrap();
    assert_eq!(status["tasks"]["slow"]["state"], "interrupted");
    let graph = "{version: 1, tasks: {slow: {run: 'true'}}}";
    std::fs::write(stand.path().join("graph.yaml"), graph).unwrap();
    let resumed = stand.ok(&["resume"]);
    assert!(resumed.err.contains("left over from the last run"), "the orphan is ended: {}", resumed.err);
}

#[test]
fn signals_ask_ever_more_firmly() {
    let stand = Stand::new(
        "{version: 1, tasks: {slow: {run: 'echo began > began; sleep 2; echo done > done'}, next: {needs: [slow], run: 'true'}}}",
    );
    let mut run = stand.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for(|| stand.path().join("began").exists());
    let pid = Pid::from_raw(i32::try_from(run.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(143));
    assert_eq!(stand.read("done"), "done\n", "the first signal lets the command end");

    let stand = Stand::new("{version: 1, tasks: {slow: {run: 'echo began > began; sleep 60; echo done > done'}}}");
    let mut run = stand.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for(|| stand.path().join("began").exists());
    let pid = Pid::from_raw(i32::try_from(run.id()).unwrap());
    let start = Instant::now();
    kill(pid, Signal::SIGINT).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(20), "the second signal ends the command");
    let status: serde_json::Value = serde_json::from_str(&stand.ok(&["status", "--json"]).out).unwrap();
    assert_eq!(status["tasks"]["slow"]["state"], "cancelled");
}

#[test]
fn killed_anywhere_it_ends_as_if_undisturbed() {
    const KILLS: usize = 50;
    let mut chance = Chance(0x9e37_79b9);
    let mut kills = 0;
    while kills < KILLS {
        kills += kill_until_done(&mut chance);
    }
}

/// Runs a graph to its end, killing the program at random moments, and returns how often that was.
fn kill_until_done(chance: &mut Chance) -> usize {
    const TASKS: usize = 12;
    let mut graph = String::from("version: 1\ntasks:\n");
    for i in 0..TASKS {
        let needs = if i >= 3 { format!("T{}", i - 3) } else { String::new() };
        // Each attempt takes a lock that a second writer would find taken; a grandchild in a session of its own lingers.
        let run = format!(
            "exec 9>lock{i}; flock -n 9 || {{ echo overlap >> overlap; exit 1; }}; echo x >> effect{i}; \
             setsid sh -c 'sleep 5; echo late >> late' 9>&- & sleep 0.05; kill $!"
        );
        graph.push_str(&format!("  T{i}:\n    needs: [{needs}]\n    run: |\n      {run}\n    outputs: [effect{i}]\n"));
    }
    let stand = Stand::new(&graph);
    let mut kills = 0;
    loop {
        let mut run = stand.command(&["run", "-j", "3"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(chance.below(500)));
        if let Some(status) = run.try_wait().unwrap() {
            assert!(status.success(), "after {kills} kills: {}", stand.run(&["status"]).out);
            break;
        }
        run.kill().unwrap();
        run.wait().unwrap();
        kills += 1;
        assert!(kills < 100, "it gets on between the kills: {}", stand.run(&["status"]).out);
    }
    assert_eq!(stand.read("overlap"), "", "no two attempts at a task overlapped");
    assert_eq!(stand.read("late"), "", "no grandchild outlived its attempt");
    for i in 0..TASKS {
        let effects = stand.read(&format!("effect{i}")).lines().count();
        assert!((1..=kills + 1).contains(&effects), "task {i}: {effects} effects after {kills} kills");
    }
    let before: Vec<String> = (0..TASKS).map(|i| stand.read(&format!("effect{i}"))).collect();
    stand.ok(&["resume"]);
    let after: Vec<String> = (0..TASKS).map(|i| stand.read(&format!("effect{i}"))).collect();
    assert_eq!(before, after, "what is finished never runs again");
    kills
}

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn a_damaged_journal_is_set_aside_and_recovered() {
    let stand = Stand::new(GRAPH);
    stand.ok(&["run"]);
    let journal = stand.state().join("journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&journal, &bytes).unwrap();
    assert_eq!(stand.run(&["status"]).code, Some(4));
    let refused = stand.run(&["run"]);
    assert_eq!(refused.code, Some(4), "{}", refused.err);
    assert!(refused.err.contains("set aside") && refused.err.contains("taskrun recover"), "{}", refused.err);
    assert_eq!(stand.run(&["run"]).code, Some(4), "it does not begin anew by itself");
    stand.ok(&["recover"]);
    stand.ok(&["run"]);
    stand.ok(&["resume"]);
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let stand = Stand::new(GRAPH);
    stand.ok(&["run"]);
    let journal = stand.state().join("journal");
    let bytes = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, &bytes[..bytes.len() - 3]).unwrap();
    let resumed = stand.ok(&["resume"]);
    assert!(resumed.err.contains("were cut"), "{}", resumed.err);
    assert_eq!(stand.read("effects"), "fetched\ncompiled\ntested\n", "what was durable is not run again");
}

#[test]
fn json_is_one_event_a_line() {
    let stand = Stand::new(GRAPH);
    let said = stand.ok(&["--output", "json", "run"]);
    let events: Vec<serde_json::Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().zip(1..).all(|(seq, wanted)| *seq == wanted), "numbered without gaps");
    assert_eq!(
        (&events[0]["event"], &events[events.len() - 1]["event"]),
        (&"run_started".into(), &"run_finished".into())
    );
}

#[test]
fn the_help_of_all_verbs() {
    let stand = Stand::new(GRAPH);
    let mut all = stand.ok(&["--help"]).out;
    for verb in [
        "run", "resume", "plan", "destroy", "status", "graph", "why", "logs", "report", "check", "cloud", "vm",
        "secret",
    ] {
        all.push_str(&format!("\n=== {verb} ===\n{}", stand.ok(&[verb, "--help"]).out));
    }
    snapshot("help", &Said { out: all, err: String::new(), code: Some(0) });
}
