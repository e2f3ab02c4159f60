//! Phase 6: models on their way, and the cloud side and the HPC side together.

mod federation;
mod model_transfer;
mod transfer_proof;

pub use federation::FederationTask;
pub use model_transfer::{APPLICATION, BUCKET, ModelTransferTask};
