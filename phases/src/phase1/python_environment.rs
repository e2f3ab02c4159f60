//! A Python environment as a node of the graph: `uses: python-environment`.
//!
//! It delivers an environment with exactly the locked requirements, made by uv. Proof: the service user can import what
//! the node names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::registry::{BadParameters, Instance};
use taskrun_engine::task::{Applied, Earlier, Footprint, Made, Probe, Problem, Proof, Read, Task, Traces};

use crate::outputs::{BaseRuntime, Machine, PythonEnvironment};
use crate::tools::scratch::Scratch;
use crate::tools::{files, python, run_as};

/// The name of the plugin.
pub const PLUGIN: &str = "python-environment";

/// How long importing the modules may take; large ones read gigabytes.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(300);

/// The locked requirements that come with the program.
const LOCKS: &[(&str, &str)] = &[("oumi", include_str!("../../assets/requirements/oumi.txt"))];

/// The task.
pub struct PythonEnvironmentTask {
    settings: Settings,
}

/// The parameters of the node, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The node's id, which the environment is called by.
    name: String,
    parameters: Parameters,
}

/// What `with:` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Requirements that come with the program, by name; or else `requirements`.
    lock: Option<String>,
    /// A file of locked requirements with hashes, as `uv pip compile --generate-hashes` makes it; relative to the graph.
    requirements: Option<PathBuf>,
    /// The modules that must be importable.
    #[serde(default)]
    imports: Vec<String>,
    /// What making it fetches, in MiB.
    #[serde(default)]
    download_mib: u64,
    /// What it takes of the disk, in MiB.
    #[serde(default)]
    disk_mib: u64,
}

impl PythonEnvironmentTask {
    /// The task of a node.
    ///
    /// # Errors
    /// The parameters do not fit.
    pub fn new(instance: &Instance<'_>) -> Result<Self, BadParameters> {
        let parameters: Parameters = instance.parameters()?;
        match (&parameters.lock, &parameters.requirements) {
            (Some(lock), None) if builtin(lock).is_none() => {
                let known = LOCKS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                return Err(format!("no lock is called `{lock}`; there are: {known}").into());
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => return Err("give either `lock` or `requirements`".to_owned().into()),
        }
        Ok(Self { settings: Settings { name: instance.id.to_string(), parameters } })
    }

    fn folder(&self, machine: &Machine) -> PathBuf {
        machine.runtime_dir().join(&self.settings.name)
    }

    fn requirements(&self, view: &View) -> Result<String, Failure> {
        if let Some(text) = self.settings.parameters.lock.as_deref().and_then(builtin) {
            return Ok(text.to_owned());
        }
        let file = view.graph_dir().join(self.settings.parameters.requirements.as_deref().unwrap_or(Path::new("")));
        std::fs::read_to_string(&file).map_err(|error| files::failure("read", &file, &error))
    }
}

fn builtin(name: &str) -> Option<&'static str> {
    LOCKS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[async_trait]
impl Task for PythonEnvironmentTask {
    type Settings = Settings;
    type Output = PythonEnvironment;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<BaseRuntime>()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        let lock = self.settings.parameters.lock.as_deref().and_then(builtin);
        lock.map(|text| ("requirements", text.as_bytes())).into_iter().collect()
    }

    fn inputs(&self) -> Vec<PathBuf> {
        self.settings.parameters.requirements.clone().into_iter().collect()
    }

    fn footprint(&self) -> Footprint {
        let Parameters { download_mib, disk_mib, .. } = self.settings.parameters;
        Footprint { download_mib, disk_mib }
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        let file = self.settings.parameters.requirements.as_ref().map(|file| view.graph_dir().join(file));
        let missing = file.filter(|file| !file.is_file()).map(|file| {
            let hint = "make it from a list of packages: uv pip compile --generate-hashes LIST --output-file FILE";
            Problem::new(format!("requirements: there is no {}", file.display()), hint)
        });
        missing.into_iter().collect()
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        let program = made.output.program("python");
        if program.is_file() { Probe::Holds } else { Probe::Missing(format!("no program {}", program.display())) }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<PythonEnvironment>, Failure> {
        let (machine, runtime): (Machine, BaseRuntime) = (context.output()?, context.output()?);
        let locked = self.requirements(context)?;
        let folder = self.folder(&machine);
        let made = python::environment(context, &runtime.uv, &runtime.python, &folder, &locked).await;
        let source = self.settings.parameters.requirements.as_ref().map(|file| file.display().to_string());
        let hint = match source {
            Some(file) => {
                format!("correct {file}: each package with its version and hashes, as uv pip compile makes it")
            }
            None => "see whether the package index is reached, and whether there is room on the disk".to_owned(),
        };
        let folder = made.map_err(|failure| if failure.hint.is_none() { failure.with_hint(hint) } else { failure })?;
        Ok(Applied::complete(PythonEnvironment { folder, python: runtime.python.version }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[Proof::safe("the service user can import its modules")];
        PROOFS
    }

    async fn prove(&self, _proof: &str, view: &View, output: &PythonEnvironment) -> Result<(), Failure> {
        let machine: Machine = view.output()?;
        let imports = self.settings.parameters.imports.iter().map(|module| format!("import {module}\n"));
        let scratch = Scratch::new(view, &self.settings.name, Some(&machine.service_user))?;
        let command = run_as::service_user(&machine, &output.program("python"))
            .args(["-I", "-c", &imports.collect::<String>()])
            .dir("/")
            .timeout(IMPORT_TIMEOUT);
        let hint = "`imports` names modules that its packages bring";
        view.command(scratch.home_of(command)).await.map(|_| ()).map_err(|failure| failure.with_hint(hint))
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        files::remove(&context.state_dir().join("runtime").join(&self.settings.name))
    }
}
