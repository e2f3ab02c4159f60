//! Models on their way from the training side to the object store and the registry.
//!
//! A model is a folder of files; in the store it is the objects `NAME/PATH` and the manifest `NAME.manifest.json`. A
//! [`sync`] makes them alike. It works in passes: each looks at the files and at what the store lists, and sends what
//! differs, until a pass finds nothing to do. So the store's own listing confirms each object, and the manifest, written
//! last, names files as they were at one moment. A manifest is withdrawn before an object that it names is overwritten:
//! a reader never sees one whose objects are not complete.
//!
//! Nothing here needs to end well: killed at any instant, the next sync takes over what the store confirms, also the
//! parts of a file that was half sent.

mod error;
mod inspect;
pub mod limit;
pub mod manifest;
mod pass;
mod patience;
pub mod plan;
pub mod progress;
mod read;
pub mod register;
pub mod scan;
mod state;
mod sync;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::error::TransferError;
pub use self::inspect::{Found, changed, inspect, remove};
pub use self::limit::parse_rate;
pub use self::manifest::Manifest;
pub use self::sync::{Request, Summary, check_name, sync};
use crate::tools::s3::S3;

/// The bucket that models lie in.
#[derive(Clone)]
pub struct Store {
    /// The client, with a key that opens the bucket.
    pub s3: S3,
    /// The bucket.
    pub bucket: String,
}

impl Store {
    /// Where a model is, for MLflow and for who serves it.
    pub fn uri(&self, model: &str) -> String {
        format!("s3://{}/{model}", self.bucket)
    }
}

/// Is told how far a transfer has come.
pub trait Progress: Send + Sync {
    /// So many files and bytes are now compared or sent: `what` is `compare` or `send`.
    fn begin(&self, what: &'static str, files: usize, bytes: u64);
    /// So many bytes more are done.
    fn sent(&self, bytes: u64);
    /// One file more is done.
    fn file(&self);
    /// Something that the user should know.
    fn note(&self, text: &str);
}

/// Whether the transfer is to stop.
pub type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// The folder in which syncs of an environment remember how far they have come.
pub fn state_folder(state: &Path) -> PathBuf {
    state.join("transfer")
}
