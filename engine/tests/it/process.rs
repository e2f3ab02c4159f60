//! Commands against a hostile world: what they leave behind, refuse, hold open and outlive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use taskrun_engine::process::{
    Cancel, Command, CommandError, Cookie, Discard, Exit, Level, Orphan, ProcessId, Status, end_orphans, find_orphans,
};
use taskrun_engine::redact::Redactor;
use taskrun_engine::secret::Secret;

const SECOND: Duration = Duration::from_secs(1);
/// Far longer than anything here takes; a test that waits for it has failed.
const LONG: Duration = Duration::from_secs(60);

fn run(command: &Command) -> Result<(Exit, String), CommandError> {
    let mut output = Vec::new();
    let exit = command.run(&Cancel::new(), &mut output)?;
    Ok((exit, String::from_utf8(output).unwrap()))
}

/// A shell script in an attempt of its own. Its processes tell their pids in files of `folder`, by `told`.
fn script(folder: &Path, text: &str) -> (Command, Cookie) {
    let cookie = Cookie::random();
    (Command::shell(text).dir(folder).cookie(cookie).grace(SECOND / 2), cookie)
}

/// The process whose pid stands in the file `name`, which may yet have to be written.
fn told(folder: &Path, name: &str) -> ProcessId {
    let begin = Instant::now();
    loop {
        if let Some(pid) = fs::read_to_string(folder.join(name)).ok().and_then(|text| text.trim().parse().ok()) {
            return ProcessId::of(pid).unwrap();
        }
        assert!(begin.elapsed() < LONG, "{name} was never written");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn orphans(cookie: Cookie) -> Vec<Orphan> {
    find_orphans(&[(cookie, None)]).unwrap()
}

/// Raises a token `after` a while.
fn raise_after(after: Duration, level: Level) -> Cancel {
    let cancel = Cancel::new();
    let later = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(after);
        later.raise(level);
    });
    cancel
}

#[test]
fn output_and_status_come_through() {
    let (exit, output) = run(&Command::shell("echo out; echo err >&2; exit 3")).unwrap();
    assert_eq!((exit.status, output.as_str(), exit.tail.as_str()), (Status::Code(3), "out\nerr\n", "out\nerr"));
    let (exit, _) = run(&Command::shell("kill -9 $$")).unwrap();
    assert_eq!(exit.status, Status::Signal(9));
    let command = Command::shell("echo why; exit 1");
    let failed = run(&command).unwrap().0.check(&command).unwrap_err();
    assert_eq!(failed.to_string(), "run `sh -c 'echo why; exit 1'`: it ended with exit code 1");
    assert_eq!(failed.tail(), Some("why"));
}

#[test]
fn a_script_of_plain_words_behaves_as_in_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let (_, output) = run(&Command::shell("printenv PWD").dir(folder.path())).unwrap();
    assert_eq!(output.trim_end(), folder.path().to_str().unwrap());
    let (exit, output) = run(&Command::shell("no-such-program at all")).unwrap();
    assert_eq!(exit.status, Status::Code(127));
    assert!(output.contains("not found"), "{output}");

    let without_interpreter = folder.path().join("step");
    std::fs::write(&without_interpreter, "echo $1").unwrap();
    std::fs::set_permissions(&without_interpreter, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (exit, output) = run(&Command::shell("./step it-ran").dir(folder.path())).unwrap();
    assert_eq!((exit.status, output.as_str()), (Status::Code(0), "it-ran\n"));
}

#[test]
fn ten_megabytes_of_binary_come_through_unchanged() {
    let mut expected = vec![0_u8; 10 << 20];
    expected.iter_mut().zip(0_u32..).for_each(|(byte, n)| *byte = (n.wrapping_mul(2_654_435_761) >> 13) as u8);
    let mut output = Vec::new();
    let exit = Command::new("cat").stdin(expected.clone()).run(&Cancel::new(), &mut output).unwrap();
    assert!(exit.status.is_success());
    assert!(output == expected, "{} bytes", output.len());
}

#[test]
fn stdin_need_not_be_read() {
    for program in ["true", "head -c 1"] {
        let (exit, _) = run(&Command::shell(program).stdin(vec![b'x'; 1 << 20])).unwrap();
        assert!(exit.status.is_success(), "{program}: {exit:?}");
    }
    let (_, output) = run(&Command::new("cat")).unwrap();
    assert_eq!(output, "", "without a stdin there is nothing to read, and nothing to wait for");
}

#[test]
fn stdout_can_be_read_apart() {
    let mut log = Vec::new();
    let command = Command::shell("echo '{}'; echo warning >&2; exit 2");
    let (exit, stdout) = command.read(&Cancel::new(), &mut log).unwrap();
    assert_eq!((exit.status, stdout.as_slice(), log.as_slice()), (Status::Code(2), &b"{}\n"[..], &b"warning\n"[..]));
    assert_eq!(exit.tail, "warning");
}

#[test]
fn the_environment_is_as_asked_for() {
    let (command, cookie) = script(Path::new("/"), "echo $A $B ${HOME-gone} $TASKRUN_ATTEMPT; pwd");
    let command = command.env("A", "0").env("A", "1").env("B", "2").env_remove("HOME");
    let (_, output) = run(&command).unwrap();
    assert!(output.starts_with("1 2 gone ") && output.ends_with(&format!("{cookie}\n/\n")), "{output}");
}

#[test]
fn what_cannot_be_started_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Command::new(path)
    };
    let cases = [
        (Command::new("no-such-tool"), "install no-such-tool"),
        (Command::new("./no-such-tool"), "there is no file"),
        (Command::new("true").env("PATH", "/nowhere"), "install true"),
        (Command::new("true").dir(folder.path().join("none")), "create the folder"),
        (file("plain", "#!/bin/sh\n", 0o644), "chmod +x"),
        (file("orphaned", "#!/no/such/interpreter\n", 0o755), "interpreter"),
        (file("headless", "echo\n", 0o755), "`#!`"),
        (Command::new("true").arg("x".repeat(1 << 20)), "too long"),
    ];
    for (command, expected) in cases {
        let error = run(&command).unwrap_err();
        assert!(matches!(error, CommandError::Spawn { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains(expected), "{error}: {:?}", error.hint());
    }
}

#[test]
fn a_timeout_ends_the_whole_group_also_what_has_no_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let text = "env -i sh -c 'echo $$ >child; sleep 300' & echo $$ >leader; sleep 300; true";
    let (command, cookie) = script(folder.path(), text);
    let error = run(&command.timeout(SECOND / 2)).unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { after, .. } if after == SECOND / 2), "{error:?}");
    assert_eq!(orphans(cookie), []);
    for name in ["child", "leader"] {
        let pid = fs::read_to_string(folder.path().join(name)).unwrap().trim().parse().unwrap();
        assert!(!ProcessId::of(pid).is_ok_and(|process| process.is_alive()), "{name} lives");
    }
}

#[test]
fn a_timeout_ends_what_left_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let text = "setsid sh -c '(setsid sh -c \"echo \\$\\$ >daemon; exec sleep 300\" &) >/dev/null 2>&1' & sleep 300";
    let (command, cookie) = script(folder.path(), text);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&command.timeout(SECOND)));
        let daemon = told(folder.path(), "daemon");
        assert!(daemon.is_alive());
        assert!(matches!(running.join().unwrap(), Err(CommandError::TimedOut { .. })));
        assert!(!daemon.is_alive());
    });
    assert_eq!(orphans(cookie), []);
}

#[test]
fn who_ignores_term_is_killed_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let (command, cookie) = script(folder.path(), "trap '' TERM; echo deaf; while :; do sleep 0.05; done");
    let begin = Instant::now();
    let error = run(&command.timeout(SECOND / 2)).unwrap_err();
    assert!(begin.elapsed() >= SECOND && begin.elapsed() < LONG / 2);
    assert_eq!(error.tail(), Some("deaf"));
    assert_eq!(orphans(cookie), []);
}

#[test]
fn who_is_stopped_ends_without_the_grace() {
    let begin = Instant::now();
    let error = run(&Command::shell("kill -STOP $$; sleep 300").timeout(SECOND / 5).grace(LONG)).unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { .. }) && begin.elapsed() < LONG / 2);
}

#[test]
fn who_cleans_up_after_term_is_left_alone_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let text = "trap 'sleep 0.4; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.05; done";
    let (command, _) = script(folder.path(), text);
    let error = run(&command.timeout(SECOND / 2).grace(LONG)).unwrap_err();
    assert_eq!(error.tail().map(|tail| tail.lines().last()), Some(Some("cleaned")), "{error:?}");
}

#[test]
fn a_background_process_with_the_pipe_is_a_leftover() {
    let folder = tempfile::tempdir().unwrap();
    let (command, cookie) = script(folder.path(), "sleep 300 & echo $! >child; echo done");
    let begin = Instant::now();
    let (exit, output) = run(&command).unwrap();
    assert!(begin.elapsed() < LONG / 2);
    assert_eq!((exit.status, output.as_str()), (Status::Code(0), "done\n"));
    let child: u32 = fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
    assert_eq!(exit.leftovers.iter().map(|process| process.pid).collect::<Vec<_>>(), [child]);
    assert!(!exit.leftovers[0].is_alive());
    assert_eq!(orphans(cookie), []);
}

#[test]
fn leftovers_are_found_by_their_group_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (command, _) = script(folder.path(), "env -i sleep 300 >/dev/null 2>&1 & exit 5");
    let (exit, _) = run(&command).unwrap();
    assert_eq!((exit.status, exit.leftovers.len()), (Status::Code(5), 1));
    assert!(!exit.leftovers[0].is_alive());
}

#[test]
fn a_command_may_leave_its_background() {
    let folder = tempfile::tempdir().unwrap();
    let (command, cookie) = script(folder.path(), "sleep 300 & echo done");
    let (exit, _) = run(&command.leave_background(true)).unwrap();
    assert_eq!(exit.leftovers.len(), 1);
    assert!(exit.leftovers[0].is_alive());
    let left = orphans(cookie);
    assert_eq!(left.iter().map(|orphan| orphan.process).collect::<Vec<_>>(), exit.leftovers);
    assert_eq!(end_orphans(&left, SECOND).unwrap(), exit.leftovers);
    assert!(!exit.leftovers[0].is_alive());
}

#[test]
fn who_writes_a_little_late_is_heard() {
    let (exit, output) = run(&Command::shell("(sleep 0.05; echo late) & echo early").cookie(Cookie::random())).unwrap();
    assert_eq!((output.as_str(), exit.leftovers), ("early\nlate\n", vec![]));
}

#[test]
fn who_never_stops_writing_does_not_keep_the_command() {
    let begin = Instant::now();
    let command = Command::shell("yes & echo $!").cookie(Cookie::random());
    let exit = command.run(&Cancel::new(), &mut Discard).unwrap();
    assert!(begin.elapsed() < LONG / 2);
    assert_eq!(exit.leftovers.len(), 1);
}

#[test]
fn a_long_command_is_searched_for_silent_daemons() {
    let folder = tempfile::tempdir().unwrap();
    let (command, cookie) = script(folder.path(), "setsid sleep 300 >/dev/null 2>&1 & sleep 1.1");
    let (exit, _) = run(&command).unwrap();
    assert_eq!(exit.leftovers.len(), 1);
    assert_eq!(orphans(cookie), []);
}

#[test]
fn the_fence_finds_a_daemon_whose_parents_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (command, cookie) = script(folder.path(), "setsid sh -c 'echo $$ >daemon; sleep 300; :' >/dev/null 2>&1 &");
    assert!(run(&command).unwrap().0.leftovers.is_empty(), "no sign of it, so it was not looked for");
    let daemon = told(folder.path(), "daemon");
    let found = orphans(cookie);
    assert!(found.iter().any(|orphan| orphan.process == daemon && orphan.command.contains("daemon")), "{found:?}");
    assert_eq!(find_orphans(&[(Cookie::random(), None)]).unwrap(), []);
    assert!(end_orphans(&found, SECOND).unwrap().contains(&daemon));
    assert_eq!(orphans(cookie), []);
}

#[test]
fn the_fence_finds_the_group_of_a_recorded_process() {
    let mut child = std::process::Command::new("sh");
    let child = child.args(["-c", "sleep 300 & sleep 300 & wait"]).process_group(0).spawn();
    let mut child = child.unwrap();
    let leader = ProcessId::of(child.id()).unwrap();
    let attempt = [(Cookie::random(), Some(leader))];
    let begin = Instant::now();
    while find_orphans(&attempt).unwrap().len() < 3 {
        assert!(begin.elapsed() < LONG);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = find_orphans(&attempt).unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    let reused = ProcessId { start_time: leader.start_time + 1_000_000, ..leader };
    assert_eq!(find_orphans(&[(attempt[0].0, Some(reused))]).unwrap(), [], "members older than the leader");
    assert_eq!(end_orphans(&left, SECOND).unwrap().len(), 2);
    assert_eq!(find_orphans(&attempt).unwrap(), []);
}

#[test]
fn who_runs_from_session_to_session_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let hopper = folder.path().join("hopper");
    fs::write(&hopper, "#!/bin/sh\ntrap '' TERM\nsleep 0.02\necho $$ >hopped\nsetsid \"$0\" >/dev/null 2>&1 &\n")
        .unwrap();
    fs::set_permissions(&hopper, fs::Permissions::from_mode(0o755)).unwrap();
    let cookie = Cookie::random();
    run(&Command::new("./hopper").dir(folder.path()).cookie(cookie)).unwrap();
    let begin = Instant::now();
    let mut found = orphans(cookie);
    while found.is_empty() && begin.elapsed() < LONG {
        found = orphans(cookie);
    }
    end_orphans(&found, Duration::from_millis(100)).unwrap();
    fs::remove_file(folder.path().join("hopped")).unwrap();
    std::thread::sleep(SECOND / 5);
    assert!(!folder.path().join("hopped").exists(), "it runs on");
    assert_eq!(orphans(cookie), []);
}

#[test]
fn cancelling_escalates() {
    let folder = tempfile::tempdir().unwrap();
    let deaf = "trap '' TERM; while :; do sleep 0.05; done";

    let asked = raise_after(Duration::ZERO, Level::Asked);
    let exit = Command::shell("sleep 0.2").run(&asked, &mut Discard).unwrap();
    assert!(exit.status.is_success(), "a running command goes on");

    let end = raise_after(SECOND / 5, Level::End);
    let error = Command::shell("echo begun; sleep 300").run(&end, &mut Discard).unwrap_err();
    assert!(matches!(&error, CommandError::Cancelled { tail, .. } if tail == "begun"), "{error:?}");
    let refused = Command::shell("touch started").dir(folder.path()).run(&end, &mut Discard).unwrap_err();
    assert!(matches!(refused, CommandError::Cancelled { .. }) && !folder.path().join("started").exists());

    let kill = raise_after(SECOND / 5, Level::End);
    let (later, begin) = (kill.clone(), Instant::now());
    std::thread::spawn(move || {
        std::thread::sleep(SECOND);
        later.raise(Level::Kill);
    });
    let (command, cookie) = script(folder.path(), deaf);
    command.grace(LONG).run(&kill, &mut Discard).unwrap_err();
    assert!(begin.elapsed() >= SECOND && begin.elapsed() < LONG / 2, "the grace was cut short");
    assert_eq!(orphans(cookie), []);
}

#[test]
fn a_dropped_command_is_killed() {
    let command = Command::shell("sleep 300 & sleep 300").cookie(Cookie::random());
    let running = command.start().unwrap();
    let leader = running.process_id().unwrap();
    assert!(leader.is_alive() && leader.pid == running.pid());
    drop(running);
    let begin = Instant::now();
    while leader.is_alive() {
        assert!(begin.elapsed() < LONG);
        std::thread::yield_now();
    }
}

#[test]
fn secrets_in_the_output_reach_neither_sink_nor_errors() {
    let redactor = Redactor::new();
    redactor.add("db", &Secret::new("s3cr3t/w0rd")).unwrap();
    let text = r#"printf "a $A"; sleep 0.1; echo "$B b"; printf "$A$B" | base64; cat; exit 1"#;
    let command = Command::shell(text).env("A", "s3cr3").env("B", "t/w0rd").stdin("s3cr3t%2Fw0rd").redact(redactor);
    let (exit, output) = run(&command).unwrap();
    assert_eq!(output, "a [redacted:db] b\n[redacted:db]\n[redacted:db]");
    let error = exit.check(&command).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("w0rd"), "{error:?}");
}

#[test]
fn a_service_is_no_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let (command, cookie) = script(folder.path(), "echo up ${TASKRUN_ATTEMPT-scrubbed}; echo $$ >pid; exec sleep 300");
    let service = command.spawn_detached(Some(&folder.path().join("log"))).unwrap();
    assert_eq!(told(folder.path(), "pid"), service, "the pid is the program's, not a launcher's");
    assert_eq!(orphans(cookie), []);
    let ourselves = ProcessId::current().unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), "up scrubbed\n");
    let stat = fs::read_to_string(format!("/proc/{}/stat", service.pid)).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((fields[2], fields[3]), (service.pid.to_string().as_str(), service.pid.to_string().as_str()));
    assert_ne!(fields[1], ourselves.pid.to_string());

    let it = Orphan { cookie, process: service, command: String::new() };
    assert_eq!(end_orphans(&[it], SECOND).unwrap(), [service]);
}

#[test]
fn a_service_that_cannot_be_started_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Command::new("no-such-daemon").spawn_detached(None).unwrap_err();
    assert!(missing.hint().unwrap().contains("install no-such-daemon"));
    let log = folder.path().join("none/log");
    let error = Command::new("true").spawn_detached(Some(&log)).unwrap_err();
    assert!(matches!(error, CommandError::Output { path, .. } if path == log));
    let own_path = Command::new("/bin/true").env("PATH", "/nowhere").spawn_detached(None);
    assert!(!matches!(own_path, Err(CommandError::Spawn { hint: Some(_), .. })), "its PATH is not the launcher's");
}

#[test]
fn many_threads_run_many_commands() {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for n in 0..25 {
                    let text = format!("{thread}-{n}");
                    let (exit, output) = run(&Command::new("echo").arg(&text).cookie(Cookie::random())).unwrap();
                    assert_eq!((exit.status, output, exit.leftovers), (Status::Code(0), text + "\n", vec![]));
                }
            });
        }
    });
}

#[test]
fn a_command_that_ends_leaves_its_neighbours_alone() {
    use taskrun_engine::process::{Cancel, Command, Cookie, Discard};

    let attempt = Cookie::random();
    let part = |script: &str| Command::shell(script).part_of(attempt);
    let (short, long) = (part("sleep 1.2"), part("sleep 3; echo whole"));
    let neighbour = std::thread::spawn(move || long.read(&Cancel::new(), &mut Discard).unwrap());
    // Long enough for the sweep that looks for what it left behind.
    short.run(&Cancel::new(), &mut Discard).unwrap();
    let (exit, out) = neighbour.join().unwrap();
    assert!(exit.status.is_success() && out == b"whole\n", "{exit:?}");
}
