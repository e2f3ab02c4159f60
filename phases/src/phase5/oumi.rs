//! Oumi's programs and configuration files (<https://oumi.ai/docs>).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use crate::outputs::{Machine, PythonEnvironment};
use crate::tools::{files, run_as};

/// How long a training may take.
const TRAIN_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How long other programs may take; importing Oumi alone takes up to a minute.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// The templates of the configuration files, by the files' names.
const TEMPLATES: [(&str, &str); 4] = [
    ("train.yaml", include_str!("../../assets/oumi/train.yaml.j2")),
    ("evaluate.yaml", include_str!("../../assets/oumi/evaluate.yaml.j2")),
    ("infer.yaml", include_str!("../../assets/oumi/infer.yaml.j2")),
    ("launch.yaml", include_str!("../../assets/oumi/launch.yaml.j2")),
];

/// The programs that are run.
const TINY_MODEL: &str = include_str!("../../assets/oumi/tiny_model.py");
const EVALUATION: &str = include_str!("../../assets/oumi/evaluation.py");
const CHECK_CONFIGS: &str = include_str!("../../assets/oumi/check_configs.py");

/// The conversations that come with the program.
const DATASET: &str = include_str!("../../assets/oumi/dataset.jsonl");

/// Everything that decides what a training does, for its key.
pub(super) fn assets() -> Vec<(&'static str, &'static [u8])> {
    let programs = [("tiny_model.py", TINY_MODEL), ("evaluation.py", EVALUATION), ("dataset.jsonl", DATASET)];
    TEMPLATES.into_iter().chain(programs).map(|(name, text)| (name, text.as_bytes())).collect()
}

/// The folder of a training, and the environment that it runs in.
pub(super) struct Oumi<'a> {
    pub(super) view: &'a View,
    pub(super) machine: &'a Machine,
    pub(super) environment: &'a PythonEnvironment,
    pub(super) folder: PathBuf,
    /// Whether the hub may be asked for models.
    pub(super) online: bool,
}

/// What the templates are filled with.
#[derive(Debug, Serialize)]
pub(super) struct Values {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) model: String,
    pub(super) dataset: PathBuf,
    pub(super) output: PathBuf,
    pub(super) evaluation: PathBuf,
    pub(super) dtype: &'static str,
    pub(super) max_length: u32,
    pub(super) max_steps: u32,
    pub(super) batch_size: u32,
    pub(super) learning_rate: f64,
    pub(super) logging_steps: u32,
    pub(super) save_steps: u32,
    pub(super) tracking_url: String,
    pub(super) experiment: String,
    pub(super) api_url: String,
    pub(super) offline: u8,
}

/// Fills the templates.
pub(super) fn render(values: &Values) -> Result<Vec<(&'static str, String)>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    // YAML takes JSON's strings; nothing is escaped but by `tojson`.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    let values = Value::from(Serde(values));
    let fill = |(name, template)| Ok((name, environment.render_named_str(name, template, values.clone())?));
    TEMPLATES.into_iter().map(fill).collect()
}

impl Oumi<'_> {
    /// Writes the configuration files and the programs that they name.
    pub(super) fn write(&self, values: &Values) -> Result<(), Failure> {
        files::service_folder(&self.folder, &self.machine.service_user, 0o755)?;
        let rendered = render(values)
            .map_err(|error| Failure::caused(Persistence::Permanent, "fill Oumi's configuration", &error))?;
        let extra = format!("{}\n", self.folder.join("evaluation.py").display());
        let programs = [("evaluation.py", EVALUATION), ("extra-deps.txt", &extra), ("dataset.jsonl", DATASET)];
        let rendered = rendered.iter().map(|(name, text)| (*name, text.as_str()));
        for (name, text) in rendered.chain(programs) {
            let file = self.folder.join(name);
            fs::write(&file, text).map_err(|error| files::failure("write", &file, &error))?;
        }
        Ok(())
    }

    /// Has Oumi's own parser read the configuration files.
    pub(super) async fn check_configs(&self) -> Result<(), Failure> {
        let check = self.python().args(["-I", "-"]).stdin(CHECK_CONFIGS).arg(&self.folder).timeout(TIMEOUT);
        self.view.command(check).await.map(|_| ())
    }

    /// Makes the tiny model in `folder`.
    pub(super) async fn make_tiny_model(&self, dataset: &Path, folder: &Path) -> Result<(), Failure> {
        files::remove(folder)?;
        let make = self.python().args(["-I", "-"]).stdin(TINY_MODEL).arg(dataset).arg(folder).timeout(TIMEOUT);
        self.view.command(make).await.map(|_| ())
    }

    /// Trains; the metrics go into a run of MLflow.
    pub(super) async fn train(&self, tracking_url: &str, experiment: &str, run: &str) -> Result<(), Failure> {
        let train = self.oumi().args(["train", "-c"]).arg(self.folder.join("train.yaml"));
        let train = train
            .env("MLFLOW_TRACKING_URI", tracking_url)
            .env("MLFLOW_EXPERIMENT_NAME", experiment)
            .env("MLFLOW_RUN_ID", run)
            .timeout(TRAIN_TIMEOUT);
        self.view.command(train).await.map(|_| ())
    }

    /// Measures the trained model; returns the figures by name.
    pub(super) async fn evaluate(&self, results: &Path) -> Result<BTreeMap<String, f64>, Failure> {
        files::remove(results)?;
        let evaluate = self.oumi().args(["evaluate", "-c"]).arg(self.folder.join("evaluate.yaml"));
        let extra = self.folder.join("extra-deps.txt");
        self.view.command(evaluate.env("OUMI_EXTRA_DEPS_FILE", extra).timeout(TIMEOUT)).await?;
        let runs = fs::read_dir(results).map_err(|error| files::failure("read", results, &error))?;
        let written = runs.flatten().map(|run| run.path().join("task_result.json")).find(|file| file.exists());
        let file = written.ok_or_else(|| Failure::permanent("find the figures that `oumi evaluate` wrote"))?;
        let text = fs::read(&file).map_err(|error| files::failure("read", &file, &error))?;
        let told: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| Failure::caused(Persistence::Permanent, format!("read {}", file.display()), &error))?;
        let figures = told.pointer("/results/answers").and_then(serde_json::Value::as_object);
        let figures = figures.ok_or_else(|| Failure::permanent(format!("find figures in {}", file.display())))?;
        Ok(figures.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect())
    }

    fn oumi(&self) -> Command {
        self.at_home(run_as::service_user(self.machine, &self.environment.program("oumi")))
    }

    fn python(&self) -> Command {
        self.at_home(run_as::service_user(self.machine, &self.environment.program("python")))
    }

    /// What the libraries keep between their runs stays in the folder.
    fn at_home(&self, command: Command) -> Command {
        let home = self.folder.join("home");
        let offline = if self.online { "0" } else { "1" };
        command
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("XDG_CACHE_HOME", home.join(".cache"))
            // PyTorch keeps what it compiles in /tmp otherwise.
            .env("TORCHINDUCTOR_CACHE_DIR", home.join(".cache/torchinductor"))
            .env("HF_HUB_OFFLINE", offline)
            .env("HF_HUB_DISABLE_TELEMETRY", "1")
            .env("DO_NOT_TRACK", "1")
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .env("TOKENIZERS_PARALLELISM", "false")
            .dir(&self.folder)
    }
}

/// The first line of a dataset that is no conversation, and why.
pub(super) fn bad_line(text: &str) -> Option<(usize, String)> {
    text.lines().enumerate().find_map(|(at, line)| conversation(line).err().map(|why| (at + 1, why)))
}

fn conversation(line: &str) -> Result<(), String> {
    let value: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("it is no JSON: {error}"))?;
    let messages = value.get("messages").and_then(serde_json::Value::as_array);
    let messages = messages.ok_or("it has no list `messages`")?;
    let text = |message: &serde_json::Value, field: &str| message.get(field)?.as_str().map(str::to_owned);
    for message in messages {
        let role = text(message, "role").ok_or("a message has no `role`")?;
        if !["system", "user", "assistant"].contains(&role.as_str()) {
            return Err(format!("`{role}` is no role; there are system, user and assistant"));
        }
        text(message, "content").ok_or("a message has no `content`")?;
    }
    match messages.last().and_then(|message| text(message, "role")) {
        Some(role) if role == "assistant" => Ok(()),
        _ => Err("it does not end with a message of the assistant".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dataset_that_comes_with_the_program_is_sound() {
        assert_eq!((DATASET.lines().count(), bad_line(DATASET)), (64, None));
    }

    #[test]
    fn a_line_that_is_no_conversation_is_named() {
        let good = DATASET.lines().next().unwrap();
        let told = |bad: &str| bad_line(&format!("{good}\n{bad}\n")).unwrap();
        assert!(told("{").1.starts_with("it is no JSON"));
        assert_eq!(told("{}"), (2, "it has no list `messages`".to_owned()));
        assert_eq!(told(r#"{"messages": [{"role": "robot", "content": ""}]}"#).0, 2);
        assert!(told(r#"{"messages": [{"role": "user", "content": "x"}]}"#).1.contains("does not end"));
    }

    #[test]
    fn the_configuration_is_what_oumi_reads() {
        let folder = PathBuf::from("/state/training");
        let values = Values {
            name: "assistant".to_owned(),
            model: folder.join("tiny").display().to_string(),
            dataset: folder.join("dataset.jsonl"),
            output: folder.join("model"),
            evaluation: folder.join("evaluation"),
            folder,
            dtype: "float32",
            max_length: 256,
            max_steps: 60,
            batch_size: 8,
            learning_rate: 0.005,
            logging_steps: 5,
            save_steps: 20,
            tracking_url: "http://127.0.0.1:5000".to_owned(),
            experiment: "training".to_owned(),
            api_url: "http://127.0.0.1:8080/models/assistant/openai/v1/chat/completions".to_owned(),
            offline: 1,
        };
        let files = render(&values).unwrap();
        let text = files.iter().map(|(name, text)| format!("--- {name}\n{text}")).collect::<String>();
        crate::testing::snapshot("oumi-configuration", &text);
    }
}
