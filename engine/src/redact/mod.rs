//! Keeping secrets out of everything that is written: output of commands, events, errors, reports.
//!
//! A [`Redactor`] replaces each registered secret by `[redacted:NAME]`, in whatever spelling it appears:
//!
//! - as it is; percent-encoded, JSON-escaped, quoted or escaped for a shell, each character in its own way;
//! - in base64, standard or URL-safe, with and without padding, also as a part of something longer that was encoded;
//! - in hexadecimal;
//! - any of these with line ends inside, as a terminal or `base64` wraps them, and split over writes;
//! - one line alone of a secret that has several, if it has [`MIN_LINE_LEN`] bytes.
//!
//! Of something longer in base64, the characters at the border that encode bits of the secret and of its neighbour
//! stay: at most four bits of the secret at either end.
//!
//! # How
//! A general multi-pattern matcher cannot be asked how much of its input may still become a match, and would need a
//! pattern for every mixture of spellings. So the spellings make one small non-deterministic `automaton`, which a
//! [`RedactStream`] follows byte by byte; the oldest place where a thread began is where output is held back from.
//! Where no secret begins, a bitmap of the possible first two bytes skips ahead.

mod automaton;
mod spelling;
mod stream;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};

use self::automaton::Automaton;
pub use self::stream::RedactStream;
use crate::secret::Secret;

/// The shortest secret, in bytes, that can be told from ordinary text.
pub const MIN_SECRET_LEN: usize = 6;

/// The shortest line of a secret of several lines, in bytes, that is redacted where it stands alone.
pub const MIN_LINE_LEN: usize = 12;

/// Takes registered secrets out of text. Clones share their secrets.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Known>>);

/// A secret has fewer than [`MIN_SECRET_LEN`] bytes (line ends at its end not counted).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("keep the secret `{name}` out of the output: it has fewer than {MIN_SECRET_LEN} bytes")]
pub struct SecretTooShort {
    /// Its name.
    pub name: String,
}

#[derive(Default)]
struct Known {
    secrets: Vec<(Arc<str>, Secret)>,
    automaton: Arc<Automaton>,
}

impl Redactor {
    /// A redactor that knows no secret, and costs next to nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a secret under `name`. Streams that are open see it in what they have not yet let through.
    ///
    /// # Errors
    /// The secret is too short to be told from ordinary text; it is not registered.
    pub fn add(&self, name: &str, secret: &Secret) -> Result<(), SecretTooShort> {
        if significant(secret).len() < MIN_SECRET_LEN {
            return Err(SecretTooShort { name: name.to_owned() });
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.secrets.iter().any(|(_, other)| other.expose() == secret.expose()) {
            return Ok(());
        }
        known.secrets.push((name.into(), secret.clone()));
        let secrets = known.secrets.iter().map(|(name, secret)| (name, significant(secret)));
        known.automaton = Arc::new(Automaton::new(secrets));
        Ok(())
    }

    /// Redacts what comes in pieces.
    pub fn stream(&self) -> RedactStream {
        RedactStream::new(self.clone())
    }

    /// Redacts a text.
    pub fn redact_str<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.automaton().is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut stream, mut clean) = (self.stream(), Vec::with_capacity(text.len()));
        stream.push(text.as_bytes(), &mut clean);
        stream.finish(&mut clean);
        if clean == text.as_bytes() {
            return Cow::Borrowed(text);
        }
        // Every spelling covers whole characters, so that the text between them is still UTF-8.
        Cow::Owned(
            String::from_utf8(clean).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )
    }

    /// Redacts all strings of a JSON value, keys of objects and numbers included; a number with a secret becomes a string.
    pub fn redact_json(&self, value: &mut Value) {
        if self.automaton().is_empty() {
            return;
        }
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.redact_str(text) {
                    *text = clean;
                }
            }
            Value::Number(number) => {
                if let Cow::Owned(clean) = self.redact_str(&number.to_string()) {
                    *value = Value::String(clean);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.redact_json(value)),
            Value::Object(members) => self.redact_object(members),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn redact_object(&self, members: &mut Map<String, Value>) {
        for (key, mut value) in std::mem::take(members) {
            self.redact_json(&mut value);
            let mut clean = self.redact_str(&key).into_owned();
            // Two keys must not become one.
            while members.contains_key(&clean) {
                clean.push('\'');
            }
            members.insert(clean, value);
        }
    }

    fn automaton(&self) -> Arc<Automaton> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).automaton)
    }
}

/// Shows the names only.
impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(known.secrets.iter().map(|(name, _)| name)).finish()
    }
}

/// A final line end is hardly ever written with the secret.
fn significant(secret: &Secret) -> &str {
    secret.expose().trim_end_matches(['\n', '\r'])
}

#[cfg(test)]
mod tests;
