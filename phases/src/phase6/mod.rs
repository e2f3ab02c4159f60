//! Phase 6: models on their way, and the two sides as one.

mod federation;
mod model_transfer;
mod transfer_proof;

pub use federation::FederationTask;
pub use model_transfer::{APPLICATION, BUCKET, ModelTransferTask};
