//! Deploying and deleting models.

use std::time::Duration;

use super::spec::{InferenceService, SpecError};
use super::status::{Reason, Status};
use super::store::{Store, StoreError, Wanted};
use crate::outputs::ModelServing;

/// How long a deleted model may take until nothing of it is left: its last requests come to their end.
const DELETE_TIMEOUT: Duration = Duration::from_secs(120);

/// How often the state is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// Deploys and deletes models.
#[derive(Debug, Clone)]
pub struct Client {
    serving: ModelServing,
    store: Store,
}

/// Why a model is not served as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The description makes no sense.
    #[error("deploy the model")]
    Spec(#[from] SpecError),
    /// There are not as many GPU slots as the most replicas need.
    #[error("deploy {name}: {replicas} replicas with {each} GPU slots each need {}, and there are {present}", replicas * each)]
    Oversubscribed {
        /// The model.
        name: String,
        /// The most replicas that it asks for.
        replicas: u32,
        /// The slots of each.
        each: u32,
        /// The slots of the platform.
        present: usize,
    },
    /// There is no such model.
    #[error("find the model `{name}`")]
    Unknown {
        /// Its name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// It cannot be served; the one that was there before still is, if any.
    #[error("serve {name}: {reason:?}: {message}")]
    Failed {
        /// The model.
        name: String,
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        message: String,
    },
    /// It took too long.
    #[error("wait for {name} to be {what}: not within {after:?}: {said}")]
    TimedOut {
        /// The model.
        name: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
        /// What its state says.
        said: String,
    },
    /// A file cannot be read or written.
    #[error("work with the descriptions of models")]
    Store(#[from] StoreError),
}

impl ServingError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { known, .. } if known.is_empty() => {
                Some("there is none yet: taskrun model deploy NAME URI".to_owned())
            }
            Self::Unknown { known, .. } => Some(format!("there are: {}", known.join(", "))),
            Self::Failed { name, .. } => Some(format!("see its replicas' logs: services/logs/model-{name}-*.log")),
            Self::TimedOut { .. } => Some("see whether the controller runs: taskrun cloud status".to_owned()),
            Self::Oversubscribed { .. } => {
                Some("ask for fewer replicas, or for more services per GPU: `gpu.slots`".to_owned())
            }
            Self::Spec(_) | Self::Store(_) => None,
        }
    }
}

impl Client {
    /// A client of the serving that CLOUD-3.4 has brought up.
    pub fn new(serving: &ModelServing) -> Self {
        Self { serving: serving.clone(), store: Store::new(&serving.folder) }
    }

    /// Where clients find a model; append `/openai/v1` or `/v2/models/NAME/infer`.
    pub fn url(&self, name: &str) -> String {
        format!("{}/models/{name}", self.serving.inference_url)
    }

    /// Asks for a model to be served so, and does not wait. One that is deployed as it is already stays; another
    /// revision takes over without a gap when it is ready; one that failed is tried again.
    ///
    /// # Errors
    /// The description makes no sense, needs more GPU slots than there are, or cannot be written.
    pub fn deploy(&self, service: &InferenceService) -> Result<(), ServingError> {
        service.validate()?;
        let (replicas, each) = (service.replicas.max, service.resources.gpu_slots);
        let present = self.serving.gpu_slots;
        if u64::from(replicas) * u64::from(each) > present as u64 {
            return Err(ServingError::Oversubscribed { name: service.name.clone(), replicas, each, present });
        }
        let before = self.store.wanted(&service.name)?;
        let status = self.store.status(&service.name)?;
        let failed = status.as_ref().is_some_and(|status| status.failed().is_some());
        if before.as_ref().is_some_and(|before| before.service == *service) && !failed {
            return Ok(());
        }
        // A name that is deployed again while the last one of that name still ends goes on counting.
        let last = before.map(|before| before.generation).max(status.map(|status| status.generation));
        let generation = last.unwrap_or_default() + 1;
        Ok(self.store.want(&Wanted { generation, service: service.clone() })?)
    }

    /// Waits until a model is served as it was deployed.
    ///
    /// # Errors
    /// It cannot be, or is not within `timeout`.
    pub async fn wait_ready(&self, name: &str, timeout: Duration) -> Result<Status, ServingError> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let wanted = self.store.wanted(name)?.ok_or_else(|| self.unknown(name))?;
            let status = self.store.status(name)?.filter(|status| status.generation == wanted.generation);
            if let Some(status) = status.as_ref().filter(|status| status.is_ready()) {
                return Ok(status.clone());
            }
            if let Some(failed) = status.as_ref().and_then(Status::failed) {
                let (reason, message) = (failed.reason, failed.message.clone());
                return Err(ServingError::Failed { name: name.to_owned(), reason, message });
            }
            if tokio::time::Instant::now() >= deadline {
                let said = status.and_then(|status| Some(status.conditions.first()?.message.clone()));
                let said = said.unwrap_or_else(|| "the controller has not seen it".to_owned());
                return Err(ServingError::TimedOut { name: name.to_owned(), what: "ready", after: timeout, said });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes a model away and waits until nothing of it is left; that there is none is fine.
    ///
    /// # Errors
    /// It is still there after two minutes, or the description cannot be removed.
    pub async fn delete(&self, name: &str) -> Result<(), ServingError> {
        self.store.unwant(name)?;
        let deadline = tokio::time::Instant::now() + DELETE_TIMEOUT;
        while let Some(status) = self.store.status(name)? {
            if tokio::time::Instant::now() >= deadline {
                let said = format!("{} replicas are left", status.ready);
                let (name, after) = (name.to_owned(), DELETE_TIMEOUT);
                return Err(ServingError::TimedOut { name, what: "gone", after, said });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The states of all models, by name. One that the controller has not seen yet has none.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn list(&self) -> Result<Vec<Status>, ServingError> {
        let states = self.store.names()?.into_iter().filter_map(|name| self.store.status(&name).transpose());
        Ok(states.collect::<Result<_, _>>()?)
    }

    /// The state of a model.
    ///
    /// # Errors
    /// There is no such model.
    pub fn status(&self, name: &str) -> Result<Status, ServingError> {
        self.store.status(name)?.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> ServingError {
        ServingError::Unknown { name: name.to_owned(), known: self.store.names().unwrap_or_default() }
    }
}
