//! The kinds of values that fields have, and the problems of values of another kind.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value as Json;

use super::diagnose::{At, Problems, excerpt, nearest};
use super::draft::Spanned;
use super::problem::ProblemKind;
use super::source::Span;
use super::yaml::{Value, Yaml};

/// Reads values of one file and notes their problems; what has a problem reads as nothing.
pub(super) struct Fields<'p> {
    pub(super) file: u16,
    pub(super) problems: &'p mut Problems,
}

impl Fields<'_> {
    pub(super) fn at(&self, span: Span) -> At {
        At { file: self.file, span }
    }

    pub(super) fn problem(&mut self, span: Span, kind: ProblemKind) {
        self.problems.add(self.at(span), kind);
    }

    pub(super) fn wrong_type(&mut self, yaml: &Yaml<'_>, expected: &'static str) {
        self.problem(yaml.span, ProblemKind::WrongType { expected, found: yaml.what() });
    }

    pub(super) fn unknown(&mut self, key: &Yaml<'_>, field: &str, of: &'static str, known: &[&str]) {
        let nearest = nearest(field, known.iter().copied()).map(str::to_owned);
        self.problem(key.span, ProblemKind::UnknownField { field: excerpt(field), of, nearest });
    }

    /// The entries of a mapping with the text of their keys, each key once.
    pub(super) fn entries<'y, 'a>(&mut self, yaml: &'y Yaml<'a>) -> Vec<(&'y Yaml<'a>, &'y str, &'y Yaml<'a>)> {
        let Value::Map(map) = &yaml.value else {
            self.wrong_type(yaml, "a mapping");
            return Vec::new();
        };
        let mut first: HashMap<&str, Span> = HashMap::with_capacity(map.len());
        let mut entries = Vec::with_capacity(map.len());
        for (key, value) in map {
            if self.problems.enough() {
                break;
            }
            let Some(name) = key.text() else {
                self.wrong_type(key, "a name");
                continue;
            };
            match first.get(name) {
                None => {
                    first.insert(name, key.span);
                    entries.push((key, name, value));
                }
                Some(span) => {
                    let first = self.problems.line(self.at(*span));
                    self.problem(key.span, ProblemKind::DuplicateKey { key: excerpt(name), first });
                }
            }
        }
        entries
    }

    /// A text; numbers and truth values are taken as they are written.
    pub(super) fn text(&mut self, yaml: &Yaml<'_>) -> Option<Box<str>> {
        let Some(text) = yaml.text() else {
            self.wrong_type(yaml, "a text");
            return None;
        };
        if text.contains('\0') {
            self.problem(yaml.span, ProblemKind::Nul);
            return None;
        }
        Some(text.into())
    }

    pub(super) fn spanned(&mut self, yaml: &Yaml<'_>) -> Option<Spanned<Box<str>>> {
        self.text(yaml).map(|value| Spanned { value, at: self.at(yaml.span) })
    }

    /// A text or a list of texts.
    pub(super) fn texts(&mut self, yaml: &Yaml<'_>) -> Vec<Spanned<Box<str>>> {
        match &yaml.value {
            Value::List(list) => self.all(list, Self::spanned),
            Value::Text { .. } => self.spanned(yaml).into_iter().collect(),
            _ => {
                self.wrong_type(yaml, "a text or a list of texts");
                Vec::new()
            }
        }
    }

    /// What `read` makes of each of `list`, until there are too many problems.
    pub(super) fn all<T>(&mut self, list: &[Yaml<'_>], read: fn(&mut Self, &Yaml<'_>) -> Option<T>) -> Vec<T> {
        let mut values = Vec::with_capacity(list.len());
        for yaml in list {
            if self.problems.enough() {
                break;
            }
            values.extend(read(self, yaml));
        }
        values
    }

    /// A number that is written without quotes.
    pub(super) fn number<T: FromStr>(&mut self, yaml: &Yaml<'_>, expected: &'static str) -> Option<T> {
        match &yaml.value {
            Value::Text { text, plain: true } => {
                let number = text.parse().ok();
                if number.is_none() {
                    self.problem(yaml.span, ProblemKind::BadValue { text: excerpt(text), expected });
                }
                number
            }
            _ => {
                self.wrong_type(yaml, expected);
                None
            }
        }
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, yaml: &Yaml<'_>) -> Option<f64> {
        const EXPECTED: &str = "a number from 0 to 1";
        let share: f64 = self.number(yaml, EXPECTED)?;
        if (0.0..=1.0).contains(&share) {
            return Some(share);
        }
        let text = excerpt(yaml.text().unwrap_or_default());
        self.problem(yaml.span, ProblemKind::BadValue { text, expected: EXPECTED });
        None
    }

    /// A length of time with its unit.
    pub(super) fn duration(&mut self, yaml: &Yaml<'_>) -> Option<Duration> {
        let text = self.text(yaml)?;
        let duration = super::duration::parse(&text);
        if duration.is_none() {
            self.problem(yaml.span, ProblemKind::Duration { text: excerpt(&text) });
        }
        duration
    }

    /// Where the keys of a mapping stand, and their values.
    pub(super) fn keys(&self, yaml: &Yaml<'_>) -> Vec<(Spanned<Box<str>>, At)> {
        let Value::Map(map) = &yaml.value else { return Vec::new() };
        let entry = |(key, value): &(Yaml<'_>, Yaml<'_>)| {
            Some((Spanned { value: key.text()?.into(), at: self.at(key.span) }, self.at(value.span)))
        };
        map.iter().filter_map(entry).collect()
    }

    /// A mapping of any content.
    pub(super) fn json_object(&mut self, yaml: &Yaml<'_>) -> Json {
        match yaml.value {
            Value::Map(_) => self.json(yaml),
            _ => {
                self.wrong_type(yaml, "a mapping");
                Json::Null
            }
        }
    }

    fn json(&mut self, yaml: &Yaml<'_>) -> Json {
        match &yaml.value {
            Value::Null => Json::Null,
            Value::Text { text, plain: true } => plain(text),
            Value::Text { text, plain: false } => Json::from(&**text),
            Value::List(list) => list.iter().map(|each| self.json(each)).collect(),
            Value::Map(_) => {
                let entries = self.entries(yaml);
                entries.into_iter().map(|(_, key, value)| (key.to_owned(), self.json(value))).collect()
            }
        }
    }
}

/// What a scalar without quotes stands for in YAML's core schema, as far as JSON has it.
fn plain(text: &str) -> Json {
    match text {
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ => {}
    }
    let based = |prefix, base| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, base).ok());
    let number = text.strip_prefix('+').unwrap_or(text);
    let whole = number.parse::<u64>().ok().or_else(|| based("0x", 16)).or_else(|| based("0o", 8)).map(Json::from);
    let whole = whole.or_else(|| number.parse::<i64>().ok().map(Json::from));
    // Rust would also read `inf`, `nan` and the like, which are words in YAML.
    let is_number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let fraction = || number.parse::<f64>().ok().filter(|number| is_number && number.is_finite()).map(Json::from);
    whole.or_else(fraction).unwrap_or_else(|| Json::from(text))
}
