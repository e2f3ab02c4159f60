//! Load tests of HTTP services: requests at given times, what became of them, and whether that is good enough.
mod driver;
mod figures;
mod request;
mod sample;
mod schedule;
mod targets;
#[cfg(test)]
mod testing;
pub use driver::*;
pub use request::*;
pub use sample::*;
pub use schedule::*;
pub use figures::*;
pub use targets::*;
