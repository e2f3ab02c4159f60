//! Phase 5: training, and the documents for it.

mod documentation;

pub use documentation::{DocumentationTask, folder as documents};
