//! Models on their way from the training side to the object store and the registry.

mod error;
pub mod limit;
pub mod manifest;
pub mod plan;
pub mod scan;
mod state;

pub use error::TransferError;
