//! The secrets file: JSON, mode 0600, replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::SecretError;
use super::policy::Policy;
use super::value::Secret;

/// What the file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contents {
    format: u32,
    /// By name.
    pub(super) secrets: BTreeMap<String, Entry>,
    /// The last versions of secrets that were removed: a version is never used again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) retired: BTreeMap<String, u32>,
}

/// One secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Of the present value.
    pub(super) version: u32,
    /// The present value.
    #[serde(with = "exposed")]
    pub(super) value: Secret,
    /// When the present value was written, RFC 3339 in UTC.
    pub(super) created: String,
    /// How it was generated; nothing if the user gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Policy>,
    /// The value of the version before, which a service may still want to hear in order to be given the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Previous>,
}

/// The value before the present one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Previous {
    /// Its version.
    pub(super) version: u32,
    /// The value.
    #[serde(with = "exposed")]
    pub(super) value: Secret,
}

const FORMAT: u32 = 1;

impl Default for Contents {
    fn default() -> Self {
        Self { format: FORMAT, secrets: BTreeMap::new(), retired: BTreeMap::new() }
    }
}

impl Contents {
    /// Reads the file; no file holds no secrets.
    pub(super) fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::File { action: "read", path: path.to_owned(), source };
        // Neither follows a link nor waits for the other side of a named pipe.
        let no_traps = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let mut file = match OpenOptions::new().read(true).custom_flags(no_traps).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(_) if path.is_symlink() => return Err(SecretError::NotAFile(path.to_owned())),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile(path.to_owned()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::TooOpen { path: path.to_owned(), mode });
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(&bytes, path)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, SecretError> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        // The parser's own message may quote a value.
        let damaged = |error: serde_json::Error| SecretError::Damaged {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        };
        let Header { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(SecretError::Newer { path: path.to_owned(), format });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// Replaces the file: after a crash it holds either the old contents or the new ones.
    pub(super) fn write(&self, path: &Path) -> Result<(), SecretError> {
        self.replace(path).map_err(|source| SecretError::File { action: "write", path: path.to_owned(), source })
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut bytes = Zeroizing::new(serde_json::to_vec_pretty(self)?);
        bytes.push(b'\n');
        let temporary = path.with_added_extension("new");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        // The umask took away what it liked.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    }
}

/// The one place where values are written and read.
mod exposed {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::value::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}
