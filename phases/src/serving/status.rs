//! What is: the state of an inference service, as its controller last saw it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::spec::InferenceService;

/// The state of an inference service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The description that this is about.
    pub service: InferenceService,
    /// The generation of that description: each deployment counts it up.
    pub generation: u64,
    /// Where clients find the model: append `/openai/v1` or `/v2/models/NAME/infer`.
    pub url: String,
    /// The revision of that description, from 1: a new one for each change of what replicas run.
    pub latest: u32,
    /// The revision that gets the requests; nothing before the first is ready.
    pub revision: Option<u32>,
    /// The description of the revision that gets the requests.
    pub serving: Option<InferenceService>,
    /// The replicas that serve.
    pub ready: u32,
    /// The replicas that are wanted, by the autoscaler.
    pub desired: u32,
    /// From the start of the latest replica to its first readiness, in seconds.
    pub cold_start_s: Option<f64>,
    /// What can be said of it, as KServe does: `Ready`, `PredictorReady`, `LatestRevisionReady`.
    pub conditions: Vec<Condition>,
}

/// One thing that can be said of an inference service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word for programs: `ModelLoadFailed`.
    pub reason: Reason,
    /// Why, in a line for people.
    pub message: String,
    /// Since when.
    pub last_transition: Timestamp,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionKind {
    /// The model answers through the proxy, in the deployed description.
    Ready,
    /// Some revision of the model answers through the proxy.
    PredictorReady,
    /// The replicas of the deployed description are ready.
    LatestRevisionReady,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not, and waiting alone does not help.
    False,
    /// That is on its way.
    Unknown,
}

/// Why a condition holds or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Everything is as it should be.
    Serving,
    /// Replicas start.
    Starting,
    /// The new revision gets the requests; the old one finishes its last.
    RollingOut,
    /// The model cannot be fetched or loaded; the message is the last line of the replica's log.
    ModelLoadFailed,
    /// A replica ends again and again.
    CrashLoop,
    /// A replica did not serve within `startup_timeout_s`.
    StartupTimeout,
    /// There are fewer GPU slots than asked for.
    InsufficientGpu,
    /// What runs such models is not there.
    RuntimeMissing,
    /// The description makes no sense.
    InvalidSpec,
    /// The replicas that served are gone; they are started again.
    ReplicasUnavailable,
}

impl Status {
    /// The condition of a kind.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether the deployed description is served.
    pub fn is_ready(&self) -> bool {
        self.condition(ConditionKind::Ready).is_some_and(|condition| condition.status == Truth::True)
    }

    /// Why waiting for the deployed description does not help, if so.
    pub fn failed(&self) -> Option<&Condition> {
        self.condition(ConditionKind::LatestRevisionReady).filter(|condition| condition.status == Truth::False)
    }
}
