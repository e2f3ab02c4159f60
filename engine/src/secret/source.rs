//! Where a user's own secrets come from.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::error::SecretError;
use super::value::Secret;

/// A reference in a settings file to a secret that the user has: `{env: NAME}` or `{file: PATH}`.
///
/// The text of a secret itself is no setting; the message that says so does not repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// The value of this environment variable of the driver.
    Env(String),
    /// The text of this file, less one final line end. A relative path starts from the driver's working folder.
    File(PathBuf),
}

impl SecretSource {
    /// The error for a secret that stands in the settings itself. Who shows errors with the text around them must not
    /// do so with this one.
    pub const LITERAL: &str = "a secret does not stand in the settings itself: write `{env: NAME}` or `{file: PATH}`";
    const MAX_LEN: u64 = 64 * 1024;

    /// Fetches the value of the secret `name`.
    pub(super) fn fetch(&self, name: &str) -> Result<Secret, SecretError> {
        let unusable = |problem| SecretError::Unusable { name: name.to_owned(), problem };
        let value = match self {
            Self::Env(variable) => std::env::var_os(variable)
                .ok_or_else(|| SecretError::NoVariable { name: name.to_owned(), variable: variable.clone() })?
                .into_encoded_bytes(),
            Self::File(path) => {
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(Self::MAX_LEN + 1).read_to_end(&mut bytes))
                    .map_err(|source| SecretError::SourceFile { name: name.to_owned(), path: path.clone(), source })?;
                bytes
            }
        };
        let value = Zeroizing::new(value);
        if value.len() as u64 > Self::MAX_LEN {
            return Err(unusable("it is longer than 64 KiB"));
        }
        let text = std::str::from_utf8(&value).map_err(|_| unusable("it is not UTF-8 text"))?;
        let text = match self {
            Self::Env(_) => text,
            Self::File(_) => text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line)),
        };
        Ok(Secret::new(text))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(variable) => write!(f, "the environment variable {variable}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

const EXPECTED: &str = "`{env: NAME}` or `{file: PATH}`";

/// What stands in the place of a reference may be a secret: the usual message would show it.
fn literal<E: Error>() -> E {
    E::custom(SecretSource::LITERAL)
}

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
        let source = match map.next_key::<String>()?.as_deref() {
            Some("env") => SecretSource::Env(map.next_value()?),
            Some("file") => SecretSource::File(map.next_value()?),
            Some("literal" | "value") => return Err(literal()),
            _ => return Err(A::Error::custom(format_args!("a reference to a secret is {EXPECTED}"))),
        };
        if map.next_key::<String>()?.is_some() {
            return Err(A::Error::custom(format_args!("a secret has one source: {EXPECTED}")));
        }
        Ok(source)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<SecretSource, E> {
        Err(literal())
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<SecretSource, E> {
        Err(literal())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<SecretSource, E> {
        Err(literal())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<SecretSource, E> {
        Err(literal())
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<SecretSource, E> {
        Err(literal())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<SecretSource, E> {
        Err(literal())
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<SecretSource, E> {
        Err(literal())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<SecretSource, E> {
        Err(literal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<SecretSource, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_references() {
        assert_eq!(parse("{env: PGPASSWORD}"), Ok(SecretSource::Env("PGPASSWORD".to_owned())));
        assert_eq!(parse("file: /run/secret"), Ok(SecretSource::File("/run/secret".into())));
        let back = serde_json::to_string(&SecretSource::Env("A".to_owned())).unwrap();
        assert_eq!(parse(&back), Ok(SecretSource::Env("A".to_owned())));
    }

    #[test]
    fn refuses_a_literal_without_repeating_it() {
        for yaml in
            ["987654321987", "-987654321987", "98765432.1987", "hunter98765", "literal: hunter98765", "[9876598765]"]
        {
            let message = parse(yaml).unwrap_err();
            assert!(message.contains("{env: NAME}") && !message.contains("98765"), "{yaml}: {message}");
        }
        for yaml in ["{}", "{env: A, file: b}", "{environment: A}", "~"] {
            assert!(parse(yaml).unwrap_err().contains("{env: NAME}"), "{yaml}");
        }
    }

    #[test]
    fn fetches_from_files_and_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let fetch = |source: &SecretSource| source.fetch("db");
        for (written, value) in [("abc\n", "abc"), ("abc\r\n", "abc"), (" a\n\n", " a\n"), ("abc", "abc")] {
            std::fs::write(&path, written).unwrap();
            assert_eq!(fetch(&SecretSource::File(path.clone())).unwrap().expose(), value);
        }
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(fetch(&SecretSource::File(path.clone())), Err(SecretError::Unusable { .. })));
        std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
        assert!(matches!(fetch(&SecretSource::File(path)), Err(SecretError::Unusable { .. })));
        let missing = SecretSource::File(folder.path().join("none"));
        assert!(matches!(fetch(&missing), Err(SecretError::SourceFile { .. })));
        assert_eq!(fetch(&SecretSource::Env("PATH".to_owned())).unwrap().expose(), std::env::var("PATH").unwrap());
        let unset = fetch(&SecretSource::Env("TASKRUN_NO_SUCH".to_owned())).unwrap_err();
        assert!(unset.hint().unwrap().contains("TASKRUN_NO_SUCH"));
    }
}
