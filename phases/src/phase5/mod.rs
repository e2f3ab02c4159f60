//! Phase 5: training, and the documents for it.

mod documentation;
mod oumi;
mod training;

pub use documentation::{DocumentationTask, folder as documents};
pub use training::TrainingTask;
