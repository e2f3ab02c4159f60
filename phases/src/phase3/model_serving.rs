//! CLOUD-3.4: models are served: a proxy in front of all of them, and a controller that runs and scales their replicas.
//!
//! Proof: a model that is trained on the spot, kept in MLflow with its artifact in the bucket, answers over V2 through
//! the proxy with exactly the numbers that it gives in process; a model that is not there is told as such, soon; a name
//! that nobody serves is answered with a reason. All of it is taken away again. What the configuration exposes is reached
//! from other machines through a [`gateway`], and nothing else is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskrun_engine::context::{Context, View};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::task::{Applied, Earlier, Footprint, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::gateway;
use super::mlflow::forget_experiments;
use crate::config::{Config, ExposeConfig};
use crate::outputs::{
    Accelerators, BaseRuntime, Database, Machine, ModelRuntime, ModelServing, ObjectStore, Platform, Tracking,
};
use crate::phase0::find_program;
use crate::platform::{Health, Local, Metrics, Service};
use crate::serving::{self, CONTROLLER, Client, InferenceService, PROXY, Reason, SERVICE, ServingError, Setup};
use crate::tools::scratch::Scratch;
use crate::tools::{debian, files, run_as};

/// The application whose key replicas use.
const APPLICATION: &str = "serving";

/// The node whose environment has PyTorch and transformers.
const CAUSAL_LM_ENVIRONMENT: &str = "oumi-environment";

/// The package and the program of the proxy.
const HAPROXY: &str = "haproxy";

/// How long the proxy's program may take to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long training the model of the proof may take.
const TRAIN_TIMEOUT: Duration = Duration::from_secs(180);

/// How long a model of a proof may take until it serves, or is told not to.
const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// What the experiments of proofs begin with.
const PROOF: &str = "taskrun-serving-proof-";

/// The models of the proofs.
const IRIS: &str = "taskrun-proof-iris";
const NOWHERE: &str = "taskrun-proof-nowhere";

/// The task.
pub struct ModelServingTask {
    settings: Settings,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    expose: Option<ExposeConfig>,
}

/// The proxy's program.
struct Haproxy {
    program: PathBuf,
    libraries: Vec<PathBuf>,
    version: String,
}

/// What training the classifier tells.
#[derive(Deserialize)]
pub(crate) struct Trained {
    /// Where the model is, for [`InferenceService::model_uri`].
    pub(crate) uri: String,
    inputs: Vec<Vec<f64>>,
    outputs: Vec<Vec<f64>>,
}

impl ModelServingTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: Settings { expose: config.expose.clone() } }
    }

    /// The program on PATH if it has an exporter, else the distribution's, unpacked.
    async fn haproxy(&self, context: &Context, machine: &Machine) -> Result<Haproxy, Failure> {
        if let Some(program) = find_program(HAPROXY)
            && let Ok(version) = version(context, &program, &[]).await
        {
            return Ok(Haproxy { program, libraries: Vec::new(), version });
        }
        let target = machine.runtime_dir().join(HAPROXY);
        let program = target.join("usr/sbin/haproxy");
        let holds = |_: &Vec<PathBuf>| program.is_file();
        let unpack = debian::unpack_packages(context, &[HAPROXY], &[], &target);
        let libraries = context.step_checked("unpack HAProxy", holds, unpack).await?;
        let version = version(context, &program, &libraries).await?;
        Ok(Haproxy { program, libraries, version })
    }

    fn setup(&self, context: &Context, haproxy: &Haproxy) -> Result<Setup, Failure> {
        let (machine, store): (Machine, ObjectStore) = (context.output()?, context.output()?);
        let key = store.keys.get(APPLICATION).cloned();
        let hint = format!("give it one: object_store.applications.{APPLICATION} in the configuration");
        let key =
            key.ok_or_else(|| Failure::permanent("find the object store's key for model serving").with_hint(hint))?;
        let environment = machine.runtime_dir().join(CAUSAL_LM_ENVIRONMENT);
        Ok(Setup {
            secrets: context.secrets().path().to_owned(),
            runtime: context.output()?,
            causal_lm_python: BaseRuntime::program(&environment, "python"),
            key,
            store,
            tracking_url: context.output::<Tracking>()?.tracking_url,
            accelerators: context.output_unless_skipped::<Accelerators>()?,
            haproxy: haproxy.program.clone(),
            libraries: haproxy.libraries.clone(),
            machine,
        })
    }

    async fn prove_iris(&self, view: &View, client: &Client, output: &ModelServing) -> Result<(), Failure> {
        let trained = train(view, PROOF).await?;
        client.deploy(&InferenceService::new(IRIS, &trained.uri)).map_err(failure)?;
        client.wait_ready(IRIS, READY_TIMEOUT).await.map_err(failure)?;
        let shape = [trained.inputs.len(), trained.inputs.first().map_or(0, Vec::len)];
        let input = json!({"name": "irises", "datatype": "FP64", "shape": shape, "data": trained.inputs.concat()});
        let url = format!("{}/v2/models/{IRIS}/infer", output.inference_url);
        let answer = ask(reqwest::Method::POST, &url, Some(json!({"inputs": [input]}))).await?;
        let told = answer.pointer("/outputs/0/data").cloned().unwrap_or_default();
        let told: Vec<f64> = serde_json::from_value(told).unwrap_or_default();
        match told == trained.outputs.concat() {
            true => Ok(()),
            false => Err(Failure::permanent(format!(
                "see the model answer with its own numbers: it says {answer}, and not {:?}",
                trained.outputs
            ))),
        }
    }

    async fn prove_nowhere(&self, client: &Client) -> Result<(), Failure> {
        let uri = format!("models:/{NOWHERE}/1");
        client.deploy(&InferenceService::new(NOWHERE, &uri)).map_err(failure)?;
        match client.wait_ready(NOWHERE, READY_TIMEOUT).await {
            Err(ServingError::Failed { reason: Reason::ModelLoadFailed, message, .. }) if message.contains(NOWHERE) => {
                Ok(())
            }
            Err(error) => Err(failure(error)),
            Ok(_) => Err(Failure::permanent("see a model that is not there refused: it is ready")),
        }
    }
}

/// Trains a small classifier as the service user, and keeps it in MLflow, in an experiment whose name begins with
/// `prefix`.
pub(crate) async fn train(view: &View, prefix: &str) -> Result<Trained, Failure> {
    let (machine, runtime): (Machine, ModelRuntime) = (view.output()?, view.output()?);
    let tracking: Tracking = view.output()?;
    let scratch = Scratch::new(view, SERVICE, Some(&machine.service_user))?;
    let experiment = format!("{prefix}{}", jiff::Timestamp::now().as_millisecond());
    let train = run_as::service_user(&machine, &BaseRuntime::program(&runtime.environment, "python"))
        .arg("-I")
        .arg(runtime.server.join("iris.py"))
        .args([&experiment, "1"])
        .env("MLFLOW_TRACKING_URI", tracking.tracking_url)
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .dir(scratch.folder())
        .timeout(TRAIN_TIMEOUT);
    let told = view.capture(scratch.home_of(train)).await?;
    serde_json::from_str(told.lines().last().unwrap_or_default())
        .map_err(|error| Failure::caused(Persistence::Permanent, "understand what the training tells", &error))
}

/// The version of a proxy program, which must have the exporter.
async fn version(context: &Context, program: &Path, libraries: &[PathBuf]) -> Result<String, Failure> {
    let libraries = libraries.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
    let ask = Command::new(program).arg("-vv").env("LD_LIBRARY_PATH", libraries).timeout(VERSION_TIMEOUT);
    let told = context.capture(ask).await?;
    if !told.contains("prometheus-exporter") {
        return Err(Failure::permanent(format!("find the Prometheus exporter in {}", program.display())));
    }
    // HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
    Ok(told.split_whitespace().nth(2).unwrap_or("unknown").to_owned())
}

/// The controller as a service. It drives other services, and so runs as whoever runs the platform.
fn controller(local: &Local, setup: &Setup) -> Result<Service, Failure> {
    let json = serde_json::to_string_pretty(setup)
        .map_err(|error| Failure::caused(Persistence::Permanent, "describe the controller", &error))?;
    let file = setup.file();
    let new = file.with_extension("new");
    std::fs::write(&new, &json)
        .and_then(|()| std::fs::rename(&new, &file))
        .map_err(|error| files::failure("write", &file, &error))?;
    let command = [local.own_program().display().to_string(), serving::controller::VERB.to_owned()];
    let port = setup.machine.ports.inference_controller;
    Ok(Service {
        name: CONTROLLER.to_owned(),
        command: command.into_iter().chain([file.display().to_string()]).collect(),
        // It reads its file only at its start: another file is another description.
        env: [("TASKRUN_SETUP".to_owned(), Digest::of(json.as_bytes()).to_string())].into(),
        secret_env: [].into(),
        secret_files: crate::platform::SecretFiles::default(),
        dir: setup.folder(),
        endpoints: [("metrics".to_owned(), format!("http://127.0.0.1:{port}/metrics"))].into(),
        health: Health::Http(format!("http://127.0.0.1:{port}/healthz")),
        metrics: vec![Metrics::of_port("serving", port)],
        login: None,
        stop_signal: "TERM".to_owned(),
        stop_seconds: 10,
    })
}

/// Writes a configuration without models, unless the present one has the same ports: then its models stay.
fn write_proxy_configuration(setup: &Setup) -> Result<(), Failure> {
    let file = setup.proxy_file();
    let empty = serving::proxy::configuration(setup, [].into()).render();
    let head = |text: &str| {
        let own = |line: &&str| line.trim_start().starts_with("bind ") || line.contains("stats socket");
        text.lines().filter(own).map(str::to_owned).collect::<Vec<_>>()
    };
    if std::fs::read_to_string(&file).is_ok_and(|present| head(&present) == head(&empty)) {
        return Ok(());
    }
    std::fs::write(&file, empty).map_err(|error| files::failure("write", &file, &error))
}

async fn ask(method: reqwest::Method, url: &str, body: Option<Value>) -> Result<Value, Failure> {
    let failed = |error: reqwest::Error| Failure::caused(Persistence::Transient, format!("ask {url}"), &error);
    let request = reqwest::Client::builder().no_proxy().timeout(READY_TIMEOUT).build().map_err(failed)?;
    let request = request.request(method, url);
    let request = if let Some(body) = body { request.json(&body) } else { request };
    request.send().await.map_err(failed)?.json().await.map_err(failed)
}

#[async_trait]
impl Task for ModelServingTask {
    type Settings = Settings;
    type Output = ModelServing;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn secrets(&self) -> Vec<String> {
        self.settings.expose.iter().map(|_| gateway::PASSWORD.to_owned()).collect()
    }

    fn reads(&self) -> Vec<Read> {
        vec![
            Read::of::<Machine>(),
            Read::of::<BaseRuntime>(),
            Read::of::<ModelRuntime>(),
            Read::of::<Platform>(),
            Read::of::<Accelerators>(),
            Read::of::<ObjectStore>(),
            Read::of::<Database>(),
            Read::of::<Tracking>(),
        ]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![
            ("haproxy.cfg", include_bytes!("../../assets/haproxy/haproxy.cfg")),
            ("gateway.cfg", gateway::TEMPLATE.as_bytes()),
        ]
    }

    fn footprint(&self) -> Footprint {
        Footprint { download_mib: 3, disk_mib: 10 }
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        let haproxy = find_program(HAPROXY).or_else(|| find_program("apt-get"));
        let missing = match haproxy {
            Some(_) => None,
            None => Some(Problem::new("there is neither `haproxy` nor `apt-get` to fetch it", "install HAProxy")),
        };
        missing.into_iter().chain(self.settings.expose.as_ref().and_then(gateway::check)).collect()
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let place = view.output::<Machine>().and_then(|machine| Ok((Local::new(&machine)?, machine)));
        let (local, machine) = match place {
            Ok(place) => place,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        let services = local.services();
        for name in [PROXY, CONTROLLER] {
            let Some(service) = services.iter().find(|service| service.name == name) else {
                return Probe::Missing(format!("there is no service {name}"));
            };
            match local.probe(service).await {
                Probe::Holds => {}
                other => return other,
            }
        }
        match gateway::probe(&local, &machine, self.settings.expose.as_ref()).await {
            Probe::Holds => {}
            other => return other,
        }
        if made.output.folder.is_dir() { Probe::Holds } else { Probe::Missing("its folder is gone".to_owned()) }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<ModelServing>, Failure> {
        let machine: Machine = context.output()?;
        let haproxy = self.haproxy(context, &machine).await?;
        let setup = self.setup(context, &haproxy)?;
        let user = &machine.service_user;
        let (folder, sockets) = (setup.folder(), setup.proxy_sockets());
        std::fs::create_dir_all(&folder).map_err(|error| files::failure("make", &folder, &error))?;
        files::service_folder(&machine.service_dir(SERVICE), user, 0o711)?;
        files::service_folder(&setup.models(), user, 0o700)?;
        files::service_folder(&machine.service_dir(PROXY), user, 0o711)?;
        files::service_folder(&sockets, user, 0o700)?;
        write_proxy_configuration(&setup)?;
        context.safe_point()?;
        let local = Local::new(&machine)?;
        local.ensure(context, &serving::proxy::service(&setup)).await?;
        let controller = controller(&local, &setup)?;
        local.clone().as_owner().ensure(context, &controller).await?;
        let program = gateway::Program { path: &haproxy.program, libraries: &haproxy.libraries };
        gateway::apply(context, &machine, self.settings.expose.as_ref(), &program).await?;
        let ports = machine.ports;
        let metrics = |port: u16| format!("http://127.0.0.1:{port}/metrics");
        Ok(Applied::complete(ModelServing {
            inference_url: setup.inference_url(),
            proxy_metrics_url: metrics(ports.inference_metrics),
            controller_metrics_url: metrics(ports.inference_controller),
            folder,
            proxy_version: haproxy.version,
            gpu_slots: setup.accelerators.as_ref().map_or(0, |all| all.slots().count()),
        }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::quick("a name that nobody serves is answered with a reason"),
            Proof::quick("other machines reach what is exposed, with a login, and nothing else"),
            Proof::safe("a model answers with the numbers that it gives in process"),
            Proof::safe("a model that is not there is told as such"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &ModelServing) -> Result<(), Failure> {
        let client = Client::new(output);
        let (name, proved) = match proof {
            "a name that nobody serves is answered with a reason" => {
                let url = format!("{}/v2/models/taskrun.nobody/infer", output.inference_url);
                let answer = ask(reqwest::Method::GET, &url, None).await?;
                let reason = answer.get("error").and_then(Value::as_str).unwrap_or_default();
                return match reason.contains("no model of that name") {
                    true => Ok(()),
                    false => Err(Failure::permanent(format!("see an unknown model refused: it says {answer}"))),
                };
            }
            "other machines reach what is exposed, with a login, and nothing else" => {
                return gateway::prove(view, &view.output()?, self.settings.expose.as_ref()).await;
            }
            "a model answers with the numbers that it gives in process" => {
                client.delete(IRIS).await.map_err(failure)?;
                (IRIS, self.prove_iris(view, &client, output).await)
            }
            "a model that is not there is told as such" => {
                client.delete(NOWHERE).await.map_err(failure)?;
                (NOWHERE, self.prove_nowhere(&client).await)
            }
            _ => return Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        };
        let gone = client.delete(name).await.map_err(failure);
        if name == IRIS {
            forget_experiments(view, PROOF).await?;
        }
        proved.and(gone)
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        let state = context.state_dir();
        if let Ok(machine) = context.output::<Machine>() {
            let local = Local::new(&machine)?;
            // First: it would start replicas again.
            local.remove(context, CONTROLLER).await?;
            let replicas = local.services().into_iter().filter(|service| service.name.starts_with("model-"));
            for replica in replicas {
                local.remove(context, &replica.name).await?;
            }
            local.remove(context, PROXY).await?;
            gateway::destroy(context, &machine).await?;
            files::remove(&machine.sockets.join(HAPROXY))?;
        }
        let services = state.join("services");
        let folders = [state.join("serving"), services.join(SERVICE), services.join(PROXY)];
        folders.iter().chain([&state.join("runtime").join(HAPROXY)]).try_for_each(|folder| files::remove(folder))
    }
}

fn failure(error: ServingError) -> Failure {
    let hint = error.hint();
    let persistence = match error {
        ServingError::TimedOut { .. } => Persistence::Transient,
        _ => Persistence::Permanent,
    };
    let failure = Failure::caused(persistence, "serve a model", &error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
