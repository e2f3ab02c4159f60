//! CLOUD-5.1: a model is fine-tuned by Oumi, measured, registered in MLflow and served.
//!
//! Delivers the configuration files of Oumi for this platform (train, evaluate, infer, launch), the trained model, its
//! figures as a baseline, and its endpoint. Proof: Oumi's own parser reads each file; the loss, as MLflow has it, has
//! fallen; the registered version is there; the served model completes a text over OpenAI's protocol.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use taskrun_engine::context::{Context, View};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::oumi::{self, Oumi, Values};
use crate::config::{Config, TrainingConfig};
use crate::outputs::{Machine, ModelServing, PythonEnvironment, Tracking, Training};
use crate::serving::{Client, InferenceService, Runtime, ServingError};
use crate::tools::files;
use crate::tools::mlflow::{Mlflow, MlflowError};

/// The experiment of all trainings.
const EXPERIMENT: &str = "training";

/// How long the model may take until it is served.
const SERVE_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a completion may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The metric that must fall.
const LOSS: &str = "loss";

/// The task.
pub struct TrainingTask {
    settings: TrainingConfig,
}

/// Where the training begins.
enum Base {
    Tiny,
    Folder(PathBuf),
    Hub,
}

/// All that a verb works with.
struct Place {
    machine: Machine,
    tracking: Tracking,
    serving: ModelServing,
    environment: PythonEnvironment,
    folder: PathBuf,
}

impl Place {
    fn new(view: &View) -> Result<Self, Failure> {
        let folder = folder(view.state_dir());
        let (machine, tracking) = (view.output()?, view.output()?);
        Ok(Self { machine, tracking, serving: view.output()?, environment: view.output()?, folder })
    }

    fn oumi<'a>(&'a self, view: &'a View, online: bool) -> Oumi<'a> {
        let (machine, environment) = (&self.machine, &self.environment);
        Oumi { view, machine, environment, folder: self.folder.clone(), online }
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("training")
}

impl TrainingTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: config.training.clone() }
    }

    fn base(&self, view: &View) -> Base {
        let folder = view.graph_dir().join(&self.settings.model);
        match &*self.settings.model {
            TrainingConfig::TINY => Base::Tiny,
            _ if folder.is_dir() => Base::Folder(folder),
            _ => Base::Hub,
        }
    }

    /// The folder of this very training: what other settings or conversations made is never gone on with.
    fn run_folder(&self, place: &Place, dataset: &Path) -> Result<PathBuf, Failure> {
        let mut made_of = serde_json::to_vec(&self.settings)
            .map_err(|error| Failure::caused(Persistence::Permanent, "write down the settings", &error))?;
        made_of.extend(fs::read(dataset).map_err(|error| files::failure("read", dataset, &error))?);
        let digest = Digest::of(&made_of).to_string();
        Ok(place.folder.join(format!("{}-{}", self.settings.name, &digest[..12])))
    }

    fn values(&self, view: &View, place: &Place, run: &Path) -> Values {
        let TrainingConfig { name, max_steps, batch_size, learning_rate, max_length, .. } = self.settings.clone();
        let (model, offline) = match self.base(view) {
            Base::Tiny => (run.join("base").display().to_string(), 1),
            Base::Folder(folder) => (folder.display().to_string(), 1),
            Base::Hub => (self.settings.model.clone(), 0),
        };
        Values {
            api_url: format!("{}/openai/v1/chat/completions", Client::new(&place.serving).url(&name)),
            name,
            folder: place.folder.clone(),
            model,
            dataset: place.folder.join("conversations.jsonl"),
            output: run.join("model"),
            evaluation: run.join("evaluation"),
            // The tiny model is made in it, and every processor computes in it.
            dtype: if offline == 1 { "float32" } else { "auto" },
            max_length,
            max_steps,
            batch_size,
            learning_rate,
            logging_steps: (max_steps / 12).max(1),
            save_steps: (max_steps / 3).max(1),
            tracking_url: place.tracking.tracking_url.clone(),
            experiment: EXPERIMENT.to_owned(),
            offline,
        }
    }

    /// Puts the conversations where the service user can read them.
    fn copy_dataset(&self, view: &View, place: &Place) -> Result<PathBuf, Failure> {
        let given = self.settings.dataset.as_ref().map(|file| view.graph_dir().join(file));
        let from = given.unwrap_or_else(|| place.folder.join("dataset.jsonl"));
        let text = fs::read_to_string(&from).map_err(|error| files::failure("read", &from, &error))?;
        if let Some((line, why)) = oumi::bad_line(&text) {
            let failure = Failure::permanent(format!("read {}:{line}: {why}", from.display()));
            return Err(failure.with_hint("each line is {\"messages\": [{\"role\": …, \"content\": …}, …]}"));
        }
        let to = place.folder.join("conversations.jsonl");
        fs::write(&to, text).map_err(|error| files::failure("write", &to, &error))?;
        Ok(to)
    }

    /// Sends the files of the trained model to the tracking server and registers them as a version.
    async fn register(&self, mlflow: &Mlflow, experiment: &str, run: &str, model: &Path) -> Result<String, Failure> {
        let mut digests = Vec::new();
        let entries = fs::read_dir(model).map_err(|error| files::failure("read", model, &error))?;
        // Folders are checkpoints and logs.
        let mut sent: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        sent.sort();
        for file in sent {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = fs::read(&file).map_err(|error| files::failure("read", &file, &error))?;
            digests.push(format!("{name} {}\n", Digest::of(&bytes)));
            mlflow.put_artifact(&format!("{experiment}/{run}/artifacts/model/{name}"), bytes).await.map_err(failure)?;
        }
        let name = &self.settings.name;
        let source = format!("mlflow-artifacts:/{experiment}/{run}/artifacts/model");
        let tags = [
            ("base_model", self.settings.model.clone()),
            ("checksum", Digest::of(digests.concat().as_bytes()).to_string()),
        ];
        mlflow.ensure_model(name).await.map_err(failure)?;
        mlflow.create_version(name, &source, Some(run), &tags).await.map_err(failure)
    }

    async fn serve(&self, place: &Place, uri: &str) -> Result<String, Failure> {
        let client = Client::new(&place.serving);
        let service =
            InferenceService { runtime: Runtime::CausalLm, ..InferenceService::new(&self.settings.name, uri) };
        client.deploy(&service).map_err(serving)?;
        let status = client.wait_ready(&service.name, SERVE_TIMEOUT).await.map_err(serving)?;
        Ok(format!("{}/openai/v1", status.url))
    }
}

#[async_trait]
impl Task for TrainingTask {
    type Settings = TrainingConfig;
    type Output = Training;

    fn settings(&self) -> &TrainingConfig {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<Tracking>(), Read::of::<ModelServing>(), Read::of::<PythonEnvironment>()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        oumi::assets()
    }

    fn inputs(&self) -> Vec<PathBuf> {
        self.settings.dataset.clone().into_iter().collect()
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        let mut problems = Vec::new();
        let looks_like_a_path = |model: &str| model.starts_with(['/', '.']) || model.matches('/').count() > 1;
        if matches!(self.base(view), Base::Hub) && looks_like_a_path(&self.settings.model) {
            let message = format!("training.model: there is no folder {}", self.settings.model);
            problems.push(Problem::new(message, "name a folder beside the graph, a model of the hub, or `tiny`"));
        }
        if let Some(dataset) = &self.settings.dataset {
            let file = view.graph_dir().join(dataset);
            match fs::read_to_string(&file) {
                Err(error) => problems.push(Problem::new(
                    format!("training.dataset: read {}: {error}", file.display()),
                    "name a JSONL file of conversations",
                )),
                Ok(text) => problems.extend(oumi::bad_line(&text).map(|(line, why)| {
                    let hint = "each line is {\"messages\": [{\"role\": …, \"content\": …}, …]}";
                    Problem::new(format!("training.dataset: {}:{line}: {why}", file.display()), hint)
                })),
            }
        }
        problems
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let place = match Place::new(view) {
            Ok(place) => place,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        if let Some(gone) = [&made.output.configs, &made.output.model_dir].into_iter().find(|path| !path.exists()) {
            return Probe::Missing(format!("no folder {}", gone.display()));
        }
        let status = Client::new(&place.serving).status(&made.output.model_name);
        match status {
            Ok(status) if status.ready > 0 => Probe::Holds,
            Ok(_) => Probe::Stopped(format!("no replica of {} serves", made.output.model_name)),
            Err(ServingError::Unknown { name, .. }) => Probe::Missing(format!("the model {name} is not deployed")),
            Err(error) => Probe::CannotTell(error.to_string()),
        }
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<Training>, Failure> {
        let place = Place::new(context)?;
        let oumi = place.oumi(context, matches!(self.base(context), Base::Hub));
        let values = |run: &Path| self.values(context, &place, run);
        // The conversations decide the folder that the configuration names.
        oumi.write(&values(&place.folder))?;
        let dataset = self.copy_dataset(context, &place)?;
        let run_folder = self.run_folder(&place, &dataset)?;
        let values = values(&run_folder);
        oumi.write(&values)?;
        files::service_folder(&run_folder, &place.machine.service_user, 0o755)?;
        if let Base::Tiny = self.base(context) {
            let base = run_folder.join("base");
            let make = oumi.make_tiny_model(&dataset, &base);
            context.step_checked("make the tiny model", |(): &()| base.is_dir(), make).await?;
        }

        let mlflow = Mlflow::new(&place.tracking.tracking_url).map_err(failure)?;
        let model = run_folder.join("model");
        let made = earlier.made.as_ref().map(|made| &made.output).filter(|made| made.model_dir == model);
        if let Some(made) = made
            && model.join("config.json").is_file()
            && registered(&mlflow, made).await?
        {
            // What was trained from this already is only to be served again.
            let openai_url = self.serve(&place, &made.model_uri).await?;
            return Ok(Applied::complete(Training { openai_url, ..made.clone() }));
        }
        let begin = async {
            // Checkpoints of another run would be gone on with, and this one would have no history.
            files::remove(&model)?;
            let experiment = mlflow.ensure_experiment(EXPERIMENT).await.map_err(failure)?;
            let now = jiff::Timestamp::now().as_millisecond();
            let run = mlflow.create_run(&experiment, &self.settings.name, now).await.map_err(failure)?;
            Ok((experiment, run))
        };
        let (experiment, run): (String, String) = context.step("begin a run in MLflow", begin).await?;
        let train = oumi.train(&place.tracking.tracking_url, EXPERIMENT, &run);
        let trained = |(): &()| model.join("config.json").is_file();
        context.step_checked("train", trained, train).await?;
        let history = mlflow.metric_history(&run, LOSS).await.map_err(failure)?;
        let loss = match history[..] {
            [first, .., last] => (first, last),
            _ => return Err(Failure::permanent("find the loss of two steps in MLflow")),
        };
        let baseline: BTreeMap<String, f64> =
            context.step("evaluate", oumi.evaluate(&run_folder.join("evaluation"))).await?;
        let register = self.register(&mlflow, &experiment, &run, &model);
        let version: String = context.step("register the model", register).await?;
        let model_uri = format!("models:/{}/{version}", self.settings.name);
        context.safe_point()?;
        let openai_url = self.serve(&place, &model_uri).await?;
        Ok(Applied::complete(Training {
            configs: place.folder.clone(),
            model_dir: model,
            dataset,
            experiment: EXPERIMENT.to_owned(),
            run_id: run,
            model_name: self.settings.name.clone(),
            model_version: version,
            model_uri,
            loss,
            baseline,
            openai_url,
        }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("Oumi reads every configuration file"),
            Proof::safe("the loss has fallen"),
            Proof::safe("the registered version is there, with its baseline"),
            Proof::safe("the served model completes a text"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Training) -> Result<(), Failure> {
        let place = Place::new(view)?;
        match proof {
            "Oumi reads every configuration file" => place.oumi(view, false).check_configs().await,
            "the loss has fallen" if output.loss.1 < output.loss.0 => Ok(()),
            "the loss has fallen" => {
                let (first, last) = output.loss;
                let failure = Failure::permanent(format!("see the loss fall: it went from {first:.4} to {last:.4}"));
                Err(failure.with_hint("train longer, or with another `training.learning_rate`"))
            }
            "the registered version is there, with its baseline" => {
                let mlflow = Mlflow::new(&place.tracking.tracking_url).map_err(failure)?;
                match registered(&mlflow, output).await? && !output.baseline.is_empty() {
                    true => Ok(()),
                    false => Err(Failure::permanent(format!("find {} of run {}", output.model_uri, output.run_id))),
                }
            }
            "the served model completes a text" => complete(output).await,
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        if let Ok(model_serving) = context.output::<ModelServing>() {
            let client = Client::new(&model_serving);
            for settings in &made.settings {
                match client.delete(&settings.name).await {
                    Ok(()) | Err(ServingError::Unknown { .. }) => {}
                    Err(error) => return Err(serving(error)),
                }
            }
        }
        files::remove(&folder(context.state_dir()))
    }
}

/// Whether the registry has the version that came of the run.
async fn registered(mlflow: &Mlflow, made: &Training) -> Result<bool, Failure> {
    let versions = mlflow.versions(&made.model_name).await.map_err(failure)?;
    Ok(versions.iter().any(|version| version.version == made.model_version && version.run_id == made.run_id))
}

/// Asks the served model to go on with a text.
async fn complete(output: &Training) -> Result<(), Failure> {
    let failed = |error: reqwest::Error| Failure::caused(Persistence::Transient, "ask the served model", &error);
    let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build().map_err(failed)?;
    let body =
        json!({"model": output.model_name, "prompt": "user: What is the database?\nassistant:", "max_tokens": 16});
    let answer = client.post(format!("{}/completions", output.openai_url)).json(&body).send().await.map_err(failed)?;
    let status = answer.status();
    let told: serde_json::Value = answer.json().await.map_err(failed)?;
    match told.pointer("/choices/0/text").and_then(serde_json::Value::as_str) {
        Some(text) if status.is_success() && !text.trim().is_empty() => Ok(()),
        _ => Err(Failure::permanent(format!("read a completion of {}: {status}: {told}", output.model_name))),
    }
}

fn failure(error: MlflowError) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "work with MLflow", &error)
}

fn serving(error: ServingError) -> Failure {
    let failure = Failure::caused(Persistence::Permanent, "serve the model", &error);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
