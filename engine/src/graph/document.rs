//! Any YAML document with places: for configurations.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::Segment;

use super::diagnose::{At, GraphErrors, Problems};
use super::field::Fields;
use super::problem::ProblemKind;
use super::source::{SourceFile, Span};
use super::yaml::{Entered, Reader, Stop, Value, Yaml};

/// A YAML document, a mapping, that knows where each of its values stands.
#[derive(Debug)]
pub struct Document {
    file: Arc<SourceFile>,
    json: Json,
    /// The spans of key and value, by the path of the value.
    places: HashMap<Vec<String>, (Span, Span)>,
}

/// Something that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The way to the value in question: keys, and positions in lists.
    pub path: Vec<String>,
    /// Whether its key is wrong, and not the value.
    pub of_key: bool,
    /// What is wrong, a fragment.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

/// After how many faults looking for more is given up.
const ENOUGH: usize = 50;

impl Fault {
    /// A fault of the value at `path`.
    pub fn new<S: Into<String>>(path: impl IntoIterator<Item = S>, message: impl Into<String>) -> Self {
        let path = path.into_iter().map(Into::into).collect();
        Self { path, of_key: false, message: message.into(), hint: None }
    }
}

impl Document {
    /// Reads `text`, which messages call `name`.
    ///
    /// # Errors
    /// It is no YAML, or no mapping, or a key stands twice in one.
    pub fn parse(name: &str, text: &str) -> Result<Self, GraphErrors> {
        let file = Arc::new(SourceFile::new(name, text));
        let mut problems = Problems::new(vec![Arc::clone(&file)]);
        let mut places = HashMap::new();
        let json = match tree(text) {
            Ok(tree) => {
                remember(&tree, &mut Vec::new(), &mut places);
                Fields { file: 0, problems: &mut problems }.json_object(&tree)
            }
            Err(Stop { kind, span }) => {
                problems.add(At { file: 0, span }, kind);
                Json::Null
            }
        };
        if problems.is_empty() { Ok(Self { file, json, places }) } else { Err(problems.into_errors_of(name)) }
    }

    /// Reads the document as a `T`.
    ///
    /// # Errors
    /// All values that do not fit: after each, the rest is read as if that one were right.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Vec<Fault>> {
        let mut json = self.json.clone();
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..ENOUGH {
            let fault = match attempt::<T>(&json) {
                Ok(read) if faults.is_empty() => return Ok(read),
                Ok(_) => break,
                Err(fault) => fault,
            };
            let mended = mend::<T>(&json, &fault.path);
            // What was left out because it was wrong may be missed later on.
            if faults.iter().all(|known| known.path != fault.path) {
                faults.push(fault);
            }
            let Some(mended) = mended else { break };
            json = mended;
        }
        Err(faults)
    }

    /// `FILE:LINE:COLUMN` of the value at `path`, or of the nearest one that it would be in.
    pub fn place(&self, path: &[String]) -> String {
        let (line, column) = self.file.place(self.span(path, false).start);
        format!("{}:{line}:{column}", self.file.path.display())
    }

    /// The faults, each with its place underlined; there must be one.
    pub fn errors(&self, faults: Vec<Fault>) -> GraphErrors {
        let mut problems = Problems::new(vec![Arc::clone(&self.file)]);
        for Fault { path, of_key, message, hint } in faults {
            let span = self.span(&path, of_key);
            problems.add(At { file: 0, span }, ProblemKind::Other { message, hint });
        }
        problems.into_errors_of(self.file.path.display().to_string())
    }

    fn span(&self, path: &[String], of_key: bool) -> Span {
        if let Some((key, value)) = self.places.get(path) {
            return if of_key { *key } else { *value };
        }
        let inside = (0..path.len()).rev().find_map(|length| self.places.get(&path[..length]));
        inside.map(|(key, _)| *key).unwrap_or_default()
    }
}

/// The whole document.
fn tree(text: &str) -> Result<Yaml<'_>, Stop> {
    let mut reader = Reader::new(text);
    match reader.enter("a mapping")? {
        Entered::Map => {}
        Entered::Null(span) => return Err(Stop { kind: ProblemKind::Empty, span }),
        Entered::Nothing => return Err(Stop { kind: ProblemKind::Empty, span: Span::default() }),
    }
    let mut entries = Vec::new();
    while let Some(key) = reader.key()? {
        entries.push((key, reader.value()?));
    }
    reader.end()?;
    Ok(Yaml { span: Span::default(), value: Value::Map(entries) })
}

fn remember(yaml: &Yaml<'_>, path: &mut Vec<String>, places: &mut HashMap<Vec<String>, (Span, Span)>) {
    let mut each = |name: String, key: Span, value: &Yaml<'_>| {
        path.push(name);
        places.entry(path.clone()).or_insert((key, value.span));
        remember(value, path, places);
        path.pop();
    };
    match &yaml.value {
        Value::Map(map) => {
            map.iter().filter_map(|(key, value)| Some((key.text()?, key.span, value))).for_each(
                |(name, span, value)| {
                    each(name.to_owned(), span, value);
                },
            );
        }
        Value::List(list) => list.iter().enumerate().for_each(|(at, value)| each(at.to_string(), value.span, value)),
        Value::Null | Value::Text { .. } => {}
    }
}

fn attempt<T: DeserializeOwned>(json: &Json) -> Result<T, Fault> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let segment = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let mut fault = Fault::new(error.path().iter().filter_map(segment), error.inner().to_string());
        // Of a key, serde tells only the name.
        let quoted = |start: &str| Some(fault.message.strip_prefix(start)?.split_once('`')?.0.to_owned());
        if let Some(name) = quoted("unknown field `") {
            let known: Vec<&str> = fault.message.split('`').skip(3).step_by(2).collect();
            fault.hint = super::nearest(&name, known).map(|nearest| format!("did you mean `{nearest}`?"));
            fault.of_key = true;
            fault.path.retain(|segment| *segment != name);
            fault.path.push(name);
        } else if let Some(name) = quoted("missing field `") {
            fault.path.push(name);
        } else if fault.message.starts_with("invalid type: ") && fault.message.ends_with("`, expected a string") {
            fault.hint = Some("put it in quotes".to_owned());
        }
        fault
    })
}

/// `json` with something else at `path`, or nothing, so that nothing is wrong there any more.
fn mend<T: DeserializeOwned>(json: &Json, path: &[String]) -> Option<Json> {
    let (last, inside) = path.split_last()?;
    let stand_ins = [None, Some(Json::Null), Some(1.into()), Some("x".into()), Some(true.into())];
    let empty = [Some(Json::Array(Vec::new())), Some(Json::Object(serde_json::Map::new()))];
    stand_ins.into_iter().chain(empty).find_map(|stand_in| {
        let mut mended = json.clone();
        let parent = inside.iter().try_fold(&mut mended, |value, segment| match value {
            Json::Array(list) => list.get_mut(segment.parse::<usize>().ok()?),
            other => other.get_mut(segment),
        })?;
        match (parent, stand_in) {
            (Json::Object(map), None) => _ = map.remove(last),
            (Json::Object(map), Some(stand_in)) => _ = map.insert(last.clone(), stand_in),
            (Json::Array(list), Some(stand_in)) => *list.get_mut(last.parse::<usize>().ok()?)? = stand_in,
            _ => return None,
        }
        let still = attempt::<T>(&mended).err().is_some_and(|fault| fault.path.starts_with(path));
        (!still).then_some(mended)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Sample {
        version: u32,
        name: String,
        #[serde(default)]
        ports: Vec<u16>,
        #[serde(default)]
        inner: Inner,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        size: u8,
        on: bool,
    }

    fn faults(text: &str) -> Vec<(String, String)> {
        let document = Document::parse("c.yaml", text).unwrap();
        let faults = document.read::<Sample>().err().unwrap_or_default();
        faults.iter().map(|fault| (fault.path.join("."), document.place(&fault.path))).collect()
    }

    #[test]
    fn all_that_does_not_fit_is_told_at_once_and_only_once() {
        let text = "name: [1]\nports: [80, many, 70000]\ninner: {size: 300, no: 1, on: maybe}\nmore: 1\n";
        let mut found = faults(text);
        found.sort();
        let expected = [
            ("inner.no", "c.yaml:3:24"),
            ("inner.on", "c.yaml:3:31"),
            ("inner.size", "c.yaml:3:15"),
            ("more", "c.yaml:4:7"),
            ("name", "c.yaml:1:7"),
            ("ports.1", "c.yaml:2:13"),
            ("ports.2", "c.yaml:2:19"),
            ("version", "c.yaml:1:1"),
        ];
        assert_eq!(found, expected.map(|(path, place)| (path.to_owned(), place.to_owned())));
    }

    #[test]
    fn a_text_that_looks_like_a_number_wants_quotes() {
        for (text, hint) in [("1e81", true), ("12", true), ("true", true), ("[a]", false), ("'12'", false)] {
            let document = Document::parse("c.yaml", &format!("{{version: 1, name: {text}}}")).unwrap();
            let faults = document.read::<Sample>().err().unwrap_or_default();
            assert_eq!(faults.iter().any(|fault| fault.hint.is_some()), hint, "{text}");
        }
    }

    #[test]
    fn what_fits_is_read() {
        assert_eq!(faults("{version: 1, name: a, inner: {on: true}}"), []);
    }

    #[test]
    fn a_key_that_stands_twice_is_told() {
        let errors = Document::parse("c.yaml", "a: 1\na: 2\n").unwrap_err();
        assert_eq!(errors.problems()[0].place().unwrap(), "c.yaml:2:1");
    }
}
