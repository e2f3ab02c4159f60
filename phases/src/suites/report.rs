//! The results as files: JUnit's XML for CI servers, JSON for programs, text for people.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::{Deserialize, Serialize};
use taskrun_engine::proving::{Check, Verdict};

use super::{Counts, Results};

/// Where the results are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// JUnit's XML.
    pub junit: PathBuf,
    /// All results as JSON.
    pub json: PathBuf,
    /// The same to be read.
    pub summary: PathBuf,
}

/// Why the results could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file cannot be written.
    #[error("write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// They cannot be put as XML.
    #[error("put the results as XML")]
    Xml(#[from] quick_junit::SerializeError),
    /// They cannot be put as JSON.
    #[error("put the results as JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes `junit.xml`, `results.json` and `summary.txt` into a folder, which is made.
///
/// # Errors
/// A file cannot be written.
pub fn write(results: &Results, folder: &Path) -> Result<Files, ReportError> {
    let files = Files {
        junit: folder.join("junit.xml"),
        json: folder.join("results.json"),
        summary: folder.join("summary.txt"),
    };
    let failed = |file: &Path| {
        let file = file.to_owned();
        |source| ReportError::Write { file, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let json = serde_json::to_string_pretty(results)? + "\n";
    let texts = [(&files.junit, results.junit()?), (&files.json, json), (&files.summary, results.summary())];
    for (file, text) in texts {
        let new = file.with_extension("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)).map_err(failed(file))?;
    }
    Ok(files)
}

impl Results {
    /// As JUnit's XML, in the dialect that CI servers read
    /// (<https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd>).
    ///
    /// # Errors
    /// A text cannot be put as XML.
    pub fn junit(&self) -> Result<String, ReportError> {
        let mut report = quick_junit::Report::new(&self.environment);
        report.set_time(seconds(self.seconds));
        for (suite, checks) in &self.suites {
            let mut told = TestSuite::new(suite.as_str());
            told.set_time(seconds(checks.iter().map(|check| check.seconds).sum()));
            if let Some(why) = self.skipped_suites.get(suite) {
                let mut status = TestCaseStatus::skipped();
                status.set_message(why);
                told.add_test_case(TestCase::new("all", status));
            }
            told.add_test_cases(checks.iter().map(case));
            report.add_test_suite(told);
        }
        Ok(report.to_string()?)
    }

    /// To be read: by suite and task, failures with their remedies.
    pub fn summary(&self) -> String {
        self.told(|_| true)
    }

    /// As the summary, with the failures only.
    pub fn digest(&self) -> String {
        self.told(|check| matches!(check.verdict, Verdict::Failed(_)))
    }

    fn told(&self, is_told: impl Fn(&Check) -> bool) -> String {
        let mut out = String::new();
        for (suite, checks) in &self.suites {
            match self.skipped_suites.get(suite) {
                Some(why) => push(&mut out, &format!("{}: skipped: {why}\n", suite.as_str())),
                None => push(&mut out, &format!("{}: {}\n", suite.as_str(), Counts::of(checks))),
            }
            let told = checks.iter().filter(|check| is_told(check));
            told.for_each(|check| push(&mut out, &format!("  {}\n", line(check).replace('\n', "\n  "))));
        }
        push(&mut out, &format!("{} in {:.1} s\n", self.counts(), self.seconds));
        out
    }
}

/// A check in a line; what failed in two or three.
pub(crate) fn line(check: &Check) -> String {
    let Check { task, name, seconds, .. } = check;
    let what = format!("{task}: {name}");
    match &check.verdict {
        Verdict::Passed => format!("ok       {what} ({seconds:.1} s)"),
        Verdict::Skipped(why) => format!("skipped  {what}: {why}"),
        Verdict::Blocked(by) => format!("blocked  {what}: {by} does not stand"),
        Verdict::Failed(failure) => {
            let mut out = format!("FAILED   {what} ({seconds:.1} s)\n         {failure}");
            failure.hint.iter().for_each(|hint| push(&mut out, &format!("\n         hint: {hint}")));
            out
        }
    }
}

fn push(out: &mut String, text: &str) {
    // Writing into a string cannot fail.
    let _ = out.write_str(text);
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn case(check: &Check) -> TestCase {
    let status = match &check.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Skipped(why) => skipped(why),
        Verdict::Blocked(by) => skipped(&format!("not judged: {by} does not stand")),
        Verdict::Failed(failure) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(failure.to_string());
            let tail = failure.command.as_ref().map(|command| format!("{}\n{}", command.line, command.tail));
            let texts: Vec<String> = failure.hint.clone().into_iter().chain(tail).collect();
            status.set_description(texts.join("\n"));
            status
        }
    };
    let mut case = TestCase::new(&check.name, status);
    case.set_classname(check.task.as_str()).set_time(seconds(check.seconds));
    case
}

fn skipped(why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(why);
    status
}

#[cfg(test)]
mod tests {
    use taskrun_engine::outcome::Failure;

    use super::super::Suite;
    use super::*;

    fn results() -> Results {
        let check = |task: &str, name: &str, verdict| Check {
            task: task.parse().unwrap(),
            name: name.to_owned(),
            verdict,
            seconds: 0.25,
        };
        let refused = Failure::permanent("log in as <mlflow>: the password is refused").with_hint("taskrun resume");
        let checks = vec![
            check("CLOUD-3.3", "it tells its version", Verdict::Blocked("CLOUD-3.2".parse().unwrap())),
            check("CLOUD-3.2", "what it made is there", Verdict::Passed),
            check("CLOUD-3.2", "its user can log in", Verdict::Failed(refused)),
            check("CLOUD-2.2", "what it made is there", Verdict::Skipped("there is no GPU".to_owned())),
        ];
        let started = jiff::Timestamp::UNIX_EPOCH;
        Results::new("look", "local", &[Suite::Deployment, Suite::Kubernetes, Suite::Mlops], started, 1.5, checks)
    }

    #[test]
    fn what_people_and_programs_read() {
        let results = results();
        crate::testing::snapshot("suites-summary", &results.summary());
        crate::testing::snapshot("suites-digest", &results.digest());
        crate::testing::snapshot("suites-junit", &results.junit().unwrap());
        let counts = Counts { passed: 1, failed: 1, skipped: 0, blocked: 1 };
        assert_eq!(results.counts(), counts, "of the suites that were asked for");
    }

    #[test]
    fn the_xml_can_be_read_back() {
        let report = quick_junit::Report::deserialize_from_str(&results().junit().unwrap()).unwrap();
        assert_eq!((report.tests, report.failures), (4, 1));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = write(&results(), &file.path().join("folder")).unwrap_err().to_string();
        assert!(told.contains(&file.path().display().to_string()), "{told}");
    }
}
