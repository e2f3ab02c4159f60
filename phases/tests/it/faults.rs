//! Failures that are provoked: each names its cause and what to do, and `resume` is enough afterwards.
//!
//! Where the failures of each task are tests:
//!
//! | task | what is provoked |
//! |---|---|
//! | CLOUD-0.1 | a port that is taken (`preflight`), a full disk (`full_disk`) |
//! | CLOUD-0.2 | a folder that cannot be made, a profile that is gone (here) |
//! | CLOUD-1.1 | Python, MinIO and PostgreSQL that are not where the configuration says (`preflight`) |
//! | CLOUD-1.2 | files that cannot be written, a module that is gone (here) |
//! | CLOUD-2.1 | a configuration that cannot be written, a supervisor that was killed (here) |
//! | CLOUD-2.2 | a driver without device files, without its module, that does not answer (`gpu`) |
//! | CLOUD-3.1 | stopped (`acceptance`), a refused key and a lost network (`external`), a full disk (`transfer`) |
//! | CLOUD-3.2 | another password (`acceptance`), no database, no right, a strange certificate (`external`), `kill -9` (`backup`) |
//! | CLOUD-3.3 | stopped (`acceptance`), a schema without a backup (`backup`) |
//! | CLOUD-3.4 | an address of another machine (`preflight`), a model that is not there, a crash loop (`serving`) |
//! | CLOUD-4.1 | programs that are not there (`preflight`), stopped (`acceptance`), a refused login, rules not taken (`external`) |
//! | CLOUD-4.2 | no Grafana where it should be (`preflight`), an archive that is another one (`dashboards`) |
//! | CLOUD-5.1 | a folder that is not there, a bad line (`preflight`), `kill -9` in mid-training (here) |
//! | CLOUD-5.2 | a page that is gone (`acceptance`), a folder that cannot be emptied (here) |
//! | CLOUD-6.1 | a source that is not there (`preflight`), damage, a wrong key, a server that dies (`transfer`, `model_sync`) |
//! | CLOUD-6.2 | a certificate that is not there (`preflight`), a side that stops, a link that drops (`federation`) |
//! | CLOUD-6.3 | a report that is gone (`acceptance`), a folder that cannot be emptied (here) |
//! | CLOUD-7.1 | a check that fails, a folder that cannot be emptied (here) |
//! | oumi-environment | no file, no hash, no such package, no such module (here) |

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

/// A folder that cannot be removed, since something is mounted there.
struct Busy(std::path::PathBuf);

impl Busy {
    fn new(folder: &std::path::Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        let mounted = std::process::Command::new("mount").args(options).arg(folder).status().unwrap();
        assert!(mounted.success());
        Self(folder.to_owned())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

/// The folder of checkpoints that a training has written by now.
fn checkpoint(state: &std::path::Path) -> Option<std::path::PathBuf> {
    let folders = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let models = folders(&state.join("training")).into_iter().map(|run| run.join("model"));
    let all = models.flat_map(|model| folders(&model));
    { all }.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-")))
}

#[test]
#[ignore = "brings up everything for real, 10 GB with Oumi's environment; mounts small file systems (root): make e2e"]
fn the_later_tasks_tell_what_is_wrong() {
    // Long enough to be killed in the middle.
    let (stand, state) = stand("taskrun-e2e-late", "training: {max_steps: 90}\n");
    let _clean = CleanUp(&stand);

    // The model runtime: its server cannot be written; a module is gone.
    stand.ok(&["run", "--until", "CLOUD-1.2"]);
    let server = stand.ok(&["output", "CLOUD-1.2", "server"]).out.trim().to_owned();
    std::fs::remove_dir_all(&server).unwrap();
    std::fs::write(&server, "").unwrap();
    let told = fails(&stand, "CLOUD-1.2");
    assert!(told.contains(&server), "{told}");
    std::fs::remove_file(&server).unwrap();
    stand.ok(&["resume"]);
    let environment = stand.ok(&["output", "CLOUD-1.2", "environment"]).out.trim().to_owned();
    let python = std::path::Path::new(&environment).join("bin/python");
    std::fs::remove_file(&python).unwrap();
    assert!(stand.ok(&["run", "--until", "CLOUD-1.2"]).err.contains("1 succeeded"));
    assert!(python.exists());

    // A training that is killed in the middle goes on from its checkpoint.
    stand.ok(&["run", "--until", "CLOUD-3.4"]);
    let mut training = stand.command(&["run", "CLOUD-5.1"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(400);
    let found = loop {
        if let Some(found) = checkpoint(&state) {
            break found;
        }
        assert!(training.try_wait().unwrap().is_none(), "it ended without a checkpoint");
        assert!(std::time::Instant::now() < deadline, "there is no checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    training.kill().unwrap();
    training.wait().unwrap();
    let written = std::fs::metadata(&found).unwrap().modified().unwrap();
    stand.ok(&["resume"]);
    assert_eq!(std::fs::metadata(&found).unwrap().modified().unwrap(), written, "it began again");

    // What is made anew cannot take the place of what was there.
    stand.ok(&["run"]);
    for (task, path) in [("CLOUD-5.2", "/index"), ("CLOUD-6.3", "/report"), ("CLOUD-7.1", "/files/junit")] {
        let output = crate::embedded::json(&stand, &["output", task]);
        let file = std::path::PathBuf::from(output.pointer(path).unwrap().as_str().unwrap());
        let folder = file.parent().unwrap();
        let busy = Busy::new(folder);
        let told = fails(&stand, task);
        assert!(told.contains(folder.to_str().unwrap()), "{told}");
        drop(busy);
        stand.ok(&["resume"]);
    }

    // A server that takes any password fails the check that it does not.
    let hba = state.join("services/postgres/pg_hba.conf");
    let sound = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, sound.replace("scram-sha-256", "trust")).unwrap();
    let postgres = nix::unistd::Pid::from_raw(pid_of(&stand, "postgres").try_into().unwrap());
    nix::sys::signal::kill(postgres, nix::sys::signal::SIGHUP).unwrap();
    let told = stand.run(&["run", "CLOUD-7.1", "--force", "CLOUD-7.1"]);
    assert_eq!(told.code, Some(1), "{}", told.err);
    assert!(told.err.contains("a wrong password is refused"), "{}", told.err);
    std::fs::write(&hba, sound).unwrap();
    nix::sys::signal::kill(postgres, nix::sys::signal::SIGHUP).unwrap();
    stand.ok(&["resume"]);
}
