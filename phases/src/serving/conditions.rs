//! What is told of a model: its state, from what was seen and planned.

use jiff::Timestamp;

use super::plan::{Phase, Plan, Scene, Seen};
use super::spec::InferenceService;
use super::status::{Condition, ConditionKind, Reason, Status, Truth};
use super::store::Wanted;
use crate::tools::haproxy::Slot;

/// What is told of a model that has served and does not for now.
const NOBODY: &str = "no replica answers; they are started again";

/// The state of a model that is wanted.
pub(super) fn status(
    scene: &Scene<'_>,
    wanted: &Wanted,
    plan: &Plan,
    url: String,
    cold_start_s: Option<f64>,
    now: Timestamp,
) -> Status {
    let answers = |seen: &&Seen| {
        seen.phase == Phase::Ready && seen.traffic.up && seen.traffic.slot == Slot::Ready(seen.replica.port)
    };
    let of = |revision: u32| move |seen: &&Seen| seen.replica.revision == revision;
    let ready = scene.seen.iter().filter(answers).count() as u32;
    let latest_ready = scene.seen.iter().filter(answers).filter(of(plan.latest)).count() as u32;
    let (before, revision) = (scene.before, plan.active);
    let serving = match revision {
        Some(revision) if revision == plan.latest => Some(wanted.service.clone()),
        Some(_) => before.and_then(|before| before.serving.clone()),
        None => None,
    };
    let told = Told { plan, desired: scene.desired, ready, latest_ready, revision };
    let kinds = [ConditionKind::Ready, ConditionKind::PredictorReady, ConditionKind::LatestRevisionReady];
    let conditions = kinds.map(|kind| {
        let (status, reason, message) = told.of(kind);
        let last = before.and_then(|before| before.condition(kind)).filter(|last| last.status == status);
        Condition { kind, status, reason, message, last_transition: last.map_or(now, |last| last.last_transition) }
    });
    Status {
        service: wanted.service.clone(),
        generation: wanted.generation,
        url,
        latest: plan.latest,
        revision,
        serving,
        ready,
        desired: scene.desired,
        cold_start_s: cold_start_s.or_else(|| before.and_then(|before| before.cold_start_s)),
        conditions: conditions.into(),
    }
}

/// The state of a model that is taken away, until it is gone.
pub(super) fn leaving(before: &Status, seen: &[Seen]) -> Status {
    Status { ready: seen.iter().filter(|seen| seen.running).count() as u32, desired: 0, ..before.clone() }
}

/// The description that replicas of a revision are made from.
pub(super) fn description<'a>(scene: &Scene<'a>, plan: &Plan, revision: u32) -> Option<&'a InferenceService> {
    match revision == plan.latest {
        true => scene.wanted.map(|wanted| &wanted.service),
        false => scene.before.and_then(|before| before.serving.as_ref()),
    }
}

/// What the conditions are made of.
struct Told<'a> {
    plan: &'a Plan,
    desired: u32,
    ready: u32,
    latest_ready: u32,
    revision: Option<u32>,
}

impl Told<'_> {
    fn of(&self, kind: ConditionKind) -> (Truth, Reason, String) {
        match kind {
            ConditionKind::PredictorReady => self.predictor(),
            ConditionKind::LatestRevisionReady => self.latest(),
            ConditionKind::Ready => match (self.latest(), self.revision) {
                ((Truth::True, ..), _) => self.predictor(),
                ((Truth::False, reason, message), Some(old)) => {
                    (Truth::False, reason, format!("{message}; revision {old} goes on serving"))
                }
                (other, _) => other,
            },
        }
    }

    fn predictor(&self) -> (Truth, Reason, String) {
        match (self.ready, self.revision) {
            (0, None) => match &self.plan.failure {
                Some((reason, message)) => (Truth::False, *reason, message.clone()),
                None => (Truth::Unknown, Reason::Starting, "no replica is ready yet".to_owned()),
            },
            (0, Some(_)) => (Truth::False, Reason::ReplicasUnavailable, NOBODY.to_owned()),
            (ready, _) => (Truth::True, Reason::Serving, format!("{ready} of {} replicas serve", self.desired)),
        }
    }

    fn latest(&self) -> (Truth, Reason, String) {
        let latest = self.plan.latest;
        match (&self.plan.failure, self.revision) {
            // Read again at the next look: it must stay as it is.
            (Some((reason, message)), _) => (Truth::False, *reason, message.clone()),
            (None, Some(revision)) if revision == latest => match (self.latest_ready, self.ready) {
                (0, 0) => (Truth::Unknown, Reason::ReplicasUnavailable, NOBODY.to_owned()),
                (0, _) => (Truth::Unknown, Reason::RollingOut, format!("revision {latest} takes over")),
                _ => (Truth::True, Reason::Serving, format!("revision {latest} gets the requests")),
            },
            (None, Some(old)) => (
                Truth::Unknown,
                Reason::RollingOut,
                format!("revision {latest} starts; revision {old} goes on serving"),
            ),
            (None, None) => (Truth::Unknown, Reason::Starting, format!("revision {latest} starts")),
        }
    }
}
