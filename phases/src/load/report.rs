//! The report of a test, as JSON and as a page.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use serde::{Deserialize, Serialize};

use super::figures::{Figures, Second};
use super::plot::{Line, Plot, XAxis};
use super::sample::{self, Sample};
use super::schedule::Shape;
use super::targets::{Judged, Scaling, Targets};

/// The version of the JSON.
const VERSION: u32 = 1;

const TEMPLATE: &str = include_str!("../../assets/load/report.html.j2");
const STYLE: &str = include_str!("../../assets/load/report.css");

/// The files that the page is made of.
pub const ASSETS: [(&str, &[u8]); 2] = [("report.html.j2", TEMPLATE.as_bytes()), ("report.css", STYLE.as_bytes())];

/// The generator is said to have been late if one request in a hundred left later than this, in milliseconds.
const LATE: f64 = 10.0;

/// The report of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format.
    pub version: u32,
    /// What was tested: the name of an inference service, or the address.
    pub subject: String,
    /// The requests: method and address.
    pub request: String,
    /// When the test began.
    pub began: Timestamp,
    /// The load.
    pub load: Shape,
    /// What was measured.
    pub figures: Figures,
    /// From asking for a model until its first answer, in seconds, if that was measured.
    pub cold_start_seconds: Option<f64>,
    /// The ready replicas at times in seconds since the end of the warm-up; empty if they were not watched.
    pub replicas: Vec<(f64, u32)>,
    /// What the autoscaler did.
    pub scaling: Option<Scaling>,
    /// What the test took of the machine.
    pub resources: Vec<Resource>,
    /// What was wanted.
    pub targets: Targets,
    /// Whether it was achieved.
    pub judged: Vec<Judged>,
    /// What a reader should know of how it was measured.
    pub notes: Vec<String>,
    /// The file of all samples, beside this one.
    pub samples: PathBuf,
}

/// A figure of the machine during the test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is, such as `processors in use`.
    pub name: String,
    /// The mean during the test.
    pub mean: f64,
    /// The highest.
    pub max: f64,
    /// The unit.
    pub unit: String,
}

/// The files of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The page.
    pub html: PathBuf,
    /// The same as JSON.
    pub json: PathBuf,
    /// All samples, as CSV compressed by gzip.
    pub samples: PathBuf,
}

impl Files {
    /// The files of a test in a folder; `subject` is turned into a file's name.
    pub fn new(folder: &Path, subject: &str, began: Timestamp) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let subject: String = subject.chars().map(plain).take(60).collect();
        let name = format!("bench-{}-{}", subject.trim_matches('-'), began.strftime("%Y%m%dT%H%M%S%3fZ"));
        let file = |extension: &str| folder.join(format!("{name}.{extension}"));
        Self { html: file("html"), json: file("json"), samples: file("csv.gz") }
    }

    /// Writes all of them.
    ///
    /// # Errors
    /// A file cannot be written, with its path.
    pub fn write(&self, report: &Report, samples: &[Sample]) -> Result<(), (PathBuf, io::Error)> {
        fn at(file: &Path) -> impl FnOnce(io::Error) -> (PathBuf, io::Error) {
            |error| (file.to_owned(), error)
        }
        if let Some(folder) = self.html.parent() {
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let measured_from = std::time::Duration::from_secs_f64(report.load.warm_up_seconds);
        sample::write(&self.samples, samples, measured_from).map_err(at(&self.samples))?;
        let json = serde_json::to_string_pretty(report).map_err(io::Error::from).map_err(at(&self.json))?;
        std::fs::write(&self.json, json + "\n").map_err(at(&self.json))?;
        std::fs::write(&self.html, report.html()).map_err(at(&self.html))
    }
}

impl Report {
    /// A report of a load on an address, with nothing known but that.
    pub fn new(subject: &str, request: String, began: Timestamp, load: Shape, figures: Figures, files: &Files) -> Self {
        let samples = files.samples.file_name().map(PathBuf::from).unwrap_or_default();
        let notes = doubts(&figures);
        Self {
            version: VERSION,
            subject: subject.to_owned(),
            request,
            began,
            load,
            figures,
            cold_start_seconds: None,
            replicas: Vec::new(),
            scaling: None,
            resources: Vec::new(),
            targets: Targets::default(),
            judged: Vec::new(),
            notes,
            samples,
        }
    }

    /// The page: one file that needs no network.
    pub fn html(&self) -> String {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("these settings are compatible"));
        let style = Value::from_safe_string(STYLE.to_owned());
        let (report, plots) = (Serde(self), Serde(self.plots()));
        let verdicts: Vec<&str> = self.judged.iter().map(|judged| judged.verdict.as_str()).collect();
        let (error_percent, began) = (self.figures.error_ratio() * 100.0, self.began.strftime("%F %T UTC").to_string());
        environment
            .render_str(
                TEMPLATE,
                context! { report, plots, verdicts, error_percent, began, style, taskrun => env!("CARGO_PKG_VERSION") },
            )
            .expect("the template is our own, and all that it names is there")
    }

    /// The figures in a few lines, for a terminal.
    pub fn summary(&self) -> String {
        let Figures { requests, rate, throughput, latency, errors, tokens, first_answer, .. } = &self.figures;
        let mut lines = vec![
            format!("{requests} requests, {rate:.1}/s on average, {throughput:.1}/s answered"),
            format!(
                "latency      P50 {:.1} ms   P95 {:.1} ms   P99 {:.1} ms   max {:.1} ms",
                latency.p50, latency.p95, latency.p99, latency.max
            ),
        ];
        if let Some(tokens) = tokens {
            let between = tokens.between.map_or_else(String::new, |ms| format!(", {ms:.1} ms between two"));
            lines.push(format!("first token  P50 {:.1} ms   P95 {:.1} ms", first_answer.p50, first_answer.p95));
            lines.push(format!("tokens       {}, {:.1}/s{between}", tokens.total, tokens.per_second));
        }
        if let Some(seconds) = self.cold_start_seconds {
            lines.push(format!("cold start   {seconds:.1} s"));
        }
        let told: Vec<String> = errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        lines.push(format!("errors       {}", if told.is_empty() { "none".to_owned() } else { told.join(", ") }));
        for judged in &self.judged {
            let advice = if judged.advice.is_empty() { String::new() } else { format!(" ({})", judged.advice) };
            let verdict = judged.verdict.as_str();
            lines.push(format!("{verdict:<15}{}: {}, wanted {}{advice}", judged.name, judged.measured, judged.wanted));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines.join("\n") + "\n"
    }

    fn plots(&self) -> Vec<Plot> {
        let course = &self.figures.course;
        let line = |label, class, value: fn(&Second) -> f64| Line {
            label,
            class,
            points: course.iter().map(|second| (second.at, value(second))).collect(),
            steps: false,
        };
        let from = -self.load.warm_up_seconds;
        let intended = (0..=200).map(|i| {
            let at = f64::from(i) / 200.0 * (self.load.seconds - from) * 0.999_999;
            (at + from, self.load.rate_at(at))
        });
        let intended = Line { label: "intended", class: "limit-line", points: intended.collect(), steps: false };
        let target = Some((self.targets.p95_milliseconds, "target of P95"));
        let mut plots = vec![
            Plot::new(
                "Latency by the second, ms",
                XAxis::Seconds,
                vec![line("P50", "p50", |second| second.p50), line("P99", "p99", |second| second.p99)],
                target,
            ),
            Plot::new(
                "Requests a second",
                XAxis::Seconds,
                vec![
                    intended,
                    line("sent", "sent", |second| second.requests as f64),
                    line("failed", "failed", |second| second.errors as f64),
                ],
                None,
            ),
            Plot::new(
                "Latency by percentile, ms",
                XAxis::Percentiles,
                vec![Line { label: "latency", class: "p50", points: self.figures.curve.clone(), steps: false }],
                target,
            ),
        ];
        if !self.replicas.is_empty() {
            let points = self.replicas.iter().map(|(at, count)| (*at, f64::from(*count))).collect();
            let line = Line { label: "ready", class: "sent", points, steps: true };
            plots.push(Plot::new("Replicas", XAxis::Seconds, vec![line], None));
        }
        plots
    }
}

/// What makes the figures doubtful.
fn doubts(figures: &Figures) -> Vec<String> {
    let mut notes = Vec::new();
    if figures.delay.p99 > LATE {
        notes.push(format!(
            "the generator sent one request in a hundred {:.0} ms late or later: this machine is too busy to load and \
             serve at once, and the latencies hold that too",
            figures.delay.p99
        ));
    }
    if figures.requests < 100 {
        notes.push(format!("{} requests are too few for a P99", figures.requests));
    }
    notes
}
