//! The verbs that this product adds.

mod cloud;

pub(crate) use cloud::{cloud, command, endpoints};
