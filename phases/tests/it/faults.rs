//! Failures of the first tasks, provoked: each names its cause and what to do, and `resume` is enough afterwards.

use crate::embedded::{CleanUp, kill, pid_of, stand};
use crate::program::Stand;

/// Runs a task that must fail; what is told.
fn fails(stand: &Stand, task: &str) -> String {
    let said = stand.run(&["run", task]);
    assert_eq!(said.code, Some(1), "{task}: {}", said.err);
    said.err
}

fn with_node(stand: &Stand, node: &str) {
    let folder = stand.path().join("graph.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("mine.yaml"), format!("tasks:\n  mine: {node}\n")).unwrap();
}

fn environment(stand: &Stand, requirements: &str, imports: &str) {
    std::fs::write(stand.path().join("mine.txt"), requirements).unwrap();
    with_node(
        stand,
        &format!(
            "{{uses: python-environment, needs: [CLOUD-1.1], with: {{requirements: mine.txt, imports: [{imports}]}}}}"
        ),
    );
}

#[test]
#[ignore = "makes the platform and Python environments for real: make e2e"]
fn the_first_tasks_tell_what_is_wrong() {
    let (stand, state) = stand("taskrun-e2e-faults", "");
    let _clean = CleanUp(&stand);
    stand.ok(&["run", "--until", "CLOUD-2.1"]);

    // Python environments: no file, no hash, no such package, no such module.
    with_node(&stand, "{uses: python-environment, needs: [CLOUD-1.1], with: {requirements: none.txt}}");
    let missing = stand.run(&["run", "mine"]);
    assert_eq!(missing.code, Some(2), "{}", missing.err);
    assert!(missing.err.contains("none.txt") && missing.err.contains("uv pip compile"), "{}", missing.err);
    environment(&stand, "six==1.17.0\n", "");
    let told = fails(&stand, "mine");
    assert!(told.contains("must have a hash") && told.contains("correct mine.txt"), "{told}");
    let hash = "0".repeat(64);
    environment(&stand, &format!("no-such-package-of-taskrun==1.0 --hash=sha256:{hash}\n"), "");
    let told = fails(&stand, "mine");
    assert!(told.contains("no-such-package-of-taskrun") && told.contains("correct mine.txt"), "{told}");
    environment(&stand, "\n", "not_there");
    let told = fails(&stand, "mine");
    assert!(told.contains("No module named 'not_there'") && told.contains("`imports`"), "{told}");
    environment(&stand, "\n", "json");
    stand.ok(&["run", "mine"]);
    stand.ok(&["destroy", "mine", "--yes"]);
    std::fs::remove_dir_all(stand.path().join("graph.d")).unwrap();

    // The operator's shell: its folder cannot be made, and its profile is gone.
    let share = state.join("share");
    std::fs::remove_dir_all(&share).unwrap();
    std::fs::write(&share, "").unwrap();
    let told = fails(&stand, "CLOUD-0.2");
    assert!(told.contains(share.to_str().unwrap()), "{told}");
    std::fs::remove_file(&share).unwrap();
    stand.ok(&["run", "CLOUD-0.2"]);
    std::fs::remove_file(share.join("profile.sh")).unwrap();
    assert!(stand.ok(&["run", "CLOUD-0.2"]).err.contains("1 succeeded"));

    // The platform: its configuration cannot be written; its supervisor is killed.
    kill(pid_of(&stand, "supervisor"));
    let configuration = state.join("supervisor/supervisord.conf");
    std::fs::remove_file(&configuration).unwrap();
    std::fs::create_dir(&configuration).unwrap();
    let told = fails(&stand, "CLOUD-2.1");
    assert!(told.contains(configuration.to_str().unwrap()), "{told}");
    std::fs::remove_dir(&configuration).unwrap();
    stand.ok(&["resume"]);
    assert!(stand.ok(&["run", "--until", "CLOUD-2.1"]).err.contains("nothing to do"));
}
