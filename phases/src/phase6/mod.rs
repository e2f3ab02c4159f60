//! Phase 6: models on their way, the cloud side and the HPC side together, and the platform under load.

mod federation;
mod model_transfer;
mod performance;
mod transfer_proof;

pub use federation::FederationTask;
pub use model_transfer::{APPLICATION, BUCKET, ModelTransferTask};
pub use performance::PerformanceTask;
