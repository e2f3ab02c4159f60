//! The fields of a task that is a command.

use std::path::PathBuf;

use globset::Glob;
use serde_json::{Map, Value as Json, json};

use super::diagnose::{At, excerpt};
use super::draft::{CommandDraft, Spanned};
use super::field::Fields;
use super::model::{CommandSpec, EnvValue, Run};
use super::problem::ProblemKind;
use super::source::Span;
use super::yaml::{Value, Yaml};
use crate::TaskId;
use crate::fingerprint::Digest;

/// The forms that the value of an environment variable has besides a text.
pub(super) const ENV_FIELDS: &[&str] = &["from", "field", "secret"];

/// Gathers the command fields of a task.
#[derive(Default)]
pub(super) struct Gatherer {
    first: Option<(&'static str, Span)>,
    has_run: bool,
    run: Option<Run>,
    env: Vec<(Box<str>, EnvValue)>,
    reads: Vec<Spanned<TaskId>>,
    dir: Option<PathBuf>,
    inputs: Vec<Spanned<Box<str>>>,
    outputs: Vec<Spanned<Box<str>>>,
    probe: Option<Run>,
    destroy: Option<Run>,
    transient_exit_codes: Vec<i32>,
}

impl Gatherer {
    /// Takes the field `name` in; false if no command has such a field.
    pub(super) fn field(&mut self, key: &Yaml<'_>, name: &str, value: &Yaml<'_>, fields: &mut Fields<'_>) -> bool {
        let name = match name {
            "run" => {
                self.has_run = true;
                self.run = fields.run(value);
                return true;
            }
            "env" => {
                self.env(value, fields);
                "env"
            }
            "dir" => {
                self.dir = fields.text(value).map(|dir| PathBuf::from(String::from(dir)));
                "dir"
            }
            "inputs" => {
                self.inputs = fields.patterns(value);
                "inputs"
            }
            "outputs" => {
                self.outputs = fields.patterns(value);
                "outputs"
            }
            "probe" => {
                self.probe = fields.run(value);
                "probe"
            }
            "destroy" => {
                self.destroy = fields.run(value);
                "destroy"
            }
            "transient_exit_codes" => {
                self.transient_exit_codes = fields.exit_codes(value);
                "transient_exit_codes"
            }
            _ => return false,
        };
        self.first.get_or_insert((name, key.span));
        true
    }

    /// The command, if the task is one.
    pub(super) fn finish(self, fields: &mut Fields<'_>) -> Option<Box<CommandDraft>> {
        if let (Some((field, span)), false) = (self.first, self.has_run) {
            fields.problem(span, ProblemKind::CommandFieldWithoutRun { field });
        }
        let (inputs, input_places) = apart(self.inputs);
        let (outputs, output_places) = apart(self.outputs);
        let spec = CommandSpec {
            settings_digest: Digest::of(&[]),
            run: self.run?,
            env: self.env.into(),
            dir: self.dir,
            inputs,
            outputs,
            probe: self.probe,
            destroy: self.destroy,
            transient_exit_codes: self.transient_exit_codes.into(),
        };
        let spec = spec.sealed();
        Some(Box::new(CommandDraft { spec, reads: self.reads, inputs: input_places, outputs: output_places }))
    }

    fn env(&mut self, yaml: &Yaml<'_>, fields: &mut Fields<'_>) {
        for (key, name, value) in fields.entries(yaml) {
            if name.is_empty() || name.contains(['=', '\0']) {
                fields.problem(key.span, ProblemKind::EnvName { name: excerpt(name) });
            }
            let value = match value.value {
                Value::Map(_) => self.reference(value, fields),
                _ => fields.text(value).map(EnvValue::Literal),
            };
            self.env.extend(value.map(|value| (name.into(), value)));
        }
    }

    fn reference(&mut self, yaml: &Yaml<'_>, fields: &mut Fields<'_>) -> Option<EnvValue> {
        let mut known = true;
        let (mut from, mut field, mut secret) = (None, None, None);
        for (key, name, value) in fields.entries(yaml) {
            match name {
                "from" => from = fields.spanned(value),
                "field" => field = fields.text(value),
                "secret" => secret = fields.text(value),
                _ => {
                    known = false;
                    fields.unknown(key, name, "an environment variable", ENV_FIELDS);
                }
            }
        }
        match (from, field, secret) {
            (Some(Spanned { value: from, at }), field, None) => match TaskId::new(&from) {
                Ok(from) => {
                    self.reads.push(Spanned { value: from.clone(), at });
                    Some(EnvValue::From { from, field })
                }
                Err(source) => {
                    fields.problem(at.span, ProblemKind::BadId { id: excerpt(&from), source });
                    None
                }
            },
            (None, None, Some(secret)) => Some(EnvValue::Secret { secret }),
            _ => {
                if known {
                    fields.problem(yaml.span, ProblemKind::EnvForm);
                }
                None
            }
        }
    }
}

impl Fields<'_> {
    /// A script, or a list of a program and its arguments.
    fn run(&mut self, yaml: &Yaml<'_>) -> Option<Run> {
        match &yaml.value {
            Value::List(list) if !list.is_empty() => Some(Run::Argv(self.all(list, Self::text).into())),
            Value::Text { .. } => self.text(yaml).map(Run::Shell),
            _ => {
                self.wrong_type(yaml, "a script, or a list of a program and its arguments");
                None
            }
        }
    }

    /// Paths and globs.
    fn patterns(&mut self, yaml: &Yaml<'_>) -> Vec<Spanned<Box<str>>> {
        let patterns = self.texts(yaml);
        for Spanned { value, at } in &patterns {
            if value.is_empty() {
                let expected = "a path or a glob";
                self.problem(at.span, ProblemKind::BadValue { text: String::new(), expected });
            } else if let Err(error) = is_glob(value).then(|| Glob::new(value)).transpose() {
                let reason = error.kind().to_string();
                self.problem(at.span, ProblemKind::Glob { text: excerpt(value), reason });
            }
        }
        patterns
    }

    fn exit_codes(&mut self, yaml: &Yaml<'_>) -> Vec<i32> {
        const EXPECTED: &str = "an exit code: a whole number from 1 to 255";
        let code =
            |fields: &mut Self, yaml: &Yaml<'_>| fields.number::<u8>(yaml, EXPECTED).map(|code| (code, yaml.span));
        let codes = match &yaml.value {
            Value::List(list) => self.all(list, code),
            _ => code(self, yaml).into_iter().collect(),
        };
        for (_, span) in codes.iter().filter(|(code, _)| *code == 0) {
            self.problem(*span, ProblemKind::BadValue { text: "0".to_owned(), expected: EXPECTED });
        }
        codes.into_iter().map(|(code, _)| i32::from(code)).collect()
    }
}

/// Whether `pattern` is a glob rather than a path.
pub(super) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

impl CommandSpec {
    /// The same with the digest that belongs to it.
    pub(super) fn sealed(mut self) -> Self {
        self.settings_digest = Digest::of_json(&self.settings());
        self
    }

    /// The part of a command that decides what it does, and that its key is made of.
    pub(crate) fn settings(&self) -> Json {
        let mut settings = Map::new();
        settings.insert("run".to_owned(), self.run.to_json());
        if !self.env.is_empty() {
            let env = self.env.iter().map(|(name, value)| {
                let value = match value {
                    EnvValue::Literal(text) => json!(text),
                    EnvValue::From { from, field: Some(field) } => json!({"from": from, "field": field}),
                    EnvValue::From { from, field: None } => json!({"from": from}),
                    EnvValue::Secret { secret } => json!({"secret": secret}),
                };
                (name.to_string(), value)
            });
            settings.insert("env".to_owned(), env.collect());
        }
        if let Some(dir) = &self.dir {
            settings.insert("dir".to_owned(), json!(dir));
        }
        for (name, patterns) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            if !patterns.is_empty() {
                settings.insert(name.to_owned(), json!(patterns));
            }
        }
        Json::Object(settings)
    }
}

impl Run {
    /// As it stands in a graph file.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Shell(script) => json!(script),
            Self::Argv(words) => json!(words),
        }
    }
}

fn apart(patterns: Vec<Spanned<Box<str>>>) -> (Box<[Box<str>]>, Vec<At>) {
    let (patterns, places): (Vec<_>, _) = patterns.into_iter().map(|pattern| (pattern.value, pattern.at)).unzip();
    (patterns.into(), places)
}
