//! The private AI cloud as taskrun plugins, and the program `taskrun`.

pub mod config;
pub mod outputs;
pub mod phase2;
pub mod phase3;
pub mod platform;
mod product;
#[cfg(test)]
mod testing;
pub mod tools;

pub use product::Cloud;
