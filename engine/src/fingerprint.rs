//! Keys: one hash over everything that decides what a task does, and the parts that it was made of.
//!
//! A task whose key is the same as at its last success has nothing new to do. The parts stand in the journal, so that a
//! different key can be explained field by field ([`KeyParts::changes_to`]).
//!
//! Secrets enter by their version, never by their value.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::TaskId;

/// The format of keys; part of every key, raised when the same parts are hashed differently.
const FORMAT: u32 = 1;

/// A BLAKE3 hash, written as 32 hexadecimal digits (its first 128 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&blake3::hash(bytes))
    }

    /// The digest of a JSON value, whatever the order of its keys.
    pub fn of_json(value: &Value) -> Self {
        let mut hasher = Hasher::new();
        hasher.json(value);
        hasher.finish()
    }

    pub(crate) fn from_hash(hash: &blake3::Hash) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Self(short)
    }

    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a digest is 32 hexadecimal digits";
        if text.len() != 32 || !text.is_ascii() {
            return Err(WRONG);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).ok_or(WRONG);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).map_err(|_| WRONG)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

/// Everything that decides what a task does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyParts {
    /// The plugin, or `command`.
    pub plugin: String,
    /// The version of the plugin.
    pub version: u32,
    /// The settings that the task reads; of a command its text, environment, folder and outputs.
    pub settings: Value,
    /// The upstream outputs that the task reads, by the id of the task that made them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reads: BTreeMap<TaskId, Value>,
    /// The secrets that the task reads, with their versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, u32>,
    /// The input files, with the digest of their contents; nothing for a file that is not there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Option<Digest>>,
    /// The files that come with the plugin: templates, locked requirements.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assets: BTreeMap<String, Digest>,
    /// What is kept for a later `destroy` and decides nothing: not a part of the key.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub aside: Value,
}

/// One difference between two [`KeyParts`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Which part it is in.
    pub part: Part,
    /// The field, as a dotted path; empty for the part as a whole.
    pub field: String,
    /// What it was; nothing where the field is new.
    pub from: Option<Value>,
    /// What it is; nothing where the field is gone.
    pub to: Option<Value>,
}

/// A part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The plugin or its version.
    Plugin,
    /// A setting.
    Settings,
    /// An output of the named task.
    Read(TaskId),
    /// The version of a secret.
    Secret,
    /// The contents of an input file.
    Input,
    /// A file that comes with the plugin.
    Asset,
}

impl KeyParts {
    /// The key: a hash over the format, `id`, and every part.
    pub fn key(&self, id: &TaskId) -> Digest {
        self.key_with_settings(id, Digest::of_json(&self.settings))
    }

    /// As [`key`](Self::key), for settings whose digest is known already.
    pub fn key_with_settings(&self, id: &TaskId, settings: Digest) -> Digest {
        let mut hasher = Hasher::new();
        hasher.number(u64::from(FORMAT));
        hasher.text(id.as_str());
        hasher.text(&self.plugin);
        hasher.number(u64::from(self.version));
        hasher.bytes(settings.as_bytes());
        hasher.number(self.reads.len() as u64);
        for (id, value) in &self.reads {
            hasher.text(id.as_str());
            hasher.json(value);
        }
        hasher.number(self.secrets.len() as u64);
        for (name, version) in &self.secrets {
            hasher.text(name);
            hasher.number(u64::from(*version));
        }
        hasher.number(self.inputs.len() as u64);
        for (path, digest) in &self.inputs {
            hasher.text(path);
            hasher.bytes(digest.as_ref().map_or(&[], |digest| digest.as_bytes()));
        }
        hasher.number(self.assets.len() as u64);
        for (path, digest) in &self.assets {
            hasher.text(path);
            hasher.bytes(digest.as_bytes());
        }
        hasher.finish()
    }

    /// What differs, in the order of the parts; empty if and only if the keys are equal for the same id.
    pub fn changes_to(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.plugin != new.plugin {
            changes.push(Change::new(Part::Plugin, "", &self.plugin, &new.plugin));
        } else if self.version != new.version {
            changes.push(Change::new(Part::Plugin, "version", &self.version, &new.version));
        }
        diff(&Part::Settings, &mut String::new(), Some(&self.settings), Some(&new.settings), &mut changes);
        for id in union(&self.reads, &new.reads) {
            let part = Part::Read(id.clone());
            diff(&part, &mut String::new(), self.reads.get(id), new.reads.get(id), &mut changes);
        }
        diff_map(&Part::Secret, &self.secrets, &new.secrets, &mut changes);
        diff_map(&Part::Input, &self.inputs, &new.inputs, &mut changes);
        diff_map(&Part::Asset, &self.assets, &new.assets, &mut changes);
        changes
    }
}

impl Change {
    fn new(part: Part, field: &str, from: &impl Serialize, to: &impl Serialize) -> Self {
        let value = |v: Result<Value, _>| v.unwrap_or(Value::Null);
        let (from, to) = (value(serde_json::to_value(from)), value(serde_json::to_value(to)));
        Self { part, field: field.to_owned(), from: Some(from), to: Some(to) }
    }
}

fn union<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let mut keys: Vec<_> = a.keys().chain(b.keys().filter(|key| !a.contains_key(key))).collect();
    keys.sort();
    keys
}

fn diff_map<V: Serialize + PartialEq>(
    part: &Part,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
    changes: &mut Vec<Change>,
) {
    let json = |v: Option<&V>| v.and_then(|v| serde_json::to_value(v).ok());
    for field in union(old, new) {
        let (from, to) = (old.get(field), new.get(field));
        if from != to {
            changes.push(Change { part: part.clone(), field: field.clone(), from: json(from), to: json(to) });
        }
    }
}

/// Walks two JSON values side by side and notes where they differ, one change a leaf.
fn diff(part: &Part, path: &mut String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let empty = serde_json::Map::new();
    let (a, b) = match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => (a, b),
        // A whole object that came or went is told field by field below its own name.
        (Some(Value::Object(a)), None) if !a.is_empty() => (a, &empty),
        (None, Some(Value::Object(b))) if !b.is_empty() => (&empty, b),
        _ => {
            changes.push(Change { part: part.clone(), field: path.clone(), from: old.cloned(), to: new.cloned() });
            return;
        }
    };
    let mut fields: Vec<&String> = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
    fields.sort();
    for field in fields {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(field);
        diff(part, path, a.get(field), b.get(field), changes);
        path.truncate(length);
    }
}

/// A hasher in which every piece is preceded by its length, so that no two different sequences collide.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// An empty hasher.
    #[expect(clippy::new_without_default, reason = "an empty hash is no useful default")]
    pub fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Adds bytes and their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds text and its length.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds a JSON value, objects in the order of their keys.
    pub fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.number(0),
            Value::Bool(b) => self.number(1 + u64::from(*b)),
            Value::Number(number) => {
                self.number(3);
                self.text(&number.to_string());
            }
            Value::String(text) => {
                self.number(4);
                self.text(text);
            }
            Value::Array(items) => {
                self.number(5);
                self.number(items.len() as u64);
                items.iter().for_each(|item| self.json(item));
            }
            Value::Object(fields) => {
                self.number(6);
                self.number(fields.len() as u64);
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| *name);
                for (name, value) in fields {
                    self.text(name);
                    self.json(value);
                }
            }
        }
    }

    /// The digest of all that was added.
    pub fn finish(&self) -> Digest {
        Digest::from_hash(&self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn id() -> TaskId {
        TaskId::new("CLOUD-3.2").unwrap()
    }

    fn parts(settings: Value) -> KeyParts {
        KeyParts { plugin: "postgres".into(), version: 1, settings, ..KeyParts::default() }
    }

    #[test]
    fn a_change_names_the_field_and_both_values() {
        let old = parts(json!({"port": 5432, "tuning": {"max_connections": 100}}));
        let new = parts(json!({"port": 5432, "tuning": {"max_connections": 200, "jit": false}}));
        let changes = old.changes_to(&new);
        let told: Vec<_> = changes.iter().map(|c| (c.field.as_str(), c.from.clone(), c.to.clone())).collect();
        assert_eq!(
            told,
            [("tuning.jit", None, Some(json!(false))), ("tuning.max_connections", Some(json!(100)), Some(json!(200)))]
        );
    }

    #[test]
    fn the_id_the_version_and_the_secret_versions_are_part_of_the_key() {
        let one = parts(json!({}));
        let mut two = one.clone();
        assert_ne!(one.key(&id()), one.key(&TaskId::new("CLOUD-3.1").unwrap()));
        two.version = 2;
        assert_ne!(one.key(&id()), two.key(&id()));
        let mut three = one.clone();
        three.secrets.insert("postgres".into(), 2);
        assert_ne!(one.key(&id()), three.key(&id()));
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("12".parse::<Digest>().is_err());
        assert!("é".repeat(16).parse::<Digest>().is_err());
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3i64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_nothing_changed(
            a in json_value(), b in json_value(), v in 0..2u32, w in 0..2u32,
            x in proptest::option::of(0..2u32), y in proptest::option::of(0..2u32),
        ) {
            let with = |settings: &Value, version, secret: Option<u32>| KeyParts {
                version,
                secrets: secret.into_iter().map(|v| ("s".to_owned(), v)).collect(),
                reads: [(id(), settings.clone())].into(),
                ..parts(settings.clone())
            };
            let (old, new) = (with(&a, v, x), with(&b, w, y));
            prop_assert_eq!(old.changes_to(&new).is_empty(), old == new);
            prop_assert_eq!(old.key(&id()) == new.key(&id()), old == new);
        }
    }
}
