//! CLOUD-1.2: what a model worker runs: a Python environment with KServe's model server, and the server itself.
//!
//! The environment has the `kserve` package and what loads MLflow's models, and no PyTorch: so it is 0.5 GB, not 8, and
//! is there in seconds. Causal language models need PyTorch and transformers, whose versions Oumi pins and whose
//! FastAPI is another one than KServe's; so their replicas begin here too, which fetches the model, and go on in Oumi's
//! environment (the node `oumi-environment`) with a server of OpenAI's protocol of our own, or with vLLM where that
//! environment and a GPU are. Proof: the service user can import the server, and a bad model ends in one clear line.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;
use taskrun_engine::task::{Applied, Earlier, Footprint, Made, Probe, Proof, Read, Task, Traces};

use crate::outputs::{BaseRuntime, Machine, ModelRuntime};
use crate::tools::scratch::Scratch;
use crate::tools::{files, nvml, python, run_as};

/// The name of the environment's folder.
const ENVIRONMENT: &str = "model-runtime";

/// The name of the server's folder.
const SERVER: &str = "model-server";

/// The locked requirements.
const REQUIREMENTS: &str = include_str!("../../assets/requirements/model-runtime.txt");

/// The files of the server.
const FILES: [(&str, &str); 6] = [
    ("serve.py", include_str!("../../assets/model_server/serve.py")),
    ("fetch.py", include_str!("../../assets/model_server/fetch.py")),
    ("pyfunc_server.py", include_str!("../../assets/model_server/pyfunc_server.py")),
    ("causal_lm_server.py", include_str!("../../assets/model_server/causal_lm_server.py")),
    ("vllm_paths.py", include_str!("../../assets/model_server/vllm_paths.py")),
    ("iris.py", include_str!("../../assets/model_server/iris.py")),
];

/// How long a first import may take: it reads hundreds of files and writes their bytecode.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(180);

/// Prints the versions of what serves, one a line, once the modules are there.
const VERSIONS: &str = "import kserve, mlflow.pyfunc; from importlib.metadata import version; \
                        print(version('kserve')); print(version('mlflow-skinny'))";

/// A driver that supports no CUDA of this major version cannot run present builds of PyTorch and vLLM.
const LEAST_CUDA: u32 = 12;

/// The task.
pub struct ModelRuntimeTask;

impl ModelRuntimeTask {
    /// Writes the server's files, each as a whole.
    fn write_server(folder: &Path) -> Result<(), Failure> {
        std::fs::create_dir_all(folder).map_err(|error| files::failure("make", folder, &error))?;
        for (name, text) in FILES {
            let (file, new) = (folder.join(name), folder.join(format!("{name}.new")));
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, &file))
                .map_err(|error| files::failure("write", &file, &error))?;
        }
        Ok(())
    }

    /// What is wrong with the driver of a GPU, if there is one.
    async fn driver_trouble(context: &Context) -> Option<String> {
        let look = || nvml::accelerators(&nvml::open().ok()?, 1).ok();
        let found = tokio::task::spawn_blocking(look).await.ok().flatten()?;
        context.say(format!("NVIDIA driver {}, CUDA {}", found.driver, found.cuda));
        let major = found.cuda.split('.').next().and_then(|major| major.parse::<u32>().ok())?;
        (major < LEAST_CUDA).then(|| {
            let (driver, cuda) = (&found.driver, &found.cuda);
            format!("models on the GPU: driver {driver} supports CUDA {cuda}, and {LEAST_CUDA} is needed: upgrade it")
        })
    }
}

#[async_trait]
impl Task for ModelRuntimeTask {
    type Settings = ();
    type Output = ModelRuntime;

    fn settings(&self) -> &() {
        &()
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<BaseRuntime>()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        let server = FILES.iter().map(|(name, text)| (*name, text.as_bytes()));
        server.chain([("requirements/model-runtime.txt", REQUIREMENTS.as_bytes())]).collect()
    }

    fn footprint(&self) -> Footprint {
        Footprint { download_mib: 170, disk_mib: 560 }
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        let python = BaseRuntime::program(&made.output.environment, "python");
        let mut needed = FILES.iter().map(|(name, _)| made.output.server.join(name)).chain([python]);
        match needed.find(|file| !file.is_file()) {
            Some(gone) => Probe::Missing(format!("there is no {}", gone.display())),
            None => Probe::Holds,
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<ModelRuntime>, Failure> {
        let (machine, base): (Machine, BaseRuntime) = (context.output()?, context.output()?);
        let folder = machine.runtime_dir().join(ENVIRONMENT);
        let environment = python::environment(context, &base.uv, &base.python, &folder, REQUIREMENTS).await?;
        let server = machine.runtime_dir().join(SERVER);
        Self::write_server(&server)?;
        // Not as the service user: so the bytecode that the first import writes serves all replicas.
        let scratch = Scratch::new(context, ENVIRONMENT, None)?;
        let ask = Command::new(BaseRuntime::program(&environment, "python")).args(["-I", "-c", VERSIONS]);
        let ask = ask.dir("/").timeout(IMPORT_TIMEOUT);
        let told = context.capture(scratch.home_of(ask)).await?;
        let mut versions = told.lines().map(str::to_owned);
        let (kserve, mlflow) = (versions.next().unwrap_or_default(), versions.next().unwrap_or_default());
        let missing = Self::driver_trouble(context).await.into_iter().collect();
        Ok(Applied::degraded(ModelRuntime { environment, server, kserve, mlflow }, missing))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("the service user can import the server"),
            Proof::safe("a model that is not there ends in one clear line"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &ModelRuntime) -> Result<(), Failure> {
        let machine: Machine = view.output()?;
        let scratch = Scratch::new(view, ENVIRONMENT, Some(&machine.service_user))?;
        let python = BaseRuntime::program(&output.environment, "python");
        let command = || run_as::service_user(&machine, &python).dir("/").timeout(IMPORT_TIMEOUT);
        match proof {
            "the service user can import the server" => {
                let told = view.capture(scratch.home_of(command().args(["-I", "-c", VERSIONS]))).await?;
                let expected = [&*output.kserve, &*output.mlflow];
                match told.lines().eq(expected) {
                    true => Ok(()),
                    false => Err(Failure::permanent(format!("import the server: the versions are {told:?}"))),
                }
            }
            _ => {
                let nowhere = scratch.folder().join("no-such-model").display().to_string();
                let serve = command().args(["-s", "-E"]).arg(output.server.join("serve.py"));
                let serve = serve.args(["--name=proof", "--port=1", &format!("--uri={nowhere}"), "--folder=/nowhere"]);
                match view.command(scratch.home_of(serve)).await {
                    Ok(_) => Err(Failure::permanent("see a model that is not there refused: it was served")),
                    Err(failure) => {
                        let tail = failure.command.as_ref().map_or("", |command| command.tail.trim());
                        let last = tail.lines().last().unwrap_or_default();
                        let clear = last.starts_with("error: ") && last.contains(&nowhere);
                        if clear { Ok(()) } else { Err(failure) }
                    }
                }
            }
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        for name in [ENVIRONMENT, SERVER] {
            files::remove(&context.state_dir().join("runtime").join(name))?;
        }
        Ok(())
    }
}
