//! The private AI cloud as taskrun plugins, and the program `taskrun`.

mod product;

pub use product::Cloud;
