//! CLOUD-0.2: the operator's shell: completions, manual pages, and a profile with the endpoints.
//!
//! Proof: in a clean shell the profile gives a `taskrun` that answers, its endpoints and its completion.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Proof, Task, Traces};

use crate::cli::boot;
use crate::outputs::OperatorCli;
use crate::tools::files;

/// How long a clean shell may take.
const SHELL_TIMEOUT: Duration = Duration::from_secs(30);

/// The shells that get completions, and the file of each.
const SHELLS: [(&str, &str); 3] = [("bash", "taskrun.bash"), ("zsh", "_taskrun"), ("fish", "taskrun.fish")];

/// The task.
pub struct OperatorCliTask {
    settings: Settings,
}

/// What it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    config: PathBuf,
    program: PathBuf,
    version: String,
    /// The names of nodes, which completions know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<String>,
}

impl OperatorCliTask {
    /// The task for a configuration file, and the nodes that it has.
    pub fn new(config: &Path, nodes: Vec<String>) -> Result<Self, String> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()));
        let program = std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { settings: Settings { config: absolute(config)?, program, version, nodes } })
    }

    fn folder(view: &View) -> PathBuf {
        view.state_dir().join("share")
    }

    fn output(folder: &Path) -> OperatorCli {
        let completions = SHELLS.map(|(shell, file)| (shell.to_owned(), folder.join("completions").join(file)));
        OperatorCli {
            profile: folder.join("profile.sh"),
            completions: BTreeMap::from(completions),
            man: folder.join("man"),
        }
    }

    fn profile(&self, view: &View, folder: &Path) -> String {
        let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let root = view.state_dir().parent().unwrap_or(view.state_dir());
        let bin = self.settings.program.parent().unwrap_or(Path::new("/"));
        let mut text =
            String::from("# Made by taskrun: source it for the commands and endpoints of this environment.\n");
        let graph = view.graph_dir().join("graph.yaml");
        // Where there is none the defaults are taken, unless somebody asks for it.
        let config = self.settings.config.is_file().then_some(("TASKRUN_CONFIG", self.settings.config.as_path()));
        for (name, path) in config.into_iter().chain([("TASKRUN_GRAPH", graph.as_path()), ("TASKRUN_STATE_DIR", root)])
        {
            text.push_str(&format!("export {name}={}\n", quote(path)));
        }
        text.push_str(&format!("PATH={}:\"$PATH\"\n", quote(bin)));
        text.push_str(&format!("MANPATH={}:\"${{MANPATH-}}\"; export PATH MANPATH\n", quote(&folder.join("man"))));
        text.push_str(&format!(
            "if [ -n \"${{BASH_VERSION-}}\" ]; then . {}; fi\n",
            quote(&folder.join("completions").join("taskrun.bash"))
        ));
        text.push_str("eval \"$(taskrun env)\"\n");
        text
    }
}

#[async_trait]
impl Task for OperatorCliTask {
    type Settings = Settings;
    type Output = OperatorCli;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let profile = self.profile(view, &Self::folder(view));
        match fs::read_to_string(&made.output.profile) {
            Ok(text) if text == profile => {}
            Ok(_) => return Probe::Missing(format!("{} was changed", made.output.profile.display())),
            Err(_) => return Probe::Missing(format!("no file {}", made.output.profile.display())),
        }
        let gone = made.output.completions.values().find(|file| !file.exists());
        match gone.or(Some(&made.output.man).filter(|man| !man.join("man1/taskrun.1").exists())) {
            Some(gone) => Probe::Missing(format!("no {}", gone.display())),
            None => Probe::Holds,
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<OperatorCli>, Failure> {
        let folder = Self::folder(context);
        let output = Self::output(&folder);
        let failed =
            |error: std::io::Error| Failure::caused(Persistence::Permanent, "write the operator's files", &error);
        for folder in [folder.join("completions"), output.man.join("man1")] {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        for (shell, file) in &output.completions {
            let config = self.settings.config.is_file().then(|| ["--config".into(), self.settings.config.clone()]);
            let command = Command::new(&self.settings.program).args(config.into_iter().flatten());
            let command = command.args(["completions", shell]).timeout(SHELL_TIMEOUT);
            fs::write(file, context.capture(command).await?).map_err(failed)?;
        }
        let man = Command::new(&self.settings.program).args(["man", "--out"]).arg(output.man.join("man1"));
        context.command(man.timeout(SHELL_TIMEOUT)).await?;
        fs::write(&output.profile, self.profile(context, &folder)).map_err(failed)?;
        Ok(Applied::complete(output))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[Proof::safe("a clean shell has the commands and their completion")];
        PROOFS
    }

    async fn prove(&self, _proof: &str, view: &View, output: &OperatorCli) -> Result<(), Failure> {
        const SCRIPT: &str = r#"set -eu; . "$1"; taskrun --version; taskrun list >/dev/null; complete -p taskrun"#;
        let clean = Command::new("env")
            .args([
                "-i",
                "HOME=/nonexistent",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "bash",
                "--noprofile",
                "--norc",
                "-c",
                SCRIPT,
                "bash",
            ])
            .arg(&output.profile)
            .dir("/")
            .timeout(SHELL_TIMEOUT);
        let told = view.capture(clean).await?;
        let wanted = format!("taskrun {}", self.settings.version);
        if told.lines().next() == Some(&wanted) {
            Ok(())
        } else {
            Err(Failure::permanent(format!("see `{wanted}` in a clean shell: it says {told}")))
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        // It would bring up again, at the next boot, what is taken away now.
        let environment = context.state_dir().file_name().unwrap_or_default().to_string_lossy();
        let gone = boot::forget(&environment).await;
        gone.map_err(|error| Failure::permanent(format!("take the unit of systemd away: {}", error.render())))?;
        files::remove(&Self::folder(context))
    }
}
