//! (api first)
use crate::secret::Secret;
use std::borrow::Cow;

/// The shortest secret, in bytes, that can be told from ordinary text.
pub const MIN_SECRET_LEN: usize = 6;
/// Takes secrets out.
#[derive(Debug, Clone, Default)]
pub struct Redactor;
/// A stream.
#[derive(Debug)]
pub struct RedactStream;
/// Too short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a secret has at least 6 bytes, `{name}` has fewer")]
pub struct SecretTooShort {
    /// Name.
    pub name: String,
}
impl Redactor {
    /// New.
    pub fn new() -> Self {
        Self
    }
    /// Add.
    ///
    /// # Errors
    /// Short.
    pub fn add(&self, _name: &str, _secret: &Secret) -> Result<(), SecretTooShort> {
        Ok(())
    }
    /// Stream.
    pub fn stream(&self) -> RedactStream {
        RedactStream
    }
    /// Str.
    pub fn redact_str<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(text)
    }
    /// Json.
    pub fn redact_json(&self, _value: &mut serde_json::Value) {}
}
impl RedactStream {
    /// Push.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(bytes);
    }
    /// Finish.
    pub fn finish(&mut self, _out: &mut Vec<u8>) {}
}
