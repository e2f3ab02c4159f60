//! YAML 1.2 as a tree with places.
//!
//! A graph file is read entry by entry ([`Reader`]), so that a file of 100,000 tasks never stands in memory as one
//! tree and junk is left as soon as enough problems were found. Merge keys (`<<`) of YAML 1.1 are understood because
//! people use them with anchors.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use super::problem::ProblemKind;
use super::source::Span;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Yaml<'a> {
    pub(super) span: Span,
    pub(super) value: Value<'a>,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    /// A scalar; `plain` if it is written without quotes, so that it may stand for a number or a truth value.
    Text {
        text: Cow<'a, str>,
        plain: bool,
    },
    List(Vec<Yaml<'a>>),
    Map(Vec<(Yaml<'a>, Yaml<'a>)>),
}

/// Why the file cannot be read on, and where.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) kind: ProblemKind,
    pub(super) span: Span,
}

/// Reads one document.
pub(super) struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    text: &'a str,
    anchors: HashMap<usize, Anchored<'a>>,
    copied: usize,
}

struct Anchored<'a> {
    tree: Yaml<'a>,
    size: usize,
}

/// What stands where a mapping is expected.
pub(super) enum Entered {
    /// A mapping: its entries come next.
    Map,
    /// Nothing, here.
    Null(Span),
    /// No document at all.
    Nothing,
}

/// How deep lists and mappings may be nested.
const MAX_DEPTH: usize = 64;

/// How many values anchors and aliases may copy: ten for each of 100,000 tasks.
const MAX_COPIED: usize = 1_000_000;

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let options = granit_parser::options! { emit_comments: false };
        let events = Parser::new_from_str_with_options(text, options);
        Self { events, text, anchors: HashMap::new(), copied: 0 }
    }

    /// Enters the mapping that the document, or the value that comes next, is. Anything else in its place is not read,
    /// so that junk is left early.
    pub(super) fn enter(&mut self, expected: &'static str) -> Result<Entered, Stop> {
        loop {
            let (event, span) = self.next()?;
            let found = match event {
                Event::StreamStart | Event::DocumentStart(..) => continue,
                Event::StreamEnd => return Ok(Entered::Nothing),
                Event::MappingStart(..) => return Ok(Entered::Map),
                Event::SequenceStart(..) => "a list",
                event => match self.build(event, span, 0)?.value {
                    Value::Null => return Ok(Entered::Null(span)),
                    Value::Map(_) => "an alias",
                    _ => "a text",
                },
            };
            return Err(Stop { kind: ProblemKind::WrongType { expected, found }, span });
        }
    }

    /// The next key of the mapping that was entered; nothing at its end.
    pub(super) fn key(&mut self) -> Result<Option<Yaml<'a>>, Stop> {
        match self.next()? {
            (Event::MappingEnd, _) => Ok(None),
            (event, span) => self.build(event, span, 0).map(Some),
        }
    }

    /// The value of the key that was just read.
    pub(super) fn value(&mut self) -> Result<Yaml<'a>, Stop> {
        let (event, span) = self.next()?;
        self.build(event, span, 0)
    }

    /// Makes sure that nothing comes after the document.
    pub(super) fn end(&mut self) -> Result<(), Stop> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentEnd, _) => {}
                (_, span) => return Err(Stop { kind: ProblemKind::SecondDocument, span }),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                let bytes = span.byte_range().unwrap_or_default();
                Ok((event, Span::new(bytes.start, bytes.end)))
            }
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or(self.text.len());
                Err(Stop { kind: ProblemKind::Syntax(error.info()), span: Span::new(at, at) })
            }
            None => Ok((Event::StreamEnd, Span::new(self.text.len(), self.text.len()))),
        }
    }

    fn build(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Yaml<'a>, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop { kind: ProblemKind::TooDeep { limit: MAX_DEPTH }, span });
        }
        let mut end = span.end;
        let (anchor, tag, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !tag.as_deref().is_some_and(is_text);
                (anchor, tag, scalar(text, plain))
            }
            Event::SequenceStart(_, anchor, tag) => (anchor, tag, self.list(depth, &mut end)?),
            Event::MappingStart(_, anchor, tag) => (anchor, tag, self.map(depth, &mut end)?),
            Event::Alias(anchor) => return self.copy(anchor, span),
            _ => return Err(Stop { kind: ProblemKind::Syntax("a value was expected".to_owned()), span }),
        };
        let span = Span { end, ..span };
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() || is_text(tag))) {
            return Err(Stop { kind: ProblemKind::Tag { tag: tag.to_string() }, span });
        }
        let tree = Yaml { span, value };
        if anchor != 0 {
            let size = tree.size();
            self.account(size, span)?;
            self.anchors.insert(anchor, Anchored { tree: tree.clone(), size });
        }
        Ok(tree)
    }

    fn list(&mut self, depth: usize, end: &mut u32) -> Result<Value<'a>, Stop> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, span) => {
                    *end = span.end;
                    return Ok(Value::List(list));
                }
                (event, span) => list.push(self.build(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize, end: &mut u32) -> Result<Value<'a>, Stop> {
        let (mut map, mut merged) = (Vec::new(), Vec::new());
        loop {
            match self.next()? {
                (Event::MappingEnd, span) => {
                    *end = span.end;
                    break;
                }
                (event, span) => {
                    let key = self.build(event, span, depth + 1)?;
                    let (event, span) = self.next()?;
                    let value = self.build(event, span, depth + 1)?;
                    match value.value {
                        Value::Map(entries) if key.is_merge() => merged.push(entries),
                        _ => map.push((key, value)),
                    }
                }
            }
        }
        if !merged.is_empty() {
            merge(&mut map, merged);
        }
        Ok(Value::Map(map))
    }

    fn copy(&mut self, anchor: usize, span: Span) -> Result<Yaml<'a>, Stop> {
        let Some(Anchored { size, .. }) = self.anchors.get(&anchor) else {
            return Err(Stop { kind: ProblemKind::AliasInsideItself, span });
        };
        self.account(*size, span)?;
        Ok(self.anchors[&anchor].tree.clone())
    }

    fn account(&mut self, size: usize, span: Span) -> Result<(), Stop> {
        self.copied += size;
        if self.copied > MAX_COPIED {
            return Err(Stop { kind: ProblemKind::TooManyCopies { limit: MAX_COPIED }, span });
        }
        Ok(())
    }
}

/// Adds what `merged` has and `map` has not; of two merged mappings the first wins.
fn merge<'a>(map: &mut Vec<(Yaml<'a>, Yaml<'a>)>, merged: Vec<Vec<(Yaml<'a>, Yaml<'a>)>>) {
    let mut known: HashSet<String> = map.iter().filter_map(|(key, _)| key.text().map(str::to_owned)).collect();
    for (key, value) in merged.into_iter().flatten() {
        if key.text().is_none_or(|text| known.insert(text.to_owned())) {
            map.push((key, value));
        }
    }
}

fn scalar(text: Cow<'_, str>, plain: bool) -> Value<'_> {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
        _ => Value::Text { text, plain },
    }
}

/// Whether `tag` says that a scalar is a text: `!!str` or `!`.
fn is_text(tag: &Tag) -> bool {
    tag.suffix() == if tag.is_yaml_core_schema() { "str" } else { "" }
}

impl Yaml<'_> {
    /// The text of a scalar, as it is written.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What the value is, with its article, for messages.
    pub(super) fn what(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Text { plain: true, .. } => "a text",
            Value::Text { plain: false, .. } => "a text in quotes",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn is_merge(&self) -> bool {
        matches!(&self.value, Value::Text { text, plain: true } if text == "<<")
    }

    /// How many values the tree holds.
    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Text { .. } => 0,
            Value::List(list) => list.iter().map(Yaml::size).sum(),
            Value::Map(map) => map.iter().map(|(key, value)| key.size() + value.size()).sum(),
        }
    }
}
