//! CLOUD-3.3: MLflow's tracking server and model registry, on the database and the object store.
//!
//! Proof: it is healthy; a run with a parameter and a metric is read back; an artifact of 5 MiB lands in the bucket with
//! the same bytes; a model version is registered; a foreign Host header is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::secret::Secret;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Proof, Read, Task, Traces};

use crate::backup::guard;
use crate::config::{Config, ExposeConfig, TrackingConfig, database_url};
use crate::outputs::{AccessKey, BaseRuntime, Database, Machine, ObjectStore, Platform, Tracking};
use crate::platform::launch::fill;
use crate::platform::{Health, Local, Metrics, SecretEnv, SecretFiles, Service};
use crate::tools::files;
use crate::tools::mlflow::{Mlflow, MlflowError};
use crate::tools::postgres::{PostgresError, Snapshot};
use crate::tools::s3::S3;
use crate::tools::scratch::Scratch;

/// The service's name.
pub(crate) const SERVICE: &str = "mlflow";

/// The application whose key MLflow uses.
const APPLICATION: &str = "mlflow";

/// The bucket that artifacts land in.
pub(crate) const BUCKET: &str = "mlflow-artifacts";

/// How long work on the database's schema or rows may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(300);

/// The size of the artifact of the proof.
const ARTIFACT: usize = 5 << 20;

/// The variable that carries the database's URI, with its password.
const STORE_URI: &str = "MLFLOW_BACKEND_STORE_URI";

/// What is done on the database itself.
const ADMIN: &str = include_str!("../../assets/mlflow_admin.py");

/// How that ends where the data's schema is another, and may not be changed.
const OTHER_SCHEMA: &str = "exit code 3";

/// What the experiments and models of proofs are called.
const PROOF: &str = "taskrun-proof-";

/// The task.
pub struct MlflowTask {
    settings: Settings,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    workers: u16,
    allowed_hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expose: Option<ExposeConfig>,
}

/// All that a verb works with.
struct Place {
    machine: Machine,
    runtime: BaseRuntime,
    database: Database,
    store: ObjectStore,
    key: AccessKey,
    folder: PathBuf,
    url: String,
}

impl Place {
    fn new(view: &View) -> Result<Self, Failure> {
        let machine: Machine = view.output()?;
        let store: ObjectStore = view.output()?;
        let key = store.keys.get(APPLICATION).cloned();
        let key = key.ok_or_else(|| Failure::permanent("find the object store's key for mlflow"))?;
        let url = format!("http://127.0.0.1:{}", machine.ports.tracking);
        let folder = machine.service_dir(SERVICE);
        Ok(Self { runtime: view.output()?, database: view.output()?, machine, store, key, folder, url })
    }

    /// The object store, with MLflow's own key.
    fn objects(&self, view: &View) -> Result<S3, Failure> {
        let secret = view.secret(&self.key.secret.name.to_string())?;
        self.store.client(&self.key.id, &secret).map_err(store)
    }

    fn store_uri(&self) -> String {
        let Database { host, port, database, user, ca, .. } = &self.database;
        database_url("postgresql+psycopg2", host, *port, user, database, ca.as_deref())
    }
}

impl MlflowTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        let TrackingConfig { workers, allowed_hosts } = config.tracking.clone();
        Self { settings: Settings { workers, allowed_hosts, expose: config.expose.clone() } }
    }

    fn service(&self, place: &Place) -> Service {
        let port = place.machine.ports.tracking;
        let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let exposed = self.settings.expose.iter().flat_map(|expose| expose.hosts(port)).collect::<Vec<_>>();
        let hosts = hosts.iter().chain(&self.settings.allowed_hosts).chain(&exposed).map(String::as_str);
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let origins = exposed.iter().map(|host| format!("https://{host}")).collect::<Vec<_>>().join(",");
        let mut command = vec![
            BaseRuntime::program(&place.runtime.mlflow_env, "mlflow").display().to_string(),
            "server".to_owned(),
            "--host=127.0.0.1".to_owned(),
            format!("--port={port}"),
            format!("--workers={}", self.settings.workers),
            format!("--artifacts-destination=s3://{BUCKET}"),
            "--serve-artifacts".to_owned(),
            format!("--allowed-hosts={hosts}"),
            // Its worker processes add up their counters in files there.
            format!("--expose-prometheus={}", Local::temporary(&place.machine.home, SERVICE).join("metrics").display()),
        ];
        if !origins.is_empty() {
            command.push(format!("--cors-allowed-origins={origins}"));
        }
        let bin = place.runtime.mlflow_env.join("bin").display().to_string();
        let env = [
            ("MLFLOW_DISABLE_TELEMETRY", "true".to_owned()),
            ("DO_NOT_TRACK", "1".to_owned()),
            // Its background jobs evaluate language models; their queues would stay in /dev/shm for ever.
            ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false".to_owned()),
            ("PYTHONUNBUFFERED", "1".to_owned()),
            // MLflow starts uvicorn by its name.
            ("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin")),
        ];
        let objects = place.store.environment(&place.key);
        let uri = SecretEnv { secret: place.database.password.clone(), template: Some(place.store_uri()) };
        let secret_env =
            [(STORE_URI.to_owned(), uri), ("AWS_SECRET_ACCESS_KEY".to_owned(), place.key.secret.clone().into())];
        Service {
            name: SERVICE.to_owned(),
            command,
            env: env.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(objects).collect(),
            secret_env: secret_env.into(),
            secret_files: SecretFiles::default(),
            dir: place.folder.clone(),
            endpoints: BTreeMap::from([("tracking".to_owned(), place.url.clone())]),
            health: Health::Http(format!("{}/health", place.url)),
            metrics: vec![Metrics::of_port(SERVICE, port)],
            login: None,
            stop_signal: "TERM".to_owned(),
            stop_seconds: 30,
        }
    }

    async fn admin(view: &View, place: &Place, args: &[&str]) -> Result<(), Failure> {
        let password = view.secret(&place.database.password.name.to_string())?;
        let uri = fill(Some(&place.store_uri()), password.expose());
        // It locks the database by a file that it never removes, and keeps an id of its own in the user's home.
        let scratch = Scratch::new(view, SERVICE, None)?;
        let command = Command::new(BaseRuntime::program(&place.runtime.mlflow_env, "python"))
            .args(["-I", "-"])
            .args(args)
            .stdin(ADMIN)
            .env(STORE_URI, uri)
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .dir(view.state_dir())
            .timeout(ADMIN_TIMEOUT);
        view.command(scratch.home_of(command)).await.map(|_| ())
    }

    /// The revision of the schema.
    async fn schema(view: &View, place: &Place) -> Result<Option<String>, PostgresError> {
        // Without it the login fails, and says so.
        let password = view.secrets().get(&place.database.password).unwrap_or_else(|_| Secret::new(String::new()));
        Snapshot::hold(&place.database.login(&password)).await?.mlflow_schema().await
    }

    /// Brings the schema to this MLflow's, which its workers would race for. There is no way back: data of another
    /// version is touched only where there is a backup of it.
    async fn migrate(context: &Context, place: &Place) -> Result<(), Failure> {
        let guarded = guard(context.state_dir(), "bring the data of another version of MLflow to this one's schema");
        let older = if guarded.is_ok() { "upgrade" } else { "keep" };
        match (Self::admin(context, place, &["migrate", older]).await, guarded) {
            (Err(failure), Err(refused)) => match &failure.command {
                Some(command) if command.ended == OTHER_SCHEMA => Err(Failure {
                    causes: command.tail.lines().last().map(str::to_owned).into_iter().collect(),
                    ..refused
                }),
                _ => Err(failure),
            },
            (migrated, _) => migrated,
        }
    }

    async fn prove_run(&self, view: &View, place: &Place) -> Result<(), Failure> {
        let mlflow = Mlflow::new(&place.url).map_err(failure)?;
        let now = jiff::Timestamp::now().as_millisecond();
        let name = format!("{PROOF}{now}");
        let experiment = mlflow.create_experiment(&name).await.map_err(failure)?;
        let proved = self.prove_in(view, place, &mlflow, &experiment, &name, now).await;
        forget_experiments(view, PROOF).await?;
        proved
    }

    async fn prove_in(
        &self,
        view: &View,
        place: &Place,
        mlflow: &Mlflow,
        experiment: &str,
        name: &str,
        now: i64,
    ) -> Result<(), Failure> {
        let run = mlflow.create_run(experiment, name, now).await.map_err(failure)?;
        mlflow.log(&run, ("colour", "blue"), ("loss", 0.25), now).await.map_err(failure)?;
        let told = mlflow.run(&run).await.map_err(failure)?;
        let param = told.pointer("/run/data/params/0/value").and_then(serde_json::Value::as_str);
        let metric = told.pointer("/run/data/metrics/0/value").and_then(serde_json::Value::as_f64);
        if (param, metric) != (Some("blue"), Some(0.25)) {
            return Err(Failure::permanent(format!(
                "read a run's parameter and metric back: found {param:?}, {metric:?}"
            )));
        }
        let key = format!("{experiment}/{run}/artifacts/proof.bin");
        let bytes: Vec<u8> = (0..ARTIFACT).map(|at| (at * 31 % 251) as u8).collect();
        let s3 = place.objects(view)?;
        mlflow.put_artifact(&key, bytes.clone()).await.map_err(failure)?;
        let (stored, read) = (s3.get(BUCKET, &key).await, mlflow.artifact(&key).await);
        let registered = mlflow.register(name, &run, &format!("mlflow-artifacts:/{experiment}/{run}/artifacts")).await;
        if stored.map_err(store)? != bytes || read.map_err(failure)? != bytes {
            return Err(Failure::permanent("find an artifact in the bucket with the same bytes"));
        }
        match registered.map_err(failure)?.as_str() {
            "1" => Ok(()),
            other => Err(Failure::permanent(format!("register the first version of a model: it is {other}"))),
        }
    }
}

/// Removes the experiments and models whose names begin with `prefix`, with their runs and artifacts, for good: what
/// proofs, and ones that were killed, have left.
///
/// # Errors
/// MLflow, its database or the object store refuses.
pub(crate) async fn forget_experiments(view: &View, prefix: &str) -> Result<(), Failure> {
    let place = Place::new(view)?;
    let (mlflow, s3) = (Mlflow::new(&place.url).map_err(failure)?, place.objects(view)?);
    for experiment in mlflow.experiments(prefix).await.map_err(failure)? {
        for key in s3.list(BUCKET, &format!("{experiment}/")).await.map_err(store)? {
            s3.delete(BUCKET, &key).await.map_err(store)?;
        }
    }
    MlflowTask::admin(view, &place, &["forget", prefix]).await
}

#[async_trait]
impl Task for MlflowTask {
    type Settings = Settings;
    type Output = Tracking;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![
            Read::of::<Machine>(),
            Read::of::<BaseRuntime>(),
            Read::of::<Platform>(),
            Read::of::<ObjectStore>(),
            Read::of::<Database>(),
        ]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![("mlflow_admin.py", ADMIN.as_bytes())]
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let place = Place::new(view).and_then(|place| Ok((Local::new(&place.machine)?, place)));
        let (local, place) = match place {
            Ok(place) => place,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        match local.probe(&self.service(&place)).await {
            Probe::Holds => {}
            other => return other,
        }
        // A restored backup may have the schema of an older version.
        match (Self::schema(view, &place).await, &made.output.schema) {
            (Ok(found), Some(made)) if found.as_ref() != Some(made) => {
                let found = found.unwrap_or_else(|| "none".to_owned());
                Probe::Drifted(vec![Drift::new("schema", made.as_str(), found)])
            }
            (Err(error), _) => Probe::CannotTell(error.to_string()),
            _ => Probe::Holds,
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Tracking>, Failure> {
        let place = Place::new(context)?;
        files::service_folder(&place.folder, &place.machine.service_user, 0o711)?;
        Self::migrate(context, &place).await?;
        context.safe_point()?;
        Local::new(&place.machine)?.ensure(context, &self.service(&place)).await?;
        let version = Mlflow::new(&place.url).map_err(failure)?.version().await.map_err(failure)?;
        let version = version.trim().to_owned();
        let schema = Self::schema(context, &place).await.map_err(database)?;
        Ok(Applied::complete(Tracking { tracking_url: place.url, version, artifact_bucket: BUCKET.to_owned(), schema }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::quick("it tells its version"),
            Proof::safe("a foreign host name is refused"),
            Proof::safe("a run, an artifact and a model version come back"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Tracking) -> Result<(), Failure> {
        let mlflow = Mlflow::new(&output.tracking_url).map_err(failure)?;
        match proof {
            "it tells its version" => match mlflow.version().await.map_err(failure)?.trim() {
                version if version == output.version => Ok(()),
                other => Err(Failure::permanent(format!("find version {}: it is {other}", output.version))),
            },
            "a foreign host name is refused" => match mlflow.search_as("attacker.invalid").await {
                Err(error) if error.status().is_some_and(|status| status.is_client_error()) => Ok(()),
                Err(error) => Err(failure(error)),
                Ok(_) => Err(Failure::permanent("see a foreign host name refused: it was taken")),
            },
            "a run, an artifact and a model version come back" => self.prove_run(view, &Place::new(view)?).await,
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        if let Ok(machine) = context.output::<Machine>() {
            Local::new(&machine)?.remove(context, SERVICE).await?;
        }
        files::remove(&context.state_dir().join("services").join(SERVICE))
    }
}

fn failure(error: MlflowError) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "work with MLflow", &error)
}

fn database(error: PostgresError) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "look into the database", &error)
}

fn store(error: crate::tools::s3::S3Error) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "look into the object store", &error)
}
