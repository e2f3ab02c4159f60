//! A [`Task`] whose types are forgotten: settings and outputs are JSON.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::checkpoint::Done;
use crate::context::{Context, View};
use crate::fingerprint::KeyParts;
use crate::outcome::{Failure, Persistence};
use crate::task::{Applied, Earlier, Footprint, Made, Output, Probe, Problem, Proof, Read, Task, Traces};

/// See [`Task`], method by method.
#[async_trait]
pub(crate) trait DynTask: Send + Sync {
    fn version(&self) -> u32;
    fn settings(&self) -> Result<Value, Failure>;
    fn reads(&self) -> Vec<Read>;
    fn secrets(&self) -> Vec<String>;
    fn assets(&self) -> Vec<(&'static str, &'static [u8])>;
    fn inputs(&self) -> Vec<std::path::PathBuf>;
    fn output_kind(&self) -> &'static str;
    fn output_schema(&self) -> u32;
    fn proofs(&self) -> &'static [Proof];
    fn footprint(&self) -> Footprint;
    async fn relevant(&self, view: &View) -> Result<(), String>;
    async fn check(&self, view: &View) -> Vec<Problem>;
    async fn probe(&self, view: &View, made: &ErasedMade) -> Option<Probe>;
    async fn apply(
        &self,
        context: &Context,
        made: Option<&ErasedMade>,
        unfinished: &[Value],
    ) -> Result<ErasedApplied, Failure>;
    async fn prove(&self, proof: &str, view: &View, output: &Value) -> Result<(), Failure>;
    async fn destroy(&self, context: &Context, made: Option<&ErasedMade>, settings: &[Value]) -> Result<(), Failure>;
}

/// See [`Made`].
#[derive(Debug, Clone)]
pub(crate) struct ErasedMade {
    pub(crate) settings: Value,
    pub(crate) schema: u32,
    pub(crate) output: Value,
}

/// See [`Applied`].
pub(crate) struct ErasedApplied {
    pub(crate) output: Value,
    pub(crate) missing: Vec<String>,
}

#[async_trait]
impl<T: Task> DynTask for T {
    fn version(&self) -> u32 {
        Task::version(self)
    }

    fn settings(&self) -> Result<Value, Failure> {
        serde_json::to_value(Task::settings(self))
            .map_err(|error| Failure::caused(Persistence::Permanent, "write down the settings", &error))
    }

    fn reads(&self) -> Vec<Read> {
        Task::reads(self)
    }

    fn secrets(&self) -> Vec<String> {
        Task::secrets(self)
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        Task::assets(self)
    }

    fn inputs(&self) -> Vec<std::path::PathBuf> {
        Task::inputs(self)
    }

    fn output_kind(&self) -> &'static str {
        T::Output::KIND
    }

    fn output_schema(&self) -> u32 {
        T::Output::SCHEMA
    }

    fn footprint(&self) -> Footprint {
        Task::footprint(self)
    }

    fn proofs(&self) -> &'static [Proof] {
        Task::proofs(self)
    }

    async fn relevant(&self, view: &View) -> Result<(), String> {
        Task::relevant(self, view).await
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        Task::check(self, view).await
    }

    /// Nothing if the record is of a version that cannot be read: the task is then applied again, and adopts what exists.
    async fn probe(&self, view: &View, made: &ErasedMade) -> Option<Probe> {
        Some(Task::probe(self, view, &revive::<T>(made)?).await)
    }

    async fn apply(
        &self,
        context: &Context,
        made: Option<&ErasedMade>,
        unfinished: &[Value],
    ) -> Result<ErasedApplied, Failure> {
        let earlier = Earlier { made: made.and_then(revive::<T>), unfinished: readable(unfinished) };
        let Applied { output, missing } = Task::apply(self, context, &earlier).await?;
        let output = serde_json::to_value(output)
            .map_err(|error| Failure::caused(Persistence::Permanent, "write down the output", &error))?;
        Ok(ErasedApplied { output, missing })
    }

    async fn prove(&self, proof: &str, view: &View, output: &Value) -> Result<(), Failure> {
        let output = serde_json::from_value(output.clone())
            .map_err(|error| Failure::caused(Persistence::Permanent, "read the output back", &error))?;
        Task::prove(self, proof, view, &output).await
    }

    async fn destroy(&self, context: &Context, made: Option<&ErasedMade>, settings: &[Value]) -> Result<(), Failure> {
        let output = made.and_then(revive::<T>).map(|made| made.output);
        let mut settings = readable(settings);
        if settings.is_empty() {
            // Nothing that was recorded can be read by this version: what would be made now is the best guess there is.
            settings = readable(&[DynTask::settings(self)?]);
        }
        Task::destroy(self, context, &Traces { output, settings }).await
    }
}

fn readable<S: DeserializeOwned>(settings: &[Value]) -> Vec<S> {
    settings.iter().filter_map(|settings| serde_json::from_value(settings.clone()).ok()).collect()
}

fn revive<T: Task>(made: &ErasedMade) -> Option<Made<T>> {
    let settings = serde_json::from_value(made.settings.clone()).ok()?;
    let output = T::Output::migrate(made.schema, made.output.clone())?;
    Some(Made { settings, output: serde_json::from_value(output).ok()? })
}

impl ErasedMade {
    /// What the journal says that a success made; nothing if it cannot be read.
    pub(crate) fn of(done: &Done) -> Option<Self> {
        let parts: KeyParts = serde_json::from_str(done.parts.get()).ok()?;
        let output = done.output.as_ref()?;
        let value = serde_json::from_str(output.value.get()).ok()?;
        Some(Self { settings: parts.settings, schema: output.schema, output: value })
    }
}
