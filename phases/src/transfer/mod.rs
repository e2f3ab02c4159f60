//! Models on their way from the training side to the object store and the registry.

pub mod limit;
pub mod manifest;
pub mod plan;
pub mod scan;
