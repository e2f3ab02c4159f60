//! CLOUD-6.1: trained models are sent to the object store and registered.
//!
//! Proof: a second sync sends nothing; an object that is overwritten in the store is noticed and sent again; what the
//! registry names begins with `s3://`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Level;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::transfer_proof;
use crate::config::{Config, TransferConfig};
use crate::outputs::{ModelTransfer, ObjectStore, Tracking, Training, TransferredModel};
use crate::tools::files;
use crate::tools::mlflow::{Mlflow, MlflowError};
use crate::tools::s3::S3Error;
use crate::transfer::progress::Lines;
use crate::transfer::register::{DIGEST, Lineage, host, register};
use crate::transfer::{
    Request, Stop, Store, TransferError, changed, check_name, inspect, parse_rate, remove, state_folder, sync,
};

/// The bucket that models lie in.
pub const BUCKET: &str = "models";

/// The application whose key the training side uses.
pub const APPLICATION: &str = "training";

/// The task.
pub struct ModelTransferTask {
    settings: TransferConfig,
}

/// A model to be sent.
struct Source {
    model: String,
    folder: PathBuf,
    /// The MLflow run that made it.
    run: Option<String>,
}

impl ModelTransferTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: config.transfer.clone() }
    }

    /// The models that the settings name; else the one that CLOUD-5.1 has trained.
    fn sources(settings: &TransferConfig, view: &View) -> Result<Vec<Source>, Failure> {
        let Some(folder) = &settings.source else {
            let trained: Training = view.output()?;
            return Ok(vec![Source {
                model: trained.model_name,
                folder: trained.model_dir,
                run: Some(trained.run_id),
            }]);
        };
        let folder = view.graph_dir().join(folder);
        if settings.models.is_empty() {
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            return Ok(vec![Source { model: name.unwrap_or_default(), folder, run: None }]);
        }
        let models = settings.models.iter();
        Ok(models.map(|model| Source { model: model.clone(), folder: folder.join(model), run: None }).collect())
    }

    fn request(&self, source: &Source, state: &Path) -> Result<Request, Failure> {
        let bandwidth = self.settings.bandwidth.as_deref().map(parse_rate).transpose();
        Ok(Request {
            source: source.folder.clone(),
            model: source.model.clone(),
            state_dir: state_folder(state),
            bandwidth: bandwidth.map_err(Failure::permanent)?,
            delete: self.settings.delete,
            verify: false,
            follow_links: self.settings.follow_links,
            dry_run: false,
        })
    }

    async fn send(&self, context: &Context, source: &Source) -> Result<TransferredModel, Failure> {
        let failed = |error: TransferError| failure(&source.model, error);
        let (store, mlflow) = (store(context)?, mlflow(context)?);
        let request = self.request(source, context.state_dir())?;
        let log = (**context).clone();
        let progress = Arc::new(Lines::new(move |line: &str| log.say(line)));
        let summary = sync(&request, &store, progress, stop(context)).await.map_err(failed)?;
        let lineage = Lineage { source: source.folder.clone(), host: host(), run: source.run.clone() };
        let registered = register(&mlflow, &store, &source.model, &summary, &lineage).await;
        let registered = registered.map_err(|error| failed(error.into()))?;
        Ok(TransferredModel {
            uri: summary.uri,
            digest: summary.digest,
            files: summary.files,
            bytes: summary.bytes,
            version: registered.version,
        })
    }
}

#[async_trait]
impl Task for ModelTransferTask {
    type Settings = TransferConfig;
    type Output = ModelTransfer;

    fn settings(&self) -> &TransferConfig {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        let mut reads = vec![Read::of::<ObjectStore>(), Read::of::<Tracking>()];
        if self.settings.source.is_none() {
            reads.push(Read::of::<Training>());
        }
        reads
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        // What is yet to be trained cannot be looked for.
        let named = self.settings.source.is_some();
        let sources = if named { Self::sources(&self.settings, view).unwrap_or_default() } else { Vec::new() };
        let problem = |source: &Source| {
            let named =
                check_name(&source.model).err().map(|error| Problem::new(error.to_string(), "rename the folder"));
            let there = (!source.folder.exists()).then(|| {
                let message = format!("there is no {} to send a model from", source.folder.display());
                Problem::new(message, "mount it, or set transfer.source to another folder")
            });
            named.or(there)
        };
        sources.iter().filter_map(problem).collect()
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let store = match store(view) {
            Ok(store) => store,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        let sources = Self::sources(&made.settings, view).unwrap_or_default();
        let mut drifts = Vec::new();
        for (model, sent) in &made.output.models {
            let found = match inspect(&store, model).await {
                Ok(Some(found)) => found,
                Ok(None) => return Probe::Missing(format!("{} has no manifest", sent.uri)),
                Err(error) => return Probe::CannotTell(error.to_string()),
            };
            if found.manifest.digest() != sent.digest {
                drifts.push(Drift::new(format!("the digest of {model}"), &*sent.digest, found.manifest.digest()));
            }
            drifts.extend(
                found.broken.iter().map(|path| Drift::new(format!("{}/{path}", sent.uri), "as sent", "another")),
            );
            // A source that is gone, such as a mount, takes nothing away from what was sent.
            let source = sources.iter().find(|source| source.model == *model);
            let files = source.map(|source| changed(&source.folder, made.settings.follow_links, &found.manifest));
            if let Some(Ok(files)) = files {
                drifts
                    .extend(files.into_iter().map(|path| Drift::new(format!("{model}/{path}"), "as sent", "changed")));
            }
        }
        if drifts.is_empty() { Probe::Holds } else { Probe::Drifted(drifts) }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<ModelTransfer>, Failure> {
        let mut models = std::collections::BTreeMap::new();
        for source in Self::sources(&self.settings, context)? {
            context.safe_point()?;
            models.insert(source.model.clone(), self.send(context, &source).await?);
        }
        Ok(Applied::complete(ModelTransfer { models }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::quick("every object of each model is as it was sent"),
            Proof::safe("a damaged object is sent again, and nothing else"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &ModelTransfer) -> Result<(), Failure> {
        match proof {
            "every object of each model is as it was sent" => prove_objects(&store(view)?, output).await,
            "a damaged object is sent again, and nothing else" => {
                transfer_proof::prove(&store(view)?, &mlflow(view)?, view.state_dir(), stop(view)).await
            }
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        let state = state_folder(context.state_dir());
        let named = made.settings.iter().filter_map(|settings| Self::sources(settings, context).ok()).flatten();
        let mut models: Vec<String> = named.map(|source| source.model).collect();
        models.extend(made.output.iter().flat_map(|output| output.models.keys().cloned()));
        models.push(transfer_proof::MODEL.to_owned());
        models.sort();
        models.dedup();
        if let (Ok(store), Ok(mlflow)) = (store(context), mlflow(context)) {
            for model in &models {
                match take_away(&store, &mlflow, model, &state).await {
                    // A server that does not run any more is about to go with everything in it.
                    Err(
                        TransferError::Store(S3Error::Transport { .. })
                        | TransferError::Registry(MlflowError::Transport { .. }),
                    ) => {
                        context.say("the object store or MLflow does not answer: what was sent stays there");
                        break;
                    }
                    Err(TransferError::Store(error)) if error.code() == "NoSuchBucket" => {}
                    other => other.map_err(|error| failure(model, error))?,
                }
            }
        }
        files::remove(&state)
    }
}

/// Takes a model out of the store and its versions out of the registry.
pub(super) async fn take_away(store: &Store, mlflow: &Mlflow, model: &str, state: &Path) -> Result<(), TransferError> {
    remove(store, model, state).await?;
    let versions = mlflow.versions(model).await?;
    let uri = store.uri(model);
    let (ours, others): (Vec<_>, Vec<_>) =
        versions.iter().partition(|version| version.source == uri && version.tag(DIGEST).is_some());
    for version in &ours {
        mlflow.delete_version(model, &version.version).await?;
    }
    if !ours.is_empty() && others.is_empty() {
        mlflow.delete_model(model).await?;
    }
    Ok(())
}

async fn prove_objects(store: &Store, output: &ModelTransfer) -> Result<(), Failure> {
    for (model, sent) in &output.models {
        let found = inspect(store, model).await.map_err(|error| failure(model, error))?;
        let found = found.ok_or_else(|| Failure::permanent(format!("find the manifest of {}", sent.uri)))?;
        if let Some(path) = found.broken.first() {
            return Err(Failure::permanent(format!("find {}/{path} as it was sent", sent.uri)));
        }
        if found.manifest.digest() != sent.digest {
            return Err(Failure::permanent(format!("find the files of {} that were sent", sent.uri)));
        }
    }
    Ok(())
}

/// The bucket of models, opened with the training side's key.
fn store(view: &View) -> Result<Store, Failure> {
    let output: ObjectStore = view.output()?;
    let key = output.keys.get(APPLICATION).filter(|key| key.buckets.iter().any(|bucket| bucket == BUCKET));
    let key = key.ok_or_else(|| {
        Failure::permanent(format!("find a key of the object store for the bucket {BUCKET}"))
            .with_hint(format!("add `{APPLICATION}: [{BUCKET}]` to object_store.applications"))
    })?;
    let secret = view.secret(&key.secret.name.to_string())?;
    let s3 = output.client(&key.id, &secret);
    let s3 = s3.map_err(|error| Failure::caused(Persistence::Permanent, "reach the object store", &error))?;
    Ok(Store { s3, bucket: BUCKET.to_owned() })
}

fn mlflow(view: &View) -> Result<Mlflow, Failure> {
    let output: Tracking = view.output()?;
    Mlflow::new(&output.tracking_url).map_err(|error| Failure::caused(Persistence::Permanent, "reach MLflow", &error))
}

fn stop(view: &View) -> Stop {
    let cancel = view.cancel().clone();
    Arc::new(move || cancel.level() >= Level::Asked)
}

pub(super) fn failure(model: &str, error: TransferError) -> Failure {
    if matches!(error, TransferError::Stopped) {
        return Failure::cancelled();
    }
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    let failure = Failure::caused(persistence, format!("sync the model {model}"), &error);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
