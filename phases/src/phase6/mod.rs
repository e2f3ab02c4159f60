//! Phase 6: models on their way, and the platform seen from outside.

mod model_transfer;
mod transfer_proof;

pub use model_transfer::{APPLICATION, BUCKET, ModelTransferTask};
