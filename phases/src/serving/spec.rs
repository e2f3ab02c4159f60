//! What is wanted: the description of an inference service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most replicas that one model may have; a backend of the proxy has room for twice as many.
pub const MOST_REPLICAS: u32 = 32;

/// A model that is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InferenceService {
    /// Its name in URLs: 1 to 40 lower-case letters, digits and `-`, beginning with a letter.
    pub name: String,
    /// Where the model is: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `runs:/ID/PATH`, `s3://BUCKET/PREFIX`, or the
    /// absolute path of a folder that the service user can read.
    pub model_uri: String,
    /// What runs it.
    #[serde(default)]
    pub runtime: Runtime,
    /// How many processes serve it.
    #[serde(default)]
    pub replicas: Replicas,
    /// What each of them may use.
    #[serde(default)]
    pub resources: Resources,
    /// When there are more or fewer of them.
    #[serde(default)]
    pub autoscaling: Autoscaling,
    /// How long a replica may take from its start until it serves, download included, in seconds: 300 by default.
    #[serde(default = "startup_timeout")]
    pub startup_timeout_s: u32,
}

/// What runs a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// What the model's files tell: `MLmodel` is pyfunc, `config.json` with an architecture is a language model.
    #[default]
    Auto,
    /// MLflow's generic Python format, over the V2 inference protocol.
    Pyfunc,
    /// A causal language model in Hugging Face's format, over OpenAI's protocol.
    CausalLm,
}

/// How many processes serve a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replicas {
    /// At least so many: 1 by default.
    pub min: u32,
    /// At most so many: 1 by default, up to 32.
    pub max: u32,
}

/// What a replica may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// The threads that it computes with: 1 by default.
    pub cpus: u32,
    /// The memory that it may allocate, in MiB; 0, the default, for as much as there is.
    pub memory_mib: u64,
    /// The GPU slots that it gets, see `gpu.slots` in the configuration: 0 by default, which is the processor.
    pub gpu_slots: u32,
}

/// When there are more or fewer replicas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Autoscaling {
    /// The requests under way at once, queued ones included, that one replica is meant to have: 4 by default.
    pub target_concurrency: f64,
    /// For how long fewer replicas must have been enough before there are fewer, in seconds: 60 by default.
    pub stable_window_s: u32,
}

/// A description that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct SpecError {
    /// The field, as in `replicas.max`.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl InferenceService {
    /// A service with one replica and defaults for everything else.
    pub fn new(name: impl Into<String>, model_uri: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            model_uri: model_uri.into(),
            runtime: Runtime::default(),
            replicas: Replicas::default(),
            resources: Resources::default(),
            autoscaling: Autoscaling::default(),
            startup_timeout_s: startup_timeout(),
        }
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        let error = |field, message: String| Err(SpecError { field, message });
        if !is_name(&self.name) {
            let what = "not 1 to 40 lower-case letters, digits and `-`, beginning with a letter";
            return error("name", format!("`{}` is {what}", self.name));
        }
        check_uri(&self.model_uri)?;
        let Replicas { min, max } = self.replicas;
        if min == 0 {
            return error("replicas.min", "0: there is no scaling to zero".to_owned());
        }
        if max < min || max > MOST_REPLICAS {
            return error("replicas.max", format!("{max} is not between {min} and {MOST_REPLICAS}"));
        }
        if !(1..=256).contains(&self.resources.cpus) {
            return error("resources.cpus", format!("{} is not between 1 and 256", self.resources.cpus));
        }
        let Autoscaling { target_concurrency: target, stable_window_s: window } = self.autoscaling;
        if !(0.1..=1000.0).contains(&target) {
            return error("autoscaling.target_concurrency", format!("{target} is not between 0.1 and 1000"));
        }
        if !(1..=3600).contains(&window) {
            return error("autoscaling.stable_window_s", format!("{window} is not between 1 and 3600"));
        }
        if !(1..=7200).contains(&self.startup_timeout_s) {
            return error("startup_timeout_s", format!("{} is not between 1 and 7200", self.startup_timeout_s));
        }
        Ok(())
    }

    /// Whether replicas made for `other` can serve this one: only its numbers of replicas differ.
    pub fn same_revision(&self, other: &Self) -> bool {
        let parts = |service: &Self| (service.model_uri.clone(), service.runtime, service.resources);
        parts(self) == parts(other)
    }
}

/// Whether `name` can be part of URLs, file names and names of services.
fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn check_uri(uri: &str) -> Result<(), SpecError> {
    let error = |message: String| Err(SpecError { field: "model_uri", message });
    let known = "models:/NAME/VERSION, models:/NAME@ALIAS, runs:/ID/PATH, s3://BUCKET/PREFIX, or an absolute path";
    if uri.chars().any(|c| c.is_control()) || uri.len() > 1024 {
        return error("it has control characters or is longer than 1024 bytes".to_owned());
    }
    let whole = |rest: &str| rest.split(['/', '@']).filter(|part| !part.is_empty()).count() >= 2;
    let good = match uri.split_once(':') {
        _ if uri.starts_with('/') => true,
        Some(("models" | "runs", rest)) => rest.starts_with('/') && !rest.starts_with("//") && whole(rest),
        Some(("s3", rest)) => rest.starts_with("//") && !rest[2..].starts_with('/') && whole(rest),
        _ => false,
    };
    if good { Ok(()) } else { error(format!("`{uri}` is none of: {known}")) }
}

fn startup_timeout() -> u32 {
    300
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: 1, max: 1 }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpus: 1, memory_mib: 0, gpu_slots: 0 }
    }
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self { target_concurrency: 4.0, stable_window_s: 60 }
    }
}

impl Runtime {
    /// The word for it, as on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pyfunc => "pyfunc",
            Self::CausalLm => "causal_lm",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_told_by_its_field() {
        let good = InferenceService::new("iris", "models:/iris/1");
        assert_eq!(good.validate(), Ok(()));
        for uri in ["models:/m@champion", "runs:/0a/model", "s3://models/a/b", "/srv/model"] {
            assert_eq!(InferenceService::new("m", uri).validate(), Ok(()), "{uri}");
        }
        for uri in ["", "iris", "models:/iris", "models://x/y", "s3://bucket", "s3:///x", "http://x/y", "models:/a\n/1"]
        {
            assert_eq!(InferenceService::new("m", uri).validate().unwrap_err().field, "model_uri", "{uri}");
        }
        for name in ["", "Iris", "1iris", "a_b", "a-", "../x", &"a".repeat(41)] {
            assert_eq!(InferenceService::new(name, "/m").validate().unwrap_err().field, "name", "{name}");
        }
        let field = |change: fn(&mut InferenceService)| {
            let mut service = good.clone();
            change(&mut service);
            service.validate().unwrap_err().field
        };
        assert_eq!(field(|s| s.replicas.min = 0), "replicas.min");
        assert_eq!(field(|s| s.replicas = Replicas { min: 3, max: 2 }), "replicas.max");
        assert_eq!(field(|s| s.replicas.max = 33), "replicas.max");
        assert_eq!(field(|s| s.resources.cpus = 0), "resources.cpus");
        assert_eq!(field(|s| s.autoscaling.target_concurrency = f64::NAN), "autoscaling.target_concurrency");
        assert_eq!(field(|s| s.autoscaling.stable_window_s = 0), "autoscaling.stable_window_s");
        assert_eq!(field(|s| s.startup_timeout_s = 0), "startup_timeout_s");
    }

    #[test]
    fn defaults_are_filled_in_and_unknown_fields_refused() {
        let read = |text| serde_json::from_str::<InferenceService>(text);
        let short = read(r#"{"name": "iris", "model_uri": "models:/iris/1"}"#).unwrap();
        assert_eq!(short, InferenceService::new("iris", "models:/iris/1"));
        assert!(read(r#"{"name": "iris", "model_uri": "/m", "replica": {}}"#).is_err());
    }

    #[test]
    fn only_numbers_of_replicas_may_change_within_a_revision() {
        let one = InferenceService::new("m", "/a");
        let mut more = one.clone();
        more.replicas.max = 3;
        assert!(one.same_revision(&more));
        more.model_uri = "/b".to_owned();
        assert!(!one.same_revision(&more));
    }
}
