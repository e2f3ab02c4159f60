//! A node's `with:` as the type that its plugin has for it.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde_json::{Map, Value};

use super::Instance;
use crate::TaskId;
use crate::graph::{self, Finding, NodeIndex, Part, ProblemKind};

/// What is wrong with a node's parameters; at least one thing.
#[derive(Debug)]
pub struct BadParameters(pub(super) Vec<Fault>);

/// One thing that is wrong with parameters.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no such parameter.
    Unknown { name: String, known: &'static [&'static str] },
    /// A parameter has the wrong value.
    Value { name: String, why: String },
    /// They do not fit as a whole.
    Whole(String),
}

/// The parameters of a plugin that takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct NoParameters {}

impl Instance<'_> {
    /// The parameters as a `T`, a struct with named fields; where the node has no `with:`, those of an empty one.
    ///
    /// # Errors
    /// Every parameter that `T` has no field for, and the first of the others that does not fit.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, BadParameters> {
        let entries = self.with.as_object().cloned().unwrap_or_default();
        let (mut faults, mut current) = (Vec::new(), None);
        let read = T::deserialize(Parameters { entries, unknown: &mut faults, current: &mut current });
        match read {
            Ok(parameters) if faults.is_empty() => return Ok(parameters),
            Ok(_) => {}
            Err(error) => faults.push(match current {
                Some(name) => Fault::Value { name, why: error.to_string() },
                None => Fault::Whole(error.to_string()),
            }),
        }
        Err(BadParameters(faults))
    }
}

impl Fault {
    /// The fault as a finding about the node `id`, which is the task `task`, and `plugin`.
    pub(super) fn finding(self, task: NodeIndex, id: &TaskId, plugin: &str) -> Finding {
        let why = self.to_string();
        let (part, problem) = match self {
            Self::Unknown { name, known } => {
                let nearest = graph::nearest(&name, known.iter().copied()).map(str::to_owned);
                let plugin = plugin.to_owned();
                let problem = ProblemKind::UnknownParameter { plugin, name: name.clone(), nearest, known };
                (Part::ParameterName(name), problem)
            }
            Self::Value { name, .. } => (Part::ParameterValue(name), ProblemKind::Parameters { id: id.clone(), why }),
            Self::Whole(_) => (Part::With, ProblemKind::Parameters { id: id.clone(), why }),
        };
        Finding { task, part, problem }
    }
}

/// Reads a struct out of a mapping and notes how far it came.
struct Parameters<'a> {
    entries: Map<String, Value>,
    /// The entries that the struct has no field for: they are noted and left out, so that the others are looked at too.
    unknown: &'a mut Vec<Fault>,
    /// The entry that is being read; nothing before the first and after the last.
    current: &'a mut Option<String>,
}

impl<'de> Deserializer<'de> for Parameters<'_> {
    type Error = serde_json::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.entries.retain(|name, _| {
            let is_known = known.contains(&name.as_str());
            if !is_known {
                self.unknown.push(Fault::Unknown { name: name.clone(), known });
            }
            is_known
        });
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let mut entries = self.entries.into_iter();
        let entries = std::iter::from_fn(|| {
            let entry = entries.next();
            *self.current = entry.as_ref().map(|(name, _)| name.clone());
            entry
        });
        MapDeserializer::new(entries).deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl fmt::Display for BadParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, .. } => write!(f, "it has no parameter `{name}`"),
            Self::Value { name, why } => write!(f, "`{name}`: {why}"),
            Self::Whole(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for BadParameters {}

/// A plugin's own words for what is wrong.
impl From<String> for BadParameters {
    fn from(why: String) -> Self {
        Self(vec![Fault::Whole(why)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Size {
        width: u8,
        #[serde(default, alias = "tall")]
        height: u8,
    }

    fn read(with: Value) -> Result<Size, String> {
        let id = TaskId::new("a").unwrap();
        Instance { id: &id, with: &with }.parameters().map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_are_read_by_name() {
        assert_eq!(read(json!({"width": 1, "tall": 2})), Ok(Size { width: 1, height: 2 }));
        assert_eq!(read(json!({"width": 1})), Ok(Size { width: 1, height: 0 }));
    }

    #[test]
    fn all_unknown_ones_are_told_and_the_others_are_looked_at() {
        let told = read(json!({"depth": 1, "mass": 2, "width": 300})).unwrap_err();
        assert_eq!(
            told,
            "it has no parameter `depth`; it has no parameter `mass`; \
             `width`: invalid value: integer `300`, expected u8"
        );
    }

    #[test]
    fn a_missing_one_is_blamed_on_no_other() {
        assert_eq!(read(json!({"height": 1})), Err("missing field `width`".to_owned()));
        assert_eq!(read(Value::Null), Err("missing field `width`".to_owned()));
    }

    #[test]
    fn where_there_are_none_there_must_be_none() {
        let id = TaskId::new("a").unwrap();
        let none = |with: &Value| Instance { id: &id, with }.parameters::<NoParameters>().is_ok();
        assert!(none(&Value::Null) && none(&json!({})) && !none(&json!({"a": null})));
    }
}
