//! The private AI cloud as taskrun plugins, and the program `taskrun`.

pub mod backup;
mod cli;
pub mod cluster;
pub mod config;
pub mod docs;
pub mod hosts;
pub mod hypervisor;
pub mod images;
pub mod load;
pub mod nodes;
pub mod outputs;
pub mod passthrough;
pub mod phase0;
pub mod phase1;
pub mod phase2;
pub mod phase3;
pub mod phase4;
pub mod phase5;
pub mod phase6;
pub mod phase7;
pub mod platform;
mod plugins;
mod product;
pub mod serving;
pub mod suites;
#[cfg(test)]
mod testing;
pub mod tools;
pub mod transfer;
mod unavailable;

pub use platform::launch;
pub use product::Cloud;
