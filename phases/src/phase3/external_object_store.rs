//! CLOUD-3.1 where the user has an S3 server already (`external.object_store`): it is used, and nothing of it is managed
//! but that buckets are made where they are missing.
//!
//! Proof: an object, also one of 64 MiB in parts, comes back with the same SHA-256; a foreign key is refused.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::external_database::missing_file;
use super::object_store::{self, failure, look_inside, prove_foreign_key, prove_round_trip};
use crate::config::{ExternalObjectStoreConfig, ObjectStoreConfig};
use crate::outputs::{AccessKey, BaseRuntime, Machine, ObjectStore, Platform};
use crate::tools::s3::{S3, S3Error};
use crate::tools::secrets::reference;
use crate::tools::tls;

/// What CLOUD-3.1 reads of the configuration, whichever of its two ways it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ObjectStoreSettings {
    /// The server is there already.
    External(ExternalStore),
    /// The server is one of this environment.
    Embedded(ObjectStoreConfig),
}

/// A server that is there already, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalStore {
    external: ExternalObjectStoreConfig,
    wanted: ObjectStoreConfig,
}

/// The task.
pub struct ExternalObjectStore {
    settings: ObjectStoreSettings,
    store: ExternalStore,
}

impl ExternalObjectStore {
    /// The task for a server and what is wanted of it.
    pub fn new(external: &ExternalObjectStoreConfig, wanted: &ObjectStoreConfig) -> Self {
        let store = ExternalStore { external: external.clone(), wanted: wanted.clone() };
        Self { settings: ObjectStoreSettings::External(store.clone()), store }
    }

    fn client(&self, view: &View) -> Result<S3, Failure> {
        let ExternalObjectStoreConfig { endpoint, region, access_key, secret_key, ca } = &self.store.external;
        let secret = view.secret(secret_key)?;
        S3::trusting(ca.as_deref(), endpoint, region, access_key, secret.expose()).map_err(|error| self.told(error))
    }

    /// What goes wrong with it, and what the user can do.
    fn told(&self, error: S3Error) -> Failure {
        let ExternalObjectStoreConfig { endpoint, access_key, secret_key, region, .. } = &self.store.external;
        let hint = if error.is_forbidden() {
            format!(
                "correct the secret `{secret_key}` of the key {access_key}, or let it use the buckets {} in the region \
                 {region}",
                self.store.wanted.buckets.join(", ")
            )
        } else if let Some(hint) = tls::hint(&error) {
            hint.to_owned()
        } else {
            format!("see whether {endpoint} answers: `external.object_store` in the configuration")
        };
        failure(error).with_hint(hint)
    }
}

#[async_trait]
impl Task for ExternalObjectStore {
    type Settings = ObjectStoreSettings;
    type Output = ObjectStore;

    fn settings(&self) -> &ObjectStoreSettings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<BaseRuntime>(), Read::of::<Platform>()]
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.store.external.secret_key.clone()]
    }

    fn inputs(&self) -> Vec<PathBuf> {
        self.store.external.ca.iter().cloned().collect()
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        missing_file("external.object_store.ca", self.store.external.ca.as_ref())
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        look_inside(view, &made.output).await
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<ObjectStore>, Failure> {
        let s3 = self.client(context)?;
        let ExternalStore { external, wanted } = &self.store;
        let earlier = earlier.made.as_ref().filter(|made| match &made.settings {
            ObjectStoreSettings::External(before) => before.external.endpoint == external.endpoint,
            ObjectStoreSettings::Embedded(_) => false,
        });
        for bucket in &wanted.buckets {
            context.safe_point()?;
            if s3.has_bucket(bucket).await.map_err(|error| self.told(error))? {
                continue;
            }
            if earlier.is_some_and(|made| made.output.buckets.contains(bucket)) && !context.accepts_data_loss() {
                return Err(object_store::bucket_gone(bucket));
            }
            context.say(format!("making the bucket {bucket} at {}", external.endpoint));
            s3.create_bucket(bucket).await.map_err(|error| {
                self.told(error).with_hint(format!("make the bucket {bucket} there, or let the key make it"))
            })?;
        }
        // One that stood for it before is needed no more; its data stays until the task is destroyed.
        object_store::stop(context).await?;
        let secret = reference(context, &external.secret_key)?;
        let key = |buckets: &Vec<String>| AccessKey {
            id: external.access_key.clone(),
            secret: secret.clone(),
            buckets: buckets.clone(),
        };
        Ok(Applied::complete(ObjectStore {
            endpoint: external.endpoint.trim_end_matches('/').to_owned(),
            console: None,
            region: external.region.clone(),
            buckets: wanted.buckets.clone(),
            keys: wanted.applications.iter().map(|(name, buckets)| (name.clone(), key(buckets))).collect(),
            ca: external.ca.clone(),
        }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("objects come back with the same SHA-256"),
            Proof::safe("the key opens all buckets, and a foreign one none"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &ObjectStore) -> Result<(), Failure> {
        match proof {
            "objects come back with the same SHA-256" => prove_round_trip(view, output).await,
            "the key opens all buckets, and a foreign one none" => {
                prove_foreign_key(output).await?;
                let s3 = self.client(view)?;
                for bucket in &output.buckets {
                    s3.list(bucket, "taskrun-proof/").await.map_err(|error| self.told(error))?;
                }
                Ok(())
            }
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    /// Leaves the server as it is: it is not this environment's.
    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        for settings in &made.settings {
            if let ObjectStoreSettings::Embedded(settings) = settings {
                object_store::remove(context, settings).await?;
            }
        }
        let ExternalStore { external, wanted } = &self.store;
        context.say(format!("the buckets {} at {} stay as they are", wanted.buckets.join(", "), external.endpoint));
        Ok(())
    }
}
