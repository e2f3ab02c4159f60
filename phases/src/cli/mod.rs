//! The verbs that this product adds.

pub(crate) mod cloud;
