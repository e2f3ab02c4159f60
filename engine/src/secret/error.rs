//! What can be wrong with secrets. No message holds a value.

use std::io;
use std::path::PathBuf;

use crate::redact::{MIN_SECRET_LEN, SecretTooShort};

/// Why a secret, or the file of them, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read or written.
    #[error("{action} the secrets file {path}")]
    File {
        /// What was tried: `read` or `write`.
        action: &'static str,
        /// The secrets file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is a folder, a link or another thing that is no plain file.
    #[error("read the secrets file {0}: it is no plain file")]
    NotAFile(PathBuf),
    /// Others than its owner may use the file.
    #[error("read the secrets file {path}: its mode is {mode:04o}, so that others may use it")]
    TooOpen {
        /// The secrets file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what was written. It is left as it is.
    #[error("read the secrets file {path}: it is damaged in line {line}, column {column}")]
    Damaged {
        /// The secrets file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1; 0 for the line's end.
        column: usize,
    },
    /// A later version of the program wrote the file.
    #[error("read the secrets file {path}: its format {format} is newer than this program")]
    Newer {
        /// The secrets file.
        path: PathBuf,
        /// The format's number.
        format: u32,
    },
    /// The kernel gives no random numbers.
    #[error("generate the secret `{name}`")]
    Random {
        /// The secret.
        name: String,
        /// What the kernel said.
        #[source]
        source: getrandom::Error,
    },
    /// The name has characters that it may not have.
    #[error("use `{0}` as the name of a secret: a name is 1 to 128 ASCII letters, digits and `.`, `_`, `-`, `/`")]
    Name(String),
    /// The value could not be told from ordinary text.
    #[error(transparent)]
    TooShort(#[from] SecretTooShort),
    /// There is no secret of that name.
    #[error("look up the secret `{0}`: there is none of that name")]
    Unknown(String),
    /// That version is neither the present one nor the one before.
    #[error("look up version {asked} of the secret `{name}`: the present one is {present}")]
    NoSuchVersion {
        /// The secret.
        name: String,
        /// The version that was asked for.
        asked: u32,
        /// The present one.
        present: u32,
    },
    /// The secret was given by the user, so that there is nothing to generate.
    #[error("rotate the secret `{0}`: it was given, not generated")]
    NotGenerated(String),
    /// The environment variable that a secret comes from is not there.
    #[error("read the secret `{name}` from the environment: {variable} is not set")]
    NoVariable {
        /// The secret.
        name: String,
        /// The variable.
        variable: String,
    },
    /// The file that a secret comes from cannot be read.
    #[error("read the secret `{name}` from {path}")]
    SourceFile {
        /// The secret.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What a secret comes from is not UTF-8, or longer than a secret is.
    #[error("read the secret `{name}`: {problem}")]
    Unusable {
        /// The secret.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl SecretError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TooOpen { path, .. } => {
                format!("chmod 600 {}; whoever may have read it knows the secrets: rotate them", path.display())
            }
            Self::NotAFile(path) => format!("move {} away, and put the real file there", path.display()),
            Self::Damaged { path, .. } => {
                format!(
                    "repair it or restore a copy; if it is lost, move {} away: new secrets are made then",
                    path.display()
                )
            }
            Self::Newer { .. } => "use the program that wrote it, or a newer one".to_owned(),
            Self::TooShort(_) => {
                format!("use one of {MIN_SECRET_LEN} characters or more: a shorter one cannot be kept out of the logs")
            }
            Self::NotGenerated(_) => "change it where it comes from: the next run takes the new value".to_owned(),
            Self::NoVariable { variable, .. } => format!("export {variable}=…"),
            _ => return None,
        })
    }
}
