//! Phase 6: the cloud side and the HPC side together.

mod federation;

pub use federation::FederationTask;
