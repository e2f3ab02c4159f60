//! The acceptance tests of an installation: what its tasks promise, checked again and told by suite.
//!
//! A check is a task's probe or one of its proofs: it goes through the interfaces that users have, cleans up after
//! itself, and can be made any number of times. What depends on something that does not stand is not judged, so that
//! the failures tell what is broken.

mod report;

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use taskrun_engine::TaskId;
use taskrun_engine::proving::{Check, Verdict};

pub(crate) use self::report::line;
pub use self::report::{Files, ReportError, write};

/// A suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Suite {
    /// The machine, the platform, its data services, monitoring and dashboards.
    Deployment,
    /// The cluster, where there is one.
    Kubernetes,
    /// Tracking, training, the registry and the transfer of models.
    Mlops,
    /// Serving, and how it does under load.
    Inference,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Deployment, Self::Kubernetes, Self::Mlops, Self::Inference];

    /// The suite that a task's promises belong to; none for the one that runs the suites. Tasks of the user's own
    /// belong to the deployment.
    pub fn of(task: &TaskId) -> Option<Self> {
        match task.as_str() {
            "CLOUD-7.1" => None,
            "CLOUD-3.3" | "CLOUD-5.1" | "CLOUD-5.2" | "CLOUD-6.1" | "oumi-environment" => Some(Self::Mlops),
            "CLOUD-1.2" | "CLOUD-2.2" | "CLOUD-3.4" | "CLOUD-6.3" => Some(Self::Inference),
            _ => Some(Self::Deployment),
        }
    }

    /// Its name on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Kubernetes => "kubernetes",
            Self::Mlops => "mlops",
            Self::Inference => "inference",
        }
    }
}

/// The checks that were made, by suite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The environment.
    pub environment: String,
    /// When the first check began, as RFC 3339.
    pub started: jiff::Timestamp,
    /// How long all of it took.
    pub seconds: f64,
    /// The suites that were asked for.
    pub suites: BTreeMap<Suite, Vec<Check>>,
    /// Why a suite has no checks.
    pub skipped_suites: BTreeMap<Suite, String>,
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// They hold.
    pub passed: usize,
    /// They do not.
    pub failed: usize,
    /// There was nothing to look at.
    pub skipped: usize,
    /// Something that they depend on does not stand.
    pub blocked: usize,
}

impl Results {
    /// The checks of the suites that were asked for, sorted by task, in the order that they were made in.
    pub fn new(
        environment: &str,
        platform: &str,
        asked: &[Suite],
        started: jiff::Timestamp,
        seconds: f64,
        checks: Vec<Check>,
    ) -> Self {
        let mut suites: BTreeMap<Suite, Vec<Check>> = asked.iter().map(|suite| (*suite, Vec::new())).collect();
        for check in checks {
            if let Some(of_suite) = Suite::of(&check.task).and_then(|suite| suites.get_mut(&suite)) {
                of_suite.push(check);
            }
        }
        suites.values_mut().for_each(|checks| checks.sort_by(|a, b| a.task.cmp(&b.task)));
        let empty = suites.iter().filter(|(_, checks)| checks.is_empty()).map(|(suite, _)| match suite {
            Suite::Kubernetes => (*suite, format!("no cluster: the platform is `{platform}`")),
            _ => (*suite, "no task of the graph belongs to it".to_owned()),
        });
        let skipped_suites = empty.collect();
        Self { environment: environment.to_owned(), started, seconds, suites, skipped_suites }
    }

    /// All checks.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.suites.values().flatten()
    }

    /// How many came out how.
    pub fn counts(&self) -> Counts {
        Counts::of(self.checks())
    }
}

impl Counts {
    /// Counts checks.
    pub fn of<'c>(checks: impl IntoIterator<Item = &'c Check>) -> Self {
        let mut counts = Self::default();
        for check in checks {
            *match check.verdict {
                Verdict::Passed => &mut counts.passed,
                Verdict::Failed(_) => &mut counts.failed,
                Verdict::Skipped(_) => &mut counts.skipped,
                Verdict::Blocked(_) => &mut counts.blocked,
            } += 1;
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, failed, skipped, blocked } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped, {blocked} not judged")
    }
}
