//! The embedded platform in a folder of its own, with real servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use taskrun_phases::config::Ports;

use crate::program::Stand;

/// A stand with the product's own graph, any free ports, a service user of its own, and `more` of a configuration; and
/// the state folder.
pub(crate) fn stand(user: &str, more: &str) -> (Stand, PathBuf) {
    let folder = tempfile::Builder::new().prefix("taskrun-e2e").tempdir_in("/var/tmp").unwrap();
    set_passable(folder.path());
    let product = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::copy(product.join("graph.yaml"), folder.path().join("graph.yaml")).unwrap();
    borrow_caches(&folder.path().join("cache"));
    let ports = Ports::default().named().iter().map(|(name, _)| format!("{name}: 0")).collect::<Vec<_>>().join(", ");
    let config = format!("version: 1\nname: local\nservice_user: {user}\nports: {{{ports}}}\n{more}");
    std::fs::write(folder.path().join("config.yaml"), config).unwrap();
    let state = folder.path().join(".taskrun");
    let args = ["--config", "config.yaml", "--state-dir", &state.display().to_string()].map(str::to_owned);
    (Stand::with_args(folder, &args), state.join("local"))
}

fn set_passable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes a folder of links to what was built here before, so that MinIO is built once on a machine; removed, the links
/// leave it where it is.
fn borrow_caches(folder: &Path) {
    let Some(home) = std::env::var_os("HOME") else { return };
    let ours = Path::new(&home).join(".cache/taskrun");
    std::fs::create_dir(folder).unwrap();
    for part in ["uv", "go", "minio", "alertmanager"] {
        std::fs::create_dir_all(ours.join(part)).unwrap();
        std::os::unix::fs::symlink(ours.join(part), folder.join(part)).unwrap();
    }
}

/// Takes everything away also when the test fails.
pub(crate) struct CleanUp<'a>(pub(crate) &'a Stand);

impl Drop for CleanUp<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(&["destroy", "--yes", "--purge"]).output();
    }
}

/// What the program prints as JSON.
pub(crate) fn json(stand: &Stand, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stand.run(args).out).unwrap()
}

/// The process of a service, or of the supervisor.
pub(crate) fn pid_of(stand: &Stand, service: &str) -> u64 {
    let status = json(stand, &["cloud", "status", "--json"]);
    let pid = if service == "supervisor" { &status["supervisor"]["pid"] } else { &status["services"][service]["pid"] };
    pid.as_u64().unwrap()
}

/// Ends a process at once.
pub(crate) fn kill(pid: u64) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
}

/// No secret stands in any file but the secrets file, nor in a command line. The runtimes are other people's programs.
pub(crate) fn no_secret_is_told(state: &Path) {
    let file = state.join("secrets.json");
    let secrets: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let values: Vec<String> =
        secrets["secrets"].as_object().unwrap().values().map(|s| s["value"].as_str().unwrap().to_owned()).collect();
    assert!(values.len() >= 5);
    for value in &values {
        let search = ["-rlF", "--binary-files=text", "--exclude-dir=runtime", value];
        let found = Command::new("grep").args(search).arg(state).output().unwrap();
        let files = String::from_utf8(found.stdout).unwrap();
        assert_eq!(files.trim(), file.display().to_string(), "a secret stands in {files}");
        let lines = Command::new("sh").args(["-c", "cat /proc/[0-9]*/cmdline 2>/dev/null"]).output().unwrap().stdout;
        assert!(!String::from_utf8_lossy(&lines).contains(value.as_str()), "a secret stands in a command line");
    }
}
