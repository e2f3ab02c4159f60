//! The verbs that this product adds.

pub(crate) mod bench;
pub(crate) mod cloud;
pub(crate) mod docs;
pub(crate) mod open;
