//! A disk that fills up in the middle of a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::program::Stand;

const TASKS: usize = 30;
/// The task that fills the disk, once, as any other program may.
const GLUTTON: usize = 9;
/// Tells the test below that it is the child of the one above it.
const ROLE: &str = "TASKRUN_TEST_FULL_DISK";

#[test]
fn a_full_disk_stops_a_run_and_space_lets_it_go_on() {
    let probe = tempfile::tempdir().unwrap();
    let probed = in_own_mounts("mount").args(["-t", "tmpfs", "tmpfs"]).arg(probe.path()).output();
    if !probed.as_ref().is_ok_and(|output| output.status.success()) {
        #[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
        {
            eprintln!("SKIPPED: no tmpfs of one's own can be mounted here: {probed:?}");
        }
        return;
    }
    let child = in_own_mounts(std::env::current_exe().unwrap().to_str().unwrap())
        .args(["full_disk::child_with_a_small_disk", "--exact", "--ignored"])
        .env(ROLE, "child")
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
}

/// `program` in a mount namespace of its own, where it is root.
fn in_own_mounts(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", program]);
    command
}

#[test]
#[ignore = "a child process of the test above"]
fn child_with_a_small_disk() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut graph = String::from("version: 1\ntasks:\n");
    for i in 0..TASKS {
        let needs = if i >= 3 { format!("T{}", i - 3) } else { String::new() };
        let fill = if i == GLUTTON {
            "; [ -e filled ] || { touch filled; cat /dev/zero > .taskrun/ballast 2> /dev/null || true; }"
        } else {
            ""
        };
        graph.push_str(&format!("  T{i}: {{needs: [{needs}], run: 'echo x >> effect{i}{fill}'}}\n"));
    }
    let stand = Stand::new(&graph);
    let state = stand.path().join(".taskrun");
    let disk = SmallDisk::mount(&state);

    let full = stand.run(&["run", "-j", "3"]);
    assert_eq!(full.code, Some(4), "{}", full.err);
    assert!(full.err.contains("No space left on device") && full.err.contains("taskrun resume"), "{}", full.err);
    let stopped = states(&stand);
    let succeeded: Vec<&String> = stopped.iter().filter(|(_, state)| *state == "succeeded").map(|(id, _)| id).collect();
    assert!((1..TASKS).contains(&succeeded.len()), "{stopped:?}");
    let effects = |id: &str| stand.read(&id.replace('T', "effect")).lines().count();
    for (id, state) in &stopped {
        let fits = match state.as_str() {
            "succeeded" => effects(id) == 1,
            "pending" => effects(id) == 0,
            // Its end could not be made durable.
            "interrupted" => effects(id) <= 1,
            _ => false,
        };
        assert!(fits, "{id} is {state} after {} effects", effects(id));
    }

    disk.fill();
    let still_full = stand.run(&["resume"]);
    assert_eq!(still_full.code, Some(4), "{}", still_full.err);
    assert!(still_full.err.contains("No space left on device"), "{}", still_full.err);
    assert!(still_full.err.contains("hint: make room"), "{}", still_full.err);
    assert_eq!(states(&stand), stopped, "a run that could not begin changes nothing");

    disk.make_room();
    stand.ok(&["resume"]);
    for (id, state) in states(&stand) {
        let most = if succeeded.contains(&&id) { 1 } else { 2 };
        assert!(
            state == "succeeded" && (1..=most).contains(&effects(&id)),
            "{id} is {state}: {} effects",
            effects(&id)
        );
    }
    assert!(stand.ok(&["resume"]).err.contains("nothing to do"));
}

/// The states of all tasks.
fn states(stand: &Stand) -> BTreeMap<String, String> {
    let status: serde_json::Value = serde_json::from_str(&stand.ok(&["status", "--json"]).out).unwrap();
    let tasks = status["tasks"].as_object().unwrap();
    tasks.iter().map(|(id, task)| (id.clone(), task["state"].as_str().unwrap().to_owned())).collect()
}

/// A small tmpfs, until it is dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Self {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(at).status();
        assert!(mounted.unwrap().success());
        Self(at)
    }

    /// Takes the last bytes of it.
    fn fill(&self) {
        let mut ballast = File::options().append(true).open(self.0.join("ballast")).unwrap();
        while ballast.write_all(&[0; 512]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // The folder of the stand could not be removed otherwise.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}
