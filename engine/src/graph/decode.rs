//! From YAML to drafts: every field is looked at, and every problem noted with its place.

use super::diagnose::{At, Problems, excerpt};
use super::draft::{Draft, Drafts, Skips, Spanned};
use super::field::Fields;
use super::model::{Retries, WhenSkipped};
use super::problem::ProblemKind;
use super::source::Span;
use super::yaml::{Entered, Reader, Stop, Value, Yaml};
use crate::TaskId;

/// The version of the format that this program reads.
pub(super) const VERSION: u64 = 1;

/// The fields of a graph file; others are ignored if they begin with `x-`.
pub(super) const FILE_FIELDS: &[&str] = &["version", "pools", "tasks"];

/// The fields of a task.
pub(super) const TASK_FIELDS: &[&str] = &[
    "title",
    "needs",
    "when_skipped",
    "pool",
    "retries",
    "timeout",
    "uses",
    "with",
    "run",
    "env",
    "dir",
    "inputs",
    "outputs",
    "probe",
    "destroy",
    "transient_exit_codes",
];

/// The fields of `retries`.
pub(super) const RETRIES_FIELDS: &[&str] = &["count", "backoff", "max_delay", "jitter"];

/// Reads the text of file number `file`, the main one if `main`, into `drafts`.
pub(super) fn decode(text: &str, file: u16, main: bool, drafts: &mut Drafts, problems: &mut Problems) {
    let mut decoder = Decoder { reader: Reader::new(text), fields: Fields { file, problems }, drafts, main };
    if let Err(Stop { kind, span }) = decoder.file() {
        decoder.drafts.incomplete = true;
        problems.add(At { file, span }, kind);
    }
    drafts.incomplete |= problems.enough();
}

struct Decoder<'a, 'p> {
    reader: Reader<'a>,
    fields: Fields<'p>,
    drafts: &'p mut Drafts,
    main: bool,
}

impl Decoder<'_, '_> {
    fn file(&mut self) -> Result<(), Stop> {
        let start = Span::default();
        match self.reader.enter("a mapping with `version` and `tasks`")? {
            Entered::Map => {}
            Entered::Null(span) => return Err(Stop { kind: ProblemKind::Empty, span }),
            Entered::Nothing => return Err(Stop { kind: ProblemKind::Empty, span: start }),
        }
        let mut seen: Vec<(String, Span)> = Vec::new();
        while let Some(key) = self.reader.key()?.filter(|_| !self.fields.problems.enough()) {
            let name = self.fields.text(&key).unwrap_or_default();
            if let Some((_, first)) = seen.iter().find(|(other, _)| **other == *name) {
                let first = self.fields.problems.line(self.fields.at(*first));
                self.fields.problem(key.span, ProblemKind::DuplicateKey { key: excerpt(&name), first });
            }
            match &*name {
                "version" => {
                    let version = self.reader.value()?;
                    self.version(&version);
                }
                "pools" => {
                    let pools = self.reader.value()?;
                    self.pools(&pools);
                }
                "tasks" => self.tasks()?,
                other => {
                    self.reader.value()?;
                    if !other.starts_with("x-") && !other.is_empty() {
                        self.fields.unknown(&key, other, "a graph file", FILE_FIELDS);
                    }
                }
            }
            seen.push((name.into(), key.span));
        }
        if self.main && !seen.iter().any(|(name, _)| name == "version") {
            self.fields.problem(start, ProblemKind::NoVersion);
        }
        if self.fields.problems.enough() { Ok(()) } else { self.reader.end() }
    }

    fn version(&mut self, yaml: &Yaml<'_>) {
        match self.fields.number::<u64>(yaml, "a whole number from 1") {
            Some(0) => self.fields.problem(yaml.span, ProblemKind::Zero { what: "a version" }),
            Some(found) if found > VERSION => {
                self.fields.problem(yaml.span, ProblemKind::NewerVersion { found, known: VERSION });
            }
            _ => {}
        }
    }

    fn pools(&mut self, yaml: &Yaml<'_>) {
        for (key, name, value) in self.fields.entries(yaml) {
            let at = self.fields.at(key.span);
            // A pool of unknown capacity is still a pool: who names it is not to blame.
            let capacity = self.fields.amount(value, "a capacity").unwrap_or(u32::MAX);
            self.drafts.pools.push(Spanned { value: (name.into(), capacity), at });
        }
    }

    fn tasks(&mut self) -> Result<(), Stop> {
        let Entered::Map = self.reader.enter("a mapping of ids to tasks")? else { return Ok(()) };
        while let Some(key) = self.reader.key()? {
            let value = self.reader.value()?;
            if self.fields.problems.enough() {
                break;
            }
            let Some(text) = self.fields.text(&key) else {
                self.drafts.incomplete = true;
                continue;
            };
            match TaskId::new(&text) {
                Ok(id) => {
                    let draft = self.task(Draft::new(id, self.fields.at(key.span)), &value);
                    self.drafts.tasks.push(draft);
                }
                Err(source) => {
                    self.drafts.incomplete = true;
                    self.fields.problem(key.span, ProblemKind::BadId { id: excerpt(&text), source });
                }
            }
        }
        Ok(())
    }

    fn task(&mut self, mut draft: Draft, yaml: &Yaml<'_>) -> Draft {
        if matches!(yaml.value, Value::Null) {
            return draft;
        }
        let fields = &mut self.fields;
        let mut command = super::command::Gatherer::default();
        let mut plugin_field = None;
        for (key, name, value) in fields.entries(yaml) {
            match name {
                "title" => draft.title = fields.text(value),
                "needs" => {
                    draft.needs_at = Some(fields.at(value.span));
                    draft.needs = fields.texts(value);
                }
                "when_skipped" => draft.when_skipped = fields.skips(value),
                "pool" => draft.claims = fields.claims(value),
                "retries" => draft.retries = fields.retries(value).map(Box::new),
                "timeout" => draft.timeout = fields.duration(value).and_then(|it| fields.some_time(it, value)),
                "uses" => {
                    plugin_field.get_or_insert(key.span);
                    draft.uses = fields.spanned(value);
                }
                "with" => {
                    plugin_field.get_or_insert(key.span);
                    draft.with_at = Some(fields.at(value.span));
                    draft.with_keys = fields.keys(value);
                    draft.with = fields.json_object(value);
                }
                _ => {
                    if !command.field(key, name, value, fields) {
                        fields.unknown(key, name, "a task", TASK_FIELDS);
                    }
                }
            }
        }
        draft.command = command.finish(fields);
        if let (Some(span), Some(_)) = (plugin_field, &draft.command) {
            fields.problem(span, ProblemKind::PluginFieldOfCommand);
        }
        draft
    }
}

impl Fields<'_> {
    fn skips(&mut self, yaml: &Yaml<'_>) -> Skips {
        if !matches!(yaml.value, Value::Map(_)) {
            return Skips { all: self.when_skipped(yaml).unwrap_or_default(), some: Vec::new() };
        }
        let mut skips = Skips::default();
        for (key, name, value) in self.entries(yaml) {
            if let Some(when) = self.when_skipped(value) {
                skips.some.push((Spanned { value: name.into(), at: self.at(key.span) }, when));
            }
        }
        skips
    }

    fn when_skipped(&mut self, yaml: &Yaml<'_>) -> Option<WhenSkipped> {
        let text = self.text(yaml)?;
        match &*text {
            "run" => Some(WhenSkipped::Run),
            "skip" => Some(WhenSkipped::Skip),
            _ => {
                self.problem(yaml.span, ProblemKind::BadValue { text: excerpt(&text), expected: "`run` or `skip`" });
                None
            }
        }
    }

    fn claims(&mut self, yaml: &Yaml<'_>) -> Vec<(Spanned<Box<str>>, u32)> {
        if !matches!(yaml.value, Value::Map(_)) {
            return self.spanned(yaml).map(|name| (name, 1)).into_iter().collect();
        }
        let mut claims = Vec::new();
        for (key, name, value) in self.entries(yaml) {
            if let Some(amount) = self.amount(value, "an amount") {
                claims.push((Spanned { value: name.into(), at: self.at(key.span) }, amount));
            }
        }
        claims
    }

    /// A number of which 0 makes no sense.
    fn amount(&mut self, yaml: &Yaml<'_>, what: &'static str) -> Option<u32> {
        let amount = self.number(yaml, "a whole number from 1")?;
        if amount == 0 {
            self.problem(yaml.span, ProblemKind::Zero { what });
            return None;
        }
        Some(amount)
    }

    fn some_time(&mut self, duration: std::time::Duration, yaml: &Yaml<'_>) -> Option<std::time::Duration> {
        if duration.is_zero() {
            self.problem(yaml.span, ProblemKind::Zero { what: "a time-out" });
        }
        Some(duration)
    }

    fn retries(&mut self, yaml: &Yaml<'_>) -> Option<Retries> {
        const COUNT: &str = "a whole number from 0";
        let mut retries = Retries::default();
        if !matches!(yaml.value, Value::Map(_)) {
            return self.number(yaml, COUNT).map(|count| Retries { count, ..retries });
        }
        let mut counted = false;
        for (key, name, value) in self.entries(yaml) {
            match name {
                "count" => {
                    counted = true;
                    retries.count = self.number(value, COUNT).unwrap_or_default();
                }
                "backoff" => retries.backoff = self.duration(value).unwrap_or_default(),
                "max_delay" => retries.max_delay = self.duration(value).unwrap_or_default(),
                "jitter" => retries.jitter = self.share(value).unwrap_or_default(),
                _ => self.unknown(key, name, "`retries`", RETRIES_FIELDS),
            }
        }
        if !counted {
            self.problem(yaml.span, ProblemKind::MissingField { field: "count", of: "`retries`" });
        }
        Some(retries)
    }
}
