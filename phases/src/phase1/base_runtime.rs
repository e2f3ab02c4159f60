//! CLOUD-1.1: the programs that services run, pinned and checked.
//!
//! Python environments by uv from locked requirements with hashes; MinIO built from its pinned Go module, since its
//! makers publish source only; PostgreSQL as it is installed, or unpacked from the distribution's own packages without
//! installing them, so that no daemon starts. Proof: each program tells its version, run as the service user.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Problem, Proof, Read, Task, Traces};

use crate::config::{Config, Tools};
use crate::outputs::{BaseRuntime, Machine, PostgresPrograms, Program};
use crate::phase0::find_program;
use crate::tools::scratch::Scratch;
use crate::tools::{debian, files, go_build, python, run_as};

/// How long a program may take to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(60);

/// The locked requirements of the environments.
const PLATFORM: &str = include_str!("../../assets/requirements/platform.txt");
const MLFLOW: &str = include_str!("../../assets/requirements/mlflow.txt");

/// The task.
pub struct BaseRuntimeTask {
    settings: Tools,
}

impl BaseRuntimeTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: config.tools.clone() }
    }

    async fn minio(&self, context: &Context, runtime: &Path) -> Result<Program, Failure> {
        let given = self.settings.minio.clone().or_else(|| find_program("minio"));
        if let Some(path) = given {
            return Ok(Program { path, version: "given".to_owned() });
        }
        let folder = runtime.join("bin");
        let build = async {
            go_build::install(context, &go_build::MINIO, &folder).await?;
            Ok(Program { path: folder.join("minio"), version: go_build::MINIO.version.to_owned() })
        };
        context
            .step_checked(
                "build MinIO",
                |made: &Program| made.path.is_file() && made.version == go_build::MINIO.version,
                build,
            )
            .await
    }

    async fn postgres(&self, context: &Context, runtime: &Path) -> Result<PostgresPrograms, Failure> {
        if let Some(found) = debian::installed(self.settings.postgres.as_deref())? {
            return Ok(found);
        }
        let target = runtime.join("postgres");
        context
            .step_checked(
                "unpack PostgreSQL",
                |made: &PostgresPrograms| made.program("postgres").is_file(),
                debian::unpack(context, &target),
            )
            .await
    }

    async fn environments(
        &self,
        context: &Context,
        runtime: &Path,
    ) -> Result<(Program, Program, PathBuf, PathBuf), Failure> {
        let python = python::interpreter(context, self.settings.python.as_deref()).await?;
        let uv = python::uv(context, &python, runtime).await?;
        let mut made = Vec::new();
        for (name, locked) in [("platform", PLATFORM), ("mlflow", MLFLOW)] {
            made.push(python::environment(context, &uv, &python, &runtime.join(name), locked).await?);
        }
        let mlflow = made.pop().unwrap_or_default();
        let platform = made.pop().unwrap_or_default();
        Ok((python, uv, platform, mlflow))
    }
}

#[async_trait]
impl Task for BaseRuntimeTask {
    type Settings = Tools;
    type Output = BaseRuntime;

    fn settings(&self) -> &Tools {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![
            ("requirements/platform.txt", PLATFORM.as_bytes()),
            ("requirements/mlflow.txt", MLFLOW.as_bytes()),
            ("minio", go_build::MINIO.version.as_bytes()),
            ("uv", python::UV_VERSION.as_bytes()),
        ]
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(python) = &self.settings.python
            && !python.is_file()
        {
            problems.push(Problem::new(
                format!("tools.python: there is no {}", python.display()),
                "correct the configuration",
            ));
        }
        if self.settings.python.is_none() && python::candidates().is_empty() {
            problems.push(Problem::new("there is no `python3` on PATH", "apt-get install python3 python3-venv"));
        }
        if let Some(minio) = &self.settings.minio
            && !minio.is_file()
        {
            problems.push(Problem::new(
                format!("tools.minio: there is no {}", minio.display()),
                "correct the configuration",
            ));
        }
        match debian::installed(self.settings.postgres.as_deref()) {
            Err(failure) => problems.push(Problem { message: failure.to_string(), hint: failure.hint }),
            Ok(None) if find_program("apt-get").is_none() => problems.push(Problem::new(
                "there is neither a PostgreSQL server nor `apt-get` to fetch one",
                "install PostgreSQL's server programs, or name their folder as `tools.postgres`",
            )),
            Ok(_) => {}
        }
        problems
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        let runtime = &made.output;
        let programs = [
            BaseRuntime::program(&runtime.platform_env, "supervisord"),
            BaseRuntime::program(&runtime.platform_env, "python"),
            BaseRuntime::program(&runtime.mlflow_env, "mlflow"),
            BaseRuntime::program(&runtime.mlflow_env, "python"),
            runtime.minio.path.clone(),
            runtime.postgres.program("postgres"),
            runtime.postgres.program("pg_dump"),
        ];
        match programs.iter().find(|program| !program.is_file()) {
            Some(gone) => Probe::Missing(format!("no program {}", gone.display())),
            None => Probe::Holds,
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<BaseRuntime>, Failure> {
        let machine: Machine = context.output()?;
        let runtime = machine.runtime_dir();
        // The build takes minutes: everything else happens meanwhile.
        let (environments, minio, postgres) = tokio::join!(
            self.environments(context, &runtime),
            self.minio(context, &runtime),
            self.postgres(context, &runtime),
        );
        let (python, uv, platform_env, mlflow_env) = environments?;
        Ok(Applied::complete(BaseRuntime { platform_env, mlflow_env, minio: minio?, postgres: postgres?, uv, python }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[Proof::safe("the service user can run each program")];
        PROOFS
    }

    async fn prove(&self, _proof: &str, view: &View, output: &BaseRuntime) -> Result<(), Failure> {
        let machine: Machine = view.output()?;
        // MLflow leaves an id of its own in the home of whoever imports it.
        let scratch = Scratch::new(view, "versions", Some(&machine.service_user))?;
        let postgres = &output.postgres;
        let mlflow = BaseRuntime::program(&output.mlflow_env, "python");
        let programs = [
            (output.minio.path.clone(), vec!["--version"]),
            (postgres.program("postgres"), vec!["--version"]),
            (BaseRuntime::program(&output.platform_env, "python"), vec!["-c", "import minio, supervisor"]),
            (mlflow, vec!["-c", "import mlflow.version, psycopg2, boto3, prometheus_flask_exporter"]),
        ];
        for (program, args) in programs {
            let command = run_as::service_user(&machine, &program).args(args).dir("/").timeout(VERSION_TIMEOUT);
            let mut command = scratch.home_of(command);
            if program.starts_with(&postgres.bin) && !postgres.libraries.is_empty() {
                let path = postgres.libraries.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>();
                command = command.env("LD_LIBRARY_PATH", path.join(":"));
            }
            view.command(command).await?;
        }
        Ok(())
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        files::remove(&context.state_dir().join("runtime"))
    }
}
