//! The private AI cloud as taskrun plugins, and the program `taskrun`.

pub mod config;
pub mod outputs;
mod product;
#[cfg(test)]
mod testing;

pub use product::Cloud;
