//! CLOUD-7.1: all suites, as `taskrun test` runs them.
//!
//! It delivers JUnit's XML, JSON and a summary. A check that fails fails the task, and names itself. Proof: the files
//! can be read back, and tell of no failure and of a reason for all that was skipped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::proving::{Check, Verdict};
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Proof, Read, Task, Traces};

use crate::outputs::{
    Acceptance, BaseRuntime, Dashboards, Database, Documentation, Federation, Machine, ModelRuntime, ModelServing,
    ModelTransfer, Monitoring, ObjectStore, OperatorCli, Performance, Platform, Tracking, Training,
};
use crate::suites::{Counts, Files, Results};
use crate::tools::files;

/// How long all suites may take.
const TIMEOUT: Duration = Duration::from_secs(3000);

/// The task.
pub struct TestFrameworkTask;

/// The folder of the results.
fn folder(state: &Path) -> PathBuf {
    state.join("reports").join("acceptance")
}

fn read(file: &Path) -> Result<Results, Failure> {
    let json = std::fs::read(file).map_err(|error| files::failure("read", file, &error))?;
    serde_json::from_slice(&json)
        .map_err(|error| Failure::caused(Persistence::Permanent, format!("understand {}", file.display()), &error))
}

/// The checks that failed, as a failure of the task.
fn failure(results: &Results) -> Option<Failure> {
    let failed = |check: &Check| match &check.verdict {
        Verdict::Failed(failure) => Some((format!("{}: {}: {failure}", check.task, check.name), failure.hint.clone())),
        _ => None,
    };
    let (told, hints): (Vec<String>, Vec<Option<String>>) = results.checks().filter_map(failed).unzip();
    let hint = hints.into_iter().next()?.unwrap_or_else(|| "look again: taskrun test".to_owned());
    let all = results.checks().count();
    Some(
        Failure::transient(format!("pass all {all} checks: {} failed: {}", told.len(), told.join("; ")))
            .with_hint(hint),
    )
}

#[async_trait]
impl Task for TestFrameworkTask {
    type Settings = ();
    type Output = Acceptance;

    fn settings(&self) -> &() {
        &()
    }

    fn reads(&self) -> Vec<Read> {
        vec![
            Read::of::<Machine>(),
            Read::of::<OperatorCli>(),
            Read::of::<BaseRuntime>(),
            Read::of::<ModelRuntime>(),
            Read::of::<Platform>(),
            Read::of::<ObjectStore>(),
            Read::of::<Database>(),
            Read::of::<Tracking>(),
            Read::of::<ModelServing>(),
            Read::of::<Monitoring>(),
            Read::of::<Dashboards>(),
            Read::of::<Training>(),
            Read::of::<Documentation>(),
            Read::of::<ModelTransfer>(),
            Read::of::<Federation>(),
            Read::of::<Performance>(),
        ]
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        let Files { junit, json, summary } = &made.output.files;
        match [junit, json, summary].into_iter().find(|file| !file.is_file()) {
            None => Probe::Holds,
            Some(file) => Probe::Missing(format!("{} is gone", file.display())),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Acceptance>, Failure> {
        let folder = folder(context.state_dir());
        // Results of an earlier attempt must not be taken for this one's.
        files::remove(&folder)?;
        const SCRIPT: &str = r#". "$1"; exec taskrun test --out "$2""#;
        let test = Command::new("bash").args(["--noprofile", "--norc", "-euc", SCRIPT, "bash"]);
        let test = test.arg(context.output::<OperatorCli>()?.profile).arg(&folder).dir("/").timeout(TIMEOUT);
        let ran = context.command(test).await;
        let files = Files {
            junit: folder.join("junit.xml"),
            json: folder.join("results.json"),
            summary: folder.join("summary.txt"),
        };
        if ran.is_err() && !files.json.is_file() {
            return Err(ran.err().unwrap_or_else(Failure::cancelled));
        }
        let results = read(&files.json)?;
        match (failure(&results), ran) {
            (Some(failure), _) | (None, Err(failure)) => Err(failure),
            (None, Ok(_)) => Ok(Applied::complete(Acceptance { files, counts: results.counts() })),
        }
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("every check passed or has a reason why it could not be made"),
            Proof::safe("a CI server can read the results"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, _view: &View, output: &Acceptance) -> Result<(), Failure> {
        match proof {
            "every check passed or has a reason why it could not be made" => {
                let results = read(&output.files.json)?;
                let sound = |check: &&Check| match &check.verdict {
                    Verdict::Passed => true,
                    Verdict::Skipped(why) => !why.is_empty(),
                    Verdict::Failed(_) | Verdict::Blocked(_) => false,
                };
                match results.checks().find(|check| !sound(check)) {
                    None if output.counts.passed > 0 => Ok(()),
                    None => Err(Failure::permanent("find a check that passed: none was made")),
                    Some(check) => Err(Failure::permanent(format!("pass {}: {}", check.task, check.name))),
                }
            }
            "a CI server can read the results" => {
                let file = &output.files.junit;
                let xml = std::fs::read_to_string(file).map_err(|error| files::failure("read", file, &error))?;
                let report = quick_junit::Report::deserialize_from_str(&xml).map_err(|error| {
                    Failure::caused(Persistence::Permanent, format!("understand {}", file.display()), &error)
                })?;
                let Counts { passed, skipped, blocked, .. } = output.counts;
                match (report.failures, report.tests) {
                    // A suite without checks is told as one that was skipped.
                    (0, tests) if tests >= passed + skipped + blocked => Ok(()),
                    (failures, tests) => Err(Failure::permanent(format!(
                        "find {output:?} in {}: it has {tests} tests and {failures} failures",
                        file.display()
                    ))),
                }
            }
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        files::remove(&folder(context.state_dir()))?;
        files::remove(&context.state_dir().join("reports").join("test"))?;
        files::remove(&context.state_dir().join("test.lock"))
    }
}
