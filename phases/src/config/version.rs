//! The version of the format, which some write as a text.

use std::fmt;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// Reads 1, 1.0, "1" and "1.0" as 1.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    deserializer.deserialize_any(Version)
}

/// What [`read`] takes.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": [1, "1", "1.0"] })
}

#[derive(Clone, Copy)]
struct Version;

impl Visitor<'_> for Version {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version such as 1")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
        u32::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u32, E> {
        self.visit_str(&number.to_string()).map_err(|_: E| E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u32, E> {
        let whole = text.strip_suffix(".0").unwrap_or(text);
        whole.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}
