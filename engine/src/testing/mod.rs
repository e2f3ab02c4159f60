//! Stand-ins for tests of this crate and of its users (feature `testing`).

mod disk;
mod view;

pub use disk::{Extent, Fault, FaultyDisk, Unsynced, is_crash};
pub use view::view;
