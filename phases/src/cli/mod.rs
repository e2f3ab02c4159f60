//! The verbs that this product adds.

pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod boot;
pub(crate) mod cloud;
pub(crate) mod docs;
pub(crate) mod model;
pub(crate) mod model_sync;
pub(crate) mod open;
mod own;
pub(crate) mod test;
pub(crate) mod vm;
