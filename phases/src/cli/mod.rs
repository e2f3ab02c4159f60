//! The verbs that this product adds.

mod cloud;

pub use cloud::{cloud, command, endpoints};
