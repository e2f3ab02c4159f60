//! The program in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A folder with a graph, in which the program is run.
pub(crate) struct Stand {
    folder: tempfile::TempDir,
    args: Vec<String>,
}

/// What the program said and how it ended.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Stand {
    /// A stand with this graph and no configuration.
    pub(crate) fn new(graph: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("graph.yaml"), graph).unwrap();
        Self { folder, args: Vec::new() }
    }

    /// A stand whose program gets these arguments first.
    pub(crate) fn with_args(folder: tempfile::TempDir, args: &[String]) -> Self {
        Self { folder, args: args.to_vec() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join(".taskrun/local")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskrun"));
        command.args(&self.args).args(args).current_dir(self.path());
        for name in ["TASKRUN_CONFIG", "TASKRUN_GRAPH", "TASKRUN_STATE_DIR", "TASKRUN_ATTEMPT", "TASKRUN_LOG"] {
            command.env_remove(name);
        }
        // `destroy --purge` removes caches.
        command.env("TASKRUN_CACHE_DIR", self.path().join("cache"));
        command.env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8").stdin(std::process::Stdio::null());
        command
    }

    /// Runs the program to its end. It must not panic.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = Said { out: text(stdout), err: text(stderr), code: status.code() };
        assert!(!said.err.contains("panicked"), "{args:?}: {}", said.err);
        said
    }

    /// Runs the program, which must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, Some(0), "{args:?}: {}{}", said.out, said.err);
        said
    }

    pub(crate) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap_or_default()
    }
}

/// Waits until `there` says so, which must come.
pub(crate) fn wait_for(mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !there() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}
